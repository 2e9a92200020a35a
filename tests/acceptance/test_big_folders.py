"""Folders of any size: sending begins while the plan still walks, and memory stays flat.

`FILES=100000,1000000 make test-long PYTEST="tests/acceptance/test_big_folders.py -k ten_times"` for a million files.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from support.installation import Installation, Up, until
from support.many import tiny_instances
from support.peers import StoreScp
from support.record import Record, assert_consistent

from .conftest import Install

MB = 1_000_000
MOST = 200 * MB
MORE = 20 * MB
FEW, MANY = (int(number) for number in os.environ.get("FILES", "10000,100000").split(","))
"""Ten times the files, the second."""


class Memory:
    """The most resident memory of each kind of process, looked at again and again while a job runs."""

    def __init__(self, up: Up) -> None:
        self.most: dict[str, int] = {}
        self._up = up
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.3):
            roles = self._up.roles()
            named = {"up": (roles.up,), "broker": (roles.broker,), "worker": (roles.worker,), "celery": (roles.celery,)}
            for name, pids in (named | {"pool": roles.pool}).items():
                for pid in filter(None, pids):
                    with suppress(psutil.NoSuchProcess):
                        rss = psutil.Process(pid).memory_info().rss
                        self.most[name] = max(self.most.get(name, 0), rss)


def names(storescp: StoreScp) -> set[str]:
    """The UIDs that the peer has, by its file names: reading 100,000 files takes too long."""
    return {path.name.partition(".")[2] for path in storescp.files()}


def send(installation: Installation, record: Record, storescp: StoreScp, folder: Path, number: int) -> dict[str, int]:
    """One job over the folder; the most memory that each kind of process took."""
    with installation.up() as up:
        memory = Memory(up)
        with memory.watched():
            job_id = installation.submit("store", f"STORESCP@127.0.0.1:{storescp.port}", "-r", folder)
            begun = until(lambda: (job := record.show(job_id))["items"]["succeeded"] and job, "the first one arrived")
            job = installation.wait_job(job_id, seconds=max(1200, number // 300))
    # More files than a plan records at once: the first one was there before the last one was found.
    assert not begun["planned"] or number < 5000
    assert job["state"] == "succeeded"
    assert job["items"]["succeeded"] == number
    assert_consistent(record)
    return memory.most


@pytest.fixture
def storescp() -> Iterator[StoreScp]:
    with StoreScp("STORESCP") as server:
        yield server


@pytest.mark.parametrize("per_folder", [20_000, pytest.param(50, marks=pytest.mark.long)])
def test_many_files(per_folder: int, install: Install, storescp: StoreScp, tmp_path: Path) -> None:
    """20,000 files in one folder, or in 400: all arrive, and no process takes more than 200 MB."""
    installation, record = install(workers=3)
    wanted = tiny_instances(tmp_path / "many", 20_000, per_folder=per_folder)
    memory = send(installation, record, storescp, tmp_path / "many", 20_000)
    assert names(storescp) == wanted
    assert {name: most for name, most in memory.items() if most > MOST} == {}


@pytest.mark.long
@pytest.mark.timeout(6000)
def test_ten_times_the_files_take_no_more_memory(install: Install, tmp_path: Path) -> None:
    """From 10,000 to 100,000 files every process stays under 200 MB and grows by less than 20 MB."""
    most: list[dict[str, int]] = []
    for number in (FEW, MANY):
        installation, record = install(workers=3)
        folder = tmp_path / str(number)
        wanted = tiny_instances(folder, number)
        with StoreScp("STORESCP") as storescp:
            most.append(send(installation, record, storescp, folder, number))
            assert names(storescp) == wanted
    few, many = most
    assert {name: rss for name, rss in many.items() if rss > MOST} == {}
    assert {name: rss - few[name] for name, rss in many.items() if rss - few[name] > MORE} == {}


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_folder_of_200_000_files(install: Install, storescp: StoreScp, tmp_path: Path) -> None:
    """One flat folder of 200,000 files: all arrive, no process takes more than 200 MB, a listing is flat too."""
    installation, record = install(workers=3)
    wanted = tiny_instances(tmp_path / "flat", 200_000, per_folder=200_000)
    memory = send(installation, record, storescp, tmp_path / "flat", 200_000)
    assert names(storescp) == wanted
    assert {name: most for name, most in memory.items() if most > MOST} == {}
    listed = installation.run("jobs", "items", "last", "--jsonl").stdout
    assert listed.count("\n") == 200_000

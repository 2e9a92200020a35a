"""A remote is never used more than it may be, over all jobs and worker processes, and left alone while it is away."""

import itertools
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import pytest

from dicomferry.models.rules.pacing import BURST_SECONDS
from support import samples
from support.bench import Bench, Store
from support.installation import Installation, until
from support.record import assert_consistent

from .conftest import Install


class Watched(Bench):
    """Writes down when each C-STORE was there, and how many associations were open at once.

    `bears` is how many instances in a second it takes, with as many at once; with more it is short of resources.
    """

    def __init__(self, *, bears: float | None = None, port: int = 0) -> None:
        super().__init__(answer=self._answer, port=port)
        self.times: list[float] = []
        self.taken: list[str] = []
        self._bears = bears
        self._level = bears or 0.0
        self._filled = time.monotonic()

    def _answer(self, store: Store) -> int:
        now = time.monotonic()
        with self._lock:
            self.times.append(now)
            if self._bears is not None:
                self._level = min(self._bears, self._level + (now - self._filled) * self._bears)
                self._filled = now
                if self._level < 1:
                    return 0xA700
                self._level -= 1
            self.taken.append(store.uid)
            return 0


def most_in_a_second(times: Sequence[float]) -> int:
    ordered = sorted(times)
    return max(bisect_left(ordered, begin + 1.0) - number for number, begin in enumerate(ordered))


def trees(folder: Path, *numbers: int) -> tuple[list[Path], set[str]]:
    made = {folder / f"job{place}": number for place, number in enumerate(numbers)}
    uids = [samples.uids(samples.make_tree(path, number, name=path.name, size=16)) for path, number in made.items()]
    return list(made), set(itertools.chain.from_iterable(uids))


def submit(installation: Installation, folders: Sequence[Path]) -> list[int]:
    return [installation.submit("store", "pacs", "-r", folder) for folder in folders]


def test_a_limit_holds_over_processes_and_changes_at_once(install: Install, tmp_path: Path) -> None:
    """Three jobs on four worker processes share 30 instances a second, until there is no limit any more."""
    installation, record = install(workers=4)
    folders, wanted = trees(tmp_path, 200, 200, 200)
    with Watched() as pacs, installation.up():
        options = ("--max-associations", 4, "--max-instances-per-second", 30, "--no-probe")
        installation.run("remote", "add", "pacs", pacs.address, *options)
        jobs = submit(installation, folders)
        until(lambda: len(pacs.times) >= 100, "the jobs are under way")
        before = list(pacs.times)
        installation.run("remote", "set", "pacs", "--max-instances-per-second", 0)
        for job_id in jobs:
            assert installation.wait_job(job_id)["state"] == "succeeded"
    assert most_in_a_second(before) <= 30 * (1 + BURST_SECONDS) + 4
    assert most_in_a_second(pacs.times) > 30 * (1 + BURST_SECONDS) + 4, "without a limit it is faster"
    assert set(pacs.taken) == wanted
    assert_consistent(record)


@pytest.mark.long
def test_two_associations_and_200_instances_a_second(install: Install, tmp_path: Path) -> None:
    """5,000 instances of three jobs on four worker processes: never more than is allowed, at least nine tenths of it,
    and no final failure.
    """
    installation, record = install(workers=4)
    folders, wanted = trees(tmp_path, 2000, 2000, 1000)
    with Watched() as pacs, installation.up():
        options = ("--max-associations", 2, "--max-instances-per-second", 200, "--no-probe")
        installation.run("remote", "add", "pacs", pacs.address, *options)
        for job_id in submit(installation, folders):
            assert installation.wait_job(job_id)["state"] == "succeeded"
    rate = (len(pacs.times) - 1) / (max(pacs.times) - min(pacs.times))
    print(f"most in a second: {most_in_a_second(pacs.times)}, mean: {rate:.1f}")
    assert most_in_a_second(pacs.times) <= 200 * (1 + BURST_SECONDS) + 2
    assert rate >= 100
    assert set(pacs.taken) == wanted and len(pacs.taken) == len(wanted)
    assert_consistent(record)


@pytest.mark.long
def test_a_peer_that_is_short_of_resources_is_slowed_down_to(install: Install, tmp_path: Path) -> None:
    """A peer that answers A700 above a rate that it tells nobody gets everything, and hardly more than that rate."""
    installation, record = install(workers=4)
    folders, wanted = trees(tmp_path, 800, 800, 400)
    with Watched(bears=100) as pacs, installation.up():
        installation.run("remote", "add", "pacs", pacs.address, "--max-associations", 2, "--no-probe")
        for job_id in submit(installation, folders):
            assert installation.wait_job(job_id, seconds=300)["state"] == "succeeded"
    refused = len(pacs.times) - len(pacs.taken)
    print(f"refused: {refused} of {len(pacs.times)}, {max(pacs.times) - min(pacs.times):.0f} s")
    assert set(pacs.taken) == wanted and len(pacs.taken) == len(wanted)
    assert refused <= len(wanted) / 10
    assert_consistent(record)


@pytest.mark.long
def test_a_peer_that_dies_is_looked_at_by_one_and_then_all_goes_on(install: Install, tmp_path: Path) -> None:
    """Dead for a minute in the middle of three jobs: one association an interval is tried, and all arrives at last."""
    installation, record = install(workers=4, retry__first_delay=5, retry__max_delay=20)
    folders, wanted = trees(tmp_path, 1000, 1000, 1000)
    with Watched() as pacs:
        installation_remote = ("remote", "add", "pacs", pacs.address, "--max-instances-per-second", 300, "--no-probe")
        with installation.up():
            installation.run(*installation_remote)
            jobs = submit(installation, folders)
            until(lambda: len(pacs.times) >= 500, "the jobs are under way")
            looks: list[float] = []

            def hang_up(_: int) -> list[object]:
                looks.append(time.monotonic())
                return [lambda line: line.socket.close()]

            pacs.greet = hang_up  # type: ignore[assignment]
            pacs.cut()
            died = time.monotonic()
            until(lambda: time.monotonic() - died >= 60, "it stays dead for a minute", seconds=120)
            shown = installation.json("remote", "show", "pacs")
            assert shown["breaker"]["state"] in ("open", "half-open")
            pacs.greet = lambda _: None
            for job_id in jobs:
                assert installation.wait_job(job_id, seconds=300)["state"] == "succeeded"
    print("looks after", [f"{look - died:.1f}" for look in looks])
    # Those that were under way found out each for itself; from then on one looks for all.
    later = [look for look in looks if look - died > 4]
    assert 2 <= len(later) <= 10
    assert all(second - first >= 4 for first, second in itertools.pairwise(later))
    assert set(pacs.taken) == wanted
    assert_consistent(record)

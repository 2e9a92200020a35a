"""Rows first, then the bell: a job's id is known within seconds, whatever became of the broker."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.record.database import Database
from dicomferry.models.record.remotes import book
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.models.rules.spec import EchoSpec
from dicomferry.models.rules.state import JobState
from dicomferry.models.settings import Settings
from dicomferry.workers.doorbell import submit
from support.bench import Bench, free_port
from support.inline import Inline
from support.peers import RedisServer

MOST_SECONDS = 6.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation."""
    with Inline(tmp_path, monkeypatch) as made:
        yield made


def submitted(site: Inline, broker_url: str = "", address: str = "NOBODY@127.0.0.1:1") -> submit.Submitted:
    """An echo job, submitted as the command does; this took at most a few seconds."""
    settings = Settings(home=site.settings.home, broker_url=broker_url)
    remote_id = book.resolve_id(site.database, address)
    began = time.monotonic()
    result = submit.submit(site.database, settings, EchoSpec(), remote_id, label="a label", priority="high")
    assert time.monotonic() - began < MOST_SECONDS
    return result


def recorded(site: Inline, result: submit.Submitted) -> bool:
    """Whether the job is on the record, as it was asked for."""
    job = site.job(result.job_id)
    return (job.state, job.kind, job.label, job.priority) == (JobState.PENDING, "echo", "a label", 2)


def test_no_broker_is_known(site: Inline) -> None:
    """Nothing is set and no `up` runs: the job is on the record, and the warning says how to start one."""
    result = submitted(site)
    assert recorded(site, result)
    assert result.warning is not None and "dicomferry up" in result.warning


def test_a_dead_broker(site: Inline) -> None:
    """A port on which nothing listens: the id, and a warning that says so."""
    result = submitted(site, f"redis://127.0.0.1:{free_port()}/0")
    assert recorded(site, result)
    assert result.warning is not None and "refused" in result.warning


def test_a_dead_socket(site: Inline, tmp_path: Path) -> None:
    """A unix socket that is not there: the id, and a warning that names it."""
    result = submitted(site, f"unix://{tmp_path}/nobody.sock")
    assert recorded(site, result)
    assert result.warning is not None and "nobody.sock" in result.warning


def test_a_mute_broker(site: Inline) -> None:
    """A broker that accepts connections and never answers does not keep the id from the person for long."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = submitted(site, f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
    assert recorded(site, result)
    assert result.warning is not None


def test_a_wrong_password(site: Inline) -> None:
    """A broker that refuses us is a warning like any other."""
    with RedisServer(password="right") as server:
        result = submitted(site, f"redis://:wrong@127.0.0.1:{server.port}/0")
    assert recorded(site, result)
    assert result.warning is not None and "password" in result.warning


def test_a_living_broker(site: Inline, redis_server: RedisServer) -> None:
    """One message in the lane's queue and no warning; a long queue is not made longer."""
    for _ in range(20):
        assert submitted(site, redis_server.url).warning is None
    with redis_server.client() as client:
        queues = {key: client.llen(key) for key in client.keys("*quick*") if client.type(key) == b"list"}
    assert list(queues.values()) == [2 * site.settings.workers]


def test_a_job_without_a_bell_runs_all_the_same(site: Inline) -> None:
    """The sweep rings for what was submitted while no broker was there."""
    with Bench() as bench:
        result = submitted(site, address=bench.address)
        site.sweep()
        site.run_due()
    assert site.job(result.job_id).state is JobState.SUCCEEDED


def test_the_record_out_of_reach(site: Inline) -> None:
    """Without the record there is no job and no ring: OutOfReach is raised."""
    nowhere = Database(f"sqlite:///{site.settings.home}/no/such/folder/x.db")
    with pytest.raises(OutOfReach):
        submit.submit(nowhere, site.settings, EchoSpec(), 1)

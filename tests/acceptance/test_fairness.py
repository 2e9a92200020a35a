"""Limits hold and nobody starves, with several jobs and several worker processes (design: claim)."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, JobRow
from support import samples
from support.installation import Installation, until
from support.peers import StoreScp
from support.record import assert_consistent
from support.relay import Relay

from .conftest import Install

SLOW = 4_000_000.0
"""Bytes a second: about 400 small images."""


@pytest.fixture
def relay(storescp: StoreScp) -> Iterator[Relay]:
    with Relay(storescp.port, SLOW) as relay:
        yield relay


def add_remote(installation: Installation, relay: Relay, *options: object) -> None:
    installation.run("remote", "add", "pacs", f"STORESCP@127.0.0.1:{relay.port}", "--no-probe", *options)


def tree(folder: Path, number: int) -> set[str]:
    return samples.uids(samples.make_tree(folder, number, name=folder.name, size=64))


def ended(job: dict[str, Any]) -> datetime:
    assert job["state"] == "succeeded", job
    return datetime.fromisoformat(job["finished_at"])


def test_the_limit_of_a_remote_holds_at_the_remote(
    install: Install, storescp: StoreScp, relay: Relay, tmp_path: Path
) -> None:
    """Eight workers and three jobs open as many associations at once as the remote allows: no more, and no fewer."""
    installation, record = install(workers=8)
    add_remote(installation, relay, "--max-associations", 2)
    wanted = set()
    with installation.up():
        jobs = []
        for name in ("a", "b", "c"):
            wanted |= tree(tmp_path / name, 600)
            jobs.append(installation.submit("store", "pacs", "-r", tmp_path / name))
        for job_id in jobs:
            ended(installation.wait_job(job_id))
    assert relay.most_open == 2
    assert set(storescp.received()) == wanted
    assert storescp.stores() == len(wanted)
    assert_consistent(record)


@pytest.mark.long
def test_a_limit_that_is_raised_holds_at_once(install: Install, relay: Relay, tmp_path: Path) -> None:
    """`remote set` counts from the next claim on, for jobs under way as well."""
    installation, record = install(workers=4)
    tree(tmp_path / "a", 3000)
    add_remote(installation, relay, "--max-associations", 1)
    with installation.up():
        job_id = installation.submit("store", "pacs", "-r", tmp_path / "a")
        until(lambda: record.done(job_id) >= 100, "the job is under way")
        assert relay.most_open == 1
        installation.run("remote", "set", "pacs", "--max-associations", 3)
        until(lambda: relay.most_open > 1, "more associations are open")
        relay.rate = None
        ended(installation.wait_job(job_id))
    assert relay.most_open <= 3


@pytest.mark.long
def test_two_jobs_share_a_remote(install: Install, relay: Relay, tmp_path: Path) -> None:
    """A job that comes second gets its part of the associations: the smaller one ends first."""
    installation, record = install()
    tree(tmp_path / "large", 4000)
    tree(tmp_path / "small", 1000)
    add_remote(installation, relay, "--max-associations", 2)
    with installation.up():
        large = installation.submit("store", "pacs", "-r", tmp_path / "large")
        until(lambda: record.done(large) >= 100, "the large job is under way")
        small = installation.submit("store", "pacs", "-r", tmp_path / "small")
        first = ended(installation.wait_job(small))
        relay.rate = None
        assert first < ended(installation.wait_job(large))


def test_a_short_job_behind_a_long_one_starts_soon(install: Install, relay: Relay, tmp_path: Path) -> None:
    """Ten images behind thousands wait for two chunks at most, one for their plan to have a turn and one for
    themselves, even with a single association and a single worker.
    """
    installation, record = install(workers=1)
    tree(tmp_path / "long", 2500)
    tree(tmp_path / "short", 10)
    add_remote(installation, relay, "--max-associations", 1)
    with installation.up():
        long = installation.submit("store", "pacs", "-r", tmp_path / "long")
        until(lambda: record.done(long) >= 100, "the long job is under way")
        short = installation.submit("store", "pacs", "-r", tmp_path / "short")
        ended(installation.wait_job(short))
        relay.rate = None
        ended(installation.wait_job(long))
    began = sa.select(AttemptRow.job_id, ChunkRow.kind).join(ChunkRow, ChunkRow.id == AttemptRow.chunk_id)
    sent = [row.job_id for row in record.rows(began.order_by(AttemptRow.id)) if row.kind == "store"]
    submitted = sa.select(JobRow.submitted_at).where(JobRow.id == short).scalar_subquery()
    before = sa.select(sa.func.count()).where(AttemptRow.job_id == long, AttemptRow.started_at < submitted)
    before = before.join_from(AttemptRow, ChunkRow, ChunkRow.id == AttemptRow.chunk_id).where(ChunkRow.kind == "store")
    assert sent.index(short) - record.one(before) <= 2, record.story(short)


@pytest.mark.long
def test_a_high_priority_goes_first(install: Install, relay: Relay, tmp_path: Path) -> None:
    """Of two jobs that wait behind the same remote, the one with the higher priority ends first."""
    installation, record = install(workers=1)
    for name, number in (("first", 1500), ("normal", 1000), ("high", 1000)):
        tree(tmp_path / name, number)
    add_remote(installation, relay, "--max-associations", 1)
    with installation.up():
        first = installation.submit("store", "pacs", "-r", tmp_path / "first")
        until(lambda: record.done(first) >= 50, "the first job is under way")
        normal = installation.submit("store", "pacs", "-r", tmp_path / "normal")
        high = installation.submit("store", "pacs", "-r", tmp_path / "high", "--priority", "high")
        sooner = ended(installation.wait_job(high))
        relay.rate = None
        assert sooner < ended(installation.wait_job(normal))
        ended(installation.wait_job(first))


def test_quick_work_has_a_slot_of_its_own(install: Install, storescp: StoreScp, relay: Relay, tmp_path: Path) -> None:
    """An echo is done while every bulk slot is busy and more bulk work waits."""
    installation, record = install(workers=1)
    tree(tmp_path / "a", 1500)
    relay.rate = 500_000.0
    add_remote(installation, relay)
    with installation.up():
        job_id = installation.submit("store", "pacs", "-r", tmp_path / "a")
        until(lambda: record.done(job_id) >= 100, "the bulk slot is busy")
        for _ in range(3):
            installation.run("submit", "echo", f"STORESCP@127.0.0.1:{storescp.port}", "--wait")
        assert record.show(job_id)["state"] == "running"
        relay.rate = None
        ended(installation.wait_job(job_id))

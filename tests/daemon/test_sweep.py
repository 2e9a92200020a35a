"""The sweep: what messages and processes lose is found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.daemon import sweep
from dicomferry.models.record import presence
from dicomferry.models.record.jobs import claims, verbs
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules.state import ChunkState, ItemState, JobState
from support.bench import Bench, free_port
from support.inline import Inline


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation."""
    with Inline(tmp_path, monkeypatch) as made:
        yield made


class Bell:
    """Notes who was rung for."""

    def __init__(self) -> None:
        self.lanes: list[str] = []

    def ring(self, lane: str) -> None:
        """One ring."""
        self.lanes.append(lane)

    def swept(self, site: Inline) -> list[str]:
        """What one round of the sweep rang for."""
        self.lanes = []
        sweep.sweep(site.database, site.sweeper, self.ring)
        return self.lanes


@pytest.fixture
def bell() -> Bell:
    """A bell."""
    return Bell()


def test_a_lost_message_is_made_up_for(site: Inline) -> None:
    """A job whose ring was lost starts with the next round; one ring is enough for all of it."""
    site.mr(3)
    with Bench() as bench:
        job_id = site.store(bench.address)
        site.bell.drain(lambda _: False)
        site.run_due()
        assert site.job(job_id).state is JobState.PENDING
        site.sweep()
        site.run_due()
        assert site.job(job_id).state is JobState.SUCCEEDED


def test_it_rings_only_for_lanes_with_due_work(site: Inline, bell: Bell) -> None:
    """Nothing due, nothing rung; each lane is rung for its own work, and not before it is due."""
    assert bell.swept(site) == []
    echo = site.echo("NOBODY@127.0.0.1:1")
    assert bell.swept(site) == ["quick"]
    site.mr(1)
    store = site.store("NOBODY@127.0.0.1:1")
    assert bell.swept(site) == ["quick", "bulk"]
    verbs.cancel(site.database, echo)
    verbs.hold(site.database, store)
    assert bell.swept(site) == []
    verbs.release(site.database, store)
    assert bell.swept(site) == ["bulk"]


def test_it_does_not_ring_for_what_waits(site: Inline, bell: Bell) -> None:
    """A chunk that waits for its next try is rung for when that is due, and not before."""
    site.mr(1)
    site.store(f"NOBODY@127.0.0.1:{free_port()}")
    site.run_due()
    assert bell.swept(site) == []
    site.clock.move(9)
    assert bell.swept(site) == []
    site.clock.move(1)
    assert bell.swept(site) == ["bulk"]


def test_it_does_not_ring_for_a_remote_at_its_limit(site: Inline, bell: Bell) -> None:
    """Work that no worker could claim is not rung for until there is room at its remote again."""
    for _ in range(5):
        site.echo("NOBODY@127.0.0.1:1")
    for _ in range(4):
        assert claims.take(site.database, "quick", site.worker, lease_seconds=30)
    assert bell.swept(site) == []
    site.clock.move(31)
    assert bell.swept(site) == ["quick"]


def test_a_dead_lease_ends(site: Inline, bell: Bell) -> None:
    """A lease that is over ends in a round, once: attempt lost, an event, and a second later the chunk is rung for."""
    job_id = site.echo("NOBODY@127.0.0.1:1")
    assert claims.take(site.database, "quick", site.worker, lease_seconds=30)
    site.clock.move(29)
    assert bell.swept(site) == []
    site.clock.move(2)
    assert bell.swept(site) == []
    assert site.ends(job_id) == ["lost"]
    assert site.chunks(job_id)[0].state == "pending"
    site.clock.move(1)
    assert bell.swept(site) == ["quick"]
    assert [event.kind for event in site.events(job_id)].count("retry") == 1


def test_a_dead_lease_of_a_cancelled_job(site: Inline, bell: Bell) -> None:
    """A dead chunk whose job was cancelled meanwhile is cancelled, never revived, and the job ends."""
    job_id = site.echo("NOBODY@127.0.0.1:1")
    assert claims.take(site.database, "quick", site.worker, lease_seconds=30)
    assert verbs.cancel(site.database, job_id) is JobState.RUNNING
    site.clock.move(31)
    assert bell.swept(site) == []
    assert site.job(job_id).state is JobState.CANCELLED
    assert [row.state for row in site.items(job_id)] == ["cancelled"]
    site.check()


def test_a_missed_end_is_made_up_for(site: Inline, bell: Bell) -> None:
    """A job with nothing left to do that was not ended is ended by the same rule as any other, once."""
    job_id = site.echo("NOBODY@127.0.0.1:1")

    def miss(connection: sa.Connection) -> None:
        connection.execute(sa.update(ItemRow).values(state=ItemState.SUCCEEDED))
        connection.execute(sa.update(ChunkRow).values(state=ChunkState.DONE, succeeded=1))

    site.database.write(miss)
    assert site.job(job_id).state is JobState.PENDING
    bell.swept(site)
    job = site.job(job_id)
    assert (job.state, job.finished_at) == (JobState.SUCCEEDED, site.clock.time)
    bell.swept(site)
    assert [event.kind for event in site.events(job_id)].count("ended") == 1
    site.check()


def test_one_sweeper_at_a_time(site: Inline, bell: Bell) -> None:
    """Only the role that has the turn sweeps; another takes over when it has been silent for ten seconds."""
    site.echo("NOBODY@127.0.0.1:1")
    other = presence.register(site.database, "worker", slots=4)
    assert bell.swept(site) == ["quick"]
    rung: list[str] = []
    sweep.sweep(site.database, other, rung.append)
    assert rung == []
    site.clock.move(9)
    sweep.sweep(site.database, other, rung.append)
    assert rung == []
    site.clock.move(2)
    sweep.sweep(site.database, other, rung.append)
    assert rung == ["quick"]
    assert bell.swept(site) == []

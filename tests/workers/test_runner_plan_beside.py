"""A plan that is still under way while its first chunks meet the remote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicomferry.models.record import presence
from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules.state import JobState, Tally
from support import samples
from support import scripted_peer as peer
from support.bench import Bench, free_port
from support.inline import Inline, hearts_of
from support.scripted_peer import Step, send


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation whose plans write two items at a time, each batch a chunk."""
    with Inline(tmp_path, monkeypatch) as made:
        made.batches_of(2)
        yield made


def plan_beside(site: Inline, job_id: int) -> None:
    """Run the plan; after each of its batches another worker runs whatever is due."""
    busy = False

    def others(_: int) -> None:
        nonlocal busy
        if not busy and site.chunks(job_id):
            busy = True
            while site.run_next():
                pass
            busy = False

    site.database.on_write = others
    assert site.run_next()
    site.database.on_write = lambda _: None
    assert site.job(job_id).planned


def refuse_first(n: int) -> Sequence[Step] | None:
    """Our AE title is not known, until somebody has added it."""
    return [send(peer.rejection(1, 1, 3))] if n == 1 else None


def test_what_is_planned_after_a_refusal_for_good_is_held(site: Inline) -> None:
    """A job that a person has to look at asks once: chunks that its plan makes later are held with the others."""
    files = site.mr(10)
    with Bench(greet=refuse_first) as bench:
        job_id = site.store(bench.address)
        plan_beside(site, job_id)
        assert bench.associations == 1
        assert site.job(job_id).state is JobState.HELD
        chunks = site.chunks(job_id)
        assert [(chunk.state, chunk.reason) for chunk in chunks] == [("held", "calling AE title not recognized")] * 5
        assert all(chunk.advice for chunk in chunks)
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))
    assert bench.associations == 1 + 5


def test_what_is_planned_while_a_remote_is_away_waits_along(site: Inline) -> None:
    """A remote that is down is not asked again for each chunk that the plan makes: they wait for the next try."""
    site.mr(10)
    job_id = site.store(f"BENCH@127.0.0.1:{free_port()}")
    plan_beside(site, job_id)
    assert site.ends(job_id) == ["error"]
    chunks = site.chunks(job_id)
    assert [(chunk.state, chunk.reason) for chunk in chunks] == [("pending", "unreachable")] * 5
    assert {(chunk.not_before - site.clock.time).total_seconds() for chunk in chunks} == {10}


def test_a_plan_that_waits_is_held_with_its_chunks(site: Inline) -> None:
    """A plan that had given way is held as well, and release lets it go on behind its cursor."""
    site.tune(planning={"stops_at": 2, "goes_on_below": 1})
    files = site.mr(8)
    with Bench(greet=refuse_first) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.HELD
        assert {chunk.state for chunk in site.chunks(job_id, plan=True)} == {"held"}
        assert not site.job(job_id).planned
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))
    assert site.tally(job_id) == Tally(total=8, succeeded=8)


def test_a_plan_that_is_drained(site: Inline) -> None:
    """A worker that is told to end stops its plan behind a batch; another one goes on behind the cursor."""
    site.tune(beats={"tick": 0.01})
    hearts = hearts_of(site)
    site.mr(6)

    def drain(_: int) -> None:
        if site.chunks(job_id):
            site.database.on_write = lambda _: None
            presence.drain(site.database, site.worker)
            hearts[-1].pause(20)

    with Bench() as bench:
        job_id = site.store(bench.address)
        site.database.on_write = drain
        assert site.run_next()
        assert site.ends(job_id, plan=True) == ["interrupted"]
        # The batch that was at hand when the word came is written all the same.
        assert (site.tally(job_id).total, site.chunks(job_id, plan=True)[0].state) == (4, "pending")
        site.hire()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert len(bench.stores) == 6

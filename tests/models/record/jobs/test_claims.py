"""Which chunk a worker gets, and the gates on the way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.record import presence
from dicomferry.models.record.jobs import claims, leases, ledger, verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import ChunkRow
from dicomferry.models.rules.state import ChunkState, JobState
from support.record_site import LEASE, Site, listening, together

postgresql_only = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def test_nothing_due(site: Site) -> None:
    """Nobody gets anything, and nothing is written."""
    before = site.everything()
    assert site.try_claim() is None and site.try_claim("quick") is None
    assert site.everything() == before


def test_a_claim_is_a_lease_with_a_fence(site: Site) -> None:
    """The chunk runs under this worker until the lease ends; attempt and event are written; the job is running."""
    job = site.echo()
    lease = site.claim("quick")
    chunk = site.chunk(lease)
    assert (lease.job_id, lease.kind, lease.lane, lease.remote_id) == (job, "echo", "quick", site.remote_id)
    assert (chunk.state, chunk.fence, chunk.owner_id) == (ChunkState.RUNNING, lease.fence, site.worker.id)
    assert chunk.lease_until == site.clock() + timedelta(seconds=LEASE)
    [attempt] = site.attempts(job)
    assert (attempt.fence, attempt.end, attempt.worker) == (lease.fence, None, site.worker.name)
    assert site.events(job) == ["submitted", "chunk_started"]
    row = site.job(job)
    assert (row.state, row.started_at) == (JobState.RUNNING, site.clock())
    site.check()


def test_the_fence_grows_with_each_claim(site: Site) -> None:
    """Whoever comes later has the greater number."""
    job = site.store(1)
    fences = []
    for _ in range(3):
        lease = site.claim()
        fences.append(lease.fence)
        site.finish(lease, decision=None)
    assert fences == sorted(set(fences))
    assert len(site.attempts(job)) == 3


def test_priority_goes_first(site: Site) -> None:
    """High before normal before low, however old."""
    jobs = {name: site.store(1, priority=name) for name in ("low", "normal", "high")}
    assert [site.claim().job_id for _ in range(3)] == [jobs["high"], jobs["normal"], jobs["low"]]


def test_then_the_job_with_fewest_running_chunks(site: Site) -> None:
    """Two jobs share a remote; a large one that came first does not starve the other."""
    first, second = site.store(1, 1, 1), site.store(1, 1, 1)
    assert [site.claim().job_id for _ in range(4)] == [first, second, first, second]


def test_then_the_oldest_chunk(site: Site) -> None:
    """Within a job in the order in which the plan made them."""
    job = site.store(1, 1, 1)
    assert [site.claim().chunk_id for _ in range(3)] == [chunk.id for chunk in site.chunks(job)]


def test_not_before(site: Site) -> None:
    """A chunk waits for its time; then it is due."""
    job = site.echo(not_before=site.clock() + timedelta(seconds=60))
    assert site.chunks(job)[0].reason == "not before"
    site.clock.move(59)
    assert site.try_claim("quick") is None
    assert not claims.any_due(site.database, "quick")
    site.clock.move(1)
    assert claims.any_due(site.database, "quick")
    assert site.claim("quick").job_id == job


def test_lanes_are_apart(site: Site) -> None:
    """Who rings for quick gets no bulk work."""
    site.store(1)
    assert site.try_claim("quick") is None
    site.echo()
    assert site.claim("quick").kind == "echo"
    assert site.claim("bulk").kind == "store"


def test_more_tells_whether_another_chunk_is_due(site: Site) -> None:
    """The worker rings again exactly when there is something to ring for."""
    site.store(1, 1)
    assert site.claim().more
    assert not site.claim().more


# --- gates


def test_a_remote_at_its_limit_is_left_out(site: Site) -> None:
    """Never more associations than the remote allows; a place that becomes free is taken."""
    remote = site.remote("SMALL", max_associations=2)
    site.store(1, 1, 1, remote_id=remote)
    first = site.claim()
    site.claim()
    assert site.try_claim() is None
    assert not claims.any_due(site.database, "bulk")
    site.complete(first)
    assert claims.any_due(site.database, "bulk")
    assert site.try_claim() is not None


def test_a_remote_at_its_limit_does_not_block_another(site: Site) -> None:
    """The next best chunk whose gates are open is taken."""
    remote = site.remote("SMALL", max_associations=1)
    site.store(1, 1, remote_id=remote, priority="high")
    other = site.store(1)
    site.claim()
    assert site.claim().job_id == other


def test_a_limit_that_was_changed_holds_from_the_next_claim_on(site: Site) -> None:
    """`remote set` needs no restart."""
    site.store(1, 1, 1)
    book.change(site.database, "PACS1", None, max_associations=1)
    site.claim()
    assert site.try_claim() is None
    book.change(site.database, "PACS1", None, max_associations=2)
    assert site.try_claim() is not None


def test_moves_have_a_limit_of_their_own(site: Site) -> None:
    """One move in flight by default, beside other associations to that remote."""
    moves = site.store(1, 1)
    site.set(sa.update(ChunkRow).where(ChunkRow.job_id == moves).values(kind="move"))
    site.store(1)
    first, store, ahead = (site.claim() for _ in range(3))
    assert [(one.kind, one.ahead) for one in (first, store, ahead)] == [
        ("move", False),
        ("store", False),
        ("move", True),
    ]
    assert site.try_claim() is None


def listing(site: Site, number: int) -> list[Lease]:
    """So many moves to one remote, the first in flight and the second listed meanwhile."""
    job = site.store(*[1] * number)
    site.set(sa.update(ChunkRow).where(ChunkRow.job_id == job, ChunkRow.kind != claims.PLAN).values(kind="move"))
    return [site.claim(), site.claim()]


def test_the_next_move_is_listed_while_none_is_free(site: Site) -> None:
    """One chunk that was never tried; once it is listed it waits for its move, and no other one is listed."""
    first, ahead = listing(site, 4)
    assert (first.ahead, ahead.ahead) == (False, True)
    assert site.try_claim() is None and not claims.any_due(site.database, "bulk")
    site.finish(ahead, decision=None)
    assert site.try_claim() is None and not claims.any_due(site.database, "bulk")
    site.finish(first, outcomes=site.outcomes(first))
    moved, next_ahead = site.claim(), site.claim()
    assert (moved.chunk_id, moved.ahead, moved.fence) == (ahead.chunk_id, False, 2)
    assert next_ahead.ahead and site.try_claim() is None


def test_a_list_takes_an_association(site: Site) -> None:
    """Nothing is listed ahead where the remote has no place for one association more."""
    book.change(site.database, "PACS1", None, max_associations=1)
    job = site.store(1, 1)
    site.set(sa.update(ChunkRow).where(ChunkRow.job_id == job, ChunkRow.kind != claims.PLAN).values(kind="move"))
    assert not site.claim().ahead
    assert site.try_claim() is None


def test_while_one_is_listed_a_free_move_is_for_others(site: Site) -> None:
    """What is listed has no move: when the one in flight ends meanwhile, the next chunk gets it."""
    first, ahead = listing(site, 3)
    site.finish(first, outcomes=site.outcomes(first))
    third = site.claim()
    assert third.chunk_id not in (first.chunk_id, ahead.chunk_id) and not third.ahead


def test_a_closed_gate_writes_no_attempt_and_no_event(site: Site) -> None:
    """Whoever rings in vain leaves no trace."""
    remote = site.remote("SMALL", max_associations=1)
    site.store(1, 1, remote_id=remote)
    site.claim()
    before = site.everything()
    for _ in range(3):
        assert site.try_claim() is None
    assert site.everything() == before


def test_quick_leaves_a_process_to_bulk(site: Site) -> None:
    """Queries to mute archives take as many processes as there are slots, of which the pool has one more."""
    worker = presence.register(site.database, "worker", slots=2)
    for number in range(4):
        site.echo(site.remote(f"MUTE{number}"))
    taken = [site.claim("quick", worker) for _ in range(2)]
    assert site.try_claim("quick", worker) is None
    site.store(1)
    assert site.claim("bulk", worker)
    site.complete(taken[0])
    assert site.claim("quick", worker)


def test_a_worker_runs_no_more_bulk_chunks_than_it_has_slots(site: Site) -> None:
    """The slots are counted in SQL, for each worker; another worker has its own."""
    worker = presence.register(site.database, "worker", slots=1)
    site.store(1, 1, 1)
    first = site.claim(worker=worker)
    before = site.everything()
    assert site.try_claim(worker=worker) is None
    assert site.everything() == before
    assert site.try_claim(worker=site.worker) is not None
    site.complete(first)
    assert site.try_claim(worker=worker) is not None


def test_quick_has_a_slot_of_its_own(site: Site) -> None:
    """A worker full of bulk work still answers an echo; the echo takes no bulk slot."""
    worker = presence.register(site.database, "worker", slots=1)
    site.store(1, 1)
    lease = site.claim(worker=worker)
    site.echo()
    assert site.try_claim("quick", worker) is not None
    site.complete(lease)
    assert site.try_claim(worker=worker) is not None


def test_a_plan_opens_no_association(site: Site) -> None:
    """It is planned while the remote is at its limit."""
    remote = site.remote("SMALL", max_associations=1)
    site.store(1, remote_id=remote)
    site.claim()
    job = site.submit_store(remote)
    lease = site.claim()
    assert (lease.kind, lease.job_id, lease.remote_id) == (claims.PLAN, job, remote)


def test_a_plan_gives_way_while_enough_chunks_wait(site: Site) -> None:
    """It stops at 50 waiting chunks of its job and goes on below 25; other jobs' plans are not concerned."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    assert site.batch(lease, *[1] * 49) == (False, 49)
    assert site.batch(lease, 1) == (False, claims.PLAN_STOPS_AT)
    site.finish(lease, decision=None)
    site.set(sa.update(ChunkRow).where(ChunkRow.kind == claims.PLAN).values(priority=2))
    chunks = [chunk.id for chunk in site.chunks(job)]
    waiting = len(chunks)
    while waiting >= claims.PLAN_GOES_ON_BELOW:
        lease = site.claim()
        assert lease.kind == "store"
        site.complete(lease)
        waiting -= 1
    assert waiting == 24
    lease = site.claim()
    assert lease.kind == claims.PLAN and lease.cursor == b"/data/000050.dcm"
    assert site.job(job).planned is False


def test_another_jobs_plan_is_not_kept_waiting(site: Site) -> None:
    """The gate counts the chunks of the plan's own job."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, *[1] * 50)
    site.finish(lease, decision=None)
    other = site.submit_store(priority="high")
    assert site.claim().job_id == other


# --- jobs that are to stop


def test_nothing_of_a_cancelled_job_is_claimed(site: Site) -> None:
    """Not even what came back to pending after the cancel."""
    job = site.store(1, 1)
    lease = site.claim()
    verbs.cancel(site.database, job)
    assert site.try_claim() is None
    site.set(sa.update(ChunkRow).where(ChunkRow.id == lease.chunk_id).values(state=ChunkState.PENDING))
    assert site.try_claim() is None


def test_nothing_of_a_held_job_is_claimed(site: Site) -> None:
    """Until it is released."""
    job = site.store(1, 1)
    site.claim()
    verbs.hold(site.database, job)
    assert site.try_claim() is None
    verbs.release(site.database, job)
    assert site.claim().job_id == job


# --- many at once


class _Crowd:
    """Workers that claim and complete until so many chunks are through."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self.number = site, number
        self.found: list[Lease] = []
        self.running: list[int] = []
        self.through = 0
        self.changed = threading.Condition()

    def work(self, worker: presence.Worker) -> None:
        """Until nothing is left; at each claim it is noted how many chunks run on the remote."""
        while self.through < self.number:
            lease = self.site.try_claim(worker=worker)
            with self.changed:
                if lease is None:
                    self.changed.wait(0.2)
                    continue
                self.found.append(lease)
            self.running.append(sum(row.state is ChunkState.RUNNING for row in self.site.chunks(lease.job_id)))
            self.site.complete(lease)
            with self.changed:
                self.through += 1
                self.changed.notify_all()


@pytest.mark.parametrize("limit", [1, 3])
def test_eight_claimers_never_exceed_the_limit_and_never_share_a_chunk(site: Site, limit: int) -> None:
    """The remote's row is locked before its running chunks are counted, so the limit holds exactly."""
    book.change(site.database, "PACS1", None, max_associations=limit)
    job = site.store(*[1] * 12)
    workers = [presence.register(site.database, "worker", slots=1) for _ in range(8)]
    crowd = _Crowd(site, 12)
    results = together(*[lambda worker=worker: crowd.work(worker) for worker in workers])
    assert results == [None] * 8
    assert max(crowd.running) <= limit
    assert Counter(lease.chunk_id for lease in crowd.found) == Counter(chunk.id for chunk in site.chunks(job))
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_one_place_for_eight(site: Site) -> None:
    """Eight ring at the same moment, two places are free: two get a chunk, no more, each another."""
    book.change(site.database, "PACS1", None, max_associations=2)
    job = site.store(*[1] * 8)
    workers = [presence.register(site.database, "worker", slots=1) for _ in range(8)]
    results = together(*[lambda worker=worker: site.try_claim(worker=worker) for worker in workers])
    lease = [result for result in results if isinstance(result, Lease)]
    assert not [result for result in results if isinstance(result, Exception)]
    assert len({claim.chunk_id for claim in lease}) == len(lease) == 2
    assert len(site.attempts(job)) == 2
    site.check()


def test_one_worker_rung_eight_times(site: Site) -> None:
    """The worker's row is locked before its slots are counted: doubled messages do not double its work."""
    worker = presence.register(site.database, "worker", slots=2)
    site.store(*[1] * 8)
    results = together(*[lambda: site.try_claim(worker=worker) for _ in range(8)])
    assert len([result for result in results if isinstance(result, Lease)]) == 2


def test_a_worker_that_drains_takes_nothing_more(site: Site) -> None:
    """Whoever was told to end gets no chunk, whatever is due; another worker does."""
    job = site.submit_store()
    presence.drain(site.database, site.worker)
    assert site.try_claim() is None
    other = presence.register(site.database, "worker", slots=1)
    lease = site.try_claim(worker=other)
    assert lease is not None and lease.job_id == job


@contextmanager
def at_looks(site: Site, when: str, happens: Callable[[], object]) -> Iterator[None]:
    """Before or after each look at what is due, in the thread of whoever looks, something happens."""

    def looked(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if "UNION ALL" in statement and "not_before" in statement:
            happens()

    with listening(site.database, f"{when}_cursor_execute", looked):
        yield


@postgresql_only
def test_a_cancel_between_the_look_and_the_claim(site: Site) -> None:
    """A chunk that was due when the worker looked and is cancelled when it takes it is not revived.

    On SQLite a claim is alone in the database from its first line on.
    """
    job = site.store(1)
    looked, cancelled = threading.Event(), threading.Event()

    def slow() -> None:
        looked.set()
        assert cancelled.wait(20)

    def cancel() -> None:
        assert looked.wait(20)
        verbs.cancel(site.database, job)
        cancelled.set()

    with at_looks(site, "after", slow):
        claimed, _ = together(site.try_claim, cancel)
    assert claimed is None
    assert site.state(job) is JobState.CANCELLED
    site.check()


@postgresql_only
def test_two_claimers_that_look_at_two_full_remotes_in_different_orders(site: Site) -> None:
    """A claimer that goes on to the next job holds no lock of the one before: nobody waits for anybody in a circle."""
    other = site.remote("PACS2", max_associations=1)
    book.change(site.database, "PACS1", None, max_associations=1)
    site.store(1, 1)
    second = site.store(1, 1, remote_id=other)
    site.claim(), site.claim()
    workers = [presence.register(site.database, "worker", slots=1) for _ in range(2)]
    looks, barrier, first_has_looked = threading.local(), threading.Barrier(2), threading.Event()
    orders: list[int] = []

    def look() -> None:
        looks.number = getattr(looks, "number", 0) + 1
        if looks.number == 2:
            orders.append(1)
            first_has_looked.set()
            barrier.wait(20)  # both have refused one job and go on to the other's

    def claim_the_second_first() -> Lease | None:
        assert first_has_looked.wait(20)
        more_urgent = sa.update(ChunkRow).where(ChunkRow.job_id == second).values(priority=9)
        site.database.write(lambda connection: connection.execute(more_urgent))
        return site.try_claim(worker=workers[1])

    with at_looks(site, "before", look):
        assert together(lambda: site.try_claim(worker=workers[0]), claim_the_second_first) == [None, None]
    assert len(orders) == 2


@postgresql_only
def test_a_claimer_and_whoever_has_the_job_do_not_wait_for_each_other(site: Site) -> None:
    """A chunk that is written twice has its worker looked up by the database, which a claimer has locked."""
    site.store(1, 1)
    lease = site.claim()
    has_job, claims_it = threading.Event(), threading.Event()

    def claim() -> Lease | None:
        assert has_job.wait(20)
        return site.try_claim()

    def write() -> None:
        def work(connection: Any) -> None:
            leases.fence(connection, lease)
            has_job.set()
            assert claims_it.wait(20)
            ledger.recount(connection, lease.chunk_id)

        site.database.write(work)

    with at_looks(site, "before", claims_it.set):  # the worker's row is locked by then
        claimed, written = together(claim, write)
    assert isinstance(claimed, Lease) and written is None
    site.check()

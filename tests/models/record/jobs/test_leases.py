"""Working under a lease: fences, records that count once, leases that end without their holder, and stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.record import presence
from dicomferry.models.record.jobs import leases, loss, plans, verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.jobs.instructions import Signals
from dicomferry.models.record.jobs.items import pending_items
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, ItemRow
from dicomferry.models.rules import ending, retry
from dicomferry.models.rules.ending import Decision
from dicomferry.models.rules.errors import IllegalTransition, LeaseLost
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState
from support.record_site import DONE, LEASE, Clock, Site, listening, together


def _renew(site: Site, lease: Lease) -> Signals:
    return leases.renew(site.database, lease, site.worker, lease_seconds=LEASE)


# --- renew


def test_renew_makes_the_lease_last_longer(site: Site) -> None:
    """From now on, not from its old end on."""
    site.store(1)
    lease = site.claim()
    site.clock.move(10)
    signals = _renew(site, lease)
    assert site.chunk(lease).lease_until == site.clock() + timedelta(seconds=LEASE)
    assert not signals.stop
    site.clock.move(LEASE)
    assert loss.expire(site.database) == 0


def test_renew_brings_back_what_was_asked(site: Site) -> None:
    """Cancel, hold and drain reach the attempt with its heartbeat; each of them is a reason to stop."""
    job = site.store(1)
    lease = site.claim()
    verbs.hold(site.database, job)
    assert _renew(site, lease) == Signals(cancel=False, hold=True, drain=False)
    presence.drain(site.database, site.worker)
    assert _renew(site, lease) == Signals(cancel=False, hold=True, drain=True)
    verbs.cancel(site.database, job)
    assert _renew(site, lease) == Signals(cancel=True, hold=False, drain=True)
    assert leases.signals(site.database, lease, site.worker) == _renew(site, lease)
    assert Signals(cancel=True, hold=False, drain=False).stop
    assert Signals(cancel=False, hold=True, drain=False).stop
    assert Signals(cancel=False, hold=False, drain=True).stop


# --- fence

WRITES: dict[str, Callable[[Site, Lease, Outcome], object]] = {
    "renew": lambda site, lease, outcome: _renew(site, lease),
    "record": lambda site, lease, outcome: leases.record(site.database, lease, [outcome]),
    "record nothing": lambda site, lease, outcome: leases.record(site.database, lease, []),
    "in flight": lambda site, lease, outcome: leases.record(site.database, lease, [], in_flight=outcome.item_id),
    "finish": lambda site, lease, outcome: site.finish(lease, outcomes=[outcome]),
    "interrupt": lambda site, lease, outcome: site.finish(lease, decision=None),
    "refused": lambda site, lease, outcome: site.refused(lease),
    "plan": lambda site, lease, outcome: site.batch(lease, 2),
    "identify": lambda site, lease, outcome: plans.identify_item(
        site.database, lease, outcome.item_id, {"sop_instance_uid": "9.9"}
    ),
}
ENDS: dict[str, Callable[[Site, Lease], object]] = {
    "expired": lambda site, lease: site.lose(),
    "claimed by another": lambda site, lease: (site.lose(), site.claim()),
    "finished": lambda site, lease: site.complete(lease),
    "interrupted": lambda site, lease: site.finish(lease, decision=None),
    "cancelled": lambda site, lease: (verbs.cancel(site.database, lease.job_id), site.lose()),
}


@pytest.mark.parametrize(
    ("write", "end"), [*((write, "claimed by another") for write in WRITES), *(("record", end) for end in ENDS)]
)
def test_every_write_of_an_older_fence_is_refused_and_changes_nothing(site: Site, write: str, end: str) -> None:
    """A frozen worker that wakes up after its lease writes no more, whatever became of the chunk."""
    site.store(2)
    lease = site.claim()
    [outcome, _] = site.outcomes(lease)
    ENDS[end](site, lease)
    before = site.everything()
    with pytest.raises(LeaseLost, match=f"chunk {lease.chunk_id}: fence {lease.fence}"):
        WRITES[write](site, lease, outcome)
    assert site.everything() == before
    site.check()


# --- record


def test_record_twice_counts_once(site: Site) -> None:
    """A write that ran again after a lost connection changes nothing: outcomes stand, numbers are counted anew."""
    site.store(3)
    lease = site.claim()
    outcomes = site.outcomes(lease, status=0, sent_bytes=1000)[:2]
    leases.record(site.database, lease, outcomes)
    before = site.everything()
    leases.record(site.database, lease, outcomes)
    assert site.everything() == before
    chunk = site.chunk(lease)
    assert (chunk.total, chunk.succeeded, chunk.sent_bytes) == (3, 2, 2000)
    site.check()


def test_an_outcome_stands(site: Site) -> None:
    """Finished items are never redone: a later answer does not change what is on the record."""
    job = site.store(1)
    lease = site.claim()
    [outcome] = site.outcomes(lease)
    leases.record(site.database, lease, [outcome])
    leases.record(site.database, lease, [Outcome(item_id=outcome.item_id, state=ItemState.FAILED, reason="late")])
    [item] = site.items(job)
    assert (item.state, item.reason, item.tries) == (ItemState.SUCCEEDED, None, 1)
    site.check()


def test_what_an_outcome_says_is_kept(site: Site) -> None:
    """Status, reason, sentence, charges, bytes and syntax of the item; tries and bytes add up over attempts."""
    job = site.store(1)
    lease = site.claim()
    [key] = [item.id for item in site.items(job)]
    again = Outcome(
        item_id=key, state=ItemState.PENDING, reason="aborted", detail="reset by peer", charges=1, sent_bytes=70
    )
    leases.record(site.database, lease, [again])
    [item] = site.items(job)
    assert (item.state, item.reason, item.detail, item.charges) == (ItemState.PENDING, "aborted", "reset by peer", 1)
    last = Outcome(
        item_id=key, state=ItemState.WARNING, reason="coerced", status=0xB000, charges=1, sent_bytes=100, sent_as="1.2"
    )
    leases.record(site.database, lease, [last])
    [item] = site.items(job)
    assert (item.state, item.status, item.sent_as, item.detail) == (ItemState.WARNING, 0xB000, "1.2", None)
    assert (item.tries, item.sent_bytes) == (2, 170)
    assert site.chunk(lease).sent_bytes == 170


def test_many_outcomes_in_one_record(site: Site) -> None:
    """Each item gets its own; the chunk's numbers are those of its items."""
    site.store(7)
    lease = site.claim()
    states = [
        ItemState.SUCCEEDED,
        ItemState.WARNING,
        ItemState.FAILED,
        ItemState.SKIPPED,
        ItemState.CANCELLED,
        ItemState.PENDING,
    ]
    outcomes = [
        Outcome(item_id=outcome.item_id, state=state, reason=state.value)
        for outcome, state in zip(site.outcomes(lease), states, strict=False)
    ]
    leases.record(site.database, lease, outcomes)
    chunk = site.chunk(lease)
    assert (chunk.total, chunk.succeeded, chunk.warning, chunk.failed) == (7, 1, 1, 1)
    assert (chunk.skipped, chunk.cancelled) == (1, 1)
    site.check()


def test_an_item_that_finished_makes_a_chunk_fruitful(site: Site) -> None:
    """Barren counts attempts in a row that finished no item; one outcome ends the row."""
    site.store(2)
    site.away(site.claim(), barren=3)
    site.clock.move(10)
    lease = site.claim()
    [first, second] = site.outcomes(lease)
    leases.record(site.database, lease, [Outcome(item_id=first.item_id, state=ItemState.PENDING)])
    assert site.chunk(lease).barren == 3
    leases.record(site.database, lease, [second])
    assert site.chunk(lease).barren == 0


def test_only_pending_items_may_get_an_outcome_of_the_table(site: Site) -> None:
    """The table of items is asked, not only the rows."""
    assert not [state for state in ItemState if state is not ItemState.PENDING and _refused(site, state)]


def _refused(site: Site, state: ItemState) -> bool:
    site.store(1)
    lease = site.claim()
    try:
        site.complete(lease, state)
    except IllegalTransition:
        return True
    return False


# --- finish


def test_finish_ends_attempt_chunk_and_job_at_once(site: Site) -> None:
    """The last outcomes, the attempt's end, the chunk's state and the job's in one transaction."""
    job = site.store(2)
    lease = site.claim()
    site.complete(lease)
    [attempt] = site.attempts(job)
    assert (attempt.end, attempt.ended_at, attempt.finished_items) == (AttemptEnd.COMPLETED, site.clock(), 2)
    chunk = site.chunk(lease)
    assert (chunk.state, chunk.lease_until, chunk.owner_id) == (ChunkState.DONE, None, None)
    row = site.job(job)
    assert (row.state, row.finished_at, row.verified) == (JobState.SUCCEEDED, site.clock(), "uids")
    assert site.events(job)[-1] == "ended"
    site.check()


def test_a_chunk_with_items_left_is_never_done(site: Site) -> None:
    """Whatever the attempt thought: what is pending is tried again."""
    job = site.store(2)
    lease = site.claim()
    site.finish(lease, decision=DONE, outcomes=site.outcomes(lease)[:1])
    assert site.chunk(lease).state is ChunkState.PENDING
    assert site.state(job) is JobState.RUNNING
    site.check()


def test_an_unreachable_remote_leaves_the_chunk_waiting(site: Site) -> None:
    """Pending with reason, advice and time; the job goes on running; the history says when it is tried again."""
    job = site.store(1)
    lease = site.claim()
    decision = site.away(lease, seconds=20)
    chunk = site.chunk(lease)
    assert (chunk.state, chunk.reason, chunk.advice) == (ChunkState.PENDING, "unreachable", "is it up?")
    assert (chunk.not_before, chunk.barren, chunk.waiting_since) == (decision.at, 1, site.clock())
    assert site.state(job) is JobState.RUNNING
    [*_, last] = site.database.read(lambda c: c.execute(sa.text("SELECT kind, text FROM event ORDER BY id")).all())
    assert last.kind == "retry" and "next try in 20 s" in last.text
    [attempt] = site.attempts(job)
    assert (attempt.end, attempt.reason) == (AttemptEnd.ERROR, "unreachable")
    site.check()


def test_what_waits_for_the_same_remote_waits_along(site: Site) -> None:
    """One chunk finds out that a remote is away; not each of the others does. Other remotes are not concerned."""
    job = site.store(1, 1, 1)
    other = site.store(1, remote_id=site.remote("PACS2"))
    first = site.claim()
    decision = site.away(first, seconds=20)
    for chunk in site.chunks(job):
        assert (chunk.not_before, chunk.reason) == (decision.at, "unreachable")
    assert site.claim().job_id == other
    assert site.try_claim() is None
    assert decision.at
    site.clock.time = decision.at
    assert site.claim().chunk_id == first.chunk_id


def test_a_remote_that_answers_again_starts_the_clock_of_giving_up_anew(site: Site) -> None:
    """A chunk that waited along with another has not waited any more once the remote took something.

    Otherwise its first fault, half a day later in the same job, would hold the job at once.
    """
    job = site.store(1, 1)
    site.away(site.claim(), seconds=10)
    site.clock.move(10)
    first = site.claim()
    site.complete(first)
    site.clock.move(12 * 3600)
    lease = site.claim()
    assert lease.chunk_id != first.chunk_id
    assert lease.waiting_since is None
    assert site.chunks(job)[1].reason is None


def test_a_refusal_for_good_holds_what_waits_of_the_job(site: Site) -> None:
    """A person is asked once and not for each chunk; what runs goes on."""
    job = site.store(1, 1, 1)
    first, second = site.claim(), site.claim()
    site.refused(first)
    states = {chunk.id: chunk.state for chunk in site.chunks(job)}
    assert states.pop(second.chunk_id) is ChunkState.RUNNING
    assert set(states.values()) == {ChunkState.HELD}
    assert {chunk.advice for chunk in site.chunks(job) if chunk.state is ChunkState.HELD} == {"ask them to allow us"}
    assert site.state(job) is JobState.RUNNING
    site.complete(second)
    assert site.state(job) is JobState.HELD
    assert "held" in site.events(job)
    site.check()


def test_drained_goes_back_to_pending_at_once(site: Site) -> None:
    """A worker that is told to stop gives its chunk back: no delay, no reason, nobody is charged."""
    job = site.store(2)
    lease = site.claim()
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None, outcomes=site.outcomes(lease)[:1], finished_items=1)
    chunk = site.chunk(lease)
    assert (chunk.state, chunk.not_before, chunk.reason, chunk.barren) == (ChunkState.PENDING, site.clock(), None, 0)
    [attempt] = site.attempts(job)
    assert (attempt.end, attempt.finished_items) == (AttemptEnd.INTERRUPTED, 1)
    again = site.claim()
    assert again.chunk_id == lease.chunk_id
    assert len(pending_items(site.database, again.chunk_id)) == 1
    site.complete(again)
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_a_drain_keeps_the_count_and_the_clock_of_a_remote_that_is_away(site: Site) -> None:
    """Restarting the workers does not begin the twelve hours anew."""
    site.store(1)
    site.away(site.claim(), barren=4)
    began = site.clock()
    site.clock.move(10)
    lease = site.claim()
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None)
    chunk = site.chunk(lease)
    assert (chunk.barren, chunk.waiting_since) == (4, began)


DECISIONS = {
    "interrupted": None,
    "to be tried again": Decision(next=ending.Next.RETRY, at=Clock().time, reason="unreachable", barren=1),
    "refused": Decision(next=ending.Next.HOLD, reason="not authorized", advice="ask"),
}


@pytest.mark.parametrize("decision", DECISIONS)
def test_cancel_asked_while_running_ends_as_cancelled(site: Site, decision: str) -> None:
    """Whatever else the attempt came to: what is left is cancelled and the job ends."""
    job = site.store(2)
    lease = site.claim()
    assert verbs.cancel(site.database, job) is JobState.RUNNING
    site.finish(lease, decision=DECISIONS[decision], outcomes=site.outcomes(lease)[:1])
    assert site.chunk(lease).state is ChunkState.CANCELLED
    assert site.item_states(job) == ["succeeded", "cancelled"]
    assert site.state(job) is JobState.CANCELLED
    site.check()


def test_cancel_that_came_too_late(site: Site) -> None:
    """Every item arrived before the attempt saw the cancel: then the job succeeded, and says so."""
    job = site.store(2)
    lease = site.claim()
    verbs.cancel(site.database, job)
    site.complete(lease)
    assert site.chunk(lease).state is ChunkState.DONE
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


@pytest.mark.parametrize("decision", ["interrupted", "to be tried again"])
def test_hold_asked_while_running_ends_as_held(site: Site, decision: str) -> None:
    """The chunk waits for the release, with a reason and an advice."""
    job = site.store(2)
    lease = site.claim()
    verbs.hold(site.database, job)
    site.finish(lease, decision=DECISIONS[decision], outcomes=site.outcomes(lease)[:1])
    chunk = site.chunk(lease)
    assert (chunk.state, chunk.reason) == (ChunkState.HELD, "held by a person")
    assert chunk.advice
    assert site.state(job) is JobState.HELD
    assert verbs.release(site.database, job) is JobState.RUNNING
    site.complete(site.claim())
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


# --- expire


def test_a_dead_lease_ends_exactly_once(site: Site) -> None:
    """Many sweeps at once: one ends the lease, the attempt is lost once, the chunk waits, the history has one line."""
    job = site.store(2)
    lease = site.claim()
    site.clock.move(LEASE + 1)
    numbers = together(*[lambda: loss.expire(site.database) for _ in range(4)])
    assert sorted(numbers) == [0, 0, 0, 1]  # type: ignore[type-var]
    [attempt] = site.attempts(job)
    assert (attempt.end, attempt.reason, attempt.ended_at) == (AttemptEnd.LOST, "worker lost", site.clock())
    chunk = site.chunk(lease)
    assert (chunk.state, chunk.careful, chunk.deaths) == (ChunkState.PENDING, True, 1)
    assert site.events(job).count("retry") == 1
    site.check()


def test_a_lease_that_lasts_is_left_alone(site: Site) -> None:
    """To the second."""
    site.store(1)
    lease = site.claim()
    site.clock.move(LEASE)
    assert loss.expire(site.database) == 0
    _renew(site, lease)
    site.clock.move(LEASE)
    assert loss.expire(site.database) == 0
    site.clock.move(0.001)
    assert loss.expire(site.database) == 1


def test_all_leases_end_when_no_worker_can_be_alive(site: Site) -> None:
    """`up` holds the home's lock and no worker its share: everything that runs is lost at once."""
    job = site.store(1, 1)
    site.claim(), site.claim()
    assert loss.expire(site.database, everything=True) == 2
    assert {chunk.state for chunk in site.chunks(job)} == {ChunkState.PENDING}
    assert loss.expire(site.database, everything=True) == 0


def test_one_attempt_for_each_fence(site: Site) -> None:
    """The attempt is unique for chunk and fence: nothing can be lost twice."""
    site.store(1)
    lease = site.claim()
    copy = {"job_id": lease.job_id, "chunk_id": lease.chunk_id, "fence": lease.fence, "worker": "x", "pid": 1}
    with pytest.raises(sa.exc.IntegrityError):
        site.database.write(lambda c: c.execute(sa.insert(AttemptRow).values(started_at=site.clock(), **copy)))


def test_what_was_recorded_before_the_loss_stands(site: Site) -> None:
    """Only the rest is done again."""
    job = site.store(3)
    lease = site.claim()
    leases.record(site.database, lease, site.outcomes(lease)[:2])
    site.lose()
    assert site.item_states(job) == ["succeeded", "succeeded", "pending"]
    again = site.claim()
    assert again.careful
    site.complete(again)
    assert site.state(job) is JobState.SUCCEEDED
    assert [attempt.end for attempt in site.attempts(job)] == [AttemptEnd.LOST, AttemptEnd.COMPLETED]
    site.check()


def _die_on(site: Site, item_id: int) -> Lease:
    """A careful attempt that says which item it sends, and is not heard of again."""
    lease = site.claim()
    assert lease.careful
    leases.record(site.database, lease, [], in_flight=item_id)
    site.lose()
    return lease


def test_a_second_loss_on_one_item_fails_it(site: Site) -> None:
    """First loss: nobody knows on what. Then item by item: two careful attempts died on it, it is given up."""
    job = site.store(2)
    site.claim()
    site.lose()
    [poison, good] = [item.id for item in site.items(job)]
    _die_on(site, poison)
    assert [(item.losses, item.state) for item in site.items(job)] == [(1, "pending"), (0, "pending")]
    assert [row.id for row in pending_items(site.database, site.chunks(job)[0].id)] == [good, poison]
    _die_on(site, poison)
    items = site.items(job)
    assert (items[0].state, items[0].reason) == (ItemState.FAILED, "worker died twice on it")
    site.check()
    site.complete(site.claim())
    assert site.state(job) is JobState.INCOMPLETE
    site.check()


def test_a_chunk_whose_last_item_killed_its_worker_is_done(site: Site) -> None:
    """Nothing is left in it: it is not claimed again, nor held, and its job ends."""
    job = site.store(1)
    site.claim()
    site.lose()
    [poison] = [item.id for item in site.items(job)]
    _die_on(site, poison)
    _die_on(site, poison)
    assert site.item_states(job) == ["failed"]
    assert site.chunks(job)[0].state is ChunkState.DONE
    row = site.job(job)
    assert (row.state, row.reason) == (JobState.FAILED, "worker died twice on it")
    site.check()


def test_a_worker_that_died_after_its_last_record(site: Site) -> None:
    """Every item has its outcome: the sweep ends chunk and job, nobody has to claim an empty chunk."""
    job = site.store(2)
    lease = site.claim()
    leases.record(site.database, lease, site.outcomes(lease))
    site.lose()
    assert site.chunk(lease).state is ChunkState.DONE
    assert site.state(job) is JobState.SUCCEEDED
    assert site.attempts(job)[0].end is AttemptEnd.LOST
    site.check()


def test_a_chunk_whose_workers_die_in_a_row_is_held(site: Site) -> None:
    """After five deaths without a finished item a person is asked; until then it is tried at once."""
    job = site.store(9)
    for _ in range(retry.MAX_DEATHS - 1):
        site.claim()
        site.lose()
    assert site.state(job) is JobState.RUNNING
    site.claim()
    site.lose()
    [chunk] = site.chunks(job)
    assert (chunk.state, chunk.reason) == (ChunkState.HELD, "worker lost")
    assert chunk.advice
    assert site.state(job) is JobState.HELD
    verbs.release(site.database, job)
    site.complete(site.claim())
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_deaths_with_finished_items_between_are_no_row(site: Site) -> None:
    """A large chunk on a weak machine gets on, however often its worker dies."""
    site.store(20)
    for _ in range(2 * retry.MAX_DEATHS):
        lease = site.claim()
        leases.record(site.database, lease, site.outcomes(lease)[:1])
        site.lose()
    assert site.chunk(lease).state is ChunkState.PENDING


def test_a_remote_that_was_away_is_no_death(site: Site) -> None:
    """Attempts that found nobody do not count when a worker dies: one restart must not hold the job."""
    job = site.store(1)
    for number in range(1, 2 * retry.MAX_DEATHS):
        site.away(site.claim(), barren=number)
        site.clock.move(10)
    site.claim()
    site.lose()
    assert site.chunks(job)[0].state is ChunkState.PENDING


def test_a_death_keeps_the_clock_of_a_remote_that_is_away(site: Site) -> None:
    """Killing a worker now and then does not begin the twelve hours anew."""
    site.store(1)
    began = site.clock()
    lease = site.claim()
    site.away(lease)
    site.clock.move(10)
    site.claim()
    site.lose()
    assert site.chunk(lease).waiting_since == began


def test_a_dead_chunk_of_a_cancelled_job_is_cancelled(site: Site) -> None:
    """By the sweep, never revived: nobody claims it again."""
    job = site.store(2, 1)
    lease = site.claim()
    leases.record(site.database, lease, site.outcomes(lease)[:1])
    verbs.cancel(site.database, job)
    assert site.state(job) is JobState.RUNNING
    site.lose()
    assert site.item_states(job) == ["succeeded", "cancelled", "cancelled"]
    assert site.chunk(lease).state is ChunkState.CANCELLED
    assert site.state(job) is JobState.CANCELLED
    assert site.try_claim() is None
    site.check()


def test_a_dead_chunk_of_a_held_job_is_held(site: Site) -> None:
    """Until it is released; then it is done carefully."""
    job = site.store(1)
    lease = site.claim()
    verbs.hold(site.database, job)
    site.lose()
    assert site.chunk(lease).state is ChunkState.HELD
    assert site.state(job) is JobState.HELD
    assert site.try_claim() is None
    site.check()


def test_a_dead_plan_goes_on_from_its_cursor(site: Site) -> None:
    """What it had written stands; the next attempt begins after it."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 2, cursor=b"/data/b")
    site.lose()
    again = site.claim_plan(job)
    assert again.cursor == b"/data/b"
    assert len(site.items(job)) == 2
    site.check()


# --- races


@pytest.mark.parametrize("round_", range(3))
def test_expire_against_finish(site: Site, round_: int) -> None:
    """The lease is over and its holder finishes as the sweep comes by: one of both wins, whole."""
    job = site.store(2)
    lease = site.claim()
    outcomes = site.outcomes(lease)
    site.clock.move(LEASE + 1)
    finished, expired = together(
        lambda: site.finish(lease, outcomes=outcomes, finished_items=2), lambda: loss.expire(site.database)
    )
    if isinstance(finished, LeaseLost):
        assert expired == 1
        assert site.attempts(job)[0].end is AttemptEnd.LOST
        assert site.item_states(job) == ["pending", "pending"]
        assert site.chunk(lease).state is ChunkState.PENDING
    else:
        assert (finished, expired) == (None, 0)
        assert site.attempts(job)[0].end is AttemptEnd.COMPLETED
        assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_renew_against_expire(site: Site) -> None:
    """A heartbeat at the last moment: either the lease goes on or it is lost, never both."""
    job = site.store(1)
    lease = site.claim()
    site.clock.move(LEASE + 1)
    renewed, expired = together(lambda: _renew(site, lease), lambda: loss.expire(site.database))
    assert (expired == 1) == isinstance(renewed, LeaseLost)
    state = site.chunks(job)[0].state
    assert state is (ChunkState.PENDING if expired else ChunkState.RUNNING)
    site.check()


@pytest.mark.parametrize("last", ["a chunk", "the plan"])
def test_two_last_ones_finish_together(site: Site, last: str) -> None:
    """Whoever finishes a chunk locks the job's row and then counts: the second one sees the first, the job ends.

    The first has counted and not committed yet when the second begins.
    """
    job = site.submit_store()
    plan = site.claim_plan(job)
    site.batch(plan, 1, 1)
    first, second = site.claim(), site.claim()
    if last == "a chunk":
        site.finish(plan, planned=True)
    else:
        site.complete(second)
    outcomes = {lease.chunk_id: site.outcomes(lease) for lease in (first, second)}
    counted, through = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        if not counted.is_set():
            counted.set()
            through.wait(0.3)  # the second one cannot get through while the first has the job's row

    def go_second() -> None:
        assert counted.wait(20)
        if last == "a chunk":
            site.finish(second, outcomes=outcomes[second.chunk_id])
        else:
            site.finish(plan, planned=True)
        through.set()

    with listening(site.database, "commit", slow):
        assert together(lambda: site.finish(first, outcomes=outcomes[first.chunk_id]), go_second) == [None, None]
    assert site.state(job) is JobState.SUCCEEDED
    assert site.events(job).count("ended") == 1
    site.check()


def test_the_item_and_chunk_tables_are_what_the_writes_obey(site: Site) -> None:
    """No row is ever in a state that its columns contradict, over a walk through all verbs."""
    job = site.store(3, 2)
    lease = site.claim()
    leases.record(site.database, lease, site.outcomes(lease, ItemState.FAILED, reason="x")[:1])
    site.check()
    site.lose()
    site.check()
    verbs.hold(site.database, job)
    site.check()
    verbs.release(site.database, job)
    site.complete(site.claim())
    site.check()
    verbs.cancel(site.database, job)
    site.check()
    verbs.retry(site.database, job)
    site.check()
    while again := site.try_claim():
        site.complete(again)
        site.check()
    assert site.state(job) is JobState.SUCCEEDED
    assert {row.state for row in site.rows(sa.select(ItemRow.state))} == {ItemState.SUCCEEDED}
    assert {row.state for row in site.rows(sa.select(ChunkRow.state))} == {ChunkState.DONE}

"""Jobs as a person changes them, whatever they are doing at that moment."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.record.jobs import claims, leases, ledger, verbs
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState
from support.record_site import Site, listening, together

# --- submit


def test_submit_writes_job_chunk_item_and_event(site: Site) -> None:
    """A job exists once its rows are committed: an echo is a request item in a quick chunk, claimable at once."""
    job = site.echo(label="ward 3", priority="high")
    row = site.job(job)
    assert (row.kind, row.label, row.state, row.planned) == ("echo", "ward 3", JobState.PENDING, True)
    assert (row.submitted_at, row.started_at, row.finished_at) == (site.clock(), None, None)
    [chunk] = site.chunks(job)
    assert (chunk.kind, chunk.lane, chunk.remote_id, chunk.total) == ("echo", "quick", site.remote_id, 1)
    assert chunk.priority == row.priority == verbs.PRIORITIES["high"]
    [item] = site.items(job)
    assert (item.kind, item.state) == ("request", ItemState.PENDING)
    assert site.events(job) == ["submitted"]
    site.check()


def test_a_store_starts_with_its_plan(site: Site) -> None:
    """One chunk of kind plan, without a remote, no items yet; the spec comes back as it was given."""
    what = spec.StoreSpec(paths=("/data/\udcff",), recursive=True)
    job = verbs.submit(site.database, what, site.remote_id)
    assert site.job(job).planned is False
    [chunk] = site.chunks(job, plan=True)
    assert (chunk.kind, chunk.lane, chunk.remote_id, chunk.total) == (claims.PLAN, "bulk", None, 0)
    assert not site.items(job)
    assert site.claim().spec == what


def test_submit_is_one_transaction(site: Site) -> None:
    """What fails at the last row leaves none."""
    before = site.everything()

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO event"):
            raise RuntimeError("no event today")

    with listening(site.database, "before_cursor_execute", fail), pytest.raises(RuntimeError):
        site.echo()
    assert site.everything() == before


def test_a_submit_that_ran_again_finds_the_first_ones_job(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost in the commit and the write runs again: one job, its id."""
    write = site.database.write
    ids = []

    def twice(work, **options):  # type: ignore[no-untyped-def]
        ids.append(write(work, **options))
        return write(work, **options)

    monkeypatch.setattr(site.database, "write", twice)
    job = site.echo()
    monkeypatch.undo()
    assert ids == [job]
    assert len(site.rows(sa.select(JobRow.id))) == 1
    assert site.events(job) == ["submitted"]


def test_every_submit_is_a_job_of_its_own(site: Site) -> None:
    """Asking twice is two jobs; ids grow and are never used again."""
    assert site.echo() < site.echo()


# --- cancel


def test_cancel_what_waits(site: Site) -> None:
    """At once: chunks, items and the job; its plan too. Nothing is left to claim."""
    job = site.store(2, 1)
    assert verbs.cancel(site.database, job) is JobState.CANCELLED
    assert set(site.item_states(job)) == {"cancelled"}
    row = site.job(job)
    assert (row.reason, row.finished_at) == ("cancelled", site.clock())
    assert site.try_claim() is None
    site.check()


def test_cancel_before_the_plan(site: Site) -> None:
    """A job without items is cancelled all the same; planning never begins."""
    job = site.submit_store()
    assert verbs.cancel(site.database, job) is JobState.CANCELLED
    assert site.try_claim() is None
    site.check()


def test_cancel_stops_a_running_plan(site: Site) -> None:
    """The plan's next batch writes nothing, its chunks are cancelled, the job ends with it."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 2)
    verbs.cancel(site.database, job)
    assert site.batch(lease, 2) == (True, 0)
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None)
    assert site.item_states(job) == ["cancelled", "cancelled"]
    assert site.state(job) is JobState.CANCELLED
    site.check()


def test_cancel_keeps_what_is_finished(site: Site) -> None:
    """Arrived is arrived."""
    job = site.store(1, 1)
    site.complete(site.claim())
    assert verbs.cancel(site.database, job) is JobState.CANCELLED
    assert site.item_states(job) == ["succeeded", "cancelled"]
    site.check()


def test_cancel_a_held_job(site: Site) -> None:
    """Held chunks are cancelled at once, and the hold is over."""
    job = site.store(1)
    site.refused(site.claim())
    assert site.state(job) is JobState.HELD
    assert verbs.cancel(site.database, job) is JobState.CANCELLED
    site.check()


def test_cancel_twice(site: Site) -> None:
    """While something still runs a second cancel changes nothing; the history has it once."""
    job = site.store(1)
    site.claim()
    for _ in range(2):
        assert verbs.cancel(site.database, job) is JobState.RUNNING
    assert site.events(job).count("cancelled") == 1


# --- hold and release


def test_hold_and_release_before_the_first_start(site: Site) -> None:
    """Back to what it was: pending, never started."""
    job = site.store(1, not_before=None)
    echo = site.echo()
    for each in (echo,):
        assert verbs.hold(site.database, each) is JobState.HELD
        assert site.try_claim("quick") is None
        assert verbs.release(site.database, each) is JobState.PENDING
        site.complete(site.claim("quick"))
        assert site.state(each) is JobState.SUCCEEDED
    assert verbs.hold(site.database, job) is JobState.HELD
    assert verbs.release(site.database, job) is JobState.RUNNING
    site.check()


def test_release_gives_a_fresh_budget(site: Site) -> None:
    """Due at once, with no reason, no fruitless attempts and no waiting on the record."""
    job = site.store(1)
    site.away(site.claim(), barren=7, seconds=600)
    verbs.hold(site.database, job)
    site.clock.move(5)
    verbs.release(site.database, job)
    [chunk] = site.chunks(job)
    assert (chunk.state, chunk.not_before, chunk.reason, chunk.advice) == (
        ChunkState.PENDING,
        site.clock(),
        None,
        None,
    )
    assert (chunk.barren, chunk.deaths, chunk.waiting_since, chunk.careful) == (0, 0, None, False)
    assert site.claim().waiting_since is None


def test_release_after_a_refusal(site: Site) -> None:
    """All chunks that were held along go on."""
    job = site.store(1, 1, 1)
    site.refused(site.claim())
    assert site.state(job) is JobState.HELD
    assert verbs.release(site.database, job) is JobState.RUNNING
    while lease := site.try_claim():
        site.complete(lease)
    assert site.state(job) is JobState.SUCCEEDED
    assert site.events(job).count("released") == 1
    site.check()


def test_hold_stops_a_running_plan_and_release_lets_it_go_on(site: Site) -> None:
    """The plan writes nothing more, keeps its cursor and goes on after it."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 1, cursor=b"/data/a")
    verbs.hold(site.database, job)
    assert site.batch(lease, 1) == (True, 0)
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None)
    assert {chunk.state for chunk in site.chunks(job, plan=True)} == {ChunkState.HELD}
    assert site.state(job) is JobState.HELD
    verbs.release(site.database, job)
    assert site.claim_plan(job).cursor == b"/data/a"
    site.check()


def test_release_while_the_attempt_is_still_stopping(site: Site) -> None:
    """The hold is taken back before the attempt ended: it goes back to pending and not to held."""
    job = site.store(1)
    lease = site.claim()
    verbs.hold(site.database, job)
    verbs.release(site.database, job)
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None)
    assert site.claim().chunk_id == lease.chunk_id


# --- retry


def _failed(site: Site, *sizes: int) -> int:
    """A job in whose chunks the first item succeeded and the others failed."""
    job = site.store(*sizes)
    while lease := site.try_claim():
        first, *rest = site.outcomes(lease)
        failed = [
            Outcome(
                item_id=outcome.item_id, state=ItemState.FAILED, reason="cannot understand", status=0xC000, charges=1
            )
            for outcome in rest
        ]
        site.finish(lease, outcomes=[first, *failed], finished_items=1 + len(failed))
    return job


def test_retry_tries_what_failed_and_nothing_else(site: Site) -> None:
    """Unfinished items with a fresh budget; finished ones are never redone; chunks without failures stay done."""
    job = _failed(site, 1, 3)
    row = site.job(job)
    assert (row.state, row.reason) == (JobState.INCOMPLETE, "cannot understand")
    assert verbs.retry(site.database, job) == 2
    assert [chunk.state for chunk in site.chunks(job)] == [ChunkState.DONE, ChunkState.PENDING]
    row = site.job(job)
    assert (row.state, row.reason, row.finished_at, row.verified) == (JobState.RUNNING, None, None, None)
    pending = [item for item in site.items(job) if item.state is ItemState.PENDING]
    assert {(item.status, item.reason, item.charges, item.losses) for item in pending} == {(None, None, 0, 0)}
    site.check()
    site.complete(site.claim())
    assert site.state(job) is JobState.SUCCEEDED
    assert [item.tries for item in site.items(job)] == [1, 1, 2, 2]
    site.check()


def test_retry_a_cancelled_job(site: Site) -> None:
    """What was cancelled is tried, the cancel is forgotten."""
    job = site.store(2, 1)
    lease = site.claim()
    site.finish(lease, decision=None, outcomes=site.outcomes(lease)[:1])
    verbs.cancel(site.database, job)
    assert verbs.retry(site.database, job) == 2
    assert site.state(job) is JobState.RUNNING
    while again := site.try_claim():
        site.complete(again)
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_retry_a_job_that_was_cancelled_before_it_ever_ran(site: Site) -> None:
    """It waits for its first start again."""
    job = site.echo()
    verbs.cancel(site.database, job)
    assert verbs.retry(site.database, job) == 1
    assert site.state(job) is JobState.PENDING
    site.complete(site.claim("quick"))
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_retry_a_job_whose_plan_was_cancelled(site: Site) -> None:
    """The plan goes on after its cursor, no new walk; the items that it had cancelled are tried."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 2, cursor=b"/data/m")
    verbs.cancel(site.database, job)
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None)
    assert site.state(job) is JobState.CANCELLED
    assert verbs.retry(site.database, job) == 2
    assert site.state(job) is JobState.RUNNING
    again = site.claim_plan(job)
    assert again.cursor == b"/data/m"
    site.finish(again, planned=True)
    site.complete(site.claim())
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_what_failed_in_the_plan_moves_out_of_it(site: Site) -> None:
    """Failed plan items get chunks of their own, where they can be sent; skipped ones stay; the plan stays done."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    decided = [
        *site.files(3, state=ItemState.FAILED, reason="unreadable", is_first=False, sop_instance_uid=None),
        *site.files(2, state=ItemState.SKIPPED, reason="not DICOM", is_first=False, sop_instance_uid=None),
    ]
    site.batch(lease, 1, decided=decided)
    site.finish(lease, planned=True)
    site.complete(site.claim())
    assert site.state(job) is JobState.INCOMPLETE
    site.check()
    assert verbs.retry(site.database, job) == 3
    plan, old, new = site.chunks(job, plan=True)
    assert (plan.state, plan.total, plan.failed, plan.skipped) == (ChunkState.DONE, 2, 0, 2)
    assert (old.state, new.state, new.kind, new.total) == (ChunkState.DONE, ChunkState.PENDING, "store", 3)
    assert new.remote_id == site.remote_id
    site.check()
    site.complete(site.claim())
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_many_failures_of_a_plan_make_several_chunks(site: Site) -> None:
    """At most 500 instances in a chunk, also here."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, decided=site.files(501, state=ItemState.FAILED, reason="unreadable", is_first=False))
    site.finish(lease, planned=True)
    row = site.job(job)
    assert (row.state, row.reason) == (JobState.FAILED, "unreadable")
    assert verbs.retry(site.database, job) == 501
    assert [chunk.total for chunk in site.chunks(job)] == [500, 1]


def test_retry_after_deaths(site: Site) -> None:
    """An item that was given up because workers died on it has two lives again."""
    job = site.store(1)
    site.claim()
    site.lose()
    for _ in range(2):
        lease = site.claim()
        leases.record(site.database, lease, [], in_flight=site.items(job)[0].id)
        site.lose()
    assert site.state(job) is JobState.FAILED
    assert verbs.retry(site.database, job) == 1
    lease = site.claim()
    assert not lease.careful
    assert site.items(job)[0].losses == 0


def test_retry_of_what_succeeded_is_refused(site: Site) -> None:
    """There is nothing to retry, and nothing changes."""
    job = site.store(1)
    site.complete(site.claim())
    before = site.everything()
    with pytest.raises(UsageError, match="nothing to retry"):
        verbs.retry(site.database, job)
    assert site.everything() == before


def test_retry_while_it_runs_is_refused(site: Site) -> None:
    """Only ended jobs are retried."""
    job = site.store(1)
    with pytest.raises(UsageError, match="has not ended"):
        verbs.retry(site.database, job)


# --- errors

VERBS = {
    "cancel": verbs.cancel,
    "hold": verbs.hold,
    "release": verbs.release,
    "retry": verbs.retry,
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_job_is_named(site: Site, verb: str) -> None:
    """Exit code 2, and where to look."""
    with pytest.raises(NotFound, match="no job 4711; see `dicomferry jobs list`"):
        VERBS[verb](site.database, 4711)


@pytest.mark.parametrize("verb", ["cancel", "hold", "release"])
def test_an_ended_job_stays_as_it_is(site: Site, verb: str) -> None:
    """The message says how it ended; nothing is written."""
    job = site.store(1)
    site.complete(site.claim())
    before = site.everything()
    with pytest.raises(UsageError, match=f"job {job} has ended \\(succeeded\\)"):
        VERBS[verb](site.database, job)
    assert site.everything() == before


def test_release_of_what_is_not_held_is_refused(site: Site) -> None:
    """The message says what the job is doing."""
    job = site.store(1)
    with pytest.raises(UsageError, match="is not held"):
        verbs.release(site.database, job)


# --- the end of a job


def test_nothing_to_do(site: Site) -> None:
    """A store that found nothing to send failed, and says why."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, decided=site.files(2, state=ItemState.SKIPPED, reason="not DICOM", is_first=False))
    site.finish(lease, planned=True)
    row = site.job(job)
    assert (row.state, row.reason, row.verified) == (JobState.FAILED, "nothing to do", "none")
    site.check()


def test_the_plan_may_be_the_last_to_finish(site: Site) -> None:
    """All chunks are done, more may come: the job ends with its plan and not before."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 1)
    site.complete(site.claim())
    assert site.state(job) is JobState.RUNNING
    site.finish(lease, planned=True)
    assert site.state(job) is JobState.SUCCEEDED
    site.check()


def test_an_echo_that_failed(site: Site) -> None:
    """Failed, with the reason of its request."""
    job = site.echo()
    site.complete(site.claim("quick"), ItemState.FAILED, reason="refused", status=0x0211)
    row = site.job(job)
    assert (row.state, row.reason, row.verified) == (JobState.FAILED, "refused", None)


def test_the_commonest_reason_stands_for_all(site: Site) -> None:
    """Of the chunk with most failures."""
    job = site.store(4)
    lease = site.claim()
    reasons = ["truncated", "cannot understand", "cannot understand", "changed"]
    outcomes = [
        Outcome(item_id=outcome.item_id, state=ItemState.FAILED, reason=reason)
        for outcome, reason in zip(site.outcomes(lease), reasons, strict=True)
    ]
    site.finish(lease, outcomes=outcomes)
    assert site.job(job).reason == "cannot understand"


def test_a_missed_end_heals(site: Site) -> None:
    """The end is derived from rows by one function that anybody may call again."""
    job = site.store(1)
    site.complete(site.claim())
    site.set(sa.update(JobRow).where(JobRow.id == job).values(state=JobState.RUNNING, finished_at=None))
    for _ in range(2):
        site.database.write(lambda connection: ledger.derive(connection, job, site.clock()))
    row = site.job(job)
    assert (row.state, row.finished_at) == (JobState.SUCCEEDED, site.clock())


# --- races


@pytest.mark.parametrize("verb", ["cancel", "hold"])
def test_a_verb_against_finish(site: Site, verb: str) -> None:
    """A person stops the job as its only attempt ends with something left: one order or the other, never lost."""
    job = site.store(2)
    lease = site.claim()
    outcomes = site.outcomes(lease)[:1]
    results = together(
        lambda: site.finish(lease, decision=None, outcomes=outcomes), lambda: VERBS[verb](site.database, job)
    )
    assert not [result for result in results if isinstance(result, Exception)]
    assert site.state(job) is (JobState.CANCELLED if verb == "cancel" else JobState.HELD)
    assert site.try_claim() is None
    site.check()


def test_a_cancel_against_claims(site: Site) -> None:
    """Chunks that were claimed first run to their end; none is claimed afterwards, none is left over."""
    job = site.store(*[1] * 4)
    *claimed, cancelled = together(*[site.try_claim] * 3, lambda: verbs.cancel(site.database, job))
    assert isinstance(cancelled, JobState)
    for lease in claimed:
        if isinstance(lease, claims.Lease):
            site.finish(lease, decision=None)
    assert site.state(job) is JobState.CANCELLED
    assert {row.state for row in site.rows(sa.select(ChunkRow.state).where(ChunkRow.kind != claims.PLAN))} == {
        ChunkState.CANCELLED
    }
    site.check()


def test_two_retries_at_once(site: Site) -> None:
    """One retries, the other is told that the job has not ended."""
    job = _failed(site, 3)
    results = together(*[lambda: verbs.retry(site.database, job)] * 2)
    assert sorted(map(str, results), key=len)[0] == "2"
    assert len([result for result in results if isinstance(result, UsageError)]) == 1
    site.check()


def test_not_before_lies_on_the_plan_only(site: Site) -> None:
    """A job that is to begin later is planned later; what it planned may then go at once."""
    job = site.submit_store(not_before=site.clock() + timedelta(hours=1))
    assert site.try_claim() is None
    site.clock.move(3600)
    lease = site.claim_plan(job)
    site.batch(lease, 1)
    assert site.claim().kind == "store"

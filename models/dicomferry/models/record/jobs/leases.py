"""Working on a chunk under a lease: renew, record, end. The end of leases whose holder died is in `loss`.

Every write about a running chunk is fenced: it names the fence of its claim and does nothing once somebody else holds
the chunk. Locks are taken in one order everywhere: worker, job, remote, chunk, items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database, locking, run_many
from dicomferry.models.record.jobs import endings, facts, ledger, twins
from dicomferry.models.record.jobs import instructions as signals_of
from dicomferry.models.record.jobs.claims import PLAN, Lease
from dicomferry.models.record.jobs.instructions import Signals
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow
from dicomferry.models.rules import ending
from dicomferry.models.rules.ending import Ending
from dicomferry.models.rules.errors import LeaseLost
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.retry import RetryPolicy
from dicomferry.models.rules.situation import Account, AttemptFacts
from dicomferry.models.rules.state import ITEM_TRANSITIONS, ChunkState, ItemState, step

_T = TypeVar("_T")
# Statements of every flush are built once: building one costs as much as running it.
_OUTCOME = """UPDATE item SET state = ?, status = ?, reason = ?, detail = ?, charges = ?,
sent_bytes = sent_bytes + ?, sent_as = ?, tries = tries + ? WHERE id = ? AND state = 'pending'"""
_FENCED = sa.update(ChunkRow.__table__).where(  # type: ignore[arg-type]
    ChunkRow.id == sa.bindparam("chunk"),
    ChunkRow.fence == sa.bindparam("held"),
    ChunkRow.state == ChunkState.RUNNING,
)
_ASKED = locking(sa.select(JobRow.cancel_asked, JobRow.hold_asked).where(JobRow.id == sa.bindparam("job")))
_FRUITFUL = {"barren": 0, "deaths": 0}
_USUAL = RetryPolicy()


def renew(database: Database, lease: Lease, worker: Worker, *, lease_seconds: float) -> Signals:
    """Make the lease last `lease_seconds` from now; raises LeaseLost when it is no longer ours."""

    def work(connection: Connection) -> Signals:
        now = database.now(connection)
        _fenced(connection, lease, lease_until=now + timedelta(seconds=lease_seconds), leased_at=now)
        return _signals(database, connection, lease, worker)

    return database.write(work)


def signals(database: Database, lease: Lease, worker: Worker) -> Signals:
    """What was asked of the attempt meanwhile; nothing is renewed."""
    return database.read(lambda connection: _signals(database, connection, lease, worker))


def _signals(database: Database, connection: Connection, lease: Lease, worker: Worker) -> Signals:
    now = database.now(connection)
    found = signals_of.read(connection, lease.job_id, worker.id, now, plan=lease.kind == PLAN)
    if found is None:
        raise LeaseLost(f"chunk {lease.chunk_id}: job {lease.job_id} is not on record any more")
    return found


def record(database: Database, lease: Lease, outcomes: Sequence[Outcome], *, in_flight: int | None = None) -> None:
    """Write down what came of some items; raises LeaseLost when the chunk is no longer ours.

    `in_flight` is the item that is about to be tried; careful attempts say so, to know on what a worker died.
    """

    frees = any(map(twins.gives_up, outcomes))

    def work(connection: Connection) -> None:
        if frees:
            lock_job(connection, lease.job_id)
        _fenced(connection, lease, in_flight_item_id=in_flight)
        write_outcomes(connection, lease.chunk_id, outcomes)
        if frees:
            twins.come_back(connection, lease.job_id, lease.chunk_id, outcomes)

    database.write(work)


def fenced(database: Database, lease: Lease, work: Callable[[Connection], _T], **values: object) -> _T:
    """One transaction with the chunk's row locked and `values` set on it; raises LeaseLost when it is not ours now."""

    def both(connection: Connection) -> _T:
        _fenced(connection, lease, **values)
        return work(connection)

    return database.write(both)


def write_outcomes(connection: Connection, chunk_id: int, outcomes: Sequence[Outcome]) -> None:
    """Set the items that are still pending and bring the chunk's numbers up to date. The chunk's row is locked."""
    if not outcomes:
        return
    for outcome in outcomes:
        if outcome.state is not ItemState.PENDING:
            step(ITEM_TRANSITIONS, ItemState.PENDING, outcome.state)
    run_many(
        connection,
        _OUTCOME,
        [
            (
                outcome.state.value,
                outcome.status,
                outcome.reason,
                outcome.detail,
                outcome.charges,
                outcome.sent_bytes,
                outcome.sent_as,
                int(outcome.tried),
                outcome.item_id,
            )
            for outcome in outcomes
        ],
    )
    finished = any(outcome.state is not ItemState.PENDING for outcome in outcomes)
    ledger.recount(connection, chunk_id, **(_FRUITFUL if finished else {}))


def _fenced(connection: Connection, lease: Lease, **values: object) -> None:
    """Update the chunk if it is still ours, which locks its row; raises LeaseLost otherwise."""
    updated = connection.execute(
        _FENCED, {"chunk": lease.chunk_id, "held": lease.fence, "fence": lease.fence, **values}
    )
    if not updated.rowcount:
        raise LeaseLost(f"chunk {lease.chunk_id}: fence {lease.fence} is no longer the current one")


def lock_job(connection: Connection, job_id: int) -> tuple[bool, bool]:
    """Lock a job's row, then say whether cancel and hold are asked for. Raises LeaseLost when the job was pruned."""
    row = connection.execute(_ASKED, {"job": job_id}).one_or_none()
    if row is None:
        raise LeaseLost(f"job {job_id} is not on record any more")
    return row.cancel_asked, row.hold_asked


def fence(connection: Connection, lease: Lease, **values: object) -> tuple[bool, bool]:
    """Lock the job and the chunk for a write of the plan; says whether cancel and hold are asked for.

    Raises LeaseLost when the chunk is no longer ours.
    """
    asked = lock_job(connection, lease.job_id)
    _fenced(connection, lease, **values)
    return asked


def end(
    database: Database,
    lease: Lease,
    account: Account,
    *,
    outcomes: Sequence[Outcome] = (),
    last: Callable[[Connection], object] | None = None,
    values: Mapping[str, object] | None = None,
    policy: RetryPolicy = _USUAL,
    jitter: float = 0.0,
    rule: Callable[[Account, AttemptFacts], Ending] = ending.of,
) -> Ending:
    """End the attempt in one transaction: its last outcomes, what the record knows then, and what follows by `rule`.

    `last` may write more of this chunk's items first, `values` are set on the chunk. `policy` and `jitter`, in 0..1,
    say how long faults are waited out. Raises LeaseLost.
    """

    def work(connection: Connection) -> Ending:
        cancel, hold = fence(connection, lease, **(values or {}))
        now = database.now(connection)
        breaker = facts.breaker_of(connection, lease, account)
        _write_items(connection, lease, outcomes, last)
        if account.planned:
            _complete_plan(connection, lease.job_id, now)
        begun = AttemptFacts(now=now, cancel=cancel, hold=hold, breaker=breaker, policy=policy, jitter=jitter)
        found = rule(account, facts.of_attempt(connection, lease, account, begun))
        place = endings.Place(lease.job_id, lease.chunk_id, lease.fence, lease.remote_id)
        endings.write(connection, place, found, now, finished=account.finished, detail=account.detail)
        return found

    return database.write(work)


def _write_items(
    connection: Connection, lease: Lease, outcomes: Sequence[Outcome], last: Callable[[Connection], object] | None
) -> None:
    """The chunk's items as the attempt leaves them."""
    write_outcomes(connection, lease.chunk_id, outcomes)
    twins.come_back(connection, lease.job_id, lease.chunk_id, outcomes)
    if last:
        last(connection)


def _complete_plan(connection: Connection, job_id: int, now: datetime) -> None:
    """The job's plan is complete: from now on its number of items is final."""
    connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(planned=True))
    total = ledger.tally(connection, job_id).total
    ledger.add_event(connection, job_id, now, "planned", f"{total:,} item{'s' if total != 1 else ''} found")

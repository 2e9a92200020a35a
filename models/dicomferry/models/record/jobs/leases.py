"""Working on a chunk under a lease: renew, record, finish. The end of leases whose holder died is in `loss`.

Every write about a running chunk is fenced: it names the fence of its claim and does nothing once somebody else holds
the chunk. Locks are taken in one order everywhere: worker, job, remote, chunk, items.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database, locking, run_many
from dicomferry.models.record.jobs import instructions as signals_of
from dicomferry.models.record.jobs import ledger, twins
from dicomferry.models.record.jobs.chunk_end import leave, left
from dicomferry.models.record.jobs.claims import PLAN, Lease
from dicomferry.models.record.jobs.instructions import Signals as Signals
from dicomferry.models.record.jobs.loss import MAX_DEATHS as MAX_DEATHS
from dicomferry.models.record.jobs.loss import expire as expire
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.remotes import breaker
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, JobRow
from dicomferry.models.rules.errors import LeaseLost
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.retry import Decision, Next
from dicomferry.models.rules.state import ITEM_TRANSITIONS, AttemptEnd, ChunkState, ItemState, step

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
_ATTEMPT = sa.update(AttemptRow.__table__).where(  # type: ignore[arg-type]
    AttemptRow.chunk_id == sa.bindparam("chunk"), AttemptRow.fence == sa.bindparam("held")
)
_FRUITFUL = {"barren": 0, "deaths": 0}


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


def finish(
    database: Database,
    lease: Lease,
    *,
    end: AttemptEnd,
    decision: Decision | None,
    outcomes: Sequence[Outcome] = (),
    finished_items: int = 0,
    detail: str | None = None,
    planned: bool = False,
    last: Callable[[Connection], object] | None = None,
    values: Mapping[str, object] | None = None,
) -> None:
    """End the attempt: its last outcomes, its end, the chunk's next state and the job's, in one transaction.

    `decision` is None where the attempt was interrupted; then the chunk goes back to pending, or where its job was
    cancelled or held meanwhile, to that, and the attempt ended as cancelled or interrupted, whatever `end` says.
    `finished_items` counts those that this attempt brought to an end, `planned` says that this was the plan and that
    it is complete. `last` may write more of this chunk's items first, in the same transaction, `values` are set on the
    chunk. Raises LeaseLost.
    """

    def work(connection: Connection) -> None:
        cancel, hold = fence(connection, lease, **(values or {}))
        now = database.now(connection)
        if decision and (decision.for_all or decision.leave_until):
            breaker.failed(connection, lease.remote_id, lease.chunk_id, decision, now, detail)
        elif lease.kind != PLAN and (finished_items or end is AttemptEnd.COMPLETED):
            breaker.mended(connection, lease.remote_id, lease.chunk_id, lease.fence, now)
        write_outcomes(connection, lease.chunk_id, outcomes)
        twins.come_back(connection, lease.job_id, lease.chunk_id, outcomes)
        if last:
            last(connection)
        if planned:
            connection.execute(sa.update(JobRow).where(JobRow.id == lease.job_id).values(planned=True))
            numbers = ledger.tally(connection, lease.job_id)
            ledger.add_event(
                connection,
                lease.job_id,
                now,
                "planned",
                f"{numbers.total:,} item{'s' if numbers.total != 1 else ''} found",
            )
        complete = planned or (lease.kind != PLAN and not left(connection, lease.chunk_id))
        asked = not complete and decision is None and (cancel or hold)
        connection.execute(
            _ATTEMPT,
            {
                "chunk": lease.chunk_id,
                "held": lease.fence,
                "end": (AttemptEnd.CANCELLED if cancel else AttemptEnd.INTERRUPTED) if asked else end,
                "ended_at": now,
                "reason": decision.reason if decision else None,
                "detail": detail,
                "finished_items": finished_items,
            },
        )
        leave(
            connection,
            lease.job_id,
            lease.chunk_id,
            now,
            cancel=cancel,
            hold=hold,
            complete=complete,
            decision=decision,
        )
        if finished_items and not (decision and decision.for_all):
            ledger.answered(connection, lease.chunk_id)
        if decision and decision.next is Next.RETRY and decision.reason and not complete:
            pause = ((decision.at or now) - now).total_seconds()
            when = f"next try in {pause:.0f} s" if pause >= 0.5 else "tried again at once"
            ledger.add_event(
                connection,
                lease.job_id,
                now,
                "retry",
                f"chunk {lease.chunk_id}: {detail or decision.reason}, {when}",
            )
            if decision.for_all:
                ledger.postpone(connection, lease.chunk_id, decision, now)
        ledger.derive(connection, lease.job_id, now)

    database.write(work)


def ended_alike(database: Database, lease: Lease, reason: str | None) -> int:
    """How many of the chunk's fruitless attempts in a row, counted back from this one, ended for this reason."""

    def work(connection: Connection) -> int:
        query = (
            sa.select(AttemptRow.reason)
            .where(AttemptRow.chunk_id == lease.chunk_id, AttemptRow.fence < lease.fence)
            .order_by(AttemptRow.fence.desc())
            .limit(lease.barren)
        )
        reasons = connection.execute(query).scalars()
        return sum(1 for _ in itertools.takewhile(lambda found: found == reason, reasons))

    return database.read(work)

"""What every writer of rows shares: the history, the numbers of a chunk, and the derived state of a job.

All of it runs inside the caller's transaction, with the job's row locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record import outbox
from dicomferry.models.record.database import AnyRow
from dicomferry.models.record.remotes import governor
from dicomferry.models.record.tables.jobs import ChunkRow, EventRow, ItemRow, JobRow
from dicomferry.models.rules import proof, spec
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.ending import Decision
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.state import (
    FINAL_JOB_STATES,
    JOB_TRANSITIONS,
    ChunkState,
    ItemState,
    JobState,
    Tally,
    derive_job,
    step,
)

UNVERIFIED = proof.UNVERIFIED
"""The reason of an instance that was sent elsewhere, as the archive says, or confirmed, where nobody could be asked
whether it is there."""
_ARRIVED = (ItemState.SUCCEEDED, ItemState.WARNING)
_TALLY = ("total", "succeeded", "warning", "failed", "skipped", "cancelled")
# Built once: they are part of every flush, or of every claim and end of an attempt.
_EVENT = sa.insert(EventRow.__table__)  # type: ignore[arg-type]
_JOB = sa.select(
    JobRow.state, JobRow.planned, JobRow.started_at, JobRow.kind, JobRow.busy_since, JobRow.busy_seconds
).where(JobRow.id == sa.bindparam("job"))
_ACTIVE = (ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD)
# Whether there are any, not how many: a retrieve of 100,000 requests has as many chunks, and asks at each of them.
_CHUNKS = sa.select(
    *(
        sa.exists().where(ChunkRow.job_id == sa.bindparam("job"), ChunkRow.state == state).label(state.value)
        for state in _ACTIVE
    )
)
_NUMBERS = (
    sa.select(ItemRow.state, sa.func.count().label("number"), sa.func.sum(ItemRow.sent_bytes).label("sent"))
    .where(ItemRow.chunk_id == sa.bindparam("chunk"))
    .group_by(ItemRow.state)
)
_SET_NUMBERS = sa.update(ChunkRow.__table__).where(ChunkRow.id == sa.bindparam("chunk"))  # type: ignore[arg-type]


def add_event(connection: Connection, job_id: int, at: datetime, kind: str, text: str) -> None:
    """Append one line to a job's history."""
    connection.execute(_EVENT, {"job_id": job_id, "at": at, "kind": kind, "text": text})


def recount(connection: Connection, chunk_id: int, **values: object) -> None:
    """Take a chunk's numbers from its items anew, so that writing an outcome twice cannot count it twice.

    `values` are set on the chunk's row along with them.
    """
    numbers = dict.fromkeys(_TALLY, 0)
    sent_bytes = 0
    for row in connection.execute(_NUMBERS, {"chunk": chunk_id}):
        numbers["total"] += row.number
        sent_bytes += int(row.sent or 0)
        if row.state is not ItemState.PENDING:
            numbers[row.state] = row.number
    connection.execute(_SET_NUMBERS, {"chunk": chunk_id, "sent_bytes": sent_bytes, **numbers, **values})


def name_of(connection: Connection, chunk_id: int) -> str:
    """A chunk as people may know it: of a retrieve or a find by its request, or by the first of several."""
    query = sa.select(sa.func.min(ItemRow.row), sa.func.count()).where(
        ItemRow.chunk_id == chunk_id, ItemRow.kind == "request", ItemRow.row.is_not(None)
    )
    row, number = connection.execute(query).one()
    if row is None:
        return f"chunk {chunk_id}"
    return f"chunk {chunk_id}, request {row}" + (f" and {number - 1:,} more" if number > 1 else "")


def tally(connection: Connection, job_id: int) -> Tally:
    """The job's numbers of items: sums over its chunks."""
    return tallies(connection, [job_id]).get(job_id, Tally())


def tallies(connection: Connection, job_ids: Sequence[int]) -> dict[int, Tally]:
    """The tally of each of several jobs, by job id; jobs without a chunk are left out."""
    sums = [sa.func.sum(getattr(ChunkRow, name)).label(name) for name in _TALLY]
    rows = connection.execute(
        sa.select(ChunkRow.job_id, *sums).where(ChunkRow.job_id.in_(job_ids)).group_by(ChunkRow.job_id)
    )
    return {row.job_id: Tally(**{name: int(getattr(row, name)) for name in _TALLY}) for row in rows}


def matches(connection: Connection, job_id: int) -> int:
    """How many answers to C-FIND count for a job."""
    number: int = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(ChunkRow.matches), 0)).where(ChunkRow.job_id == job_id)
    ).scalar_one()
    return int(number)


def derive(connection: Connection, job_id: int, now: datetime) -> JobState:
    """Bring the job's state in line with its items and chunks, and write its end when it has come."""
    job = connection.execute(_JOB, {"job": job_id}).one()
    found = connection.execute(_CHUNKS, {"job": job_id}).one()
    chunks = {state for state in _ACTIVE if getattr(found, state.value)}
    started = job.started_at is not None or ChunkState.RUNNING in chunks
    active = bool(chunks)
    numbers = Tally() if active else tally(connection, job_id)
    partial = not active and _is_partial(connection, job_id, job.kind, numbers)
    # Looked up where it may matter only: what a job asks for may be long.
    idle = job.kind == Kind.STORE and not active and numbers.skipped == numbers.total
    new = derive_job(
        numbers,
        planned=job.planned,
        chunks=chunks,
        started=started,
        partial=partial,
        empty_is_well=idle and _allows_empty(connection, job_id),
    )
    values = _busy(job, ChunkState.RUNNING in chunks, now)
    if started and job.started_at is None:
        values["started_at"] = now
    if new is not job.state:
        values["state"] = step(JOB_TRANSITIONS, job.state, new)
        if new in FINAL_JOB_STATES:
            values |= {"finished_at": now, "reason": _reason(connection, job_id, job.kind, new, numbers)}
            if job.kind == Kind.STORE:
                values["verified"] = proof.of_store(
                    delivered=numbers.succeeded + numbers.warning,
                    unverified=numbers.failed > 0 and _is_unverified(connection, job_id),
                )
            elif job.kind in RETRIEVES:
                values["verified"] = _verified(connection, job_id)
            add_event(
                connection,
                job_id,
                now,
                "cancelled" if new is JobState.CANCELLED else "ended",
                _sentence(new, numbers, _requests(connection, job_id) if job.kind in RETRIEVES else None),
            )
        elif job.state in FINAL_JOB_STATES:
            values |= {"finished_at": None, "reason": None, "verified": None}
        if new in FINAL_JOB_STATES or new is JobState.HELD:
            outbox.job_ended(connection, job_id, new, now)
    if values:
        connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(**values))
    return new


def _allows_empty(connection: Connection, job_id: int) -> bool:
    """Whether a store with nothing to send is no failure."""
    asked = connection.execute(sa.select(JobRow.kind, JobRow.spec).where(JobRow.id == job_id)).one()
    found = spec.from_json(asked.kind, asked.spec)
    return isinstance(found, spec.StoreSpec) and found.allow_empty


def _busy(job: AnyRow, runs: bool, now: datetime) -> dict[str, object]:
    """How long something of a job has run, what ran at the same time counted once; what has changed of it."""
    if runs == (job.busy_since is not None):
        return {}
    if runs:
        return {"busy_since": now}
    ran = max((now - job.busy_since).total_seconds(), 0.0)
    return {"busy_since": None} | ({} if job.busy_seconds is None else {"busy_seconds": job.busy_seconds + ran})


def _is_partial(connection: Connection, job_id: int, kind: str, numbers: Tally) -> bool:
    """Whether what failed left something: matches of a find that broke off, instances that were confirmed and could not
    be looked for.
    """
    if kind == Kind.FIND:
        return matches(connection, job_id) > 0
    return kind == Kind.STORE and numbers.failed > 0 and _is_unverified(connection, job_id)


def _is_unverified(connection: Connection, job_id: int) -> bool:
    """Whether anything of a job was to be seen where it went, and nobody could be asked."""
    told = sa.select(ItemRow.id).where(ItemRow.job_id == job_id, ItemRow.reason == UNVERIFIED)
    return connection.execute(told.limit(1)).first() is not None


def _verified(connection: Connection, job_id: int) -> str:
    """How sure a retrieve is of what it has: as the request that is least so, of those that brought anything."""
    brought = sa.select(ItemRow.request_id).where(
        ItemRow.job_id == job_id, ItemRow.request_id.is_not(None), ItemRow.state.in_(_ARRIVED)
    )
    if _is_unverified(connection, job_id):
        return "none"
    found = connection.execute(
        sa.select(ItemRow.verified)
        .where(ItemRow.job_id == job_id, ItemRow.kind == "request", ItemRow.id.in_(brought))
        .distinct()
    ).scalars()
    return proof.weakest(found)


def _requests(connection: Connection, job_id: int) -> Tally:
    """The requests of a retrieve by state: they are told apart from their instances."""
    query = sa.select(ItemRow.state, sa.func.count().label("number")).where(
        ItemRow.job_id == job_id, ItemRow.kind == "request"
    )
    found = {row.state.value: row.number for row in connection.execute(query.group_by(ItemRow.state))}
    return Tally(total=sum(found.values()), **{name: found.get(name, 0) for name in _TALLY[1:]})


def _sentence(state: JobState, numbers: Tally, requests: Tally | None) -> str:
    if requests is None:
        return f"{state}: {_counted(numbers)}"
    return f"{state}: of requests {_counted(requests)}; of instances {_counted(numbers - requests)}"


def _counted(numbers: Tally) -> str:
    return ", ".join(f"{getattr(numbers, name):,} {name}" for name in _TALLY[1:] if getattr(numbers, name)) or "none"


def _reason(connection: Connection, job_id: int, kind: str, state: JobState, numbers: Tally) -> str | None:
    """Why a job ended as it did: the commonest reason of a chunk's failed items stands for all.

    A find that succeeded says what it was warned of: that it may not have seen everything.
    """
    if state is JobState.SUCCEEDED:
        return _commonest(connection, job_id, ItemState.WARNING) if kind == Kind.FIND and numbers.warning else None
    if state is JobState.CANCELLED:
        return Reason.CANCELLED
    return _commonest(connection, job_id, ItemState.FAILED) if numbers.failed else Reason.NOTHING_TO_DO


def _commonest(connection: Connection, job_id: int, state: ItemState) -> str | None:
    """The reason of most items in this state of the chunk that has most of them."""
    number = getattr(ChunkRow, state.value)
    chunk_id = connection.execute(
        sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id, number > 0).order_by(number.desc()).limit(1)
    ).scalar_one()
    reason: str | None = connection.execute(
        sa.select(ItemRow.reason)
        .where(ItemRow.chunk_id == chunk_id, ItemRow.state == state)
        .group_by(ItemRow.reason)
        .order_by(sa.func.count().desc())
        .limit(1)
    ).scalar_one()
    return reason


def cancel_items(connection: Connection, chunk_ids: Sequence[int]) -> None:
    """Pending items of these chunks become `cancelled`, and the chunks' numbers with them."""
    for some in batches(chunk_ids):
        connection.execute(
            sa.update(ItemRow)
            .where(ItemRow.chunk_id.in_(some), ItemRow.state == ItemState.PENDING)
            .values(state=ItemState.CANCELLED, reason=Reason.CANCELLED)
        )
        connection.execute(
            sa.update(ChunkRow)
            .where(ChunkRow.id.in_(some))
            .values(
                cancelled=ChunkRow.total - ChunkRow.succeeded - ChunkRow.warning - ChunkRow.failed - ChunkRow.skipped
            )
        )


def hold_chunks(connection: Connection, job_id: int, *, reason: str | None, advice: str | None) -> None:
    """What waits of a job is held as well, so that a refusal for good is asked for once and not per chunk."""
    connection.execute(
        sa.update(ChunkRow)
        .where(governor.lock_waiting(connection, ChunkRow.job_id == job_id))
        .values(state=ChunkState.HELD, reason=reason, advice=advice)
    )


def postpone(connection: Connection, chunk_id: int, decision: Decision, now: datetime) -> None:
    """What waits for the same remote does not try before this chunk does: it was the one to find out."""
    remote_id = sa.select(ChunkRow.remote_id).where(ChunkRow.id == chunk_id).scalar_subquery()
    connection.execute(
        sa.update(ChunkRow)
        .where(governor.lock_waiting(connection, ChunkRow.remote_id == remote_id, ChunkRow.not_before < decision.at))
        .values(
            not_before=decision.at,
            waits_from=now,
            reason=decision.reason,
            advice=decision.advice,
            waiting_since=sa.func.coalesce(ChunkRow.waiting_since, sa.literal(now, ChunkRow.waiting_since.type)),
        )
    )


def answered(connection: Connection, chunk_id: int) -> None:
    """The remote of this chunk takes items again: whatever waited along with another chunk has waited enough.

    Otherwise its first fault, hours later, would count as the end of that long a wait.
    """
    remote_id = sa.select(ChunkRow.remote_id).where(ChunkRow.id == chunk_id).scalar_subquery()
    connection.execute(
        sa.update(ChunkRow)
        .where(
            governor.lock_waiting(
                connection, ChunkRow.remote_id == remote_id, ChunkRow.waiting_since.is_not(None), ChunkRow.barren == 0
            )
        )
        .values(waiting_since=None)
    )

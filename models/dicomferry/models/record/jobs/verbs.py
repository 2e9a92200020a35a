"""Jobs as a person changes them: submit, cancel, hold, release, retry."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database, locking
from dicomferry.models.record.jobs import ledger, plans
from dicomferry.models.record.jobs.claims import PLAN
from dicomferry.models.record.remotes import breaker
from dicomferry.models.record.retrieves import proofs
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, JobRow
from dicomferry.models.rules import ending, proof, spec
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import CHUNK_TRANSITIONS, FINAL_JOB_STATES, ChunkState, ItemState, JobState, step

TO_BE_VERIFIED = Reason.TO_BE_VERIFIED
"""The reason of an item that was confirmed and not yet looked for at the remote."""
MOST_WORDS = 500
"""Characters of a person's reason."""
PRIORITIES: Mapping[str, int] = {"low": 0, "normal": 1, "high": 2}


def submit(
    database: Database,
    what: spec.Spec,
    remote_id: int,
    *,
    label: str | None = None,
    priority: str = "normal",
    not_before: datetime | None = None,
    ignore_window: bool = False,
) -> int:
    """Write the job, its first chunk and its first event in one transaction that survives a power cut; the job's id."""
    token = uuid.uuid4().hex

    def work(connection: Connection) -> int:
        # The token makes a second run, after a connection lost in the commit, find the first one's job.
        present = connection.execute(sa.select(JobRow.id).where(JobRow.token == token)).scalar_one_or_none()
        if present is not None:
            return present
        return insert(
            connection,
            database.now(connection),
            what,
            remote_id,
            token=token,
            label=label,
            priority=priority,
            not_before=not_before,
            ignore_window=ignore_window,
        )

    return database.write_once(work)


def insert(
    connection: Connection,
    now: datetime,
    what: spec.Spec,
    remote_id: int,
    *,
    token: str | None = None,
    label: str | None = None,
    priority: str = "normal",
    not_before: datetime | None = None,
    ignore_window: bool = False,
    by: str = "",
) -> int:
    """Submit a job as `submit` does, in the caller's transaction; `by` says who submitted it, if not a person."""
    job_id: int = connection.execute(
        sa.insert(JobRow)
        .values(
            token=token or uuid.uuid4().hex,
            kind=what.kind,
            spec=spec.to_json(what),
            remote_id=remote_id,
            destination=getattr(what, "destination", None),
            label=label,
            priority=PRIORITIES[priority],
            ignore_window=ignore_window,
            state=JobState.PENDING,
            planned=not what.planned,
            cancel_asked=False,
            hold_asked=False,
            submitted_at=now,
        )
        .returning(JobRow.id)
    ).scalar_one()
    chunk = plans.new_chunk(
        job_id,
        kind=PLAN if what.planned else what.kind,
        lane=what.lane,
        priority=PRIORITIES[priority],
        remote_id=None if what.planned else remote_id,
        not_before=not_before or now,
        waits_from=None if not_before else now,
        total=0 if what.planned else 1,
    )
    if not_before:
        chunk["reason"] = Reason.NOT_BEFORE
    chunk_id = connection.execute(sa.insert(ChunkRow).values(**chunk).returning(ChunkRow.id)).scalar_one()
    if not what.planned:
        item = {
            "job_id": job_id,
            "chunk_id": chunk_id,
            "kind": "request",
            "is_first": True,
            "state": ItemState.PENDING,
        }
        connection.execute(sa.insert(ItemRow).values(**item))
    urgent = ", to run outside of the remote's window as well" if ignore_window else ""
    ledger.add_event(connection, job_id, now, "submitted", f"{what.kind} job submitted{by}{urgent}")
    return job_id


def cancel(database: Database, job_id: int) -> JobState:
    """Cancel what waits at once and ask what runs to stop; the job's state after that. Raises NotFound, UsageError."""

    def work(connection: Connection) -> JobState:
        job = _locked(connection, job_id)
        if job.state in FINAL_JOB_STATES:
            raise UsageError(f"job {job_id} has ended ({job.state}); there is nothing to cancel")
        now = database.now(connection)
        connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(cancel_asked=True, hold_asked=False))
        waiting = _chunks_in(connection, job_id, ChunkState.PENDING, ChunkState.HELD)
        ledger.cancel_items(connection, waiting)
        _set_chunks(
            connection,
            job_id,
            (ChunkState.PENDING, ChunkState.HELD),
            state=ChunkState.CANCELLED,
            reason=None,
            advice=None,
        )
        if not job.cancel_asked:
            ledger.add_event(connection, job_id, now, "cancelled", "cancel asked for")
        return ledger.derive(connection, job_id, now)

    return database.write_once(work)


def hold(database: Database, job_id: int) -> JobState:
    """Hold what waits at once and ask what runs to stop; the job's state after that. Raises NotFound, UsageError."""

    def work(connection: Connection) -> JobState:
        job = _locked(connection, job_id)
        _refuse_ended(job, "hold")
        now = database.now(connection)
        connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(hold_asked=True))
        ledger.hold_chunks(connection, job_id, reason=ending.BY_PERSON, advice=ending.RELEASE)
        if not job.hold_asked:
            ledger.add_event(connection, job_id, now, "held", "hold asked for")
        return ledger.derive(connection, job_id, now)

    return database.write_once(work)


def release(database: Database, job_id: int) -> JobState:
    """Let a held job go on with a fresh budget, and one that waits for a time that we computed at once; its state
    after that. Windows, limits and times that a person gave stay as they are. Raises NotFound, UsageError.
    """

    def work(connection: Connection) -> JobState:
        job = _locked(connection, job_id)
        _refuse_ended(job, "release")
        now = database.now(connection)
        held = _chunks_in(connection, job_id, ChunkState.HELD)
        woken = breaker.make_due(connection, now, ChunkRow.job_id == job_id)
        if not held and not job.hold_asked and not woken:
            raise UsageError(f"job {job_id} is not held, and waits for nothing that this would end ({job.state})")
        connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(hold_asked=False))
        breaker.reset(connection, job.remote_id, now)
        _set_chunks(connection, job_id, (ChunkState.HELD,), **_fresh(now))
        waits = "" if held or job.hold_asked else ": what waits is tried now"
        ledger.add_event(connection, job_id, now, "released", f"released{waits}")
        return ledger.derive(connection, job_id, now)

    return database.write_once(work)


def retry(database: Database, job_id: int) -> int:
    """Try what an ended job did not finish again, with a fresh budget; how many items that are.

    What the plan found wanting is examined again, without a new walk. Raises NotFound, UsageError.
    """

    def work(connection: Connection) -> int:
        job = _locked(connection, job_id)
        if job.state not in FINAL_JOB_STATES:
            raise UsageError(
                f"job {job_id} has not ended ({job.state}); only ended jobs are retried. "
                f"`dicomferry jobs release {job_id}` lets what is held or waits go on"
            )
        now = database.now(connection)
        breaker.reset(connection, job.remote_id, now)
        unfinished = sa.and_(
            ItemRow.state.in_((ItemState.FAILED, ItemState.CANCELLED)),
            ItemRow.chunk_id.in_(
                sa.select(ChunkRow.id).where(
                    ChunkRow.job_id == job_id, sa.or_(ChunkRow.failed > 0, ChunkRow.cancelled > 0)
                )
            ),
        )
        _move_out_of_plan(connection, job, now)
        touched = connection.execute(sa.select(ItemRow.chunk_id).where(unfinished).distinct()).scalars().all()
        connection.execute(
            sa.update(ItemRow)
            .where(unfinished, ItemRow.kind == "request", ItemRow.expectation.is_not(None))
            .values(relisted=proofs.WAITS)
        )
        # What was confirmed and could not be looked for is looked for again; what was answered stays with it.
        confirmed = sa.and_(ItemRow.reason == proof.UNVERIFIED, ItemRow.kind == "instance")
        number: int = connection.execute(
            sa.update(ItemRow)
            .where(unfinished)
            .values(
                state=ItemState.PENDING,
                status=sa.case((confirmed, ItemRow.status), else_=sa.null()),
                reason=sa.case((confirmed, TO_BE_VERIFIED), else_=sa.null()),
                detail=None,
                charges=0,
                losses=0,
            )
        ).rowcount
        for chunk_id in touched:
            ledger.recount(connection, chunk_id)
        unplanned = sa.and_(ChunkRow.kind == PLAN, ChunkRow.state == ChunkState.CANCELLED)
        revived = connection.execute(
            sa.update(ChunkRow)
            .where(ChunkRow.job_id == job_id, sa.or_(ChunkRow.id.in_(touched), unplanned))
            .values(**_fresh(now))
        ).rowcount
        if not revived:
            raise UsageError(f"job {job_id} has nothing to retry: every item is finished ({job.state})")
        fresh = {"cancel_asked": False, "hold_asked": False, "accepted_at": None, "accepted_reason": None}
        connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(**fresh))
        ledger.add_event(
            connection,
            job_id,
            now,
            "retry",
            f"{number} items are tried again" if number else "the plan goes on",
        )
        ledger.derive(connection, job_id, now)
        return number

    return database.write_once(work, slow=True)  # a million items


def accept(database: Database, job_id: int, reason: str) -> JobState:
    """Write down that a person takes a job as it ended, and why; its state, which stays what it is.

    Raises NotFound, UsageError.
    """
    text = reason.strip()
    if not text or len(text) > MOST_WORDS:
        raise UsageError(f"--reason: 1 to {MOST_WORDS} characters that tell others why this is good as it is")

    def work(connection: Connection) -> JobState:
        job = _locked(connection, job_id)
        if job.state not in (JobState.INCOMPLETE, JobState.FAILED):
            raise UsageError(f"job {job_id} is {job.state}: only what ended incomplete or failed is accepted as it is")
        now = database.now(connection)
        connection.execute(sa.update(JobRow).where(JobRow.id == job_id).values(accepted_at=now, accepted_reason=text))
        if job.accepted_reason != text:
            ledger.add_event(connection, job_id, now, "accepted", f"accepted as it is: {text}")
        return JobState(job.state)

    return database.write_once(work)


def _move_out_of_plan(connection: Connection, job: AnyRow, now: datetime) -> None:
    """Items that failed in the plan go to chunks of their own, where they can be sent."""
    plan = connection.execute(
        sa.select(ChunkRow.id, ChunkRow.lane, ChunkRow.priority).where(
            ChunkRow.job_id == job.id, ChunkRow.kind == PLAN, ChunkRow.failed > 0
        )
    ).one_or_none()
    if plan is None:
        return
    failed = (
        connection.execute(
            sa.select(ItemRow.id)
            .where(ItemRow.chunk_id == plan.id, ItemRow.state == ItemState.FAILED)
            .order_by(ItemRow.id)
        )
        .scalars()
        .all()
    )
    for some in batches(failed, plans.MAX_INSTANCES):
        chunk = plans.new_chunk(
            job.id,
            kind=job.kind,
            lane=plan.lane,
            priority=plan.priority,
            remote_id=job.remote_id,
            not_before=now,
            waits_from=now,
            total=len(some),
            failed=len(some),
        )
        chunk_id = connection.execute(sa.insert(ChunkRow).values(**chunk).returning(ChunkRow.id)).scalar_one()
        connection.execute(sa.update(ItemRow).where(ItemRow.id.in_(some)).values(chunk_id=chunk_id))
    connection.execute(
        sa.update(ChunkRow)
        .where(ChunkRow.id == plan.id)
        .values(total=ChunkRow.total - len(failed), failed=ChunkRow.failed - len(failed))
    )


def _fresh(now: datetime) -> dict[str, Any]:
    """A chunk that may be tried as if it were new."""
    return {
        "state": ChunkState.PENDING,
        "not_before": now,
        "waits_from": now,
        "reason": None,
        "advice": None,
        "barren": 0,
        "deaths": 0,
        "round": 0,
        "waiting_since": None,
        "careful": False,
    }


def _locked(connection: Connection, job_id: int) -> AnyRow:
    row = connection.execute(locking(sa.select(JobRow.__table__).where(JobRow.id == job_id))).one_or_none()
    if row is None or row.pruned_at is not None:
        raise NotFound(f"no job {job_id}; see `dicomferry jobs list`")
    return row


def _refuse_ended(job: AnyRow, verb: str) -> None:
    if job.state in FINAL_JOB_STATES:
        raise UsageError(f"job {job.id} has ended ({job.state}); there is nothing to {verb}")


def _chunks_in(connection: Connection, job_id: int, *states: ChunkState) -> Sequence[int]:
    return (
        connection.execute(sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id, ChunkRow.state.in_(states)))
        .scalars()
        .all()
    )


def _set_chunks(connection: Connection, job_id: int, states: Sequence[ChunkState], **values: Any) -> None:
    for state in states:
        step(CHUNK_TRANSITIONS, state, values["state"])
    connection.execute(
        sa.update(ChunkRow).where(ChunkRow.job_id == job_id, ChunkRow.state.in_(states)).values(**values)
    )

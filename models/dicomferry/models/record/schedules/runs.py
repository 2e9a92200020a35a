"""What becomes of the due times of schedules: each is settled once, however many schedulers look.

Whoever moves `next_due` on has settled what was due until then, and writes runs and jobs in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record import outbox
from dicomferry.models.record.database import AnyRow, Database, locking
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.schedules.rows import of_row
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.record.tables.schedules import RunRow, ScheduleRow
from dicomferry.models.rules import spec, timetable
from dicomferry.models.rules.schedule import Schedule
from dicomferry.models.rules.state import JobState
from dicomferry.models.rules.timetable import CatchUp, Missed, Overlap, Plan

SUBMITTED, WAITING, SKIPPED, MISSED, REFUSED = "submitted", "waiting", "skipped", "missed", "refused"
NO_JOB = (SKIPPED, MISSED, REFUSED)
STILL_RUNS, PAUSED, REMOVED, NOT_SUBMITTED = "previous job has not ended", "paused", "removed", "cannot be submitted"
MOST_WAITING = 100
"""Runs of a schedule that may wait for its job to end."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job as a submit command asks for it; `options` are those of `jobs.verbs.submit`."""

    what: spec.Spec
    remote_id: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class RunRefusal:
    """Why there is no job: what the submit command would say."""

    text: str


def due(database: Database) -> tuple[datetime, list[Schedule]]:
    """Now, and the schedules of which something is due. Raises OutOfReach."""

    def work(connection: Connection) -> tuple[datetime, list[Schedule]]:
        now = database.now(connection)
        query = (
            sa.select(ScheduleRow.__table__)
            .where(ScheduleRow.next_due <= now, ScheduleRow.paused_at.is_(None), ScheduleRow.removed_at.is_(None))
            .order_by(ScheduleRow.next_due)
        )
        return now, [of_row(row) for row in connection.execute(query)]

    return database.read(work)


def settle(
    database: Database, found: Schedule, plan: Plan, orders: Mapping[datetime, Order | RunRefusal]
) -> Sequence[int] | None:
    """Write what the plan says of all that is due, and the jobs of what fires; their ids.

    None when another scheduler was first, or the schedule was changed meanwhile: then nothing was written.
    """

    def work(connection: Connection) -> Sequence[int] | None:
        if not take(connection, found, counted_from=plan.settled, next_due=plan.following):
            return None
        now = database.now(connection)
        for missed in plan.missed:
            miss(connection, found.id, missed, now, _late(found, missed, now))
        jobs = [_fire(connection, found, slot, orders[slot], now) for slot in plan.fire]
        return [job for job in jobs if job is not None]

    return database.write(work, durable=True)


def _fire(
    connection: Connection, found: Schedule, slot: datetime, order: Order | RunRefusal, now: datetime
) -> int | None:
    busy = _live_job(connection, found.id)
    query = sa.select(sa.func.count()).where(RunRow.schedule_id == found.id, RunRow.state == WAITING)
    queue = connection.execute(query).scalar_one()
    if not busy and not queue:
        values = _submit(connection, found, slot, order, now)
    else:
        state = WAITING if found.overlap is Overlap.QUEUE and queue < MOST_WAITING else SKIPPED
        detail = f"job {busy.id} is {busy.state}" if busy else f"{queue} wait before it"
        values = {"state": state, "reason": STILL_RUNS, "detail": detail, "job_id": None}
    _write_run(connection, found.id, slot, now, **values)
    job_id: int | None = values["job_id"]
    return job_id


class Waiting(NamedTuple):
    """A run that waits until the job of an earlier run has ended."""

    id: int
    due_at: datetime


def waiting(database: Database) -> list[tuple[Waiting, Schedule]]:
    """The runs whose turn has come: of each schedule of which no job is under way, the first that waits."""

    def work(connection: Connection) -> list[tuple[Waiting, Schedule]]:
        first = sa.select(sa.func.min(RunRow.id)).where(RunRow.state == WAITING).group_by(RunRow.schedule_id)
        found = []
        for run in connection.execute(sa.select(RunRow.__table__).where(RunRow.id.in_(first))).all():
            row = connection.execute(sa.select(ScheduleRow.__table__).where(ScheduleRow.id == run.schedule_id)).one()
            if row.paused_at is None and not _live_job(connection, row.id):
                found.append((Waiting(run.id, run.due_at), of_row(row)))
        return found

    return database.read(work)


def end_waiting(database: Database, run: Waiting, found: Schedule, order: Order | RunRefusal) -> int | None:
    """Submit the job of a run that waited; its id. None when another scheduler was first, or there is no job."""

    def work(connection: Connection) -> int | None:
        connection.execute(locking(sa.select(ScheduleRow.id).where(ScheduleRow.id == found.id)))
        state = connection.execute(sa.select(RunRow.state).where(RunRow.id == run.id)).scalar_one_or_none()
        if state != WAITING or _live_job(connection, found.id):
            return None

        now = database.now(connection)
        values = _submit(connection, found, run.due_at, order, now)
        connection.execute(sa.update(RunRow).where(RunRow.id == run.id).values(at=now, **values))
        _notify(connection, run.id, values["state"], now)
        job_id: int | None = values["job_id"]
        return job_id

    return database.write(work, durable=True)


def by_hand(database: Database, schedule: Schedule, order: Order) -> int:
    """Submit the schedule's job now, whatever else of it runs; the job's id. Raises OutOfReach."""

    def work(connection: Connection) -> int:
        now = database.now(connection)
        job_id = verbs.insert(
            connection,
            now,
            order.what,
            order.remote_id,
            **_named(schedule, order),
            by=f" by hand from schedule {schedule.name}",
        )
        _write_run(connection, schedule.id, now, now, state=SUBMITTED, by_hand=True, job_id=job_id)
        return job_id

    return database.write_once(work)


def _submit(
    connection: Connection, found: Schedule, slot: datetime, order: Order | RunRefusal, now: datetime
) -> dict[str, Any]:
    """Write the job of a due time; what its run is then, or why there is no job."""
    if isinstance(order, RunRefusal):
        return {"state": REFUSED, "reason": NOT_SUBMITTED, "detail": order.text, "job_id": None}
    by = f" by schedule {found.name}, due {found.minute(slot)}"
    job_id = verbs.insert(connection, now, order.what, order.remote_id, **_named(found, order), by=by)
    return {"state": SUBMITTED, "reason": None, "detail": None, "job_id": job_id}


def _named(found: Schedule, order: Order) -> dict[str, Any]:
    """The order's options; a job without a label is known by its schedule."""
    return {**order.options, "label": order.options.get("label") or found.name}


def miss(connection: Connection, schedule_id: int, missed: Missed, now: datetime, detail: str) -> None:
    """Write down that due times came to nothing."""
    several = {"last_due_at": missed.last, "number": missed.number}
    _write_run(connection, schedule_id, missed.first, now, state=MISSED, reason=missed.reason, detail=detail, **several)


def _write_run(connection: Connection, schedule_id: int, due_at: datetime, now: datetime, **values: Any) -> None:
    row = {"schedule_id": schedule_id, "due_at": due_at, "last_due_at": due_at, "number": 1, "by_hand": False}
    row |= {"at": now, **values}
    run_id = connection.execute(sa.insert(RunRow).values(**row).returning(RunRow.id)).scalar_one()
    _notify(connection, run_id, values["state"], now)


def _notify(connection: Connection, run_id: int, state: str, now: datetime) -> None:
    """A run that comes to no job is told of as the end of one is."""
    if state in NO_JOB:
        outbox.run_came_to_nothing(connection, run_id, state, now)


def _late(found: Schedule, missed: Missed, now: datetime) -> str:
    """What was met: when a scheduler came, and what the schedule says about that."""
    came = f"no scheduler looked before {found.minute(now)}; catch-up is {found.policy.catch_up}"
    if missed.reason == timetable.TOO_LATE and found.policy.catch_up is not CatchUp.SKIP:
        return f"{came}, with a grace of {found.policy.grace:g} s"
    return f"{came}, {found.policy.cap} at most" if missed.reason == timetable.OVER_CAP else came


def _live_job(connection: Connection, schedule_id: int) -> AnyRow | None:
    """A job of this schedule that is under way. One that is held waits for a person, and silences no later night."""
    return connection.execute(
        sa.select(JobRow.id, JobRow.state)
        .join(RunRow, RunRow.job_id == JobRow.id)
        .where(RunRow.schedule_id == schedule_id, JobRow.state.in_((JobState.PENDING, JobState.RUNNING)))
        .limit(1)
    ).first()


def take(connection: Connection, found: Schedule, **values: Any) -> bool:
    """Change a schedule unless someone else did since it was read."""
    return bool(
        connection.execute(
            sa.update(ScheduleRow)
            .where(
                ScheduleRow.id == found.id,
                ScheduleRow.next_due == found.next_due,
                ScheduleRow.paused_at.is_not_distinct_from(found.paused_at),
                ScheduleRow.removed_at.is_(None),
            )
            .values(**values)
        ).rowcount
    )

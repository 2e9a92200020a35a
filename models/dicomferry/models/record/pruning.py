"""Removing old jobs and old runs of schedules, in many short transactions, so that no worker waits for long.

A job that is being removed is marked first, and gone for everyone from then on; whoever dies in the middle leaves it to
the next one. What arrived, and which job asked for it, stays: that is the history of the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.outbox import PENDING
from dicomferry.models.record.schedules import runs as schedule_runs
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, EventRow, ItemRow, JobRow, MatchRow, MoveRow
from dicomferry.models.record.tables.schedules import NotificationRow, RunRow, ScheduleRow
from dicomferry.models.rules.state import FINAL_JOB_STATES

JOBS_AT_ONCE = 100
ROWS_AT_ONCE = 1000
"""In one transaction."""
_ROWS = (MatchRow, MoveRow, ItemRow, AttemptRow, EventRow, ChunkRow)
"""What belongs to jobs: each after what refers to it."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What is removed, or would be. `runs` are those of schedules."""

    jobs: int = 0
    items: int = 0
    matches: int = 0
    runs: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            jobs=self.jobs + other.jobs,
            items=self.items + other.items,
            matches=self.matches + other.matches,
            runs=self.runs + other.runs,
        )

    def __bool__(self) -> bool:
        return any(astuple(self))


@dataclass(frozen=True, kw_only=True)
class Age:
    """Something must have ended before that; and somebody may still be told of what came about since `untold`."""

    before: datetime
    untold: datetime


def age(database: Database, seconds: float, *, told_within: float) -> Age:
    """Older than so many seconds by the record's clock; notifications are given up after `told_within`."""
    now = database.read(database.now)
    return Age(before=now - timedelta(seconds=seconds), untold=now - timedelta(seconds=told_within))


def extent(database: Database, old: Age) -> Pruned:
    """What `prune` would remove now. Raises OutOfReach."""

    def work(connection: Connection) -> Pruned:
        jobs = sa.or_(JobRow.pruned_at.is_not(None), _old_jobs(old))
        sums = sa.select(
            sa.func.count(JobRow.id.distinct()),
            sa.func.coalesce(sa.func.sum(ChunkRow.total), 0),
            sa.func.coalesce(sa.func.sum(ChunkRow.matches), 0),
        )
        number, items, matches = connection.execute(
            sums.select_from(JobRow).outerjoin(ChunkRow, ChunkRow.job_id == JobRow.id).where(jobs)
        ).one()
        runs = connection.execute(sa.select(sa.func.count()).select_from(RunRow).where(_old_runs(old))).scalar_one()
        return Pruned(jobs=int(number), items=int(items), matches=int(matches), runs=int(runs))

    return database.read(work)


def prune(
    database: Database, old: Age, *, jobs_at_once: int = JOBS_AT_ONCE, rows_at_once: int = ROWS_AT_ONCE
) -> Iterator[Pruned]:
    """Remove it step by step; what each transaction removed. May be given up after any of them. Raises OutOfReach."""
    while jobs := _mark(database, old, jobs_at_once):
        for table in _ROWS:
            while number := _remove(database, table, table.job_id.in_(jobs), rows_at_once):
                yield Pruned(
                    items=number if table is ItemRow else 0,
                    matches=number if table is MatchRow else 0,
                )
        yield Pruned(jobs=_remove_jobs(database, jobs))
    while number := _remove(database, RunRow, _old_runs(old), rows_at_once):
        yield Pruned(runs=number)
    database.write(lambda connection: _remove_schedules(connection, old))


def _old_jobs(old: Age) -> sa.ColumnElement[bool]:
    """Ended long enough ago, and nobody is still to be told."""
    untold = sa.select(NotificationRow.id).where(
        NotificationRow.job_id == JobRow.id, NotificationRow.outcome == PENDING, NotificationRow.at >= old.untold
    )
    return sa.and_(
        JobRow.state.in_(list(FINAL_JOB_STATES)),
        JobRow.finished_at < old.before,
        JobRow.pruned_at.is_(None),
        ~untold.exists(),
    )


def _old_runs(old: Age) -> sa.ColumnElement[bool]:
    """Settled long enough ago; the newest of a schedule stays as long as that does, so that it does not look unused."""
    every = RunRow.__table__.alias("every")
    newest = (
        sa.select(sa.func.max(every.c.id))
        .join(ScheduleRow, ScheduleRow.id == every.c.schedule_id)
        .where(ScheduleRow.removed_at.is_(None))
        .group_by(every.c.schedule_id)
    )
    untold = sa.select(NotificationRow.id).where(
        NotificationRow.run_id == RunRow.id, NotificationRow.outcome == PENDING, NotificationRow.at >= old.untold
    )
    job = sa.select(JobRow.id).where(JobRow.id == RunRow.job_id, ~_old_jobs(old), JobRow.pruned_at.is_(None))
    return sa.and_(
        RunRow.state != schedule_runs.WAITING,
        RunRow.at < old.before,
        RunRow.id.not_in(newest),
        ~untold.exists(),
        ~job.exists(),
    )


def _mark(database: Database, old: Age, most: int) -> list[int]:
    """A few jobs to be removed now, marked: those that somebody has begun with, or the oldest others."""

    def work(connection: Connection) -> list[int]:
        begun = sa.select(JobRow.id).where(JobRow.pruned_at.is_not(None)).order_by(JobRow.id).limit(most)
        found = list(connection.execute(begun).scalars())
        if found:
            return found
        some = sa.select(JobRow.id).where(_old_jobs(old)).order_by(JobRow.id).limit(most).with_for_update()
        found = list(connection.execute(some).scalars())
        connection.execute(sa.update(JobRow).where(JobRow.id.in_(found)).values(pruned_at=database.now(connection)))
        return found

    return database.write(work, slow=True)


def _remove(database: Database, table: type[Any], condition: sa.ColumnElement[bool], most: int) -> int:
    """Remove some of these rows; how many, 0 once there are none."""

    def work(connection: Connection) -> int:
        # Locked as they are chosen: with somebody else at the same work, none left means none left.
        some = connection.execute(sa.select(table.id).where(condition).limit(most).with_for_update()).scalars()
        found = list(some)
        connection.execute(sa.delete(table).where(table.id.in_(found)))
        return len(found)

    return database.write(work, slow=True)


def _remove_jobs(database: Database, jobs: list[int]) -> int:
    """Remove the rows of jobs, their notifications, and what was written down while their other rows were removed."""

    def work(connection: Connection) -> int:
        connection.execute(sa.select(JobRow.id).where(JobRow.id.in_(jobs)).order_by(JobRow.id).with_for_update())
        connection.execute(sa.delete(EventRow).where(EventRow.job_id.in_(jobs)))
        return connection.execute(sa.delete(JobRow).where(JobRow.id.in_(jobs))).rowcount

    return database.write(work, slow=True)


def _remove_schedules(connection: Connection, old: Age) -> None:
    """Rows of schedules that a person removed stay for their runs alone."""
    named = sa.select(RunRow.id).where(RunRow.schedule_id == ScheduleRow.id)
    connection.execute(sa.delete(ScheduleRow).where(ScheduleRow.removed_at < old.before, ~named.exists()))

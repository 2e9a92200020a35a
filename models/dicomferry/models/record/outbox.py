"""What is to be told to people and programs outside: rows that are written along with what they tell of.

So no crash comes between an end and its notification, and each end has one per channel, however often it is told.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database, locking, past
from dicomferry.models.record.tables.jobs import EventRow, JobRow
from dicomferry.models.record.tables.schedules import NotificationRow

PENDING, SENT, FAILED, UNWANTED = "pending", "sent", "failed", "unwanted"


class Channel(StrEnum):
    """The way by which a notification goes out."""

    WEBHOOK = "webhook"
    COMMAND = "command"


def job_ended(connection: Connection, job_id: int, state: str, now: datetime) -> None:
    """A job has ended, or is held. Inside the transaction that makes it so, with the job's row locked."""
    last = sa.select(sa.func.coalesce(sa.func.max(NotificationRow.number), 0)).where(NotificationRow.job_id == job_id)
    _add(connection, {"job_id": job_id, "number": connection.execute(last).scalar_one() + 1, "state": state}, now)


def run_came_to_nothing(connection: Connection, run_id: int, state: str, now: datetime) -> None:
    """A schedule's run has no job. Inside the transaction that makes it so."""
    _add(connection, {"run_id": run_id, "number": 1, "state": state}, now)


def _add(connection: Connection, values: dict[str, Any], now: datetime) -> None:
    common = {"at": now, "not_before": now, "waits_from": now, "outcome": PENDING, "tries": 0, **values}
    connection.execute(sa.insert(NotificationRow), [{**common, "channel": channel.value} for channel in Channel])


@dataclass(frozen=True, kw_only=True)
class Notification:
    """One to be told now, by us alone until its time runs out."""

    id: int
    job_id: int | None
    run_id: int | None
    number: int
    channel: Channel
    state: str
    at: datetime
    tries: int
    """How often it was tried, this time included."""


def pass_over(database: Database, *, channels: Collection[Channel], states: Collection[str]) -> None:
    """What nobody wants to be told of, or not by this channel, is not pending any more. Raises OutOfReach."""
    condition = sa.and_(
        NotificationRow.outcome == PENDING,
        sa.or_(NotificationRow.channel.not_in(list(channels)), NotificationRow.state.not_in(list(states))),
    )
    if not database.read(lambda connection: connection.execute(sa.select(NotificationRow.id).where(condition)).first()):
        return
    database.write(
        lambda connection: connection.execute(sa.update(NotificationRow).where(condition).values(outcome=UNWANTED))
    )


def take(database: Database, *, seconds: float) -> Notification | None:
    """The next one that is due, for this caller alone for so many seconds; None where there is none.

    Whoever dies with it leaves it to the next one. Raises OutOfReach.
    """

    def work(connection: Connection) -> Sequence[AnyRow]:
        query = (
            sa.select(NotificationRow.__table__)
            .where(
                NotificationRow.outcome == PENDING,
                past(NotificationRow.not_before, NotificationRow.waits_from, database.now(connection)),
            )
            .order_by(NotificationRow.not_before, NotificationRow.id)
            .limit(20)
        )
        return connection.execute(query).all()

    for row in database.read(work):
        if _claim(database, row, seconds):
            return Notification(
                id=row.id,
                job_id=row.job_id,
                run_id=row.run_id,
                number=row.number,
                channel=Channel(row.channel),
                state=row.state,
                at=row.at,
                tries=row.tries + 1,
            )
    return None


def _claim(database: Database, row: AnyRow, seconds: float) -> bool:
    def work(connection: Connection) -> int:
        now = database.now(connection)
        return connection.execute(
            sa.update(NotificationRow)
            .where(NotificationRow.id == row.id, NotificationRow.tries == row.tries, NotificationRow.outcome == PENDING)
            .values(tries=row.tries + 1, not_before=now + timedelta(seconds=seconds), waits_from=now)
        ).rowcount

    return database.write(work) > 0


def told(database: Database, what: Notification, detail: str) -> None:
    """Write down that a notification has gone out. Raises OutOfReach."""
    _record(database, what, detail, event=("notified", detail), outcome=SENT)


def not_told(database: Database, what: Notification, detail: str, *, again_in: float | None) -> None:
    """Write down that a notification could not be told; it is tried again in `again_in` seconds, None: never.

    The job's history says so the first time and the last time. Raises OutOfReach.
    """
    if again_in is None:
        _record(database, what, detail, event=("notify_failed", f"{detail}; given up"), outcome=FAILED)
        return
    first = ("notify_failed", f"{detail}; it is tried again") if what.tries == 1 else None
    _record(database, what, detail, event=first, seconds=again_in)


def _record(
    database: Database,
    what: Notification,
    detail: str,
    *,
    event: tuple[str, str] | None,
    outcome: str | None = None,
    seconds: float = 0.0,
) -> None:
    def work(connection: Connection) -> None:
        now = database.now(connection)
        # The job's row first, as everywhere: a job that is removed takes its notifications along.
        job = None
        if what.job_id is not None:
            job = connection.execute(locking(sa.select(JobRow.id).where(JobRow.id == what.job_id))).scalar_one_or_none()
        values: dict[str, Any] = {"detail": detail, "not_before": now + timedelta(seconds=seconds), "waits_from": now}
        if outcome:
            values["outcome"] = outcome
        ours = connection.execute(
            sa.update(NotificationRow)
            .where(
                NotificationRow.id == what.id,
                NotificationRow.tries == what.tries,
                NotificationRow.outcome == PENDING,
            )
            .values(**values)
        ).rowcount
        if ours and job is not None and event:
            kind, text = event
            connection.execute(sa.insert(EventRow).values(job_id=job, at=now, kind=kind, text=text))

    database.write(work)

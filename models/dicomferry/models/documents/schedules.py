"""What is shown of schedules: documents with stable keys, times in RFC 3339."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents.shapes import PlainSchedule, RunDocument, ScheduleDocument, ShownSchedule, ToldDocument
from dicomferry.models.record.database import Database
from dicomferry.models.record.outbox import UNWANTED
from dicomferry.models.record.schedules import runs as schedule_runs
from dicomferry.models.record.schedules import verbs
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.record.tables.schedules import NotificationRow, RunRow
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.schedule import Schedule
from dicomferry.models.rules.text import moment

NEXT_SHOWN = 5
RUNS_SHOWN = 20


def listing(database: Database) -> list[ScheduleDocument]:
    """All schedules by name, each with its last run."""
    found = verbs.listing(database)

    def work(connection: Connection) -> dict[int, RunDocument]:
        newest = sa.select(sa.func.max(RunRow.id)).group_by(RunRow.schedule_id)
        return dict(_runs(connection, RunRow.id.in_(newest)))

    last = database.read(work)
    return [{**_document(schedule), "last_run": last.get(schedule.id)} for schedule in found]


def show(database: Database, name: str) -> ShownSchedule:
    """A schedule with its next due times, its last runs, the newest first, and how many due times came to nothing.

    Raises NotFound.
    """
    found = verbs.by_name(database, name)

    def work(connection: Connection) -> tuple[dict[str, int], list[RunDocument]]:
        last = _runs(connection, RunRow.schedule_id == found.id, limit=RUNS_SHOWN)
        query = (
            sa.select(RunRow.state, sa.func.sum(RunRow.number).label("number"))
            .where(RunRow.schedule_id == found.id, RunRow.state.in_(schedule_runs.NO_JOB))
            .group_by(RunRow.state)
        )
        numbers = {row.state: int(row.number) for row in connection.execute(query)}
        return numbers, [run for _, run in last]

    try:
        due = list(islice(found.timetable.after(database.read(database.now)), NEXT_SHOWN))
    except UsageError:  # its zone is not known here any more
        due = []
    numbers, runs = database.read(work)
    return {
        **_document(found),
        "next": [{"at": moment(slot), "local": found.local(slot).isoformat()} for slot in due],
        "skipped": numbers.get(schedule_runs.SKIPPED, 0),
        "missed": numbers.get(schedule_runs.MISSED, 0),
        "refused": numbers.get(schedule_runs.REFUSED, 0),
        "runs": runs,
    }


def _document(found: Schedule) -> PlainSchedule:
    return {
        "name": found.name,
        "cron": found.cron,
        "tz": found.zone,
        "command": shlex.join(word.encode(errors="surrogateescape").decode(errors="replace") for word in found.words),
        "folder": found.folder.encode(errors="surrogateescape").decode(errors="replace"),
        "catch_up": found.policy.catch_up.value,
        "grace": found.policy.grace,
        "cap": found.policy.cap,
        "overlap": found.overlap.value,
        "created_at": moment(found.created_at),
        "paused_at": moment(found.paused_at),
        "next_due": None if found.paused_at else moment(found.next_due),
    }


def _runs(
    connection: Connection, condition: sa.ColumnElement[bool], *, limit: int | None = None
) -> list[tuple[int, RunDocument]]:
    """(id of the schedule, run), the newest first, with what came of their jobs."""
    rows = connection.execute(
        sa.select(RunRow.__table__, JobRow.state.label("job_state"), JobRow.reason.label("job_reason"))
        .outerjoin(JobRow, sa.and_(JobRow.id == RunRow.job_id, JobRow.pruned_at.is_(None)))
        .where(condition)
        .order_by(RunRow.id.desc())
        .limit(limit)
    ).all()
    told = _told(connection, [row.id for row in rows], [row.job_id for row in rows if row.job_id is not None])
    return [
        (
            row.schedule_id,
            {
                "due_at": moment(row.due_at),
                "last_due_at": moment(row.last_due_at),
                "number": row.number,
                "by_hand": row.by_hand,
                "state": row.state,
                "reason": row.reason,
                "detail": row.detail,
                "at": moment(row.at),
                "job": row.job_id,
                "job_state": row.job_state,
                "job_reason": row.job_reason,
                "notifications": told["run", row.id] + told["job", row.job_id],
            },
        )
        for row in rows
    ]


def _told(
    connection: Connection, run_ids: Sequence[int], job_ids: Sequence[int]
) -> dict[tuple[str, int | None], list[ToldDocument]]:
    """The notifications that somebody wanted, by run and by job."""
    found: dict[tuple[str, int | None], list[ToldDocument]] = defaultdict(list)
    query = (
        sa.select(NotificationRow.__table__)
        .where(
            sa.or_(NotificationRow.run_id.in_(run_ids), NotificationRow.job_id.in_(job_ids)),
            NotificationRow.outcome != UNWANTED,
        )
        .order_by(NotificationRow.id)
    )
    for row in connection.execute(query):
        of = ("job", row.job_id) if row.run_id is None else ("run", row.run_id)
        found[of].append(
            {
                "channel": row.channel,
                "state": row.state,
                "outcome": row.outcome,
                "tries": row.tries,
                "detail": row.detail,
                "at": moment(row.at),
            }
        )
    return found

"""The history of a job: its state now, its events in few lines, its attempts, when it was tried again."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents.jobs import event
from dicomferry.models.documents.shapes import AttemptDocument, EventDocument
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.jobs import AttemptRow, EventRow, JobRow
from dicomferry.models.rules.state import JobState
from dicomferry.models.rules.text import moment

STORY = 12
"""Events of a job that are told one by one."""
_STATE = sa.select(JobRow.state).where(JobRow.id == sa.bindparam("job"))


def state(database: Database, job_id: int) -> JobState | None:
    """The state of a job alone, for who only waits for its end; None where there is no such job. Raises OutOfReach."""
    return database.read(lambda connection: connection.execute(_STATE, {"job": job_id}).scalar_one_or_none())


def story(database: Database, job_id: int) -> list[EventDocument]:
    """A job's history in few events, oldest first. What happens to each chunk is told once where a job has many:
    `more` is how often it happened again, `until` when it did last.
    """

    def work(connection: Connection) -> list[EventDocument]:
        own = sa.select(EventRow.id, EventRow.at, EventRow.kind, EventRow.text).where(EventRow.job_id == job_id)
        last = own.order_by(EventRow.id.desc())
        few = connection.execute(last.limit(STORY + 1)).all()
        if len(few) <= STORY:
            return [event(row) for row in reversed(few)]
        of_chunk = EventRow.text.startswith("chunk ")
        sums = (
            sa.select(
                EventRow.kind,
                sa.func.count().label("number"),
                sa.func.min(EventRow.id).label("first"),
                sa.func.max(EventRow.at).label("until"),
            )
            .where(EventRow.job_id == job_id, of_chunk)
            .group_by(EventRow.kind)
        )
        many = {row.first: row for row in connection.execute(sums)}
        shown = connection.execute(own.where(EventRow.id.in_(many))).all()
        shown = sorted([*shown, *connection.execute(last.where(~of_chunk).limit(STORY)).all()], key=lambda row: row.id)
        return [_one_of_many(row, many.get(row.id)) for row in shown]

    return database.read(work)


def _one_of_many(row: AnyRow, many: AnyRow | None) -> EventDocument:
    told = event(row)
    if many is not None:
        told["more"], told["until"] = many.number - 1, moment(many.until)
    return told


def tried_again(database: Database, job_id: int) -> str | None:
    """When a person had the job tried again last; None: never. Raises OutOfReach."""
    by_person = sa.select(sa.func.max(EventRow.at)).where(
        EventRow.job_id == job_id, EventRow.kind == "retry", ~EventRow.text.startswith("chunk ")
    )
    found: datetime | None = database.read(lambda connection: connection.execute(by_person).scalar())
    return moment(found)


def attempts(database: Database, job_id: int) -> list[AttemptDocument]:
    """Every try of every chunk of a job, oldest first."""

    def work(connection: Connection) -> list[AttemptDocument]:
        query = sa.select(AttemptRow.__table__).where(AttemptRow.job_id == job_id).order_by(AttemptRow.id)
        return [
            {
                "chunk_id": row.chunk_id,
                "fence": row.fence,
                "worker": row.worker,
                "pid": row.pid,
                "end": row.end,
                "reason": row.reason,
                "detail": row.detail,
                "finished_items": row.finished_items,
                "started_at": moment(row.started_at),
                "ended_at": moment(row.ended_at),
            }
            for row in connection.execute(query)
        ]

    return database.read(work)

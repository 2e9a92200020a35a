"""What is summed up over the chunks and attempts of jobs: for many at once, so that a list costs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models import ledger
from dicomferry.models.state import Tally
from dicomferry.models.tables import AttemptRow, ChunkRow

ATTEMPTS_TIMED = 5000
"""The times of more attempts take too long to read for a look at a job: then its whole time counts, with its pauses."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Job id to what is summed up over the job's chunks or attempts; jobs without any are left out."""

    items: Mapping[int, Tally]
    sent_bytes: Mapping[int, int]
    matches: Mapping[int, int]
    attempts: Mapping[int, int]
    seconds: Mapping[int, float]


def of(connection: Connection, ids: Sequence[int], now: datetime) -> Sums:
    """The sums of these jobs."""
    attempts = _per_job(connection, ids, AttemptRow, sa.func.count())
    return Sums(
        items=ledger.tallies(connection, ids),
        sent_bytes=_per_job(connection, ids, ChunkRow, sa.func.sum(ChunkRow.sent_bytes)),
        matches=_per_job(connection, ids, ChunkRow, sa.func.sum(ChunkRow.matches)),
        attempts=attempts,
        seconds=_busy_seconds(connection, [key for key, number in attempts.items() if number <= ATTEMPTS_TIMED], now),
    )


def _per_job(
    connection: Connection, ids: Sequence[int], table: type[ChunkRow | AttemptRow], value: sa.ColumnElement[Any]
) -> dict[int, int]:
    query = sa.select(table.job_id, value.label("value")).where(table.job_id.in_(ids)).group_by(table.job_id)
    return {row.job_id: int(row.value) for row in connection.execute(query)}


def _busy_seconds(connection: Connection, ids: Sequence[int], now: datetime) -> dict[int, float]:
    """How long attempts of each job ran, those at the same time counted once.

    Waiting for a remote, or for somebody to say `retry`, tells nothing of how fast it goes.
    """
    end = sa.func.coalesce(AttemptRow.ended_at, sa.literal(now, AttemptRow.ended_at.type))
    order = (AttemptRow.started_at, AttemptRow.id)
    busy_until = sa.func.max(end).over(partition_by=AttemptRow.job_id, order_by=order, rows=(None, -1))
    spans = (
        sa.select(
            AttemptRow.job_id, AttemptRow.started_at.label("start"), end.label("end"), busy_until.label("busy_until")
        )
        .where(AttemptRow.job_id.in_(ids))
        .subquery()
    )
    start = sa.case((spans.c.busy_until > spans.c.start, spans.c.busy_until), else_=spans.c.start)
    if connection.dialect.name == "sqlite":
        seconds = (sa.func.julianday(spans.c.end) - sa.func.julianday(start)) * 86_400
    else:
        seconds = sa.extract("epoch", spans.c.end - start)
    query = (
        sa.select(spans.c.job_id, sa.func.sum(seconds).label("seconds"))
        .where(spans.c.end > start)
        .group_by(spans.c.job_id)
    )
    return {row.job_id: float(row.seconds) for row in connection.execute(query)}

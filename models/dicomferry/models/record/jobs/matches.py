"""The answers to C-FIND: written in batches by an attempt, read as those of each item's last attempt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, JobRow, MatchRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.spec import FindSpec

_COLUMNS = (
    MatchRow.number,
    MatchRow.patient_id,
    MatchRow.study_instance_uid,
    MatchRow.series_instance_uid,
    MatchRow.sop_instance_uid,
    MatchRow.attributes,
    MatchRow.character_set,
    MatchRow.flaw,
)


def clear(connection: Connection, item_id: int) -> None:
    """A query begins: what earlier tries of the item left goes. Inside of a fenced transaction."""
    connection.execute(sa.delete(MatchRow).where(MatchRow.item_id == item_id))


def add(connection: Connection, item_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add matches to an item, numbered on from those that it has; harmless when run twice, as `Database.write` may."""
    first = min(row["number"] for row in rows)
    connection.execute(sa.delete(MatchRow).where(MatchRow.item_id == item_id, MatchRow.number >= first))
    connection.execute(sa.insert(MatchRow), list(rows))


def spec_of(database: Database, job_id: int) -> FindSpec:
    """What a find asked for; raises NotFound, and UsageError for one that never has any."""

    def work(connection: Connection) -> AnyRow | None:
        query = sa.select(JobRow.kind, JobRow.spec).where(JobRow.id == job_id, JobRow.pruned_at.is_(None))
        return connection.execute(query).one_or_none()

    row = database.read(work)
    if row is None:
        raise NotFound(f"no job {job_id}; see `dicomferry jobs list`")
    if row.kind != Kind.FIND:
        raise UsageError(f"job {job_id} is a {row.kind} job; only a find has matches")
    found = spec.from_json(row.kind, row.spec)
    assert isinstance(found, FindSpec)
    return found


def listing(database: Database, job_id: int, *, limit: int | None = None) -> Iterator[AnyRow]:
    """The matches of a job in order, one by one: those of the last attempt."""
    asked = (
        sa.select(ItemRow.id, ChunkRow.fence)
        .join(ChunkRow, ChunkRow.id == ItemRow.chunk_id)
        .where(ChunkRow.job_id == job_id)
        .order_by(ItemRow.id)
    )
    left = limit
    for item_id, fence in database.read(lambda connection: connection.execute(asked).all()):
        # While a new attempt has not begun to ask, the rows are those of the one before.
        # What repeats another stays in the record, and is shown once.
        query = sa.select(*_COLUMNS).where(
            MatchRow.item_id == item_id, MatchRow.fence == fence, MatchRow.repeats.is_(False)
        )
        for row in database.pages(query, MatchRow.number, limit=left):
            yield row
            left = None if left is None else left - 1
        if left is not None and left <= 0:
            return

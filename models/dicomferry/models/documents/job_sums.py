"""What is summed up over the rows of jobs: for many at once, in few statements over few rows.

What grows with the instances of a job is kept as it happens: on its chunks, and on the job itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstrumentedAttribute

from dicomferry.models.record.database import AnyRow
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, MoveRow
from dicomferry.models.rules import proof
from dicomferry.models.rules.state import ItemState, Tally

DEPTHS = ("unknown", "counts", "images")
"""What a peer told of what is to come, from nothing to all of it."""
_TALLY = ("total", "succeeded", "warning", "failed", "skipped", "cancelled")
# Spelled out: an index over some rows is used only where the database sees that the query asks for those.
IS_REQUEST = ItemRow.kind == sa.literal_column("'request'")
IS_CONFLICT = ArrivalRow.outcome == sa.literal_column("'conflict'")


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What is summed up over the chunks of a job."""

    items: Tally = field(default_factory=Tally)
    sent_bytes: int = 0
    matches: int = 0
    attempts: int = 0


@dataclass(frozen=True, kw_only=True)
class RetrieveNumbers:
    """The numbers of a retrieve. `expectation` is the least that any request has, None before the first is known.

    `expected` and `missing` are None where a request's number is unknown or not known yet; what several requests ask
    for counts once. `received` are instances that were asked for and lie in the archive, those that were there before
    included, or that went elsewhere, by the archive's own number where nobody lists them. `surplus` are instances that
    came although no item names them, `conflicts` those that came with another content than the archive had.
    """

    expectation: str | None
    expected: int | None
    received: int
    missing: int | None
    surplus: int
    conflicts: int
    requests: Tally
    basis: str | None = None
    """What the proof of the weakest of its requests rests on (`proof.Basis`)."""
    listed_at: datetime | None = None
    """When the oldest of the lists was made that its requests rest on."""


def of(connection: Connection, ids: Sequence[int]) -> dict[int, Sums]:
    """Job id to its sums; jobs without a chunk are left out."""
    names = (*_TALLY, "sent_bytes", "matches")
    # Each claim makes one attempt, and the fence grows with it.
    columns = [*((name, getattr(ChunkRow, name)) for name in names), ("attempts", ChunkRow.fence)]
    query = (
        sa.select(ChunkRow.job_id, *(sa.func.sum(column).label(name) for name, column in columns))
        .where(ChunkRow.job_id.in_(ids))
        .group_by(ChunkRow.job_id)
    )
    return {
        row.job_id: Sums(
            items=Tally(**{name: int(getattr(row, name)) for name in _TALLY}),
            sent_bytes=int(row.sent_bytes),
            matches=int(row.matches),
            attempts=int(row.attempts),
        )
        for row in connection.execute(query)
    }


def numbers(connection: Connection, jobs: Mapping[int, Tally]) -> dict[int, RetrieveNumbers]:
    """Retrieves, with the numbers of their items, to what was expected of each and what came of it."""
    requests: dict[int, list[AnyRow]] = {}
    for row in connection.execute(
        sa.select(
            ItemRow.job_id,
            ItemRow.expectation,
            ItemRow.state,
            ItemRow.basis,
            sa.func.count().label("number"),
            sa.func.sum(ItemRow.expected).label("expected"),
            sa.func.min(ItemRow.listed_at).label("listed_at"),
        )
        .where(ItemRow.job_id.in_(jobs), IS_REQUEST)
        .group_by(ItemRow.job_id, ItemRow.expectation, ItemRow.state, ItemRow.basis)
    ):
        requests.setdefault(row.job_id, []).append(row)
    surplus = _count(connection, ArrivalRow.surplus_of, unnamed(jobs))
    believed = _believed(connection, jobs)
    came = sa.select(ArrivalRow.job_id, sa.func.count().label("number"))
    conflicts = _count(connection, ArrivalRow.job_id, came.where(ArrivalRow.job_id.in_(jobs), IS_CONFLICT))
    return {
        job_id: _numbers(
            requests.get(job_id, ()),
            tally,
            surplus=surplus.get(job_id, 0),
            conflicts=conflicts.get(job_id, 0),
            believed=believed.get(job_id, 0),
        )
        for job_id, tally in jobs.items()
    }


def _believed(connection: Connection, jobs: Mapping[int, object]) -> dict[int, int]:
    """Job id to how many instances the archive says it sent elsewhere for requests that are done and have no items."""
    request, own = ItemRow.__table__.alias("request"), ItemRow.__table__.alias("own")
    sent = sa.func.coalesce(MoveRow.completed, 0) + sa.func.coalesce(MoveRow.warning, 0)
    listed = sa.select(own.c.id).where(own.c.chunk_id == request.c.chunk_id, own.c.request_id == request.c.id)
    most = (
        sa.select(MoveRow.job_id, sa.func.max(sent).label("sent"))
        .join(request, request.c.id == MoveRow.item_id)
        .where(
            MoveRow.job_id.in_(jobs),
            MoveRow.destination.is_not(None),
            MoveRow.status == 0,
            request.c.state.in_((ItemState.SUCCEEDED, ItemState.WARNING)),
            ~listed.exists(),
        )
        .group_by(MoveRow.job_id, MoveRow.item_id, MoveRow.study_instance_uid, MoveRow.series_instance_uid)
        .subquery()
    )
    query = sa.select(most.c.job_id, sa.func.sum(most.c.sent)).group_by(most.c.job_id)
    return {job_id: int(number) for job_id, number in connection.execute(query)}


def answers(job_id: int) -> sa.Select[Any, Any, Any, int]:
    """(reason, state, status, number) of a job's items that have a reason: read from the index of answers alone.

    With a condition on the state besides, SQLite would sort them.
    """
    columns = (ItemRow.reason, ItemRow.state, ItemRow.status)
    query = sa.select(*columns, sa.func.count().label("number"))
    return query.where(ItemRow.job_id == job_id, ItemRow.reason.is_not(None)).group_by(*columns)


def unnamed(jobs: Mapping[int, object] | Sequence[int]) -> sa.Select[int | None, int]:
    """(job, number of instances) that came along with it although no item of it names them."""
    named = sa.select(ItemRow.id).where(
        ItemRow.job_id == ArrivalRow.surplus_of,
        ItemRow.sop_instance_uid == InstanceRow.sop_instance_uid,
        ItemRow.request_id.is_not(None),  # the condition of the index
    )
    return (
        sa.select(ArrivalRow.surplus_of, sa.func.count(sa.distinct(InstanceRow.sop_instance_uid)).label("number"))
        .join(InstanceRow, InstanceRow.id == ArrivalRow.instance_id)
        .where(ArrivalRow.surplus_of.in_(jobs), ~named.exists())
    )


def _count(
    connection: Connection, column: InstrumentedAttribute[int | None], query: sa.Select[int | None, int]
) -> dict[int, int]:
    return {job_id: number for job_id, number in connection.execute(query.group_by(column)) if job_id is not None}


def _numbers(
    requests: Sequence[AnyRow], tally: Tally, *, surplus: int, conflicts: int, believed: int
) -> RetrieveNumbers:
    depths = {row.expectation for row in requests}
    # A request that matches nothing has no expectation, and is expected to bring nothing.
    unmatched = any(row.expectation is None and row.state is ItemState.PENDING for row in requests)
    expected: int | None = None
    if requests and not unmatched and "unknown" not in depths:
        # Items of a retrieve are its requests and their instances; one that another request has is skipped.
        skipped = tally.skipped - sum(row.number for row in requests if row.state is ItemState.SKIPPED)
        expected = max(0, sum(int(row.expected or 0) for row in requests) - skipped)
    good = (ItemState.SUCCEEDED, ItemState.WARNING)
    received = tally.succeeded + tally.warning - sum(row.number for row in requests if row.state in good)
    received += believed
    return RetrieveNumbers(
        expectation=next((depth for depth in DEPTHS if depth in depths), None),
        expected=expected,
        received=received,
        missing=None if expected is None else max(0, expected - received),
        surplus=surplus,
        conflicts=conflicts,
        basis=proof.weakest_basis(row.basis for row in requests),
        listed_at=min((row.listed_at for row in requests if row.listed_at), default=None),
        requests=_requests(requests),
    )


def _requests(rows: Sequence[AnyRow]) -> Tally:
    numbers = Counter[str]()
    for row in rows:
        numbers["total"] += row.number
        if row.state is not ItemState.PENDING:
            numbers[row.state.value] += row.number
    return Tally(**numbers)

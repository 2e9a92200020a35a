"""What is shown of a retrieve: how much was expected and came, study by study and instance by instance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models import spec
from dicomferry.models.database import AnyRow, Database
from dicomferry.models.job_view import moment
from dicomferry.models.spec import GetSpec, MoveSpec, Retrieve
from dicomferry.models.state import ItemState
from dicomferry.models.tables import ArrivalRow, InstanceRow, ItemRow, JobRow, MoveRow

DEPTHS = ("unknown", "counts", "images")
"""What a peer told of what is to come, from nothing to all of it."""
_GOOD = (ItemState.SUCCEEDED, ItemState.WARNING)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """`expectation` is the least that any request has, None before the first is known.

    `expected` and `missing` are None where a request's number is unknown or not known yet. `received` are instances
    that were asked for and lie in the archive, those that were there before included. `surplus` are instances that
    came although no item names them, `conflicts` those that came with another content than the archive had.
    """

    expectation: str | None
    expected: int | None
    received: int
    missing: int | None
    surplus: int
    conflicts: int


def numbers(database: Database, job_id: int) -> Numbers:
    """The numbers of a retrieve as they are now. Raises OutOfReach."""
    return database.read(lambda connection: numbers_in(connection, job_id))


def numbers_in(connection: Connection, job_id: int) -> Numbers:
    """The same, in the caller's transaction."""
    requests = connection.execute(
        sa.select(ItemRow.expectation, sa.func.count().label("number"), sa.func.sum(ItemRow.expected).label("expected"))
        .where(ItemRow.job_id == job_id, ItemRow.kind == "request")
        .group_by(ItemRow.expectation)
    ).all()
    depths = {row.expectation: row for row in requests}
    expectation = next((depth for depth in DEPTHS if depth in depths), None)
    # A request that matches nothing has no expectation, and is expected to bring nothing.
    unmatched = connection.execute(
        sa.select(sa.func.count()).where(
            ItemRow.job_id == job_id,
            ItemRow.kind == "request",
            ItemRow.expectation.is_(None),
            ItemRow.state == ItemState.PENDING,
        )
    ).scalar_one()
    expected: int | None = None
    if requests and not unmatched and "unknown" not in depths:
        expected = sum(int(row.expected or 0) for row in requests)
    received = connection.execute(
        sa.select(sa.func.count()).where(
            ItemRow.job_id == job_id, ItemRow.request_id.is_not(None), ItemRow.is_first, ItemRow.state.in_(_GOOD)
        )
    ).scalar_one()
    conflicts = connection.execute(
        sa.select(sa.func.count()).where(ArrivalRow.job_id == job_id, ArrivalRow.outcome == "conflict")
    ).scalar_one()
    return Numbers(
        expectation=expectation,
        expected=expected,
        received=received,
        missing=None if expected is None else max(0, expected - received),
        surplus=connection.execute(sa.select(sa.func.count()).select_from(_surplus(job_id).subquery())).scalar_one(),
        conflicts=conflicts,
    )


def bytes_in(connection: Connection, job_id: int) -> int:
    """The bytes of what came for a job, each arrival counted."""
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(InstanceRow.size), 0))
        .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
        .where(ArrivalRow.job_id == job_id)
    )
    return int(connection.execute(query).scalar_one())


def _came_for(job_id: int) -> sa.ColumnElement[bool]:
    """What was asked for by a job, and what came along with its moves."""
    moves = sa.select(MoveRow.id).where(MoveRow.job_id == job_id)
    return sa.or_(ArrivalRow.job_id == job_id, ArrivalRow.move_id.in_(moves))


def _surplus(job_id: int) -> sa.Select[str, str, str | None, str | None, str]:
    """The instances that came for a job although no item of it names them."""
    named = sa.select(ItemRow.sop_instance_uid).where(ItemRow.job_id == job_id, ItemRow.sop_instance_uid.is_not(None))
    return (
        sa.select(
            InstanceRow.sop_instance_uid,
            InstanceRow.sop_class_uid,
            InstanceRow.study_instance_uid,
            InstanceRow.series_instance_uid,
            sa.func.min(InstanceRow.path).label("path"),
        )
        .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
        .where(_came_for(job_id), InstanceRow.sop_instance_uid.not_in(named))
        .group_by(
            InstanceRow.sop_instance_uid,
            InstanceRow.sop_class_uid,
            InstanceRow.study_instance_uid,
            InstanceRow.series_instance_uid,
        )
    )


def spec_of(database: Database, job_id: int) -> Retrieve:
    """What a retrieve was asked for. Raises OutOfReach."""
    query = sa.select(JobRow.kind, JobRow.spec).where(JobRow.id == job_id)
    row = database.read(lambda connection: connection.execute(query).one())
    found = spec.from_json(row.kind, row.spec)
    assert isinstance(found, MoveSpec | GetSpec), f"job {job_id} is {row.kind}"
    return found


def surplus(database: Database, job_id: int) -> Iterator[dict[str, Any]]:
    """The instances that came for a job although no item of it names them, as JSON objects. Raises OutOfReach."""
    with database.stream() as connection:
        for row in connection.execute(_surplus(job_id).order_by(InstanceRow.sop_instance_uid)):
            yield dict(row._mapping)


def requests(database: Database, job_id: int) -> Iterator[dict[str, Any]]:
    """One JSON object per request item: row, identifier, expectation, numbers, state, reason. Raises OutOfReach."""
    own = ItemRow.__table__.alias("own")
    received = (
        sa.select(sa.func.count())
        .where(own.c.chunk_id == ItemRow.chunk_id, own.c.request_id == ItemRow.id, own.c.is_first)
        .where(own.c.state.in_(_GOOD))
        .scalar_subquery()
    )
    query = (
        sa.select(ItemRow.__table__, received.label("received"))
        .where(ItemRow.job_id == job_id, ItemRow.kind == "request")
        .order_by(ItemRow.id)
    )
    with database.stream() as connection:
        for row in connection.execute(query):
            yield {
                "id": row.id,
                "row": row.row,
                "identifier": [list(key) for key in row.identifier or ()],
                "expectation": row.expectation,
                "expected": row.expected,
                "received": row.received,
                "state": row.state.value,
                "reason": row.reason,
                "detail": row.detail,
                "status": None if row.status is None else f"0x{row.status:04X}",
            }


def studies(database: Database, job_id: int) -> Iterator[dict[str, Any]]:
    """One JSON object per request and study, with the numbers of its instances by state. Raises OutOfReach."""
    request = ItemRow.__table__.alias("request")
    states = [
        sa.func.sum(sa.case((ItemRow.state == state, 1), else_=0)).label(state.value)
        for state in ItemState
        if state is not ItemState.SKIPPED
    ]
    query = (
        sa.select(
            ItemRow.request_id, request.c.row, ItemRow.study_instance_uid, sa.func.count().label("total"), *states
        )
        .join(request, request.c.id == ItemRow.request_id)
        .where(ItemRow.job_id == job_id, ItemRow.request_id.is_not(None), ItemRow.is_first)
        .group_by(ItemRow.request_id, request.c.row, ItemRow.study_instance_uid)
        .order_by(ItemRow.request_id, ItemRow.study_instance_uid)
    )
    with database.stream() as connection:
        for row in connection.execute(query):
            yield {
                key: value if value is None or isinstance(value, str) else int(value)
                for key, value in row._mapping.items()
            }


def instances(database: Database, job_id: int) -> Iterator[dict[str, Any]]:
    """One JSON object per expected instance, with its file in the archive where there is one. Raises OutOfReach."""
    request = ItemRow.__table__.alias("request")
    query = (
        sa.select(ItemRow.__table__, request.c.row.label("request_row"), InstanceRow.path.label("file"))
        .join(request, request.c.id == ItemRow.request_id)
        .outerjoin(
            InstanceRow,
            sa.and_(InstanceRow.sop_instance_uid == ItemRow.sop_instance_uid, InstanceRow.is_current),
        )
        .where(ItemRow.job_id == job_id)
        .order_by(ItemRow.request_id, ItemRow.id)
    )
    with database.stream() as connection:
        for row in connection.execute(query):
            yield {
                "request_id": row.request_id,
                "row": row.request_row,
                "study_instance_uid": row.study_instance_uid,
                "series_instance_uid": row.series_instance_uid,
                "sop_instance_uid": row.sop_instance_uid,
                "sop_class_uid": row.sop_class_uid,
                "state": row.state.value,
                "status": None if row.status is None else f"0x{row.status:04X}",
                "reason": row.reason,
                "detail": row.detail,
                "path": row.file,
            }


def moves(database: Database, job_id: int) -> list[dict[str, Any]]:
    """Every C-MOVE and C-GET of a job, oldest first, as JSON objects. Raises OutOfReach."""

    def work(connection: Connection) -> list[dict[str, Any]]:
        query = sa.select(MoveRow.__table__).where(MoveRow.job_id == job_id).order_by(MoveRow.id)
        return [_move(row) for row in connection.execute(query)]

    return database.read(work)


def _move(row: AnyRow) -> dict[str, Any]:
    found = dict(row._mapping)
    found["status"] = None if row.status is None else f"0x{row.status:04X}"
    found["asked_at"], found["answered_at"] = moment(row.asked_at), moment(row.answered_at)
    return found

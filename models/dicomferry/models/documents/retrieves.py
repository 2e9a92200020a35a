"""What is shown of a retrieve: how much was expected and came, study by study and instance by instance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents import job_sums
from dicomferry.models.documents.job_sums import RetrieveNumbers
from dicomferry.models.documents.shapes import ExpectedDocument, MoveDocument, RequestDocument, SurplusDocument
from dicomferry.models.record.archive import here
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, JobRow, MoveRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.spec import GetSpec, MoveSpec, Retrieve
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.text import moment

_GOOD = (ItemState.SUCCEEDED, ItemState.WARNING)


def numbers(database: Database, job_id: int) -> RetrieveNumbers:
    """The numbers of a retrieve as they are now. Raises OutOfReach."""

    def work(connection: Connection) -> RetrieveNumbers:
        return job_sums.numbers(connection, {job_id: ledger.tally(connection, job_id)})[job_id]

    return database.read(work)


def _surplus(job_id: int) -> sa.Select[str, str, str | None, str | None, str]:
    """The instances that came for a job although no item of it names them."""
    named = sa.select(ItemRow.id).where(
        ItemRow.job_id == job_id,
        ItemRow.sop_instance_uid == InstanceRow.sop_instance_uid,
        ItemRow.request_id.is_not(None),  # the condition of the index
    )
    return (
        sa.select(
            InstanceRow.sop_instance_uid,
            InstanceRow.sop_class_uid,
            InstanceRow.study_instance_uid,
            InstanceRow.series_instance_uid,
            sa.func.min(InstanceRow.path).label("path"),
        )
        .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
        .where(ArrivalRow.surplus_of == job_id, ~named.exists())
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


def surplus(database: Database, job_id: int) -> Iterator[SurplusDocument]:
    """The instances that came for a job although no item of it names them, as JSON objects. Raises OutOfReach."""
    for row in database.pages(_surplus(job_id), InstanceRow.sop_instance_uid):
        yield {
            "sop_instance_uid": row.sop_instance_uid,
            "sop_class_uid": row.sop_class_uid,
            "study_instance_uid": row.study_instance_uid,
            "series_instance_uid": row.series_instance_uid,
            "path": row.path,
        }


def requests(database: Database, job_id: int) -> Iterator[RequestDocument]:
    """One JSON object per request item, by row: identifier, expectation, numbers, state, reason. Raises OutOfReach.

    An instance that another request has as well was received for both, and where it was not, both have failed: what
    is shown of a request is what came of its instances, whoever asked for them.
    """
    own, first = ItemRow.__table__.alias("own"), ItemRow.__table__.alias("first")
    shared = sa.and_(
        first.c.job_id == own.c.job_id,
        first.c.sop_instance_uid == own.c.sop_instance_uid,
        first.c.study_instance_uid.is_not_distinct_from(own.c.study_instance_uid),
        first.c.series_instance_uid.is_not_distinct_from(own.c.series_instance_uid),
        first.c.request_id.is_not(None),  # the condition of the index
        first.c.is_first,
    )
    here = sa.select(first.c.id).where(shared, first.c.state.in_(_GOOD))
    received = (
        sa.select(sa.func.count())
        .where(own.c.chunk_id == ItemRow.chunk_id, own.c.request_id == ItemRow.id, here.exists())
        .scalar_subquery()
    )
    query = sa.select(ItemRow.__table__, received.label("received")).where(
        ItemRow.job_id == job_id, ItemRow.kind == "request"
    )
    shares = sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id, ChunkRow.skipped > 0)
    lacking = (
        sa.select(own.c.request_id, first.c.state, first.c.reason, sa.func.count().label("number"))
        .join(first, shared)
        .where(
            own.c.chunk_id.in_(shares),
            own.c.request_id.is_not(None),
            own.c.state == ItemState.SKIPPED,
            first.c.state.not_in(_GOOD),
        )
        .group_by(own.c.request_id, first.c.state, first.c.reason)
    )
    elsewhere: dict[int, Counter[tuple[ItemState, str | None]]] = {}
    for row in database.read(lambda connection: connection.execute(lacking).all()):
        elsewhere.setdefault(row.request_id, Counter())[row.state, row.reason] = row.number
    originals: dict[str, RequestDocument] = {}
    for row in database.pages(query, sa.func.coalesce(ItemRow.row, 0), ItemRow.id):
        told = _request(row, elsewhere.get(row.id))
        identifier = json.dumps(told["identifier"])
        if identifier in originals:  # the same request again, which is asked once
            told = _as_first(told, originals[identifier])
        else:
            originals[identifier] = told
        yield told


def _as_first(again: RequestDocument, first: RequestDocument) -> RequestDocument:
    """A request that was given more than once: what came of the first is what came of each."""
    return {**first, "id": again["id"], "row": again["row"], "detail": again["detail"]}


def _request(row: AnyRow, lacking: Counter[tuple[ItemState, str | None]] | None) -> RequestDocument:
    """A request as it is shown; `lacking` counts its instances that another request did not bring."""
    state, reason, detail = row.state, row.reason, row.detail
    if state is ItemState.SKIPPED:
        state, reason = ItemState.SUCCEEDED, None
    if state is ItemState.SUCCEEDED and lacking:
        (state, reason), _ = max(lacking.items(), key=lambda one: (one[0][0] is ItemState.PENDING, one[1]))
        detail = f"{lacking.total()} missing, which another row asks for as well"
    return {
        "id": row.id,
        "row": row.row,
        "identifier": [list(key) for key in row.identifier or ()],
        "expectation": row.expectation,
        "verified": row.verified,
        "basis": row.basis,
        "listed_at": moment(row.listed_at),
        "expected": row.expected,
        "received": row.received,
        "state": state.value,
        "reason": reason,
        "detail": detail,
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
    )
    for row in database.pages(query, ItemRow.request_id, sa.func.coalesce(ItemRow.study_instance_uid, "")):
        yield {
            key: value if value is None or isinstance(value, str) else int(value)
            for key, value in row._mapping.items()
            if not key.startswith("_")
        }


def instances(database: Database, job_id: int) -> Iterator[ExpectedDocument]:
    """One JSON object per expected instance, with its file in the archive where there is one. Raises OutOfReach."""
    request = ItemRow.__table__.alias("request")
    query = (
        sa.select(ItemRow.__table__, request.c.row.label("request_row"), InstanceRow.path.label("file"))
        .join(request, request.c.id == ItemRow.request_id)
        .outerjoin(
            InstanceRow,
            sa.and_(here.is_of(), here.is_kept(), InstanceRow.is_current),
        )
        .where(ItemRow.job_id == job_id)
    )
    for row in database.pages(query, ItemRow.request_id, ItemRow.id):
        yield {
            "request_id": row.request_id,
            "row": row.request_row,
            "study_instance_uid": row.study_instance_uid,
            "series_instance_uid": row.series_instance_uid,
            "filed_study": row.filed_study_uid,
            "filed_series": row.filed_series_uid,
            "sop_instance_uid": row.sop_instance_uid,
            "sop_class_uid": row.sop_class_uid,
            "state": row.state.value,
            "status": None if row.status is None else f"0x{row.status:04X}",
            "reason": row.reason,
            "detail": row.detail,
            "path": row.file,
        }


def moves(database: Database, job_id: int) -> list[MoveDocument]:
    """Every C-MOVE and C-GET of a job, oldest first, as JSON objects. Raises OutOfReach."""

    def work(connection: Connection) -> list[MoveDocument]:
        query = sa.select(MoveRow.__table__).where(MoveRow.job_id == job_id).order_by(MoveRow.id)
        return [_move(row) for row in connection.execute(query)]

    return database.read(work)


def _move(row: AnyRow) -> MoveDocument:
    return {
        "id": row.id,
        "job_id": row.job_id,
        "chunk_id": row.chunk_id,
        "item_id": row.item_id,
        "fence": row.fence,
        "round": row.round,
        "method": row.method,
        "message_id": row.message_id,
        "ae_title": row.ae_title,
        "destination": row.destination,
        "level": row.level,
        "study_instance_uid": row.study_instance_uid,
        "series_instance_uid": row.series_instance_uid,
        "asked": row.asked,
        "asked_at": moment(row.asked_at),
        "answered_at": moment(row.answered_at),
        "status": None if row.status is None else f"0x{row.status:04X}",
        "remaining": row.remaining,
        "completed": row.completed,
        "failed": row.failed,
        "warning": row.warning,
        "failed_uids": row.failed_uids,
        "comment": row.comment,
        "reason": row.reason,
        "refused_here": row.refused_here,
    }

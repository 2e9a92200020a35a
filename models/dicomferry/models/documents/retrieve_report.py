"""The report of a retrieve, for whoever has to account for it: study by study, instance by instance.

A key of a row that is a DICOM keyword names what it holds, so that a report may be given back as a list of requests.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents import retrieves
from dicomferry.models.documents.report_shapes import InstanceReport, StudyReport
from dicomferry.models.documents.shapes import columns
from dicomferry.models.record import picked
from dicomferry.models.record.archive import here
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ItemRow, MoveRow
from dicomferry.models.rules import target
from dicomferry.models.rules.proof import Basis, Depth
from dicomferry.models.rules.state import GOOD_ITEM_STATES
from dicomferry.models.rules.target import Target
from dicomferry.models.rules.text import moment

INSTANCE_KEYS = columns(InstanceReport)
STUDY_KEYS = columns(StudyReport)

_Of = Callable[[str | None], StudyReport]
_UNKNOWN = cast(InstanceReport, dict.fromkeys(INSTANCE_KEYS))


def studies(database: Database, job_id: int) -> list[StudyReport]:
    """One row per study, in the order in which they were asked for; what came of no study that was named comes last.

    `expected` and `missing` are None where the remote does not say how many there are. Raises OutOfReach.
    """
    rows: dict[str | None, StudyReport] = {}

    def of(study: str | None) -> StudyReport:
        return rows.setdefault(study, _empty_study(study))

    def work(connection: Connection) -> None:
        _count_items(connection, job_id, of)
        _count_moves(connection, job_id, of)
        _count_arrivals(connection, job_id, of)

    database.read(work)
    for found in retrieves.surplus(database, job_id):
        of(found["study_instance_uid"])["surplus"] += 1
    for row in rows.values():
        if row["expected"] is not None:
            row["missing"] = max(0, row["expected"] - row["received"])
    return list(rows.values())


def _empty_study(study: str | None) -> StudyReport:
    return {
        "StudyInstanceUID": study, "rows": [], "expected": 0, "received": 0, "missing": None, "surplus": 0,
        "conflicts": 0, "arrivals": 0, "bytes": 0, "attempts": 0, "statuses": {}, "asked_at": None,
        "first_arrival": None, "last_arrival": None,
    }  # fmt: skip


def _count_items(connection: Connection, job_id: int, of: _Of) -> None:
    request = ItemRow.__table__.alias("request")
    first = sa.case((ItemRow.is_first, 1), else_=0)
    good = sa.case((sa.and_(ItemRow.is_first, ItemRow.state.in_(list(GOOD_ITEM_STATES))), 1), else_=0)
    named = connection.execute(
        sa.select(
            ItemRow.study_instance_uid, request.c.row, request.c.expectation,
            sa.func.sum(first).label("total"), sa.func.sum(good).label("good"),
        )
        .join(request, request.c.id == ItemRow.request_id)
        .where(ItemRow.job_id == job_id)
        .group_by(ItemRow.study_instance_uid, request.c.row, request.c.expectation)
        .order_by(sa.func.min(ItemRow.id))
    )  # fmt: skip
    again = _said_again(connection, job_id)
    for found in named:
        row = of(found.study_instance_uid)
        row["received"] += int(found.good)
        _note_rows(row, (found.row, *again.get(found.row, ())))
        if found.expectation == "images":
            row["expected"] = (row["expected"] or 0) + int(found.total)
    asked = sa.select(ItemRow.targets, ItemRow.expectation, ItemRow.basis, ItemRow.row)
    for request_row in connection.execute(
        asked.where(ItemRow.job_id == job_id, ItemRow.kind == "request", ItemRow.expectation.is_not(None))
    ):
        for one in map(target.from_json, request_row.targets or ()):
            row = of(one.study)
            _note_rows(row, (request_row.row, *again.get(request_row.row, ())))
            more = _not_listed(one, request_row.expectation, ignored=request_row.basis == Basis.SET_ASIDE)
            row["expected"] = None if more is None or row["expected"] is None else row["expected"] + more


def _not_listed(one: Target, expectation: str, *, ignored: bool) -> int | None:
    """How many instances of a target are to be besides those that are counted as items; None where nobody says."""
    depth = one.depth or expectation
    if expectation != Depth.IMAGES:  # then no item was counted
        return None if depth == Depth.UNKNOWN else max(one.count or 0, one.listed)
    if depth != Depth.IMAGES or ignored or one.images:
        return 0
    inside = sum((part.said or 0) - part.listed for part in one.inner if part.series)
    return max(0, inside, (one.count or 0) - one.listed) if one.depth else 0


def _said_again(connection: Connection, job_id: int) -> dict[int | None, list[int | None]]:
    """Row to the later rows that are the same request."""
    query = sa.select(ItemRow.row, ItemRow.identifier).where(ItemRow.job_id == job_id, ItemRow.kind == "request")
    firsts: dict[str, int | None] = {}
    again: dict[int | None, list[int | None]] = {}
    for row, identifier in connection.execute(query.order_by(ItemRow.row)):
        first = firsts.setdefault(json.dumps(identifier), row)
        if first != row:
            again.setdefault(first, []).append(row)
    return again


def _note_rows(study: StudyReport, rows: Iterable[int | None]) -> None:
    study["rows"] = sorted({*study["rows"], *(row for row in rows if row is not None)})


def _count_moves(connection: Connection, job_id: int, of: _Of) -> None:
    query = (
        sa.select(
            MoveRow.study_instance_uid, MoveRow.status, sa.func.count().label("number"),
            sa.func.min(MoveRow.asked_at).label("asked_at"),
        )
        .where(MoveRow.job_id == job_id)
        .group_by(MoveRow.study_instance_uid, MoveRow.status)
    )  # fmt: skip
    for found in connection.execute(query):
        row = of(found.study_instance_uid)
        row["attempts"] += found.number
        name = "none" if found.status is None else f"0x{found.status:04X}"
        row["statuses"] = dict(Counter(row["statuses"]) + Counter({name: found.number}))
        row["asked_at"] = min(filter(None, (row["asked_at"], moment(found.asked_at))))


def _count_arrivals(connection: Connection, job_id: int, of: _Of) -> None:
    query = (
        sa.select(
            InstanceRow.study_instance_uid,
            sa.func.count().label("number"),
            sa.func.sum(InstanceRow.size).label("bytes"),
            sa.func.sum(sa.case((ArrivalRow.outcome == "conflict", 1), else_=0)).label("conflicts"),
            sa.func.min(ArrivalRow.at).label("first"),
            sa.func.max(ArrivalRow.at).label("last"),
        )
        .join(InstanceRow, InstanceRow.id == ArrivalRow.instance_id)
        .where(ArrivalRow.job_id == job_id)
        .group_by(InstanceRow.study_instance_uid)
    )
    for found in connection.execute(query):
        row = of(found.study_instance_uid)
        row["arrivals"] = found.number
        row["bytes"] = int(found.bytes)
        row["conflicts"] = int(found.conflicts)
        row["first_arrival"] = moment(found.first)
        row["last_arrival"] = moment(found.last)


def instances(database: Database, job_id: int) -> Iterator[InstanceReport]:
    """One row per instance that was expected, then one per instance that came besides. Raises OutOfReach."""
    request = ItemRow.__table__.alias("request")
    query = (
        sa.select(
            ItemRow.__table__,
            request.c.row.label("request_row"),
            InstanceRow.path.label("file"),
            InstanceRow.size.label("file_size"),
            InstanceRow.transfer_syntax_uid.label("file_syntax"),
            InstanceRow.sop_class_uid.label("file_class"),
        )
        .join(request, request.c.id == ItemRow.request_id)
        .outerjoin(
            InstanceRow,
            sa.and_(here.is_of(), InstanceRow.is_current, here.is_kept()),
        )
        .where(ItemRow.job_id == job_id)
    )  # fmt: skip
    for rows in picked.rows(database, query, ItemRow.id, ItemRow.request_id, ItemRow.id):
        arrived = _arrived(database, job_id, [row.id for row in rows])
        for row in rows:
            came = arrived.get(row.id)
            # An older file of an instance that did not come is none of this job's.
            good = row.state in GOOD_ITEM_STATES
            yield {
                "row": row.request_row,
                "StudyInstanceUID": row.study_instance_uid,
                "SeriesInstanceUID": row.series_instance_uid,
                "SOPInstanceUID": row.sop_instance_uid,
                "filed_study": row.filed_study_uid,
                "filed_series": row.filed_series_uid,
                "sop_class": row.sop_class_uid or row.file_class,
                "transfer_syntax": row.file_syntax if good else None,
                "expected": True,
                "received": good,
                "state": row.state.value,
                "status": None if row.status is None else f"0x{row.status:04X}",
                "reason": row.reason,
                "detail": row.detail,
                "attempts": row.tries,
                "arrivals": came.number if came else 0,
                "conflicts": int(came.conflicts) if came else 0,
                "first_arrival": moment(came.first) if came else None,
                "last_arrival": moment(came.last) if came else None,
                "bytes": row.file_size if good else None,
                "file": row.file if good else None,
            }
    for found in retrieves.surplus(database, job_id):
        yield {
            **_UNKNOWN,
            "StudyInstanceUID": found["study_instance_uid"],
            "SeriesInstanceUID": found["series_instance_uid"],
            "SOPInstanceUID": found["sop_instance_uid"],
            "sop_class": found["sop_class_uid"],
            "expected": False,
            "received": True,
            "state": "surplus",
            "file": found["path"],
        }


def _arrived(database: Database, job_id: int, items: Sequence[int]) -> dict[int, AnyRow]:
    """What came for a job of what these items expect: how often, when, and how often with another content."""
    filed = here.is_filed_as(
        InstanceRow.sop_instance_uid, InstanceRow.study_instance_uid, InstanceRow.series_instance_uid
    )
    query = (
        sa.select(
            ItemRow.id,
            sa.func.count().label("number"),
            sa.func.sum(sa.case((ArrivalRow.outcome == "conflict", 1), else_=0)).label("conflicts"),
            sa.func.min(ArrivalRow.at).label("first"),
            sa.func.max(ArrivalRow.at).label("last"),
        )
        .join(InstanceRow, filed)
        .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
        .where(ItemRow.id.in_(items), ArrivalRow.job_id == job_id)
        .group_by(ItemRow.id)
    )
    rows = database.read(lambda connection: connection.execute(query).all())
    return {row.id: row for row in rows}

"""Which answers a job met: each one once, with how often and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents import job_sums
from dicomferry.models.documents.shapes import RefusalDocument
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, ItemRow, JobRow, MoveRow, RemoteRow
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Answer
from dicomferry.models.rules.answers.quirks import Quirks, from_texts
from dicomferry.models.rules.errors import NotFound
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import service_of
from dicomferry.models.rules.state import ChunkState
from dicomferry.models.rules.text import path_text

FILES_NAMED = 5
DETAILS_READ = 100
"""Items of one answer that are looked at for what was said of it: a million may say nothing."""
_Met = tuple[str, int | None, str | None, int, str | None]


@dataclass
class Met:
    """One answer. `counts` tells how often: items by their state, attempts, requests (C-MOVE, C-GET), what waits.

    `statuses` are those that came with it, `detail` is what was said on one of these occasions. `files` are the first
    files or instances concerned, each with what was said of it.
    """

    answer: Answer
    statuses: set[int] = field(default_factory=set)
    detail: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, str | None]] = field(default_factory=list)


def of_job(database: Database, job_id: int) -> tuple[str, list[Met]]:
    """(the service that the job asks for, the answers it met: what items failed for first). Raises NotFound."""

    def work(connection: Connection) -> tuple[str, list[Met]]:
        row = connection.execute(
            sa.select(JobRow.kind, JobRow.spec, RemoteRow.quirks)
            .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
            .where(JobRow.id == job_id, JobRow.pruned_at.is_(None))
        ).one_or_none()
        if row is None:
            raise NotFound(f"no job {job_id}; see `dicomferry jobs list`")
        service = service_of(row.kind, row.spec)
        found = _joined(service, from_texts(row.quirks), _met(connection, job_id))
        for met in found:
            assert met.answer.reason is not None
            met.files = _files(connection, job_id, met.answer.reason)
        return service, found

    return database.read(work)


def refused_here(database: Database, job_id: int) -> list[RefusalDocument]:
    """What our own side answered to what came for a retrieve, but for success: each status and reason once."""
    query = sa.select(MoveRow.refused_here).where(MoveRow.job_id == job_id, MoveRow.refused_here.is_not(None))
    found: dict[tuple[int, str], RefusalDocument] = {}
    for some in database.read(lambda connection: connection.execute(query).scalars().all()):
        for one in some or ():
            status, why = f"0x{one['status']:04X}", one["why"]
            told: RefusalDocument = {"status": status, "why": why, "number": 0, "such_as": one["uids"][0]}
            found.setdefault((one["status"], one["why"]), told)["number"] += one["number"]
    return sorted(found.values(), key=lambda one: -one["number"])


def _joined(service: str, own: Quirks, rows: Iterator[_Met]) -> list[Met]:
    found: dict[str, Met] = {}
    for where, status, reason, number, detail in rows:
        answer = lookup.for_status(service, status, own) if status is not None else None
        if reason is not None and (answer is None or answer.reason != reason):
            # Our own side had the last word, such as `not found after success`.
            status, answer = None, lookup.for_reason(service, reason)
        if answer is None or answer.reason is None:
            continue
        met = found.setdefault(answer.reason, Met(answer))
        if status is not None:
            met.statuses.add(status)
        met.counts[where] = met.counts.get(where, 0) + number
        met.detail = met.detail or detail
    return sorted(found.values(), key=lambda met: (-met.counts.get("failed", 0), -sum(met.counts.values())))


def _met(connection: Connection, job_id: int) -> Iterator[_Met]:
    number = sa.func.count()
    items = job_sums.answers(job_id).order_by(ItemRow.reason, ItemRow.state, ItemRow.status)
    for row in connection.execute(items).all():
        yield row.state.value, row.status, row.reason, row.number, _said(connection, job_id, row)
    attempts = (
        sa.select(AttemptRow.reason, number, sa.func.max(AttemptRow.detail))
        .where(AttemptRow.job_id == job_id, AttemptRow.reason.is_not(None))
        .group_by(AttemptRow.reason)
    )
    for reason, count, detail in connection.execute(attempts):
        yield "attempts", None, reason, count, detail
    beside = _beside(job_id).with_only_columns(number)
    if count := connection.execute(beside).scalar_one():
        yield "arrivals", None, Reason.CONFLICT, count, None
    moves = (
        sa.select(MoveRow.status, number, sa.func.max(MoveRow.comment))
        .where(MoveRow.job_id == job_id, MoveRow.status > 0)
        .group_by(MoveRow.status)
    )
    for status, count, detail in connection.execute(moves):
        yield "requests", status, None, count, detail
    waiting = (
        sa.select(ChunkRow.state, ChunkRow.reason, number)
        .where(
            ChunkRow.job_id == job_id,
            ChunkRow.reason.is_not(None),
            ChunkRow.state.in_((ChunkState.PENDING, ChunkState.HELD)),
        )
        .group_by(ChunkRow.state, ChunkRow.reason)
    )
    for chunk, reason, count in connection.execute(waiting):
        yield "held" if chunk is ChunkState.HELD else "waiting", None, reason, count, None


def _said(connection: Connection, job_id: int, answer: AnyRow) -> str | None:
    """What was said of one of the items with an answer, where any of the first few says something."""
    few = (
        sa.select(ItemRow.detail)
        .where(
            ItemRow.job_id == job_id,
            ItemRow.reason == answer.reason,
            ItemRow.state == answer.state,
            ItemRow.status.is_(None) if answer.status is None else ItemRow.status == answer.status,
        )
        .limit(DETAILS_READ)
        .subquery()
    )
    found: str | None = connection.execute(sa.select(sa.func.min(few.c.detail))).scalar()
    return found


def _beside(job_id: int) -> sa.Select[str, str]:
    """What came for a retrieve with another content than the archive had: path, SOP Instance UID."""
    return (
        sa.select(InstanceRow.path, InstanceRow.sop_instance_uid)
        .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
        .where(ArrivalRow.job_id == job_id, ArrivalRow.outcome == "conflict")
    )


def _files(connection: Connection, job_id: int, reason: str) -> list[dict[str, str | None]]:
    items = (
        sa.select(ItemRow.path, ItemRow.sop_instance_uid, ItemRow.detail)
        .where(
            ItemRow.job_id == job_id,
            ItemRow.reason == reason,
            sa.or_(ItemRow.path.is_not(None), ItemRow.sop_instance_uid.is_not(None)),
        )
        .order_by(ItemRow.state, ItemRow.status, ItemRow.id)  # as the index has them
        .limit(FILES_NAMED)
    )
    found = [
        {"path": path_text(row.path), "sop_instance_uid": row.sop_instance_uid, "detail": row.detail}
        for row in connection.execute(items)
    ]
    if reason == Reason.CONFLICT:
        left = FILES_NAMED - len(found)
        for path, uid in connection.execute(_beside(job_id).order_by(ArrivalRow.id).limit(left)).all():
            first = sa.select(InstanceRow.path).where(
                InstanceRow.sop_instance_uid == uid, InstanceRow.path != path, InstanceRow.removed_at.is_(None)
            )
            other = connection.execute(first.order_by(InstanceRow.id).limit(1)).scalar()
            detail = f"differs from {other}" if other else "differs from what the archive had"
            found.append({"path": path, "sop_instance_uid": uid, "detail": detail})
    return found

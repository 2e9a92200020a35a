"""Jobs as they are shown: documents with stable keys, read without disturbing any writer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents import job_asked, job_sums
from dicomferry.models.documents.job_sums import RetrieveNumbers, Sums
from dicomferry.models.documents.shapes import CountsDocument, EventDocument, ItemDocument, JobDocument, ShownJob
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.jobs.filter import Filter, is_waiting
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, EventRow, ItemRow, JobRow, RemoteRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.kind import Kind, Lane
from dicomferry.models.rules.remote import MOST, host_and_port
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.state import FINAL_JOB_STATES, ChunkState, ItemState, JobState, Tally
from dicomferry.models.rules.text import moment, path_text

EVENTS_SHOWN = 50
_JOBS_AT_ONCE = 500
_ITEM_COLUMNS = (
    ItemRow.id,
    ItemRow.kind,
    ItemRow.row,
    ItemRow.sop_instance_uid,
    ItemRow.sop_class_uid,
    ItemRow.transfer_syntax_uid,
    ItemRow.path,
    ItemRow.size,
    ItemRow.state,
    ItemRow.status,
    ItemRow.reason,
    ItemRow.detail,
    ItemRow.sent_as,
    ItemRow.tries,
    ItemRow.identifier,
)


def resolve_id(database: Database, text: str) -> int:
    """The job id that was meant: a number, or `last` for the newest. Raises NotFound, UsageError."""
    if text == "last":
        query = sa.select(sa.func.max(JobRow.id)).where(JobRow.pruned_at.is_(None))
        newest = database.read(lambda connection: connection.execute(query).scalar())
        if newest is None:
            raise NotFound("there is no job yet")
        return int(newest)
    if not text.isdecimal():
        raise UsageError(f"{text!r} is not a job id: a number, or `last`")
    if len(text) > len(str(MOST)) or int(text) > MOST:
        raise _no_job(text)
    return int(text)


def _no_job(job_id: int | str) -> NotFound:
    return NotFound(f"no job {job_id}; see `dicomferry jobs list`")


def show(database: Database, job_id: int) -> ShownJob:
    """One job with its last events, oldest first; raises NotFound."""

    def work(connection: Connection) -> ShownJob:
        row = connection.execute(_jobs().where(JobRow.id == job_id)).one_or_none()
        if row is None:
            raise _no_job(job_id)
        what = spec.from_json(row.kind, row.spec)
        roots = what.roots if isinstance(what, spec.StoreSpec) else ()
        return {
            **_documents(database, connection, [row])[0],
            "events": _events(connection, job_id, EVENTS_SHOWN),
            "paths": [path_text(root) for root in roots],
            "recursive": isinstance(what, spec.StoreSpec) and what.recursive,
            "asked": job_asked.document(what),
        }

    return database.read(work)


def listing(database: Database, *, chosen: Filter | None = None, limit: int | None = 50) -> list[JobDocument]:
    """Jobs, newest first, without events."""

    def work(connection: Connection) -> list[JobDocument]:
        query = _jobs().where(*(chosen or Filter()).conditions()).order_by(JobRow.id.desc()).limit(limit)
        return _documents(database, connection, connection.execute(query).all())

    return database.read(work)


def counts(database: Database) -> dict[str, int]:
    """How many jobs there are in each state."""

    def work(connection: Connection) -> dict[str, int]:
        query = sa.select(JobRow.state, sa.func.count().label("number")).where(JobRow.pruned_at.is_(None))
        rows = connection.execute(query.group_by(JobRow.state))
        found = {row.state: row.number for row in rows}
        return {state.value: found.get(state, 0) for state in JobState}

    return database.read(work)


def waiting(database: Database) -> int:
    """How many of the pending and running jobs wait for more than their turn."""
    query = sa.select(sa.func.count()).select_from(JobRow).where(JobRow.pruned_at.is_(None), is_waiting())
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))


def lanes(database: Database) -> dict[str, dict[str, int]]:
    """How many chunks wait and run in each lane."""

    def work(connection: Connection) -> dict[str, dict[str, int]]:
        result = {lane.value: {"pending": 0, "running": 0, "held": 0} for lane in Lane}
        for row in connection.execute(
            sa.select(ChunkRow.lane, ChunkRow.state, sa.func.count().label("number"))
            .where(ChunkRow.state.in_((ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD)))
            .group_by(ChunkRow.lane, ChunkRow.state)
        ):
            result[row.lane][row.state.value] = row.number
        return result

    return database.read(work)


def items(
    database: Database, job_id: int, *, state: ItemState | None = None, limit: int | None = None
) -> Iterator[ItemDocument]:
    """The items of a job one by one, chunk by chunk; raises NotFound."""
    job = database.read(lambda connection: connection.execute(_jobs().where(JobRow.id == job_id)).one_or_none())
    if job is None:
        raise _no_job(job_id)
    service = spec.service_of(job.kind, job.spec)
    chunks = sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id).order_by(ChunkRow.id)
    if state and state is not ItemState.PENDING:
        # Chunks know their numbers, so those without such an item are not even looked at.
        chunks = chunks.where(getattr(ChunkRow, state.value) > 0)
    left = limit
    for chunk_id in database.read(lambda connection: connection.execute(chunks).scalars().all()):
        query = sa.select(*_ITEM_COLUMNS).where(ItemRow.chunk_id == chunk_id)
        if state:
            query = query.where(ItemRow.state == state)
        for row in database.pages(query, ItemRow.id, limit=left):
            yield _item(service, row)
            left = None if left is None else left - 1
        if left is not None and left <= 0:
            return


def reasons(database: Database, job_id: int, state: ItemState) -> dict[str, int]:
    """How many items of a job in this state have which reason, such as `already there` among the warnings."""
    query = job_sums.answers(job_id)
    found: Counter[str] = Counter()
    for row in database.read(lambda connection: connection.execute(query).all()):
        if row.state is state:
            found[row.reason] += row.number
    return dict(found)


def failures(database: Database, job_id: int) -> list[tuple[int | None, str | None, int]]:
    """(DIMSE status, reason, number) of a job's failed items, the commonest first."""

    def work(connection: Connection) -> list[tuple[int | None, str | None, int]]:
        rows = connection.execute(job_sums.answers(job_id)).all()
        found = [(row.status, row.reason, row.number) for row in rows if row.state is ItemState.FAILED]
        all_of_them = sa.select(sa.func.coalesce(sa.func.sum(ChunkRow.failed), 0)).where(ChunkRow.job_id == job_id)
        if int(connection.execute(all_of_them).scalar_one()) > sum(number for _, _, number in found):
            found += _unexplained(connection, job_id)
        return sorted(found, key=lambda one: (-one[2], one[1] or ""))

    return database.read(work)


def _unexplained(connection: Connection, job_id: int) -> list[tuple[int | None, str | None, int]]:
    """(DIMSE status, None, number) of a job's failed items without a reason."""
    chunks = sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id, ChunkRow.failed > 0)
    query = (
        sa.select(ItemRow.status, sa.func.count().label("number"))
        .where(ItemRow.chunk_id.in_(chunks), ItemRow.state == ItemState.FAILED, ItemRow.reason.is_(None))
        .group_by(ItemRow.status)
    )
    return [(row.status, None, row.number) for row in connection.execute(query)]


def events(database: Database, job_id: int) -> list[EventDocument]:
    """The whole history of a job, oldest first; raises NotFound."""

    def work(connection: Connection) -> list[EventDocument]:
        if not connection.execute(_jobs().where(JobRow.id == job_id)).first():
            raise _no_job(job_id)
        return _events(connection, job_id, None)

    return database.read(work)


def _jobs() -> sa.Select[Any]:
    return (
        sa.select(
            JobRow.__table__,
            RemoteRow.name.label("remote"),
            RemoteRow.in_book,
            RemoteRow.ae_title.label("remote_ae_title"),
            RemoteRow.host.label("remote_host"),
            RemoteRow.port.label("remote_port"),
        )
        .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
        .where(JobRow.pruned_at.is_(None))
    )


def _events(connection: Connection, job_id: int, limit: int | None) -> list[EventDocument]:
    query = sa.select(EventRow).where(EventRow.job_id == job_id).order_by(EventRow.id.desc()).limit(limit)
    rows = connection.execute(query.with_only_columns(EventRow.at, EventRow.kind, EventRow.text)).all()
    return [event(row) for row in reversed(rows)]


def event(row: AnyRow) -> EventDocument:
    """An event as a JSON object."""
    return {"at": moment(row.at), "kind": row.kind, "text": row.text}


def _documents(database: Database, connection: Connection, rows: Sequence[AnyRow]) -> list[JobDocument]:
    now = database.now(connection)
    documents: list[JobDocument] = []
    for first in range(0, len(rows), _JOBS_AT_ONCE):
        some = rows[first : first + _JOBS_AT_ONCE]
        sums = job_sums.of(connection, [row.id for row in some])
        retrieves = {row.id: sums.get(row.id, Sums()).items for row in some if row.kind in RETRIEVES}
        balances = job_sums.numbers(connection, retrieves) if retrieves else {}
        documents += [_document(connection, row, now, sums.get(row.id, Sums()), balances.get(row.id)) for row in some]
    return documents


def _document(
    connection: Connection, row: AnyRow, now: datetime, sums: Sums, told: RetrieveNumbers | None
) -> JobDocument:
    numbers = sums.items
    waiting = None if row.state in FINAL_JOB_STATES else _waiting(connection, row.id)
    balance = _balance(row, numbers, told)
    seconds = _busy_seconds(row, now)
    reason = row.reason if waiting is None else waiting.reason
    if waiting is not None:
        advice = waiting.advice
    else:
        advice = lookup.advice_for(spec.service_of(row.kind, row.spec), None, row.reason)
    if advice and not row.in_book:
        advice = lookup.without_entry(advice)
    return {
        "id": row.id,
        "kind": row.kind,
        "remote": row.remote,
        "remote_address": f"{row.remote_ae_title}@{host_and_port(row.remote_host, row.remote_port)}",
        "destination": row.destination,
        "label": row.label,
        "priority": {0: "low", 1: "normal", 2: "high"}[row.priority],
        "ignore_window": row.ignore_window,
        "state": row.state.value,
        "reason": reason,
        "detail": _detail(connection, row.id, reason) if waiting is not None and reason else None,
        "reason_text": advice,
        "planned": row.planned,
        "verified": row.verified,
        "basis": balance.basis,
        "listed_at": moment(balance.listed_at),
        "accepted_at": moment(row.accepted_at),
        "accepted_reason": row.accepted_reason,
        "expectation": balance.expectation,
        "submitted_at": moment(row.submitted_at),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
        "not_before": moment(waiting.not_before) if waiting is not None and waiting.not_before > now else None,
        "attempts": sums.attempts,
        "waiting_for": reason if waiting is not None and waiting.state is ChunkState.PENDING else None,
        "items": _numbers(numbers),
        "requests": _numbers(balance.requests),
        "instances": _numbers(numbers - balance.requests),
        "matches": sums.matches if row.kind == Kind.FIND else None,
        "expected": balance.expected,
        "received": balance.received,
        "missing": balance.missing,
        "surplus": balance.surplus,
        "conflicts": balance.conflicts,
        "bytes": row.received_bytes if row.kind in RETRIEVES else sums.sent_bytes,
        "rate_instances_per_s": round(balance.received / seconds, 1) if seconds > 0 and balance.received else None,
    }


@dataclass(frozen=True, kw_only=True)
class _Balance:
    """What was expected of a job and what came of it; None where the question has no meaning."""

    expectation: str | None = None
    expected: int | None = None
    received: int | None = None
    missing: int | None = None
    surplus: int | None = None
    conflicts: int | None = None
    requests: Tally = field(default_factory=Tally)
    basis: str | None = None
    listed_at: datetime | None = None


def _numbers(tally: Tally) -> CountsDocument:
    return {
        "total": tally.total,
        "pending": tally.pending,
        "succeeded": tally.succeeded,
        "warning": tally.warning,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "cancelled": tally.cancelled,
    }


def _balance(row: AnyRow, numbers: Tally, told: RetrieveNumbers | None) -> _Balance:
    if told is not None:
        return _Balance(**vars(told))
    if row.kind != Kind.STORE:
        return _Balance(requests=numbers)
    delivered, expected = numbers.succeeded + numbers.warning, numbers.total - numbers.skipped
    return _Balance(expected=expected, received=delivered, missing=expected - delivered, surplus=0)


def _busy_seconds(row: AnyRow, now: datetime) -> float:
    """How long attempts of a job ran: waiting tells nothing of how fast it goes."""
    if row.busy_seconds is None:
        return ((row.finished_at or now) - row.started_at).total_seconds() if row.started_at else 0.0
    runs = (now - row.busy_since).total_seconds() if row.busy_since else 0.0
    return float(row.busy_seconds) + runs


def _waiting(connection: Connection, job_id: int) -> AnyRow | None:
    """Why a job waits: the held chunk that says so first, else, if nothing runs, the pending one that is due first."""
    columns = (ChunkRow.state, ChunkRow.reason, ChunkRow.advice, ChunkRow.not_before)
    chunks = sa.select(*columns).where(ChunkRow.job_id == job_id)
    held = connection.execute(
        chunks.where(ChunkRow.state == ChunkState.HELD).order_by(ChunkRow.id).limit(1)
    ).one_or_none()
    if held is not None:
        return held
    if connection.execute(
        sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id, ChunkRow.state == ChunkState.RUNNING).limit(1)
    ).first():
        return None
    return connection.execute(
        chunks.where(ChunkRow.state == ChunkState.PENDING).order_by(ChunkRow.not_before, ChunkRow.id).limit(1)
    ).one_or_none()


def service(database: Database, job_id: int) -> str:
    """Whose rows of the table of answers hold for a job; raises NotFound."""

    def work(connection: Connection) -> str:
        row = connection.execute(_jobs().where(JobRow.id == job_id)).first()
        if row is None:
            raise _no_job(job_id)
        return spec.service_of(row.kind, row.spec)

    return database.read(work)


def _detail(connection: Connection, job_id: int, reason: str) -> str | None:
    """What exactly was met when this reason was found, such as who refused the connection."""
    found: str | None = connection.execute(
        sa.select(AttemptRow.detail)
        .where(AttemptRow.job_id == job_id, AttemptRow.reason == reason)
        .order_by(AttemptRow.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return found


def _item(service: str, row: AnyRow) -> ItemDocument:
    reason = row.reason
    return {
        "kind": row.kind,
        "row": row.row,
        "sop_instance_uid": row.sop_instance_uid,
        "sop_class_uid": row.sop_class_uid,
        "transfer_syntax_uid": row.transfer_syntax_uid,
        "path": path_text(row.path),
        "size": row.size,
        "state": row.state.value,
        "status": None if row.status is None else f"0x{row.status:04X}",
        "reason": reason,
        "detail": row.detail,
        "advice": lookup.advice_for(service, row.status, reason),
        "sent_as": row.sent_as,
        "attempts": row.tries,
        "identifier": [list(key) for key in row.identifier] if row.identifier is not None else None,
    }

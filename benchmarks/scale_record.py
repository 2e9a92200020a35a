"""A record of many items, as workers would have left it after months: written by the database itself, row from row.

One job has a tenth of all items, and all of them failed. A tenth of the jobs are retrieves, whose instances lie in the
archive: as many as a tenth of all items. A twentieth waits, is held or is incomplete, each; everything else succeeded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import (
    AttemptRow,
    ChunkRow,
    EventRow,
    ItemRow,
    JobRow,
    MoveRow,
    RemoteRow,
    WorkerRow,
)
from dicomferry.models.rules.proof import Basis
from dicomferry.models.rules.spec import MoveSpec, Spec, StoreSpec, to_json
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState

JOBS = 2000
IN_STORE, IN_RETRIEVE = 500, 100
"""Instances of a chunk."""
REMOTES = 20
DAYS = 200
"""Over which the jobs ended, one after the other."""
_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1"
_ROOT = "1.2.826.0.1.3680043.8.498."
_ENDED = {JobState.SUCCEEDED, JobState.INCOMPLETE, JobState.FAILED}
_NOW = datetime.now(UTC)


@dataclass
class _Rows:
    """Rows of the small tables, gathered before they are written."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


def fill(url: str, items: int) -> None:
    """Make the tables and write `items` items into them."""
    database = Database(url)
    schema.upgrade(database)
    database.close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            connection.exec_driver_sql("PRAGMA cache_size=-800000")
        _write(connection, _gathered(items))
        connection.commit()
    if engine.dialect.name == "postgresql":  # as autovacuum does in a night
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM (ANALYZE)")
    engine.dispose()


def _gathered(items: int) -> _Rows:
    rows = _Rows()
    jobs = min(JOBS, max(20, items // 500))
    large, each = items // 10, (items - items // 10) // (jobs - 1)
    for number in range(jobs):
        retrieve = number % 10 == 1
        size = large if number == 0 else each
        _add_job(rows, number, jobs, size, retrieve=retrieve)
    return rows


def _add_job(rows: _Rows, number: int, jobs: int, size: int, *, retrieve: bool) -> None:
    state = _state_of(number)
    ended = _NOW - timedelta(days=DAYS * (jobs - number) / jobs)
    job_id = number + 1
    parts = list(_parts(size, IN_RETRIEVE if retrieve else IN_STORE))
    studies = [f"{_ROOT}{job_id}.{place}" for place in range(len(parts))]
    asked: Spec = StoreSpec(paths=(f"/data/{job_id}",), recursive=True)
    if retrieve:
        asked = MoveSpec(identifiers=tuple((row, (("0020000D", study),)) for row, study in enumerate(studies, 1)))
    final = state in _ENDED
    rows.jobs.append(
        {
            "id": job_id, "token": f"{job_id:032}", "kind": asked.kind.value, "spec": to_json(asked),
            "remote_id": number % REMOTES + 1, "priority": 1, "state": state, "planned": True,
            "label": f"night {number}", "submitted_at": ended - timedelta(hours=2),
            "started_at": ended - timedelta(hours=1),
            "finished_at": ended if final else None, "served_at": ended, "busy_seconds": 3600.0,
            "reason": "cannot understand" if state in (JobState.FAILED, JobState.INCOMPLETE) else None,
            "received_bytes": size * 33_000 if retrieve else 0,
        }
    )  # fmt: skip
    _add_chunk(rows, job_id, "plan", ChunkState.DONE, {}, number, ended)
    for place, part in enumerate(parts):
        counts = _counts(state, part)
        chunk_id = _add_chunk(rows, job_id, asked.kind.value, _chunk_state(state), counts, number, ended)
        if retrieve:
            _add_request(rows, job_id, chunk_id, place, part, studies[place], ended)
    for kind in ("submitted", "planned", "ended"):
        rows.events.append({"job_id": job_id, "at": ended, "kind": kind, "text": f"{size:,} items"})


def _state_of(number: int) -> JobState:
    if number == 0:
        return JobState.FAILED
    if number % 10 == 1:
        return JobState.SUCCEEDED
    return {2: JobState.PENDING, 3: JobState.INCOMPLETE, 4: JobState.HELD}.get(number % 20, JobState.SUCCEEDED)


def _chunk_state(state: JobState) -> ChunkState:
    return {JobState.PENDING: ChunkState.PENDING, JobState.HELD: ChunkState.HELD}.get(state, ChunkState.DONE)


def _counts(state: JobState, part: int) -> dict[str, int]:
    if state is JobState.FAILED:
        return {"failed": part}
    if state is JobState.INCOMPLETE:
        return {"failed": part // 50, "warning": part // 25, "succeeded": part - part // 50 - part // 25}
    return {} if state in (JobState.PENDING, JobState.HELD) else {"succeeded": part}


def _parts(size: int, most: int) -> Iterator[int]:
    for first in range(0, size, most):
        yield min(most, size - first)


def _add_chunk(
    rows: _Rows, job_id: int, kind: str, state: ChunkState, counts: Mapping[str, int], number: int, ended: datetime
) -> int:
    chunk_id = len(rows.chunks) + 1
    tried = state is ChunkState.DONE
    zeros = dict.fromkeys(("succeeded", "warning", "failed"), 0)
    rows.chunks.append(
        {
            "id": chunk_id, "job_id": job_id, "kind": kind, "lane": "bulk", "priority": 1,
            "remote_id": None if kind == "plan" else number % REMOTES + 1, "state": state, "fence": int(tried),
            "not_before": ended, "waits_from": ended, "reason": "on hold" if state is ChunkState.HELD else None,
            "total": sum(counts.values()), **zeros, **counts,
        }
    )  # fmt: skip
    if tried:
        rows.attempts.append(
            {
                "job_id": job_id, "chunk_id": chunk_id, "fence": 1, "worker": "ferry1.example.org:4711", "pid": 4711,
                "started_at": ended, "ended_at": ended, "end": AttemptEnd.COMPLETED,
                "finished_items": sum(counts.values()),
            }
        )  # fmt: skip
        text = f"chunk {chunk_id} ({kind}) on ferry1.example.org:4711, process 4711"
        rows.events.append({"job_id": job_id, "at": ended, "kind": "chunk_started", "text": text})
    return chunk_id


def _add_request(rows: _Rows, job_id: int, chunk_id: int, place: int, part: int, study: str, ended: datetime) -> None:
    item_id = len(rows.requests) + 1
    rows.requests.append(
        {
            "id": item_id, "job_id": job_id, "chunk_id": chunk_id, "kind": "request", "is_first": True,
            "row": place + 1, "state": ItemState.SUCCEEDED, "status": 0, "identifier": [["0020000D", study]],
            "targets": [[None, study, None, [], None, part, "images", []]], "expectation": "images",
            "expected": part, "listed_at": ended, "verified": "uids", "basis": Basis.LIST.value, "tries": 1,
            "study_instance_uid": study,
        }
    )  # fmt: skip
    rows.moves.append(
        {
            "id": item_id, "job_id": job_id, "chunk_id": chunk_id, "item_id": item_id, "fence": 1, "round": 1,
            "method": "move", "message_id": item_id % 65_535, "ae_title": "DICOMFERRY", "level": "STUDY",
            "study_instance_uid": study, "asked_at": ended, "answered_at": ended, "status": 0, "remaining": 0,
            "completed": part, "failed": 0, "warning": 0,
        }
    )  # fmt: skip


def _write(connection: Connection, rows: _Rows) -> None:
    remotes = [
        {
            "id": number, "name": f"pacs{number}", "in_book": True, "ae_title": f"PACS{number}", "host": "127.0.0.1",
            "port": 9, "also_from": [], "max_associations": 4, "max_moves": 1, "max_uids": 100, "timeouts": {},
            "created_at": _NOW,
        }
        for number in range(1, REMOTES + 1)
    ]  # fmt: skip
    for table, some in (
        (RemoteRow, remotes), (JobRow, rows.jobs), (ChunkRow, rows.chunks), (ItemRow, rows.requests),
        (MoveRow, rows.moves), (AttemptRow, rows.attempts), (EventRow, rows.events),
    ):  # fmt: skip
        if some:
            connection.execute(sa.insert(table), some)
    _write_items(connection, first=len(rows.requests))
    # What a request has besides its instances: itself.
    of_retrieves = ChunkRow.kind == "move"
    connection.execute(
        sa.update(ChunkRow).where(of_retrieves).values(total=ChunkRow.total + 1, succeeded=ChunkRow.succeeded + 1)
    )
    _write_archive(connection)
    if connection.dialect.name == "postgresql":
        _set_sequences(connection)


def _series(most: int) -> sa.CTE:
    numbers = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
    return numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < most))


def _write_items(connection: Connection, first: int) -> None:
    """The items of a chunk, from its numbers; waiting and held chunks are filled up to their size."""
    series = _series(IN_STORE)
    n = series.c.n
    chunk = ChunkRow.__table__.c
    request = ItemRow.__table__.alias("request")
    waits = chunk.state.in_([ChunkState.PENDING, ChunkState.HELD])
    size = sa.case((waits, IN_STORE), else_=chunk.total)
    good = chunk.succeeded + chunk.warning
    uid = _text(
        _ROOT, "100", ".", chunk.job_id, ".", (chunk.id * 7919 + n * 104_729) % 1_000_003, ".", chunk.id, ".", n
    )
    study = sa.func.coalesce(request.c.study_instance_uid, _text(_ROOT, "200", ".", chunk.job_id, ".", chunk.id))
    state = sa.case((waits, "pending"), (n <= chunk.succeeded, "succeeded"), (n <= good, "warning"), else_="failed")
    failed = sa.and_(sa.not_(waits), n > good)
    of_store = chunk.kind == "store"
    path = _text("/data/", chunk.job_id, "/study", chunk.id, "/IM", n, ".dcm")
    on_sqlite = connection.dialect.name == "sqlite"
    bytes_of = sa.cast(path, sa.LargeBinary) if on_sqlite else sa.func.convert_to(path, "UTF8")
    changed = sa.literal(1_760_000_000_000_000_000, sa.BigInteger)
    warned = sa.and_(sa.not_(waits), n > chunk.succeeded)
    values: dict[str, Any] = {
        "job_id": chunk.job_id, "chunk_id": chunk.id, "kind": sa.literal("instance"), "is_first": sa.true(),
        "path": sa.case((of_store, bytes_of)),
        "size": sa.case((of_store, 33_000 + n)), "mtime_ns": sa.case((of_store, changed)),
        "sop_class_uid": sa.literal(_CLASS), "sop_instance_uid": uid,
        "transfer_syntax_uid": sa.case((of_store, _SYNTAX)), "study_instance_uid": study,
        "series_instance_uid": study + ".1",
        "state": state, "status": sa.case((waits, sa.null()), (failed, 0xC000), else_=0),
        "reason": sa.case((failed, "cannot understand"), (warned, "already there")),
        "detail": sa.case((failed, "Cannot find any handler for this SOP class")),
        "sent_as": sa.case((sa.and_(of_store, state == "succeeded"), _SYNTAX)),
        "sent_bytes": sa.case((sa.and_(of_store, state == "succeeded"), 33_000), else_=0),
        "tries": sa.case((waits, 0), else_=1), "request_id": request.c.id,
    }  # fmt: skip
    rows = (
        sa.select(*values.values())
        .select_from(ChunkRow.__table__)
        .outerjoin(request, sa.and_(request.c.chunk_id == chunk.id, request.c.kind == "request"))
        .join(series, sa.true())
        .where(chunk.kind != "plan", n <= size)
        .order_by(chunk.id, n)
    )
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('item', 'id'), {max(first, 1)})")
    connection.execute(sa.insert(ItemRow).from_select(list(values), rows))
    waiting = ChunkRow.state.in_([ChunkState.PENDING, ChunkState.HELD])
    connection.execute(sa.update(ChunkRow).where(waiting).values(total=IN_STORE))


def _write_archive(connection: Connection) -> None:
    """A file and an arrival for each instance that a retrieve brought."""
    item = ItemRow.__table__.c
    path = _text("in/", item.study_instance_uid, "/", item.sop_instance_uid, ".dcm")
    brought = sa.and_(item.request_id.is_not(None), item.state == ItemState.SUCCEEDED)
    at = sa.literal(_NOW, ArrivalRow.at.type)
    values: dict[str, Any] = {
        "id": item.id, "path": path, "size": sa.literal(33_000), "sop_instance_uid": item.sop_instance_uid,
        "sop_class_uid": item.sop_class_uid, "transfer_syntax_uid": sa.literal(_SYNTAX),
        "study_instance_uid": item.study_instance_uid, "series_instance_uid": item.series_instance_uid,
        "relation": sa.literal("first"), "is_current": sa.true(), "stored_at": at,
    }  # fmt: skip
    connection.execute(sa.insert(InstanceRow).from_select(list(values), sa.select(*values.values()).where(brought)))
    values = {
        "id": item.id, "instance_id": item.id, "job_id": item.job_id,
        "association": _text("a", item.chunk_id), "number": item.id, "outcome": sa.literal("stored"),
        "calling_ae_title": sa.literal("PACS1"), "called_ae_title": sa.literal("DICOMFERRY"),
        "address": sa.literal("127.0.0.1"), "message_id": sa.literal(1), "at": at, "move_id": item.request_id,
    }  # fmt: skip
    connection.execute(sa.insert(ArrivalRow).from_select(list(values), sa.select(*values.values()).where(brought)))


def _text(*parts: Any) -> sa.ColumnElement[str]:
    texts = [sa.literal(part) if isinstance(part, str) else sa.cast(part, sa.Text) for part in parts]
    whole: sa.ColumnElement[str] = texts[0]
    for text in texts[1:]:
        whole = whole + text
    return whole


def _set_sequences(connection: Connection) -> None:
    for table in (
        RemoteRow,
        JobRow,
        ChunkRow,
        ItemRow,
        MoveRow,
        AttemptRow,
        EventRow,
        InstanceRow,
        ArrivalRow,
        WorkerRow,
    ):
        name = table.__tablename__
        most = f"greatest(1, (SELECT coalesce(max(id), 1) FROM {name}))"
        connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), {most})")


def size_of(url: str) -> int:
    """Bytes of the database on the disk."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        return sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    engine.dispose()
    return int(size)

"""What a plan writes: items and the chunks they wait in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from dicomferry.models.record.database import Database, insert_many
from dicomferry.models.record.jobs import leases, ledger, twins
from dicomferry.models.record.jobs.claims import Lease, waiting_chunks
from dicomferry.models.record.jobs.loss import TWICE
from dicomferry.models.record.remotes import breaker
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, JobRow
from dicomferry.models.rules.ending import LOST
from dicomferry.models.rules.state import ChunkState, ItemState

_ITEM: sa.Table = ItemRow.__table__  # type: ignore[assignment]
MAX_INSTANCES = 500
"""Instances in a chunk, at most."""


def new_chunk(job_id: int, **values: Any) -> dict[str, Any]:
    """The values of a chunk's row, waiting."""
    return {"job_id": job_id, "state": ChunkState.PENDING, **values}


def add_batch(
    database: Database,
    lease: Lease,
    *,
    cursor: bytes | None,
    chunks: Sequence[Sequence[Mapping[str, Any]]],
    decided: Sequence[Mapping[str, Any]],
) -> tuple[bool, int]:
    """One step of a plan in one fenced transaction: items, the chunks they wait in, and the cursor.

    `chunks` holds the values of pending item rows, one sequence a chunk; `decided` those of items that were skipped
    or failed already, which stay with the plan. Returns whether the plan should stop because cancel or hold was asked,
    and how many chunks of the job wait now. Raises LeaseLost.
    """

    def work(connection: Connection, *, claimed: bool = False) -> tuple[bool, int]:
        cancel, hold = leases.fence(connection, lease)
        if cancel or hold:
            return True, 0
        written = connection.execute(sa.select(ChunkRow.cursor).where(ChunkRow.id == lease.chunk_id)).scalar_one()
        if cursor is not None and written == cursor:  # this runs again after a connection lost in the commit
            return False, waiting_chunks(connection, lease.job_id)
        now = database.now(connection)
        connection.execute(
            sa.update(ChunkRow).where(ChunkRow.id == lease.chunk_id).values(cursor=cursor, barren=0, deaths=0)
        )
        new = twins.demoted(connection, lease.job_id, chunks) if claimed else chunks
        _insert_chunks(connection, lease, now, new)
        settled, orphans = twins.orphans(connection, lease.job_id, decided)
        if orphans:
            _insert_chunks(connection, lease, now, [orphans])
        if settled:
            _insert_items(connection, lease.job_id, lease.chunk_id, settled)
            failed = sum(item["state"] is ItemState.FAILED for item in settled)
            connection.execute(
                sa.update(ChunkRow)
                .where(ChunkRow.id == lease.chunk_id)
                .values(
                    total=ChunkRow.total + len(settled),
                    failed=ChunkRow.failed + failed,
                    skipped=ChunkRow.skipped + len(settled) - failed,
                )
            )
        return False, waiting_chunks(connection, lease.job_id)

    try:
        return database.write(work)
    except IntegrityError:  # a twin that came back has taken a UID since the batch was settled
        return database.write(lambda connection: work(connection, claimed=True))


def _insert_chunks(
    connection: Connection, lease: Lease, now: datetime, chunks: Sequence[Sequence[Mapping[str, Any]]]
) -> None:
    wait = _wait(connection, lease, now) if chunks else {}
    for items in chunks:
        chunk_id = _insert_chunk(connection, lease, total=len(items), waits_from=now, **wait)
        _insert_items(connection, lease.job_id, chunk_id, items)


def take_apart(connection: Connection, lease: Lease, now: datetime, requests: Sequence[int]) -> None:
    """Give each of these requests of a chunk one of its own, due now: it is tried as if it had always been alone. Runs
    with the rows of job and chunk locked.
    """
    wait = _wait(connection, lease, now)
    left = sa.and_(ItemRow.chunk_id == lease.chunk_id, ItemRow.kind == "request", ItemRow.state == ItemState.PENDING)
    connection.execute(sa.update(ItemRow).where(left).values(charges=0, reason=None, detail=None))
    for key in requests:
        chunk_id = _insert_chunk(connection, lease, total=1, waits_from=now, **wait)
        own = sa.or_(ItemRow.id == key, ItemRow.request_id == key)
        connection.execute(sa.update(ItemRow).where(ItemRow.chunk_id == lease.chunk_id, own).values(chunk_id=chunk_id))
        ledger.recount(connection, chunk_id)
    ledger.recount(connection, lease.chunk_id)


def died_on(database: Database, lease: Lease) -> tuple[dict[bytes, int], frozenset[bytes]]:
    """On what the last attempt at a plan died, if that is known, and how often; and what earlier ones died on twice,
    which no plan opens again.
    """

    def work(connection: Connection) -> tuple[dict[bytes, int], frozenset[bytes]]:
        suspects = connection.execute(
            sa.select(ChunkRow.in_flight_path, ChunkRow.in_flight_losses).where(
                ChunkRow.id == lease.chunk_id, ChunkRow.in_flight_path.is_not(None)
            )
        )
        deaths = {row.in_flight_path: row.in_flight_losses for row in suspects}
        given_up = sa.select(ItemRow.path).where(
            ItemRow.chunk_id == lease.chunk_id, ItemRow.state == ItemState.FAILED, ItemRow.reason == TWICE
        )
        return deaths, frozenset(path for path in connection.execute(given_up).scalars() if path is not None)

    return database.read(work)


def about_to_open(database: Database, lease: Lease, path: bytes | None, *, deaths: int = 0) -> None:
    """Write down what a careful plan looks at next, None for nothing, to know on what a worker died; so often one
    died on it before. Raises LeaseLost.
    """
    leases.fenced(database, lease, lambda _: None, in_flight_path=path, in_flight_losses=deaths)


def _wait(connection: Connection, lease: Lease, now: datetime) -> dict[str, Any]:
    """How a new chunk begins: held as its job is, or waiting as the remote's breaker does."""
    of_job = sa.select(ChunkRow.reason, ChunkRow.advice).where(
        ChunkRow.job_id == lease.job_id, ChunkRow.state == ChunkState.HELD, ChunkRow.reason != LOST
    )
    refused = connection.execute(of_job.limit(1)).one_or_none()
    if refused:
        return {"state": ChunkState.HELD, "not_before": now, "reason": refused.reason, "advice": refused.advice}
    # Whether the remote is away is the breaker's to say: a chunk that waits may do so for reasons of its own.
    open_until = breaker.broken_until(connection, lease.remote_id, now)
    return {"not_before": now, **open_until}


def _insert_chunk(connection: Connection, lease: Lease, **values: Any) -> int:
    priority = sa.select(JobRow.priority).where(JobRow.id == lease.job_id).scalar_subquery()
    chunk = new_chunk(
        lease.job_id,
        **{
            "kind": lease.spec.kind,
            "lane": lease.spec.lane,
            "priority": priority,
            "remote_id": lease.remote_id,
            **values,
        },
    )
    key: int = connection.execute(sa.insert(ChunkRow).values(**chunk).returning(ChunkRow.id)).scalar_one()
    return key


def _insert_items(connection: Connection, job_id: int, chunk_id: int, items: Sequence[Mapping[str, Any]]) -> None:
    common = {"job_id": job_id, "chunk_id": chunk_id}
    if items and "identifier" in items[0]:  # a request, which is no plain values alone
        connection.execute(sa.insert(ItemRow), [{**common, **item} for item in items])
    else:
        insert_many(connection, _ITEM, {**common, "kind": "instance"}, items)


def firsts_of(database: Database, job_id: int, uids: Iterable[str]) -> dict[str, bytes]:
    """The SOP Instance UIDs among these that the job has already: UID to path."""
    return database.read(lambda connection: twins.firsts(connection, job_id, uids))


def identify_item(database: Database, lease: Lease, item_id: int, values: Mapping[str, Any]) -> bool:
    """Write down what a file turned out to hold, and that it speaks for its SOP Instance UID; False where another one
    does meanwhile. Raises LeaseLost.
    """

    def work(connection: Connection) -> bool:
        leases.fence(connection, lease)
        own = sa.select(ItemRow.path).where(ItemRow.id == item_id)
        known = twins.firsts(connection, lease.job_id, [values["sop_instance_uid"]])
        if known and connection.execute(own).scalar_one() not in known.values():
            return False
        connection.execute(sa.update(ItemRow).where(ItemRow.id == item_id).values(**values))
        return True

    return database.write(work)

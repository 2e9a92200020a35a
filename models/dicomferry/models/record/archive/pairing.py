"""Which retrieve asked for what arrives, and what an arrival means for items that nobody is working on.

All of it runs inside the transaction that records the arrivals. Locks are taken as everywhere, jobs before chunks
before items, and several of one kind in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import here
from dicomferry.models.record.archive.here import FILED_ELSEWHERE
from dicomferry.models.record.database import AnyRow, locking
from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, JobRow, MoveRow, RemoteRow
from dicomferry.models.rules import proof
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.flaws import CAME_FLAWED
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import (
    FINAL_JOB_STATES,
    GOOD_ITEM_STATES,
    ITEM_TRANSITIONS,
    ChunkState,
    ItemState,
    step,
)

NOT_DELIVERED = Reason.NOT_DELIVERED
GONE = Reason.GONE_AT_SOURCE
UNAVAILABLE = Reason.UNAVAILABLE
LATE = frozenset({NOT_DELIVERED, GONE, UNAVAILABLE, FILED_ELSEWHERE, CAME_FLAWED})
"""Reasons of failed items that an arrival makes good."""
NOT_YET = Reason.NOT_DELIVERED_YET
"""Why the chunk of a retrieve waits for its next round."""
NEARLINE = Reason.NEARLINE
"""Why it waits for an archive that has to bring something back from slow media."""
STRAGGLE_SECONDS = 10.0
"""While something still arrives for a chunk that waits, its next round begins no sooner than so long after that."""


# Not frozen: one is made for every instance.
@dataclass
class Came:
    """What of an arrival tells who asked for it."""

    sop_instance_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    originator_ae_title: str | None
    originator_message_id: int | None
    job_id: int | None = None
    """Whose it is and what brought it, where that was known when it came."""
    move_id: int | None = None


@dataclass(frozen=True)
class Pair:
    """The retrieve that asked for an arrival, and the C-MOVE or C-GET that brought it, where they are known.

    With a move alone it came along with that, and nobody asked for it. `surplus_of` is the retrieve that it came along
    with and that has no item for it.
    """

    job_id: int | None
    move_id: int | None
    surplus_of: int | None = None


def pair(connection: Connection, came: Sequence[Came]) -> tuple[list[Pair | None], list[AnyRow]]:
    """(the retrieve of each arrival, None for one that nobody asked for; the items that they may bring to an end).

    An originator pairs only if the instance's study fits that move, or its remote lists other UIDs than its files
    carry; else the UID decides, if a retrieve that runs or waits expects it, under this study and series before
    others. The jobs of both are locked: `finish_items` is to follow.
    """
    expecting: dict[str, list[AnyRow]] = {}
    for row in _expecting(connection, {one.sop_instance_uid for one in came}):
        expecting.setdefault(row.sop_instance_uid, []).append(row)
    moves = _moves(connection, {one.originator_message_id for one in came if one.originator_message_id})
    pairs = [_pair(one, moves, expecting.get(one.sop_instance_uid, ())) for one in came]
    touched = [row for rows in expecting.values() for row in rows if _is_open(row)]
    jobs = sorted({row.job_id for row in touched} | {one.job_id for one in pairs if one and one.job_id})
    for part in batches(jobs):
        connection.execute(locking(sa.select(JobRow.id).where(JobRow.id.in_(part)).order_by(JobRow.id)))
    return pairs, touched


def _expecting(connection: Connection, uids: Iterable[str]) -> Iterator[AnyRow]:
    """The items that name these UIDs, of retrieves that come to us."""
    for part in batches(sorted(uids)):
        yield from connection.execute(
            sa.select(
                ItemRow.id,
                ItemRow.sop_instance_uid,
                ItemRow.study_instance_uid,
                ItemRow.series_instance_uid,
                ItemRow.job_id,
                ItemRow.chunk_id,
                ItemRow.state,
                ItemRow.reason,
                ChunkRow.state.label("chunk_state"),
                JobRow.state.label("job_state"),
            )
            .join(ChunkRow, ChunkRow.id == ItemRow.chunk_id)
            .join(JobRow, JobRow.id == ItemRow.job_id)
            .where(
                ItemRow.sop_instance_uid.in_(sa.bindparam("uids", part, expanding=True)),
                ItemRow.request_id.is_not(None),
                ItemRow.is_first,
                JobRow.destination.is_(None),
                JobRow.pruned_at.is_(None),
            )
        )


def _moves(connection: Connection, message_ids: Iterable[int]) -> Mapping[tuple[int, str], list[AnyRow]]:
    """The moves with these message ids by id and our AE title, the newest first."""
    found: dict[tuple[int, str], list[AnyRow]] = {}
    for part in batches(sorted(message_ids)):
        for row in connection.execute(
            sa.select(
                *(MoveRow.id, MoveRow.job_id, MoveRow.message_id, MoveRow.ae_title, MoveRow.study_instance_uid),
                RemoteRow.coerces,
            )
            .join(JobRow, JobRow.id == MoveRow.job_id)
            .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
            .where(MoveRow.message_id.in_(part), MoveRow.method == "move", MoveRow.destination.is_(None))
            .order_by(MoveRow.id.desc())
        ):
            found.setdefault((row.message_id, row.ae_title), []).append(row)
    return found


def _pair(one: Came, moves: Mapping[tuple[int, str], list[AnyRow]], expecting: Sequence[AnyRow]) -> Pair | None:
    """The retrieve that an arrival belongs to; None where nothing asked for it.

    By the originator; else by the item that waits for it: of a chunk that runs, else of one that waits, else of a
    retrieve that gave up.
    """
    waiting = {row.job_id for row in expecting}

    def along_with(job_id: int) -> int | None:
        return None if job_id in waiting else job_id

    if one.job_id is not None:
        return Pair(one.job_id, one.move_id, along_with(one.job_id))
    named: Sequence[AnyRow] = ()
    if one.originator_message_id is not None:
        named = moves.get((one.originator_message_id, one.originator_ae_title or ""), ())
    for row in named:
        if row.study_instance_uid in (None, one.study_instance_uid) or "study" in (row.coerces or ""):
            return Pair(row.job_id, row.id, along_with(row.job_id))
    rank, _, job_id = min(((_rank(row), _differs(row, one), row.job_id) for row in expecting), default=(9, True, 0))
    if rank < 9:
        return Pair(job_id, None)
    return Pair(None, named[0].id, along_with(named[0].job_id)) if named else None


def _rank(row: AnyRow) -> int:
    alive = row.job_state not in FINAL_JOB_STATES
    if alive and row.state is ItemState.PENDING:
        return 0 if row.chunk_state is ChunkState.RUNNING else 1
    if row.state is ItemState.FAILED and row.reason in LATE:
        return 2
    return 3 if alive else 9


def _differs(row: AnyRow, one: Came) -> bool:
    """Whether it comes under another study or series than the item has it."""
    return (row.study_instance_uid, row.series_instance_uid) != (one.study_instance_uid, one.series_instance_uid)


def _is_open(row: AnyRow) -> bool:
    return row.state is ItemState.PENDING or (row.state is ItemState.FAILED and row.reason in LATE)


def finish_items(connection: Connection, items: Sequence[AnyRow], received: Collection[int], now: datetime) -> None:
    """Bring items whose instance is archived now to their end, unless an attempt is at work on them: that one sees it.

    `items` are those that `pair` gave, in the same transaction, `received` the rows of the files that have just come;
    whether one of them counts for an item is for `here` to say. A request whose last instance came is made good, its
    job derived again, a chunk that waited for nothing else is due at once.
    """
    if not items:
        return
    idle: set[int] = set()
    for part in batches(sorted({row.chunk_id for row in items})):
        chunks = connection.execute(
            locking(sa.select(ChunkRow.id, ChunkRow.state).where(ChunkRow.id.in_(part)).order_by(ChunkRow.id))
        ).all()
        idle.update(row.id for row in chunks if row.state in (ChunkState.PENDING, ChunkState.HELD, ChunkState.DONE))
    changed: dict[int, int] = {}
    waiting: dict[int, list[AnyRow]] = {}
    for part in batches([row.id for row in items if row.chunk_id in idle]):
        for row in connection.execute(
            sa.select(ItemRow.id, ItemRow.state, ItemRow.reason, ItemRow.chunk_id, ItemRow.job_id).where(
                ItemRow.id.in_(part)
            )
        ).all():
            if _is_open(row):
                waiting.setdefault(row.job_id, []).append(row)
    for job_id, rows in waiting.items():
        changed |= dict.fromkeys(_finish_items_of(connection, job_id, rows, received), job_id)
    for chunk_id in sorted(changed):
        _update_chunk(connection, chunk_id, changed[chunk_id], now)
    for job_id in sorted(set(changed.values())):
        ledger.derive(connection, job_id, now)


def _finish_items_of(
    connection: Connection, job_id: int, items: Sequence[AnyRow], received: Collection[int]
) -> Iterator[int]:
    """Bring those of a job's items to their end for which something came; the chunk of each."""
    by_id = {row.id: row for row in items}
    who = here.asker(connection, job_id)
    for part in batches(list(by_id)):
        for one in here.found(connection, who, ItemRow.id.in_(part), refetch=False):
            row = by_id[one.item_id]
            late = row.state is ItemState.FAILED
            if one.instance_id not in received or (late and one.truncated):
                continue
            outcome = one.outcome()
            step(ITEM_TRANSITIONS, row.state, outcome.state)
            reason = Reason.ARRIVED_LATE if late else outcome.reason if one.truncated else None
            connection.execute(
                sa.update(ItemRow)
                .where(ItemRow.id == row.id)
                .values(state=outcome.state, reason=reason, detail=outcome.detail, status=None)
            )
            here.note_filed(connection, {one.item_id: one.filed})
            yield row.chunk_id


def _update_chunk(connection: Connection, chunk_id: int, job_id: int, now: datetime) -> None:
    """Bring a chunk whose items changed up to date: its requests, its numbers, and when it is due."""
    waiting = connection.execute(
        sa.select(sa.func.count()).where(
            ItemRow.chunk_id == chunk_id, ItemRow.request_id.is_not(None), ItemRow.state == ItemState.PENDING
        )
    ).scalar_one()
    bad = sa.select(ItemRow.request_id).where(
        ItemRow.chunk_id == chunk_id,
        ItemRow.request_id.is_not(None),
        ItemRow.state.not_in(list(GOOD_ITEM_STATES)),
    )
    healed = connection.execute(
        sa.update(ItemRow)
        .where(
            ItemRow.chunk_id == chunk_id,
            ItemRow.kind == "request",
            ItemRow.state == ItemState.FAILED,
            ItemRow.expectation == "images",
            sa.func.coalesce(ItemRow.reason, "").not_in(proof.WANTING),
            ItemRow.id.not_in(bad),
        )
        .values(state=ItemState.SUCCEEDED, reason=Reason.ARRIVED_LATE, detail=None, status=None)
    ).rowcount
    ledger.recount(connection, chunk_id)
    if healed:
        ledger.add_event(connection, job_id, now, "arrived", f"chunk {chunk_id}: what had been given up came after all")
    awaited = ChunkRow.reason.in_((NOT_YET, NEARLINE))
    due = sa.and_(ChunkRow.id == chunk_id, ChunkRow.state == ChunkState.PENDING, awaited)
    if waiting:
        later = now + timedelta(seconds=STRAGGLE_SECONDS)
        connection.execute(
            sa.update(ChunkRow).where(due, ChunkRow.not_before < later).values(not_before=later, waits_from=now)
        )
    else:
        connection.execute(sa.update(ChunkRow).where(due).values(not_before=now, waits_from=now))

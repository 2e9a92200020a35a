"""The end of leases whose holder died or stands still, and what is found out about it: on what it died."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database, locking, past
from dicomferry.models.record.jobs import endings, facts, ledger, twins
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, ItemRow, JobRow
from dicomferry.models.rules import ending
from dicomferry.models.rules.errors import Locked
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.situation import Account, Death
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState

MAX_LOSSES = 2
"""An item that was in flight this often when its worker died is failed."""
USUAL_LENGTH = timedelta(seconds=30)
"""How long a lease lasts of which it is not known."""
TWICE = Reason.WORKER_DIED_TWICE_ON_IT
_ASKED = locking(sa.select(JobRow.cancel_asked, JobRow.hold_asked).where(JobRow.id == sa.bindparam("job")), skip=True)


def expire(database: Database, *, everything: bool = False) -> int:
    """End the leases whose time is over (or `everything` that runs) and put their chunks back; how many there were.

    This is the only place where a lease ends without its holder. What somebody else has locked is left for the next
    time. Where the clock was set, each lease has one renewal first: nobody can tell how long ago it was made.
    """

    def overdue(connection: Connection) -> tuple[datetime, Sequence[AnyRow]]:
        now = database.now(connection)
        condition = ChunkRow.state == ChunkState.RUNNING
        if not everything:
            condition = sa.and_(condition, past(ChunkRow.lease_until, ChunkRow.leased_at, now, strictly=True))
        query = sa.select(ChunkRow.id, ChunkRow.job_id, ChunkRow.fence, ChunkRow.leased_at).where(condition)
        return now, connection.execute(query).all()

    now, rows = database.read(overdue)
    if not everything and (database.steps.take() or any(row.leased_at and row.leased_at > now for row in rows)):
        database.write_at_once(lambda connection: _grant(connection, database.now(connection)))
        return 0
    number = 0
    for row in rows:
        with contextlib.suppress(Locked):
            number += database.write_at_once(
                lambda connection, row=row: _expire(database, connection, row.id, row.job_id, row.fence, everything)  # type: ignore[misc]
            )
    return number


def _grant(connection: Connection, now: datetime) -> None:
    """Let each lease last from now on as long as it was made for."""
    running = sa.select(ChunkRow.id, ChunkRow.fence, ChunkRow.lease_until, ChunkRow.leased_at).where(
        ChunkRow.state == ChunkState.RUNNING
    )
    for row in connection.execute(locking(running.order_by(ChunkRow.id), skip=True)).all():
        length = row.lease_until - row.leased_at if row.leased_at else USUAL_LENGTH
        connection.execute(
            sa.update(ChunkRow)
            .where(ChunkRow.id == row.id, ChunkRow.fence == row.fence, ChunkRow.state == ChunkState.RUNNING)
            .values(lease_until=now + length, leased_at=now)
        )


def _expire(
    database: Database, connection: Connection, chunk_id: int, job_id: int, fence: int, everything: bool
) -> bool:
    asked = connection.execute(_ASKED, {"job": job_id}).one_or_none()
    if asked is None:  # somebody has the job's row, or it was pruned
        return False
    now = database.now(connection)
    condition = sa.and_(ChunkRow.id == chunk_id, ChunkRow.fence == fence, ChunkRow.state == ChunkState.RUNNING)
    if not everything:
        condition = sa.and_(condition, past(ChunkRow.lease_until, ChunkRow.leased_at, now, strictly=True))
    chunk = connection.execute(locking(sa.select(ChunkRow.__table__).where(condition), skip=True)).one_or_none()
    if chunk is None:  # renewed or finished since we looked, or locked
        return False
    holder = connection.execute(
        sa.select(AttemptRow.worker, AttemptRow.pid).where(AttemptRow.chunk_id == chunk_id, AttemptRow.fence == fence)
    ).one()
    blamed, settled = _blame(connection, chunk)
    deaths = 0 if settled else chunk.deaths + 1
    connection.execute(sa.update(ChunkRow).where(ChunkRow.id == chunk_id).values(deaths=deaths))
    known = facts.of_lost(connection, chunk, now, cancel=asked.cancel_asked, hold=asked.hold_asked)
    account = Account(end=AttemptEnd.LOST, cause=Death(deaths=deaths, blamed=blamed))
    endings.write(
        connection,
        endings.Place(job_id, chunk_id, fence, chunk.remote_id),
        ending.of(account, known),
        now,
        remark=f"chunk {chunk_id}: lost with {holder.worker}, process {holder.pid}; "
        "what it had not recorded is done again",
    )
    return True


def _blame(connection: Connection, chunk: AnyRow) -> tuple[bool, bool]:
    """Whether it is known on what a careful attempt died, and whether that was given up now: it is the second time."""
    if chunk.in_flight_path is not None:
        return True, _blame_path(connection, chunk)
    if chunk.in_flight_item_id is None:
        return False, False
    pending = sa.and_(ItemRow.id == chunk.in_flight_item_id, ItemRow.state == ItemState.PENDING)
    connection.execute(sa.update(ItemRow).where(pending).values(losses=ItemRow.losses + 1))
    given_up = connection.execute(
        sa.update(ItemRow).where(pending, ItemRow.losses >= MAX_LOSSES).values(state=ItemState.FAILED, reason=TWICE)
    ).rowcount
    ledger.recount(connection, chunk.id)
    if given_up:
        failed = Outcome(item_id=chunk.in_flight_item_id, state=ItemState.FAILED, reason=TWICE)
        twins.come_back(connection, chunk.job_id, chunk.id, [failed])
    return True, bool(given_up)


def _blame_path(connection: Connection, chunk: AnyRow) -> bool:
    """A careful plan died on this file. The second time it becomes an item that failed, and no plan opens it again."""
    losses = chunk.in_flight_losses + 1
    if losses < MAX_LOSSES:
        connection.execute(sa.update(ChunkRow).where(ChunkRow.id == chunk.id).values(in_flight_losses=losses))
        return False
    connection.execute(
        sa.insert(ItemRow).values(
            job_id=chunk.job_id,
            chunk_id=chunk.id,
            kind="instance",
            is_first=False,
            path=chunk.in_flight_path,
            state=ItemState.FAILED,
            reason=TWICE,
            losses=losses,
        )
    )
    ledger.recount(connection, chunk.id, in_flight_path=None, in_flight_losses=0)
    return True

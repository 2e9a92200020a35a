"""The breaker of a remote: it opens when the remote cannot be used, and lets one attempt at a time look again.

What waits for it is due as soon as it closes. It is part of the governor's row, see there for the order of locks.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database, locking
from dicomferry.models.record.remotes import governor
from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, RemoteRow
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.ending import Ending, Seen
from dicomferry.models.rules.gate import LIMIT, WINDOW
from dicomferry.models.rules.situation import Breaker
from dicomferry.models.rules.waits import is_past

AWAY_REASONS = lookup.reasons_of(Rule.AWAY, Rule.SUSPECT)
"""What is said of chunks that wait because their remote cannot be used."""
_LATELY = timedelta(days=1)


def known(connection: Connection, remote_id: int, chunk_id: int, *, lock: bool) -> Breaker:
    """The breaker of a remote as the end of an attempt on this chunk is decided by it.

    Its row is locked where the end may change it: `lock` says so, and so does a failure that is counted.
    """
    row = governor.row_of(connection, remote_id)
    if lock or row.failures:
        row = governor.locked(connection, remote_id)
    return Breaker(
        failures=row.failures or 0,
        is_open=row.broken_since is not None,
        is_look=row.probe_chunk_id == chunk_id,
    )


def count_failure(connection: Connection, remote_id: int, ending: Ending, now: datetime, detail: str | None) -> None:
    """An attempt has ended, and its remote took nothing: that is counted, and the breaker opens or stays so until the
    next look where the remote is away.
    """
    values: dict[str, Any] = {"failures": ending.failures}
    decision = ending.decision
    if decision and ending.seen is Seen.AWAY:
        since = sa.func.coalesce(GovernorRow.broken_since, sa.literal(now, GovernorRow.broken_since.type))
        values |= {"broken_since": since, "probe_chunk_id": None}
        values |= {"probe_at": decision.leave_until, "probe_set_at": now}
        values |= {"reason": decision.reason, "detail": detail, "advice": decision.advice}
    connection.execute(sa.update(GovernorRow).where(GovernorRow.remote_id == remote_id).values(**values))


def close(connection: Connection, remote_id: int, chunk_id: int, fence: int, now: datetime) -> bool:
    """The remote can be used, as an attempt found that began after it could not; whether that is news.

    What waited for the breaker is due then.
    """
    row = governor.row_of(connection, remote_id)
    if row.broken_since is None and not row.failures:
        return False
    began = sa.select(AttemptRow.started_at).where(AttemptRow.chunk_id == chunk_id, AttemptRow.fence == fence)
    ill = sa.or_(
        GovernorRow.broken_since <= began.scalar_subquery(),
        GovernorRow.broken_since > now,  # the clock was set back since
        sa.and_(GovernorRow.broken_since.is_(None), GovernorRow.failures > 0),
    )
    updated = connection.execute(
        sa.update(GovernorRow).where(GovernorRow.remote_id == remote_id, ill).values(**governor.MENDED)
    )
    if updated.rowcount and row.broken_since is not None:
        _wake(connection, remote_id, row.reason, now)
    return bool(updated.rowcount)


def _wake(connection: Connection, remote_id: int, reason: str | None, now: datetime) -> None:
    """What waited for the breaker is due: chunks that met it, were put off by it, or wait along with one that did."""
    waiting = governor.lock_waiting(
        connection,
        ChunkRow.remote_id == remote_id,
        ChunkRow.waits_from.is_not(None),
        ChunkRow.not_before > now,
        ChunkRow.reason.in_({*AWAY_REASONS, reason or ""}),
    )
    connection.execute(
        sa.update(ChunkRow).where(waiting).values(not_before=now, waits_from=now, reason=None, advice=None)
    )


def resume(database: Database, remote_id: int) -> int:
    """A person says that the remote can be used: its breaker is closed, what it was found to bear is forgotten, and
    what waits for it in the meantime is due; how many chunks that are. Raises OutOfReach.

    Windows, limits, times that a person gave and holds stay as they are.
    """

    def work(connection: Connection) -> int:
        connection.execute(locking(sa.select(RemoteRow.id).where(RemoteRow.id == remote_id)))
        now = database.now(connection)
        governor.update(connection, remote_id, {**governor.MENDED, **governor.FORGOTTEN})
        return make_due(connection, now, ChunkRow.remote_id == remote_id)

    return database.write_once(work)


def make_due(connection: Connection, now: datetime, *conditions: sa.ColumnElement[bool]) -> int:
    """What of these chunks waits for a time that we computed, limits apart, is due now; how many that are."""
    waiting = governor.lock_waiting(
        connection,
        ChunkRow.waits_from.is_not(None),
        ChunkRow.not_before > now,
        sa.or_(ChunkRow.reason.is_(None), ChunkRow.reason.not_in([WINDOW, LIMIT])),
        *conditions,
    )
    return connection.execute(
        sa.update(ChunkRow).where(waiting).values(not_before=now, waits_from=now, reason=None, advice=None)
    ).rowcount


def answers(database: Database, name: str) -> bool:
    """A person's look found the remote of this name well: its breaker closes, and what waited for it is due; whether
    it was open. Raises OutOfReach.
    """
    found = sa.select(RemoteRow.id).where(RemoteRow.name == name, RemoteRow.removed_at.is_(None))
    ill = sa.select(GovernorRow.remote_id).where(
        GovernorRow.remote_id.in_(found), sa.or_(GovernorRow.broken_since.is_not(None), GovernorRow.failures > 0)
    )
    remote_id = database.read(lambda connection: connection.execute(ill).scalar_one_or_none())
    if remote_id is None:
        return False

    def work(connection: Connection) -> bool:
        connection.execute(locking(sa.select(RemoteRow.id).where(RemoteRow.id == remote_id)))
        was_open = governor.row_of(connection, remote_id).broken_since is not None
        reset(connection, remote_id, database.now(connection))
        return was_open

    return database.write_once(work)


def broken_until(connection: Connection, remote_id: int | None, now: datetime) -> dict[str, Any]:
    """What a chunk begins with that is made while the breaker is open, by its column; nothing while it is closed."""
    if remote_id is None:
        return {}
    row = governor.row_of(connection, remote_id)
    if row.broken_since is None or is_past(row.probe_at, row.probe_set_at, now):
        return {}
    return {"not_before": row.probe_at, "reason": row.reason, "advice": row.advice, "waiting_since": now}


def has_served(connection: Connection, remote_id: int, now: datetime) -> bool:
    """Whether an attempt of the last day got something done with the remote."""
    query = (
        sa.select(AttemptRow.id)
        .join(ChunkRow, ChunkRow.id == AttemptRow.chunk_id)
        .where(
            ChunkRow.remote_id == remote_id,
            ChunkRow.succeeded + ChunkRow.warning > 0,
            AttemptRow.finished_items > 0,
            AttemptRow.ended_at > now - _LATELY,
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def reset(connection: Connection, remote_id: int, now: datetime) -> None:
    """A person says that it goes on: the next attempt is made without a look, what waited for the breaker is due."""
    row = governor.row_of(connection, remote_id)
    if row.broken_since is not None or row.failures:
        connection.execute(sa.update(GovernorRow).where(GovernorRow.remote_id == remote_id).values(**governor.MENDED))
    if row.broken_since is not None:
        _wake(connection, remote_id, row.reason, now)


def note_crowding(connection: Connection, remote_id: int, chunk_id: int, now: datetime) -> None:
    """Write down that a remote has no room for more associations than are open now, the refused one left out."""
    others = governor.running(connection, remote_id, ChunkRow.id != chunk_id)
    governor.update(connection, remote_id, {"learned_associations": max(others, 1), "associations_learned_at": now})

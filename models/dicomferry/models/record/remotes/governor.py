"""The governor: what keeps all processes together from hurting a remote.

Its gates are asked inside the claim, with the remote's row locked; its places (see `pacing`) are taken by whoever is
about to use the remote, a few at once. Its breaker is in `breaker`. Its row is locked after the job's, the remote's and
the own chunk's, before chunks that wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database, locking
from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow, RemoteRow
from dicomferry.models.record.upsert import upsert
from dicomferry.models.rules import gate as rule
from dicomferry.models.rules import pacing, window
from dicomferry.models.rules.gate import LIMIT, WINDOW, Gate, InUse, Known
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.pacing import Grant, RateLimits
from dicomferry.models.rules.state import ChunkState
from dicomferry.models.rules.waits import ahead

JITTER_SECONDS = 10.0
"""Remotes that open at the same time are not all called in the same second."""
_LEARN_EVERY = timedelta(seconds=1)

What = Literal["requests", "instances", "size"]
LIMITS = (RemoteRow.max_requests_per_minute, RemoteRow.max_instances_per_second, RemoteRow.max_bytes_per_second)
"""The columns that `limits` reads, beside those of the governor's row."""
MENDED: Mapping[str, Any] = {
    "failures": 0,
    "broken_since": None,
    "probe_at": None,
    "probe_set_at": None,
    "probe_chunk_id": None,
    "reason": None,
    "detail": None,
    "advice": None,
}
"""A breaker that is closed."""
FORGOTTEN: Mapping[str, Any] = {"learned_rate": None, "learned_associations": None}
"""A remote of which nothing was learned."""
# Built once: they are part of every claim.
_ROW = (
    sa.select(
        *LIMITS,
        RemoteRow.window,
        RemoteRow.max_associations,
        RemoteRow.max_moves,
        *(column for column in GovernorRow.__table__.columns if column.name != "remote_id"),
    )
    .select_from(RemoteRow)
    .outerjoin(GovernorRow, GovernorRow.remote_id == RemoteRow.id)
    .where(RemoteRow.id == sa.bindparam("remote"))
)
_RUNNING = (
    sa.select(sa.func.count())
    .select_from(ChunkRow)
    .where(ChunkRow.remote_id == sa.bindparam("remote"), ChunkRow.state == ChunkState.RUNNING)
)


def limits(row: AnyRow, now: datetime) -> RateLimits | None:
    """What applies now, by the remote's row and the governor's; None without any limit."""
    minute = row.max_requests_per_minute
    learned = pacing.learned_rate(row.learned_rate, row.rate_learned_at, now)
    found = RateLimits(
        requests=minute / 60 if minute else None,
        instances=pacing.lowest(row.max_instances_per_second, learned),
        size=row.max_bytes_per_second,
    )
    return found or None


def limited(database: Database) -> dict[int, RateLimits]:
    """Remotes by id that may send only so much in a second. Raises OutOfReach."""
    some = sa.or_(RemoteRow.max_instances_per_second.is_not(None), RemoteRow.max_bytes_per_second.is_not(None))
    query = sa.select(RemoteRow.id, *LIMITS).where(some, RemoteRow.removed_at.is_(None)).order_by(RemoteRow.id)
    rows = database.read(lambda connection: connection.execute(query).all())
    return {row.id: RateLimits(instances=row.max_instances_per_second, size=row.max_bytes_per_second) for row in rows}


def row_of(connection: Connection, remote_id: int) -> AnyRow:
    """The limits and state of a remote, where it has none yet all empty; nothing is locked."""
    return connection.execute(_ROW, {"remote": remote_id}).one()


def update(connection: Connection, remote_id: int, values: Mapping[str, Any]) -> None:
    """Write the governor's row, which is made where there is none."""
    whole = {"failures": 0, **values, "remote_id": remote_id}
    connection.execute(upsert(connection, GovernorRow, whole, key="remote_id", later=values))


def locked(connection: Connection, remote_id: int) -> AnyRow:
    """The governor's row of a remote, made where there is none, and locked until the transaction ends."""
    update(connection, remote_id, {"remote_id": remote_id})
    return row_of(connection, remote_id)


def running(connection: Connection, remote_id: int, *conditions: sa.ColumnElement[bool]) -> int:
    """How many chunks use the remote now."""
    statement = _RUNNING.where(*conditions) if conditions else _RUNNING
    number: int = connection.execute(statement, {"remote": remote_id}).scalar_one()
    return number


# --- gates


def gate(
    connection: Connection,
    remote_id: int,
    kind: Kind,
    now: datetime,
    *,
    ignore_window: bool,
    chunk_id: int | None = None,
) -> Gate:
    """Whether a chunk of this kind, or this one, may be begun. Whoever begins it has the remote's row locked."""
    row = row_of(connection, remote_id)
    known = _known(row, kind, now, ignore_window=ignore_window)
    return rule.closed(known) or rule.opened(known, _in_use(connection, remote_id, kind, row, chunk_id))


def _known(row: AnyRow, kind: Kind, now: datetime, *, ignore_window: bool) -> Known:
    """What the record knows of a remote, as the rule of the gate takes it."""
    learned = pacing.learned_associations(row.learned_associations, row.associations_learned_at, now)
    return Known(
        kind=kind,
        now=now,
        hours=None if ignore_window else window.from_document(row.window),
        is_broken=row.broken_since is not None,
        look_at=ahead(row.probe_at, row.probe_set_at, now),
        reason=row.reason,
        advice=row.advice,
        failures=row.failures or 0,
        taken=_taken(row, now),
        limits=limits(row, now),
        most=row.max_associations if learned is None else min(learned, row.max_associations),
        most_moves=row.max_moves,
    )


def _taken(row: AnyRow, now: datetime) -> dict[str, datetime]:
    """Until when all places of a limit are taken, for those limits where that is in the future."""
    found = {
        "requests": ahead(row.requests_until, row.requests_taken_at, now),
        "instances": ahead(row.instances_until, row.instances_taken_at, now),
        "size": ahead(row.size_until, row.size_taken_at, now),
    }
    return {name: moment for name, moment in found.items() if moment is not None}


def _in_use(connection: Connection, remote_id: int, kind: Kind, row: AnyRow, chunk_id: int | None) -> InUse:
    """What uses the remote now, as far as a chunk of this kind has to know."""
    looks = row.broken_since is not None and running(connection, remote_id, ChunkRow.id == row.probe_chunk_id) > 0
    used = InUse(running=running(connection, remote_id), looks=looks)
    if kind != Kind.MOVE:
        return used
    of_moves = [ChunkRow.kind == Kind.MOVE]
    if row.ahead_chunk_id is not None:
        of_moves.append(ChunkRow.id != row.ahead_chunk_id)
    moves = running(connection, remote_id, *of_moves)
    may_list = moves >= row.max_moves and chunk_id is not None and _may_list(connection, chunk_id, row.ahead_chunk_id)
    return replace(used, moves=moves, may_list=may_list)


def _may_list(connection: Connection, chunk_id: int, ahead: int | None) -> bool:
    """Whether a chunk was never tried, and no other one is listed ahead, or was and waits for its move."""
    query = sa.select(ChunkRow.id, ChunkRow.fence, ChunkRow.state).where(ChunkRow.id.in_((chunk_id, ahead)))
    found = {row.id: row for row in connection.execute(query)}
    waits = ahead in found and found[ahead].state in (ChunkState.PENDING, ChunkState.RUNNING)
    return not waits and chunk_id in found and found[chunk_id].fence == 0


def mark_ahead(connection: Connection, remote_id: int, chunk_id: int) -> None:
    """The attempt that begins on this chunk lists, and moves nothing."""
    update(connection, remote_id, {"ahead_chunk_id": chunk_id})


def unmark_ahead(connection: Connection, remote_id: int, chunk_id: int) -> None:
    """The attempt that begins on this chunk moves, whether it was listed ahead or not."""
    mine = sa.and_(GovernorRow.remote_id == remote_id, GovernorRow.ahead_chunk_id == chunk_id)
    connection.execute(sa.update(GovernorRow).where(mine).values(ahead_chunk_id=None))


def mark_probe(connection: Connection, remote_id: int, chunk_id: int) -> None:
    """The attempt that begins on this chunk is the one that looks whether the remote can be used again."""
    connection.execute(sa.update(GovernorRow).where(GovernorRow.remote_id == remote_id).values(probe_chunk_id=chunk_id))


def put_off(database: Database, remote_id: int, kind: Kind, *, ignore_window: bool, jitter: float) -> bool:
    """What waits behind the same closed gate waits until it opens; whether it is closed indeed. `jitter` is in 0..1."""

    def work(connection: Connection) -> bool:
        # The remote's row is locked, so that nobody changes its window or limits meanwhile.
        connection.execute(locking(sa.select(RemoteRow.id).where(RemoteRow.id == remote_id)))
        now = database.now(connection)
        found = gate(connection, remote_id, kind, now, ignore_window=ignore_window)
        if found.until is None:
            return False
        until = found.until + timedelta(seconds=JITTER_SECONDS * jitter if found.reason == WINDOW else 0.0)
        waiting = [ChunkRow.remote_id == remote_id, ChunkRow.not_before < until]
        values: dict[str, Any] = {"not_before": until, "reason": found.reason, "advice": found.advice}
        # A window opens at its hour, whatever becomes of the clock; the other waits are ours.
        values["waits_from"] = None if found.reason == WINDOW else now
        if found.reason == WINDOW:
            waiting.append(ChunkRow.job_id.not_in(sa.select(JobRow.id).where(JobRow.ignore_window)))
        elif found.reason == LIMIT:
            waiting.append(ChunkRow.kind == kind)
        else:
            since = sa.literal(now, ChunkRow.waiting_since.type)
            values["waiting_since"] = sa.func.coalesce(ChunkRow.waiting_since, since)
        connection.execute(sa.update(ChunkRow).where(lock_waiting(connection, *waiting)).values(**values))
        return True

    return database.write(work)


def lock_waiting(connection: Connection, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Lock the waiting chunks that meet these conditions, in the order of their ids, and give the condition for them.

    They may be of jobs whose rows are not locked: two writers that lock them in different orders would wait for each
    other.
    """
    waiting = sa.and_(ChunkRow.state == ChunkState.PENDING, *conditions)
    if connection.dialect.name == "sqlite":  # a writer has the whole database
        return waiting
    ids = connection.execute(locking(sa.select(ChunkRow.id).where(waiting).order_by(ChunkRow.id))).scalars()
    return ChunkRow.id.in_(ids.all())


def release_waiting(connection: Connection, remote_id: int, now: datetime, *, forget: bool) -> None:
    """The remote's window or limits were changed: what waited for them is due. `forget`: it is another remote now."""
    reasons = [WINDOW, LIMIT]
    if forget:
        reasons += [row for row in [row_of(connection, remote_id).reason] if row]
        update(connection, remote_id, {**MENDED, **FORGOTTEN})
    waiting = lock_waiting(connection, ChunkRow.remote_id == remote_id, ChunkRow.reason.in_(reasons))
    connection.execute(
        sa.update(ChunkRow).where(waiting).values(not_before=now, waits_from=now, reason=None, advice=None)
    )


# --- places


def take(database: Database, remote_id: int, what: What, least: float) -> Grant | None:
    """The next places of a limit, at least so many; None where there is no such limit any more. Raises OutOfReach."""

    def work(connection: Connection) -> Grant | None:
        row = locked(connection, remote_id)
        now = database.now(connection)
        known = limits(row, now)
        rate: float | None = getattr(known, what) if known else None
        if rate is None:
            return None
        amount = least
        if what != "requests":
            amount = max(least, pacing.share(rate, running(connection, remote_id)))
        taken, taken_at = getattr(row, f"{what}_until"), getattr(row, f"{what}_taken_at")
        grant, until = pacing.reserve(taken, now, rate, amount, taken_at)
        update(connection, remote_id, {f"{what}_until": until, f"{what}_taken_at": now})
        return grant

    return database.write(work)


def debt(database: Database, remote_id: int) -> float:
    """The seconds by which what came from a remote lately is ahead of what it may send. Raises OutOfReach."""

    def work(connection: Connection) -> float:
        row = row_of(connection, remote_id)
        now = database.now(connection)
        taken = _taken(row, now)
        return (max(taken.get("instances", now), taken.get("size", now)) - now).total_seconds()

    return database.read(work)


def slow_down(database: Database, remote_id: int, seen: float) -> RateLimits | None:
    """The remote was short of resources while one of those who use it tried so many instances a second: what applies
    from now on. Raises OutOfReach.
    """

    def work(connection: Connection) -> RateLimits | None:
        row = locked(connection, remote_id)
        now = database.now(connection)
        # Others are refused in the same moment: that is one finding, not several.
        if row.rate_learned_at is None or not timedelta() <= now - row.rate_learned_at < _LEARN_EVERY:
            known = pacing.learned_rate(row.learned_rate, row.rate_learned_at, now)
            rate = pacing.slower(known, seen * max(running(connection, remote_id), 1))
            update(connection, remote_id, {"learned_rate": rate, "rate_learned_at": now})
            row = row_of(connection, remote_id)
        return limits(row, now)

    return database.write(work)

"""How a remote is treated at this moment, as it is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents.shapes import ExceptionDocument, RecentDocument, RemoteState, ShownState
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.remotes import book, governor
from dicomferry.models.record.remotes.book import RemoteDocument
from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, RemoteRow
from dicomferry.models.rules import pacing, window
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.state import ChunkState
from dicomferry.models.rules.text import moment

RECENT = 5


def show(database: Database, name: str) -> ShownState:
    """The keys of `remote show --json` that change by themselves, of a remote of the address book."""

    def work(connection: Connection) -> ShownState:
        row = connection.execute(_remotes().where(RemoteRow.name == name, RemoteRow.in_book)).one()
        now = database.now(connection)
        counts = _counts(connection, row.id)
        return {
            **_state(row, now, probing=_is_probing(connection, row)),
            "in_use": {
                "associations": governor.running(connection, row.id),
                "moves": governor.running(connection, row.id, ChunkRow.kind == Kind.MOVE),
            },
            "waiting": counts.get(ChunkState.PENDING, 0),
            "held": counts.get(ChunkState.HELD, 0),
            "recent": _recent(connection, row.id),
        }

    return database.read(work)


class ShownRemote(RemoteDocument, ShownState):
    """A remote as the address book has it, and how it is treated at this moment."""


def whole(database: Database, name: str) -> ShownRemote:
    """A remote of the address book by itself. Raises NotFound."""
    return {**book.show(database, name), **show(database, name)}


def exceptions(database: Database) -> list[ExceptionDocument]:
    """The remotes of the address book that cannot be used now, or not as much as they might."""

    def work(connection: Connection) -> list[ExceptionDocument]:
        now = database.now(connection)
        found: list[ExceptionDocument] = []
        for row in connection.execute(_remotes().where(RemoteRow.in_book).order_by(RemoteRow.name)):
            state = _state(row, now, probing=_is_probing(connection, row))
            learned = any(value is not None for value in state["learned"].values())
            # A breaker that nothing waits for is nobody's matter: it is looked at when something does.
            broken = state["breaker"]["state"] != "closed" and _is_waited_for(connection, row.id)
            if not state["open"] or broken or learned:
                found.append({"name": row.name, "window": row.window, **state})
        return found

    return database.read(work)


def _remotes() -> sa.Select[Any]:
    return sa.select(
        RemoteRow.__table__, *(column for column in GovernorRow.__table__.columns if column.name != "remote_id")
    ).outerjoin(GovernorRow, GovernorRow.remote_id == RemoteRow.id)


def _state(row: AnyRow, now: datetime, *, probing: bool) -> RemoteState:
    hours = window.from_document(row.window)
    rate = pacing.learned_rate(row.learned_rate, row.rate_learned_at, now)
    # What was learned and is beyond the limit that was set changes nothing any more.
    most = row.max_instances_per_second
    rate = None if rate is not None and most is not None and rate >= most else rate
    associations = pacing.learned_associations(row.learned_associations, row.associations_learned_at, now)
    if associations is not None and associations >= row.max_associations:
        associations = None
    return {
        "open": hours is None or hours.is_open(now),
        "opens_at": moment(hours.opens_at(now)) if hours else None,
        "closes_at": moment(hours.closes_at(now)) if hours else None,
        "learned": {
            "instances_per_second": None if rate is None else round(rate, 1),
            "associations": associations,
        },
        "breaker": {
            "state": "closed" if row.broken_since is None else "half-open" if probing else "open",
            "since": moment(row.broken_since),
            "probe_at": moment(row.probe_at),
            "failures": row.failures or 0,
            "reason": row.reason,
            "detail": row.detail,
            "advice": row.advice,
        },
    }


def _is_probing(connection: Connection, row: AnyRow) -> bool:
    if row.probe_chunk_id is None:
        return False
    return governor.running(connection, row.id, ChunkRow.id == row.probe_chunk_id) > 0


def _is_waited_for(connection: Connection, remote_id: int) -> bool:
    live = (ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD)
    query = sa.select(ChunkRow.id).where(ChunkRow.remote_id == remote_id, ChunkRow.state.in_(live))
    return connection.execute(query.limit(1)).first() is not None


def _counts(connection: Connection, remote_id: int) -> dict[ChunkState, int]:
    query = (
        sa.select(ChunkRow.state, sa.func.count().label("number"))
        .where(ChunkRow.remote_id == remote_id, ChunkRow.state.in_((ChunkState.PENDING, ChunkState.HELD)))
        .group_by(ChunkRow.state)
    )
    return {row.state: row.number for row in connection.execute(query)}


def _recent(connection: Connection, remote_id: int) -> list[RecentDocument]:
    """The last attempts that ended, the newest first."""
    query = (
        sa.select(AttemptRow.__table__, ChunkRow.kind)
        .join(ChunkRow, ChunkRow.id == AttemptRow.chunk_id)
        .where(ChunkRow.remote_id == remote_id, AttemptRow.end.is_not(None))
        .order_by(AttemptRow.id.desc())
        .limit(RECENT)
    )
    return [
        {
            "at": moment(row.ended_at),
            "job": row.job_id,
            "kind": row.kind,
            "end": row.end,
            "reason": row.reason,
            "detail": row.detail,
            "finished_items": row.finished_items,
        }
        for row in connection.execute(query)
    ]

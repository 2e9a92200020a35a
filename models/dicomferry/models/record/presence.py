"""Which roles of an installation are alive, by their last sign of life; and turns that only one may take at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from dicomferry.models.record.database import Database, past
from dicomferry.models.record.tables.jobs import ChunkRow, TurnRow, WorkerRow
from dicomferry.models.rules.errors import Locked

BEAT_SECONDS = 5.0
"""How often a role says that it lives."""
FORGOTTEN_AFTER_DAYS = 7
SILENT_AFTER = 20.0
"""Seconds without a sign of life after which a role counts as gone."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A registered role process. `slots` is how many bulk chunks it runs at once."""

    id: int
    name: str
    slots: int


class Role(NamedTuple):
    """A role process as others see it; each field is the column of its name."""

    role: str
    host: str
    pid: int
    slots: int
    started_at: datetime
    seen_at: datetime
    facts: dict[str, Any] | None
    disks: list[Any] | None
    remark: str | None


def register(database: Database, role: str, *, slots: int, facts: Mapping[str, Any] | None = None) -> Worker:
    """Write this process down as a living role; `facts` are the settings that it runs with, for whoever asks."""
    host, pid = socket.gethostname(), os.getpid()

    def work(connection: Connection) -> int:
        now = database.now(connection)
        _forget(connection, now - timedelta(days=FORGOTTEN_AFTER_DAYS))
        row = sa.insert(WorkerRow).values(
            role=role,
            host=host,
            pid=pid,
            slots=slots,
            draining=False,
            started_at=now,
            seen_at=now,
            facts=facts and dict(facts),
        )
        key: int = connection.execute(row.returning(WorkerRow.id)).scalar_one()
        return key

    return Worker(id=database.write(work), name=f"{host}:{pid}", slots=slots)


def _forget(connection: Connection, before: datetime) -> None:
    """Remove the rows of roles that are long gone and own nothing any more."""
    owners = sa.select(ChunkRow.owner_id).where(ChunkRow.owner_id.is_not(None))
    connection.execute(sa.delete(WorkerRow).where(WorkerRow.seen_at < before, WorkerRow.id.not_in(owners)))


def beat(database: Database, worker: Worker, disks: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Give a role's sign of life; `disks` are those that it writes to, as they are now."""
    _update(database, worker, "seen_at", **({} if disks is None else {"disks": [dict(one) for one in disks]}))


def leave(database: Database, worker: Worker) -> None:
    """Write down that a role has ended in good order."""
    _update(database, worker, "ended_at")


def _update(database: Database, worker: Worker, column: str, **values: object) -> None:
    database.write(
        lambda connection: connection.execute(
            sa.update(WorkerRow).where(WorkerRow.id == worker.id).values({column: database.now(connection), **values})
        )
    )


def drain(database: Database, worker: Worker) -> None:
    """The role's running chunks are to stop between two items."""
    database.write(
        lambda connection: connection.execute(
            sa.update(WorkerRow).where(WorkerRow.id == worker.id).values(draining=True)
        )
    )


def remark(database: Database, worker: Worker, text: str) -> None:
    """Say what is to be known of this role as long as it is there."""
    database.write(
        lambda connection: connection.execute(sa.update(WorkerRow).where(WorkerRow.id == worker.id).values(remark=text))
    )


def lives(now: datetime, within: float = SILENT_AFTER) -> sa.ColumnElement[bool]:
    """Condition on a role: it gave a sign of life lately. One further ahead was given before the clock was set back."""
    return sa.and_(
        WorkerRow.ended_at.is_(None),
        WorkerRow.seen_at >= now - timedelta(seconds=within),
        WorkerRow.seen_at <= now + timedelta(seconds=SILENT_AFTER),
    )


def alive(database: Database) -> list[Role]:
    """The roles that gave a sign of life lately, the oldest first."""

    def work(connection: Connection) -> list[Role]:
        columns = (getattr(WorkerRow, name) for name in Role._fields)
        query = sa.select(*columns).where(lives(database.now(connection))).order_by(WorkerRow.id)
        return [Role(*row) for row in connection.execute(query)]

    return database.read(work)


def take_turn(database: Database, name: str, worker: Worker, *, seconds: float) -> bool:
    """Whether this role may do `name` for the next `seconds`; nobody else may meanwhile."""

    def work(connection: Connection) -> bool:
        now = database.now(connection)
        until = now + timedelta(seconds=seconds)
        taken = connection.execute(
            sa.update(TurnRow)
            .where(
                TurnRow.name == name,
                sa.or_(TurnRow.worker_id == worker.id, past(TurnRow.until, TurnRow.taken_at, now, strictly=True)),
            )
            .values(worker_id=worker.id, until=until, taken_at=now)
        )
        if taken.rowcount:
            return True
        if connection.execute(sa.select(TurnRow.name).where(TurnRow.name == name)).first():
            return False
        connection.execute(sa.insert(TurnRow).values(name=name, worker_id=worker.id, until=until, taken_at=now))
        return True

    try:
        return database.write_at_once(work)
    except Locked:  # whoever has the turn takes it anew at this moment, or stands still
        return False
    except IntegrityError:  # two roles made the row at the same moment
        return False

"""What was found out about the keys that a remote matches on; it is known for a week."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.trials import LONGEST_PATH, KeyTrialRow

KEPT = timedelta(days=7)


@dataclass(frozen=True)
class Trials:
    """The keys that one remote was found to match on, or not."""

    database: Database
    remote_id: int

    def matches_on(self, level: str, path: str) -> bool:
        """Whether it was found to match on this key at this level within the last week."""
        return matches_on(self.database, self.remote_id, level, path)

    def keep(self, level: str, path: str) -> None:
        """Write down that the remote matches on this key at this level."""
        keep(self.database, self.remote_id, level, path)

    def drop(self, level: str, path: str) -> None:
        """Forget what was found: an answer says that the remote does not match on this key."""
        drop(self.database, self.remote_id, level, path)


def matches_on(database: Database, remote_id: int, level: str, path: str) -> bool:
    """Whether the remote was found to match on this key at this level within the last week."""

    def work(connection: Connection) -> bool:
        query = sa.select(KeyTrialRow.path).where(*_of(remote_id, level, path), _lately(database.now(connection)))
        return connection.execute(query).first() is not None

    return database.read(work)


def keep(database: Database, remote_id: int, level: str, path: str) -> None:
    """Write down that a remote matches on this key. A path that is too long for the record is tried each time."""
    if len(path) > LONGEST_PATH:
        return

    def work(connection: Connection) -> None:
        connection.execute(sa.delete(KeyTrialRow).where(*_of(remote_id, level, path)))
        row = {"remote_id": remote_id, "level": level, "path": path, "tried_at": database.now(connection)}
        connection.execute(sa.insert(KeyTrialRow).values(**row))

    database.write(work)


def drop(database: Database, remote_id: int, level: str, path: str) -> None:
    """Forget what was found: an answer says that the remote does not match on this key."""
    database.write(lambda connection: connection.execute(sa.delete(KeyTrialRow).where(*_of(remote_id, level, path))))


def forget(connection: Connection, remote_id: int) -> None:
    """Another archive may stand behind the remote's address."""
    connection.execute(sa.delete(KeyTrialRow).where(KeyTrialRow.remote_id == remote_id))


def _of(remote_id: int, level: str, path: str) -> tuple[sa.ColumnElement[bool], ...]:
    return KeyTrialRow.remote_id == remote_id, KeyTrialRow.level == level, KeyTrialRow.path == path


def _lately(now: datetime) -> sa.ColumnElement[bool]:
    """Condition on a trial: it is of the last week, and not in the future (the clock was set back since)."""
    return sa.and_(KeyTrialRow.tried_at > now - KEPT, KeyTrialRow.tried_at <= now)

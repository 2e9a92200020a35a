"""Files of the archive that could not be given a row: named until they have one."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.archive_tables import InstanceRow, UnindexedRow
from dicomferry.models.database import Database

_MOST_KEYS = 500


def note(database: Database, files: Sequence[tuple[str, str]]) -> None:
    """(path, why) of each. Raises OutOfReach."""

    def work(connection: Connection) -> None:
        now = database.now(connection)
        _forget(connection, [path for path, _ in files])
        rows = {path: {"path": path, "why": why, "at": now} for path, why in files}
        connection.execute(sa.insert(UnindexedRow), list(rows.values()))

    if files:
        database.write(work)


def forget(database: Database, paths: Sequence[str]) -> None:
    """These have their rows now. Raises OutOfReach."""
    if paths:
        database.write(lambda connection: _forget(connection, paths))


def _forget(connection: Connection, paths: Sequence[str]) -> None:
    for first in range(0, len(paths), _MOST_KEYS):
        some = paths[first : first + _MOST_KEYS]
        connection.execute(sa.delete(UnindexedRow).where(UnindexedRow.path.in_(some)))


def count(database: Database) -> int:
    """How many there are; one that has its row by now is none. Raises OutOfReach."""
    known = sa.select(InstanceRow.id).where(InstanceRow.path == UnindexedRow.path, InstanceRow.removed_at.is_(None))
    query = sa.select(sa.func.count()).select_from(UnindexedRow).where(~known.correlate(UnindexedRow).exists())
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))

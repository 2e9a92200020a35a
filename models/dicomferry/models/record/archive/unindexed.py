"""Files of the archive that could not be given a row: named until they have one."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.archive import InstanceRow, UnindexedRow
from dicomferry.models.rules import peer_text
from dicomferry.models.rules.batches import batches

MOST_PATH = 255


def note(database: Database, files: Sequence[tuple[str, str]]) -> None:
    """(path, why) of each. Raises OutOfReach."""

    def work(connection: Connection) -> None:
        now = database.now(connection)
        named = [(_name(path), why) for path, why in files]
        _forget(connection, [path for path, _ in named])
        rows = {path: {"path": path, "why": why, "at": now} for path, why in named}
        connection.execute(sa.insert(UnindexedRow), list(rows.values()))

    if files:
        database.write(work)


def forget(database: Database, paths: Sequence[str]) -> None:
    """Forget these files: they have their rows now. Raises OutOfReach."""
    if paths:
        database.write(lambda connection: _forget(connection, [_name(path) for path in paths]))


def _name(path: str) -> str:
    """The path as its row has it: that a file's name is too odd for a row is a reason to be here."""
    return peer_text.words(path)[:MOST_PATH]


def _forget(connection: Connection, paths: Sequence[str]) -> None:
    for some in batches(paths):
        connection.execute(sa.delete(UnindexedRow).where(UnindexedRow.path.in_(some)))


def count(database: Database) -> int:
    """How many there are; one that has its row by now is none. Raises OutOfReach."""
    known = sa.select(InstanceRow.id).where(InstanceRow.path == UnindexedRow.path, InstanceRow.removed_at.is_(None))
    query = sa.select(sa.func.count()).select_from(UnindexedRow).where(~known.correlate(UnindexedRow).exists())
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))

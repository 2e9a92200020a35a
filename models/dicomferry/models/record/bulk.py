"""Many rows of one table at once, each value made by the type of its column, and straight to the driver.

For thousands of rows SQLAlchemy's care for each single value costs more than writing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import run_many

_Makers = tuple[tuple[int, Callable[[Any], Any]], ...]
"""Which columns, by their place, have values that are not written as they are, and what makes them fit."""

_prepared: dict[tuple[str, str, tuple[str, ...]], tuple[str, _Makers]] = {}


def insert_unless_there(connection: Connection, table: type[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, of two names at least and all of the same; what is there already is left alone."""
    if not rows:
        return
    names = tuple(rows[0])
    statement, makers = _prepare(connection.dialect, table.__table__, names)
    columns = list(zip(*map(itemgetter(*names), rows), strict=True))
    for place, make in makers:
        columns[place] = tuple(map(make, columns[place]))
    run_many(connection, statement, list(zip(*columns, strict=True)))


def _prepare(dialect: sa.Dialect, table: sa.Table, names: tuple[str, ...]) -> tuple[str, _Makers]:
    key = (dialect.name, table.name, names)
    found = _prepared.get(key)
    if found is None:
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        makers = ((at, _maker(table.columns[name].type, dialect)) for at, name in enumerate(names))
        found = _prepared[key] = statement, tuple((at, make) for at, make in makers if make is not None)
    return found


def _maker(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    """What makes a value of this type fit for the driver; None where it is as it is."""
    return kind.dialect_impl(dialect).bind_processor(dialect)

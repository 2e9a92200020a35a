"""A record of any earlier version comes to this one with its rows, on either database.

Each step of the migrations is a start: every table that it has holds two rows, the first with its columns filled, the
second with only those that have to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from dicomferry.models.documents import jobs, retrieves, schedules
from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.remotes import book

REVISIONS = sorted(script.revision for script in ScriptDirectory.from_config(schema._config()).walk_revisions())
MOMENT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
STUDY = "1.2.3"
MOVE = {"identifiers": [[None, [["0020000D", STUDY]]]], "level": "study", "root": "study"}
STORE = {"paths": ["/data"]}

WORDS: Mapping[str, tuple[Any, Any]] = {
    "remote.timeouts": ({"connect": 5.0}, {}),
    "remote.prefer_syntax": ("compressed", None),
    "job.kind": ("move", "store"),
    "job.state": ("incomplete", "succeeded"),
    "job.spec": (json.dumps(MOVE), json.dumps(STORE)),
    "job.verified": ("uids", None),
    "chunk.kind": ("move", "store"),
    "chunk.lane": ("bulk", "bulk"),
    "chunk.state": ("done", "done"),
    "item.kind": ("request", "instance"),
    "item.is_first": (True, True),
    "item.state": ("failed", "succeeded"),
    "item.identifier": (MOVE["identifiers"][0][1], None),
    "item.study_instance_uid": (STUDY, None),
    "item.expectation": ("images", None),
    "item.basis": ("list", None),
    "attempt.end": ("completed", "completed"),
    "instance.relation": ("first", "first"),
    "instance.is_current": (True, True),
    "instance.study_instance_uid": (STUDY, None),
    "arrival.outcome": ("stored", "stored"),
    "move.level": ("study", "study"),
    "schedule.cron": ("30 2 * * *", "0 3 * * *"),
    "schedule.zone": ("Europe/Berlin", "UTC"),
    "schedule.command": (json.dumps({"words": ["echo", "P"], "folder": "/"}),) * 2,
    "schedule.catch_up": ("latest", "all"),
    "schedule.overlap": ("skip", "queue"),
}
"""What each of the two rows has in a column where not any value makes sense; a column of that version or not."""
EMPTY = {"removed_at", "pruned_at", "paused_at", "window", "quirks", "coerces"}
"""Columns that hide a row where they are filled, or that have a grammar of their own; empty in both."""


def _value(table: str, column: sa.Column[Any], number: int, *, aware: bool) -> Any:
    """What row `number` of a table has in this column."""
    if (name := f"{table}.{column.name}") in WORDS:
        return WORDS[name][number - 1]
    if column.nullable and (number == 2 or column.name in EMPTY):
        return None
    match column.type:
        case sa.Boolean():
            return False
        case sa.JSON():
            return []
        case sa.DateTime():
            return MOMENT if aware else MOMENT.replace(tzinfo=None)
        case sa.LargeBinary():
            return b"/data/%d" % number
        case sa.String():
            return f"{number}{column.name}"[: column.type.length]
        case _:
            return number


def _tables(connection: sa.Connection) -> Iterator[sa.Table]:
    """The tables as this database has them, those first that others refer to."""
    found = sa.MetaData()
    found.reflect(connection)
    yield from (table for table in found.sorted_tables if table.name != "alembic_version")


def _fill(connection: sa.Connection) -> None:
    aware = connection.dialect.name != "sqlite"
    for table in _tables(connection):
        for number in (1, 2):
            row = {column.name: _value(table.name, column, number, aware=aware) for column in table.columns}
            connection.execute(table.insert(), {name: value for name, value in row.items() if value is not None})


def _rows(connection: sa.Connection) -> dict[str, list[dict[str, Any]]]:
    """All rows, by table."""
    return {
        table.name: [
            dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()
        ]
        for table in _tables(connection)
    }


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """A database without tables."""
    database = Database(empty_url)
    yield database
    database.close()


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_record_of_any_version_is_upgraded_with_its_rows(empty: Database, revision: str) -> None:
    """No row and no value is lost on the way, the tables are then those of the models, and what is shown can be read.

    What a step writes anew, on purpose, has a test of its own beside this one.
    """
    empty.write(lambda connection: command.upgrade(schema._config(connection), revision))
    empty.write(_fill)
    before = empty.read(_rows)
    assert len(before) >= 8 and all(len(rows) == 2 for rows in before.values())

    assert schema.upgrade(empty) == schema.HEAD
    assert schema.differences(empty) is None
    after = empty.read(_rows)
    for table, rows in before.items():
        kept = [{name: row[name] for name in old if name in row} for old, row in zip(rows, after[table], strict=True)]
        assert kept == [{name: value for name, value in old.items() if name in after[table][0]} for old in rows], table

    assert [jobs.show(empty, number)["state"] for number in (1, 2)] == ["incomplete", "succeeded"]
    assert {document["id"] for document in jobs.listing(empty)} == {1, 2}
    assert [request["state"] for request in retrieves.requests(empty, 1)] == ["failed"]
    assert len(book.listing(empty)) == len([row for row in after["remote"] if row["in_book"]])
    assert len(schedules.listing(empty)) == len(before.get("schedule", []))

"""Many rows at once are the rows that SQLAlchemy would have written; on either database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.record.bulk import insert_unless_there
from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow

PLAIN = datetime(2024, 2, 29, 23, 59, 59, 7, tzinfo=UTC)
ELSEWHERE = datetime(2024, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))


def instance(number: int, **more: object) -> dict[str, Any]:
    return {
        "path": f"1/2/{number}.dcm", "size": 2**40 + number, "sop_instance_uid": f"1.2.{number}",
        "sop_class_uid": "1.2.3", "transfer_syntax_uid": "1.2.840.10008.1.2", "study_instance_uid": "1",
        "series_instance_uid": None, "relation": "first", "is_current": number % 2 == 0, "flaw": None,
        "stored_at": PLAIN, **more,
    }  # fmt: skip


ROWS = [
    instance(1),
    instance(2, sop_class_uid="1.2\0.3" + "4" * 80, flaw="odd uid\N{BELL}" * 60, stored_at=ELSEWHERE),
    instance(3, series_instance_uid="", stored_at=PLAIN.replace(microsecond=0)),
]


@pytest.fixture(params=[insert_unless_there, None])
def written(request: pytest.FixtureRequest, database: Database) -> list[Any]:
    """What is read after these rows were written by many, and one by one."""

    def work(connection: sa.Connection) -> None:
        if request.param:
            request.param(connection, InstanceRow, ROWS)
        else:
            for row in ROWS:
                connection.execute(sa.insert(InstanceRow).values(**row))

    database.write(work)
    query = sa.select(InstanceRow.__table__).order_by(InstanceRow.path)
    return database.read(lambda connection: [dict(row._mapping) for row in connection.execute(query)])


def test_values_are_made_by_their_columns(written: list[Any], database: Database) -> None:
    """Text from peers is made fit, moments are UTC, truth is truth: as when each row is written alone."""
    first, second, third = written
    assert {name: first[name] for name in ROWS[0]} == ROWS[0]
    assert (first["removed_at"], first["is_current"], second["is_current"]) == (None, False, True)
    assert second["sop_class_uid"] == "1.2" and len(second["flaw"]) <= 200
    assert second["stored_at"] == ELSEWHERE and third["stored_at"] == PLAIN.replace(microsecond=0)
    assert third["series_instance_uid"] == ""
    later = sa.select(InstanceRow.path).where(InstanceRow.stored_at > PLAIN).order_by(InstanceRow.path)
    assert database.read(lambda connection: connection.execute(later).scalars().all()) == []
    same = sa.select(sa.func.count()).where(InstanceRow.stored_at == ELSEWHERE)
    assert database.read(lambda connection: connection.execute(same).scalar_one()) == 1


def test_what_is_there_is_left_alone(database: Database) -> None:
    """By any unique key; the others are written."""

    def work(connection: sa.Connection) -> list[Any]:
        insert_unless_there(connection, ArrivalRow, [])
        insert_unless_there(connection, InstanceRow, [instance(1)])
        insert_unless_there(connection, InstanceRow, [instance(1, size=7), instance(2, size=8)])
        query = sa.select(InstanceRow.path, InstanceRow.size).order_by(InstanceRow.path)
        return [tuple(row) for row in connection.execute(query)]

    assert database.write(work) == [("1/2/1.dcm", 2**40 + 1), ("1/2/2.dcm", 8)]

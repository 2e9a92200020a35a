"""The tables come about by migrations only, and are then those of the models."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command, op

from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import ConfigurationError


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """A database without tables."""
    database = Database(empty_url)
    yield database
    database.close()


def _tables(database: Database) -> set[str]:
    return set(database.read(lambda connection: sa.inspect(connection).get_table_names()))


def test_an_upgrade_from_nothing_gives_the_tables_of_the_models(empty: Database) -> None:
    """No migration is forgotten: after all of them nothing differs from the models."""
    assert schema.current(empty) is None
    assert schema.upgrade(empty) == schema.HEAD == schema.current(empty)
    assert schema.differences(empty) is None
    schema.require_current(empty)


def test_an_upgrade_of_what_is_current_changes_nothing(empty: Database) -> None:
    """Upgrading twice is upgrading once."""
    schema.upgrade(empty)
    before = _tables(empty)
    assert schema.upgrade(empty) == schema.HEAD
    assert _tables(empty) == before


def test_down_to_nothing_and_up_again(empty: Database) -> None:
    """Each migration undoes what it did."""
    schema.upgrade(empty)
    empty.write(lambda connection: command.downgrade(schema._config(connection), "base"))
    assert _tables(empty) <= {"alembic_version"}
    assert schema.current(empty) is None
    schema.upgrade(empty)
    assert schema.differences(empty) is None


def test_a_difference_is_named(empty: Database) -> None:
    """`db check` says what is wrong, not only that something is."""
    schema.upgrade(empty)
    empty.write(lambda connection: connection.exec_driver_sql("ALTER TABLE turn ADD COLUMN surplus INTEGER"))
    found = schema.differences(empty)
    assert found and "surplus" in found


def _upgrade(url: str, barrier: Any, results: Any) -> None:
    database = Database(url)
    barrier.wait()
    try:
        results.put(schema.upgrade(database))
    except BaseException as error:
        results.put(repr(error))
    finally:
        database.close()


def test_four_processes_upgrade_at_once(empty_url: str) -> None:
    """Roles that start together each upgrade; they take turns and all of them find the tables."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_upgrade, args=(empty_url, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [schema.HEAD] * 4
    database = Database(empty_url)
    assert schema.differences(database) is None
    database.close()


def test_a_failure_in_mid_upgrade_leaves_nothing(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """All migrations run in one transaction: what fails halfway has not begun."""
    create = op.create_table

    def fail(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "event":
            raise RuntimeError("the disk is full")
        return create(name, *arguments, **options)

    monkeypatch.setattr(op, "create_table", fail)
    with pytest.raises(RuntimeError, match="disk is full"):
        schema.upgrade(empty)
    assert _tables(empty) == set()
    monkeypatch.undo()
    schema.upgrade(empty)
    assert schema.differences(empty) is None


def test_an_empty_database_is_named_with_the_command(empty: Database) -> None:
    """What to do stands in the message."""
    with pytest.raises(ConfigurationError, match="database is empty: run `dicomferry db upgrade`"):
        schema.require_current(empty)


def test_a_database_of_a_newer_version_is_left_alone(empty: Database) -> None:
    """An unknown version, of a newer program, is refused and not touched."""
    schema.upgrade(empty)
    empty.write(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="has version 9999, of a newer dicomferry: upgrade the program"):
        schema.require_current(empty)
    with pytest.raises(ConfigurationError, match="does not know"):
        schema.upgrade(empty)
    assert schema.current(empty) == "9999"


def test_an_upgrade_keeps_the_rows_that_refer_to_each_other(empty: Database) -> None:
    """No table is made anew under rows that refer to it: a record of the first version comes to the last one whole."""
    empty.write(lambda connection: command.upgrade(schema._config(connection), "0001"))
    moment = "2026-11-22 02:00:00"
    rows: list[tuple[str, dict[str, Any]]] = [
        (
            "remote",
            {
                "id": 1, "name": "P", "in_book": True, "ae_title": "P", "host": "h", "port": 104, "also_from": "[]",
                "max_associations": 4, "max_moves": 1, "max_uids": 100, "timeouts": "{}", "created_at": moment,
            },
        ),
        (
            "job",
            {
                "id": 1, "token": "t", "kind": "store", "spec": "{}", "remote_id": 1, "priority": 1,
                "state": "succeeded", "planned": True, "cancel_asked": False, "hold_asked": False,
                "submitted_at": moment,
            },
        ),
        (
            "chunk",
            {
                "id": 1, "job_id": 1, "kind": "store", "lane": "bulk", "priority": 1, "state": "done", "fence": 1,
                "not_before": moment, "barren": 0, "deaths": 0, "careful": False, "total": 1, "succeeded": 1,
                "warning": 0, "failed": 0, "skipped": 0, "cancelled": 0, "sent_bytes": 1,
            },
        ),
        (
            "item",
            {
                "id": 1, "job_id": 1, "chunk_id": 1, "kind": "instance", "is_first": True, "state": "succeeded",
                "sent_bytes": 1, "tries": 1, "charges": 0, "losses": 0,
            },
        ),
    ]  # fmt: skip

    def fill(connection: sa.Connection) -> None:
        for table, values in rows:
            names = ", ".join(values)
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)

    empty.write(fill)
    schema.upgrade(empty)
    assert schema.differences(empty) is None
    for table, _ in rows:
        count = empty.read(lambda c, name=table: c.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one())  # type: ignore[misc]
        assert count == 1


def test_making_a_file_private_leaves_the_locks_of_open_connections(tmp_path: Path) -> None:
    """Another process that closes the file does not take the log away that this one still writes to."""
    file = tmp_path / "record.db"
    other = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('CREATE TABLE theirs (a INTEGER)')\n"
        "connection.close()\n"
    )
    database = Database(f"sqlite:///{file}")
    schema.upgrade(database)
    database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE before (a INTEGER)"))
    schema.make_private_file(file)
    log = file.with_name("record.db-wal").stat().st_ino
    subprocess.run([sys.executable, "-c", other, str(file)], check=True)
    assert file.with_name("record.db-wal").stat().st_ino == log
    database.close()

"""Fixtures of the record's tests: one set of rules, held to by SQLite and by PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.jobs import Base
from dicomferry.models.rules.waits import StepWatch
from support.peers import PostgresCluster
from support.record_site import Clock, Site

BACKENDS = ("sqlite", "postgresql")


class _Records:
    """One database of each kind for the whole run: making tables, and compiling statements anew, takes time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: dict[str, Database] = {}

    def clean(self, backend: str, request: pytest.FixtureRequest) -> Database:
        """The one of this kind, without rows and with all counters at their start."""
        if backend not in self.opened:
            url = f"sqlite:///{self.folder / 'record.db'}"
            if backend == "postgresql":
                cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
                url = cluster.create_database()
            self.opened[backend] = Database(url)
            schema.upgrade(self.opened[backend])
        self.opened[backend].write(_wipe)
        return self.opened[backend]


def _wipe(connection: sa.Connection) -> None:
    tables = [table.name for table in reversed(Base.metadata.sorted_tables)]
    if connection.dialect.name == "sqlite":
        for name in (*tables, "sqlite_sequence"):
            connection.exec_driver_sql(f"DELETE FROM {name}")
        return
    connection.exec_driver_sql("SET LOCAL lock_timeout = '20s'")
    connection.exec_driver_sql(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")


@pytest.fixture(scope="session")
def _records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Records]:
    records = _Records(tmp_path_factory.mktemp("record"))
    yield records
    for database in records.opened.values():
        database.close()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Which kind of database this run is about."""
    kind: str = request.param
    return kind


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def clock() -> Clock:
    """Time stands still until the test moves it."""
    return Clock()


@pytest.fixture
def database(backend: str, request: pytest.FixtureRequest, _records: _Records, clock: Clock) -> Database:
    """This version's tables without rows, on the test's own clock."""
    found = _records.clean(backend, request)
    found._clock, found._monotonic, found.steps = clock, clock.monotonic, StepWatch()
    return found


@pytest.fixture
def url(database: Database) -> str:
    """The same, for tests that open it themselves."""
    return database.url


@pytest.fixture
def site(database: Database, clock: Clock) -> Site:
    """An installation with one remote and one worker."""
    return Site(database, clock)

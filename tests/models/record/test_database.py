"""Transactions that do not get in each other's way, and databases that are not there."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from dicomferry.models.documents import jobs
from dicomferry.models.record import schema
from dicomferry.models.record.database import Database, hide_password
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.tables.jobs import TurnRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.errors import ConfigurationError, OutOfReach
from support.peers import PostgresCluster, free_port
from support.record_site import Site, together

sqlite_only = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
postgresql_only = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def own(url: str) -> Iterator[Database]:
    """A database object of the test's own, on the system's clock."""
    opened = Database(url)
    yield opened
    opened.close()


def _put(connection: sa.Connection, name: str, number: int = 0) -> None:
    until = datetime(2026, 1, 1, tzinfo=UTC)
    connection.execute(sa.insert(TurnRow).values(name=name, worker_id=number, until=until))


def _numbers(database: Database) -> dict[str, int | None]:
    rows = database.read(lambda connection: connection.execute(sa.select(TurnRow.name, TurnRow.worker_id)).all())
    return {row.name: row.worker_id for row in rows}


# --- long lists


def test_pages_hold_nothing_while_somebody_reads(own: Database) -> None:
    """A long list is read page by page: each row once, in order, and what is written meanwhile is neither held up nor
    kept from being forgotten. Rows of one key stay together, however small a page is.
    """
    names = [f"{number:03d}" for number in range(25)]
    for name in names:
        own.write(lambda connection, name=name: _put(connection, name, int(name) // 4))  # type: ignore[misc]
    query = sa.select(TurnRow.name)
    assert [row.name for row in own.pages(query, TurnRow.name, size=3)] == names
    assert [row.name for row in own.pages(query, TurnRow.name, size=3, limit=7)] == names[:7]
    twice = [row.name for row in own.pages(query, sa.func.coalesce(TurnRow.worker_id, 0), size=3)]
    assert sorted(twice) == names
    reader = own.pages(query, TurnRow.name, size=3)
    assert next(reader).name == "000"
    assert own.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    own.write(lambda connection: connection.execute(sa.delete(TurnRow).where(TurnRow.name == "020")))
    assert [row.name for row in reader] == [name for name in names[1:] if name != "020"]


# --- transactions


def test_a_write_is_whole_or_not_there(own: Database) -> None:
    """An exception rolls back, and comes out as it is."""

    def work(connection: sa.Connection) -> None:
        _put(connection, "a")
        raise KeyError("x")

    with pytest.raises(KeyError):
        own.write(work)
    assert _numbers(own) == {}
    assert own.write(lambda connection: _put(connection, "a") or 5) == 5  # type: ignore[func-returns-value]
    assert _numbers(own) == {"a": 0}


@sqlite_only
def test_read_then_write_never_finds_the_database_locked(own: Database) -> None:
    """Writers take SQLite's lock with their first line (BEGIN IMMEDIATE), so none has to be turned away later.

    With a plain BEGIN two that read first and write then end in `database is locked` whatever the time-out.
    """
    own.write(lambda connection: _put(connection, "count"))

    def add(connection: sa.Connection) -> None:
        number = connection.execute(sa.select(TurnRow.worker_id)).scalar_one()
        connection.execute(sa.update(TurnRow).values(worker_id=(number or 0) + 1))

    def many() -> None:
        for _ in range(25):
            own.write(add)

    assert together(*[many] * 4) == [None] * 4
    assert _numbers(own) == {"count": 100}


@sqlite_only
def test_a_reader_does_not_wait_for_a_writer(own: Database) -> None:
    """Commands that show jobs work while a worker writes, and see what was committed."""
    own.write(lambda connection: _put(connection, "a"))

    def work(connection: sa.Connection) -> None:
        _put(connection, "b")
        [seen] = together(lambda: _numbers(own))
        assert seen == {"a": 0}

    own.write(work)
    assert set(_numbers(own)) == {"a", "b"}


@sqlite_only
def test_what_must_survive_a_power_cut_is_flushed(own: Database) -> None:
    """`durable` commits with synchronous=FULL (2), others with NORMAL (1); both on one connection, in turn."""

    def level(connection: sa.Connection) -> int:
        found: int = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        return found

    for _ in range(2):
        assert own.write(level, durable=True) == 2
        assert own.write(level) == 1


@sqlite_only
def test_sqlite_keeps_its_promises(own: Database) -> None:
    """WAL, foreign keys, and half a minute's patience with other writers."""

    def pragma(name: str) -> object:
        return own.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    assert (pragma("journal_mode"), pragma("foreign_keys"), pragma("busy_timeout")) == ("wal", 1, 30000)


def test_times_come_back_as_utc(own: Database) -> None:
    """Whatever zone they were given in; they compare in SQL as they do in Python."""
    given = datetime(2026, 11, 22, 3, 0, 0, 123456, timezone(timedelta(hours=1)))
    own.write(lambda connection: connection.execute(sa.insert(TurnRow).values(name="a", worker_id=1, until=given)))
    [found] = own.read(lambda connection: connection.execute(sa.select(TurnRow.until)).scalars().all())
    assert found == given and found.utcoffset() == timedelta(0)
    for moment, number in ((given, 0), (given + timedelta(microseconds=1), 1)):
        query = sa.select(TurnRow.name).where(TurnRow.until < moment)
        assert len(own.read(lambda connection, query=query: connection.execute(query).all())) == number  # type: ignore[misc]


def test_the_clock(own: Database, database: Database) -> None:
    """A clock that was passed in decides; without one it is the system's or PostgreSQL's own, aware and in UTC."""
    assert database.read(database.now) == datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    found = own.read(own.now)
    assert found.utcoffset() == timedelta(0)
    assert abs(found - datetime.now(UTC)) < timedelta(minutes=5)


@postgresql_only
def test_the_servers_clock_goes_on_within_a_transaction(own: Database) -> None:
    """Leases are decided by the time of the decision, not by that of the transaction's begin."""

    def work(connection: sa.Connection) -> bool:
        before = own.now(connection)
        connection.execute(sa.select(sa.func.pg_sleep(0.001)))
        return own.now(connection) > before

    assert own.write(work)


# --- forks


def test_a_forked_child_has_connections_of_its_own(own: Database) -> None:
    """The parent's connections stay the parent's: both write after the fork, neither disturbs the other."""
    own.write(lambda connection: _put(connection, "before"))
    engine = own.engine
    child = os.fork()
    if not child:
        code = 1
        try:
            for number in range(20):
                own.write(lambda connection, number=number: _put(connection, f"child {number}"))  # type: ignore[misc]
            code = 0 if own.engine is not engine else 2
        finally:
            os._exit(code)
    for number in range(20):
        own.write(lambda connection, number=number: _put(connection, f"parent {number}"))  # type: ignore[misc]
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert own.engine is engine
    assert len(_numbers(own)) == 41


def test_closing_gives_the_connections_back(own: Database) -> None:
    """And it may be used again afterwards."""
    assert _numbers(own) == {}
    own.close()
    own.close()
    assert _numbers(own) == {}


# --- connections that are lost


def _end_sessions(cluster: PostgresCluster, url: str) -> None:
    name = url.rpartition("/")[2]
    cluster.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


@postgresql_only
def test_a_lost_connection_is_made_anew(url: str, postgres_cluster: PostgresCluster) -> None:
    """Between two calls nobody notices; in the middle of one it runs again, once in effect."""
    patient = Database(url, patience=20)
    patient.write(lambda connection: _put(connection, "a"))
    _end_sessions(postgres_cluster, url)
    assert _numbers(patient) == {"a": 0}
    runs = []

    def work(connection: sa.Connection) -> None:
        runs.append(1)
        _put(connection, "b")
        if len(runs) == 1:
            _end_sessions(postgres_cluster, url)
        _put(connection, "c")

    patient.write(work)
    assert len(runs) == 2
    assert set(_numbers(patient)) == {"a", "b", "c"}
    patient.close()


@postgresql_only
def test_without_patience_a_lost_connection_is_out_of_reach(url: str, postgres_cluster: PostgresCluster) -> None:
    """Heartbeats would rather know at once."""
    impatient = Database(url)

    def work(connection: sa.Connection) -> None:
        _put(connection, "a")
        _end_sessions(postgres_cluster, url)
        _put(connection, "b")

    with pytest.raises(OutOfReach):
        impatient.write(work)
    assert _numbers(impatient) == {}
    impatient.close()


@postgresql_only
def test_a_submit_whose_commit_was_lost_is_one_job(site: Site, url: str, postgres_cluster: PostgresCluster) -> None:
    """The commit was done, its answer never came: the write runs again and finds its job by the token."""
    patient = Database(url, patience=20, clock=site.clock)
    commits: list[int] = []

    def lose(connection: sa.Connection) -> None:
        commits.append(1)
        if len(commits) == 1:
            connection.connection.commit()
            _end_sessions(postgres_cluster, url)
            lost = psycopg.OperationalError("server closed the connection unexpectedly")
            raise sa.exc.OperationalError("COMMIT", {}, lost)

    sa.event.listen(patient.engine, "commit", lose)
    job = verbs.submit(patient, spec.EchoSpec(), site.remote_id)
    assert len(commits) == 2
    assert [document["id"] for document in jobs.listing(site.database)] == [job]
    assert site.events(job) == ["submitted"]
    patient.close()


@postgresql_only
def test_a_deadlock_is_tried_again(url: str) -> None:
    """PostgreSQL gives one of two that wait for each other up; that one runs again."""
    patient = Database(url, patience=20)
    for name in ("a", "b"):
        patient.write(lambda connection, name=name: _put(connection, name))  # type: ignore[misc]
    barrier = threading.Barrier(2)

    def crossed(first: str, second: str) -> None:
        met = False

        def work(connection: sa.Connection) -> None:
            nonlocal met
            add = sa.update(TurnRow).values(worker_id=TurnRow.worker_id + 1)
            connection.execute(add.where(TurnRow.name == first))
            if not met:
                met = True
                barrier.wait(20)
            connection.execute(add.where(TurnRow.name == second))

        patient.write(work)

    assert together(lambda: crossed("a", "b"), lambda: crossed("b", "a")) == [None, None]
    assert _numbers(patient) == {"a": 2, "b": 2}
    patient.close()


@pytest.mark.parametrize("patience", [0.0, 0.3])
def test_a_server_that_is_not_there_is_out_of_reach(patience: float) -> None:
    """At once, or when patience is over; the message names the database without its password."""
    database = Database(f"postgresql://somebody:s3cret@127.0.0.1:{free_port()}/record", patience=patience)
    with pytest.raises(OutOfReach, match=r"somebody:\*\*\*@127\.0\.0\.1") as raised:
        schema.current(database)
    assert "s3cret" not in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(OutOfReach):
        list(database.pages(sa.select(TurnRow.name), TurnRow.name))
    database.close()


def test_a_file_that_cannot_be_opened_is_out_of_reach(tmp_path: Path) -> None:
    """A folder that is not there, for example."""
    database = Database(f"sqlite:///{tmp_path / 'missing' / 'x.db'}")
    with pytest.raises(OutOfReach, match="unable to open"):
        schema.current(database)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """No traceback: the file is named."""
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(OutOfReach, match="not a database") as raised:
        schema.current(database)
    assert str(path) in str(raised.value)
    database.close()


@sqlite_only
def test_a_writer_that_never_ends_is_out_of_reach(own: Database) -> None:
    """The lock is waited for; then it is an error of the database, and nothing was written."""
    other = sqlite3.connect(own.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    hasty = Database(own.url, lock_seconds=0.05)
    with pytest.raises(OutOfReach, match="locked"):
        hasty.write(lambda connection: _put(connection, "a"))
    hasty.close()
    other.execute("ROLLBACK")
    other.close()
    assert _numbers(own) == {}


# --- what is said


def test_missing_tables_name_the_command(empty_url: str) -> None:
    """A database without this version's tables is a matter of configuration, in reads, writes and streams."""
    database = Database(empty_url)
    with pytest.raises(ConfigurationError, match="dicomferry db upgrade"):
        jobs.listing(database)
    with pytest.raises(ConfigurationError, match="dicomferry db upgrade"):
        database.write(lambda connection: _put(connection, "a"))
    with pytest.raises(ConfigurationError, match="dicomferry db upgrade"):
        list(jobs.items(database, 1))
    database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root@host/x", "mysql is not supported"),
        ("nonsense", "'nonsense' is not a database URL"),
        ("oracle://a:s3cret@host", "not supported"),
    ],
)
def test_a_url_that_is_of_no_use_is_named(url: str, words: str) -> None:
    """Which setting is wrong, and never the password in it."""
    with pytest.raises(ConfigurationError, match="database_url") as raised:
        schema.current(Database(url))
    assert words in str(raised.value) and "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:se%40cret:x@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?user=me&password=secret&sslmode=require", "postgresql://host/db?user=me&password=***&sslmode=require"),
        ("postgresql://me:se/c@ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me@host/db?sslmode=require&sslpassword=s3&sslkey=/k.pem", "postgresql://me@host/db?sslmode=require&sslpassword=***&sslkey=/k.pem"),
        ("postgresql://me@host/db?SSLPASSWORD=s3;x=&%70assword=s3&s3", "postgresql://me@host/db?SSLPASSWORD=***&x=&%70assword=***&***"),
        ("rediss://host:6379/0?ssl_cert_reqs=none&ssl_password=s3", "rediss://host:6379/0?ssl_cert_reqs=none&ssl_password=***"),
        ("https://hooks.example.org/services/T0/B0/s3?sig=s3", "https://hooks.example.org/***"),
        ("https://hooks.example.org?s3", "https://hooks.example.org/***"),
        ("https://hooks.example.org/", "https://hooks.example.org/"),
        ("sqlite:////home/me/dicomferry.db", "sqlite:////home/me/dicomferry.db"),
        ("not a url", "not a url"),
    ],
)  # fmt: skip
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    """Neither in the place for one, nor as any parameter that is not known to be harmless, nor as a webhook's path."""
    assert hide_password(url) == shown

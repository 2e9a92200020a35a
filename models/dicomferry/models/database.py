"""The way to the rows: engines, transactions, retries of lost connections, and the clock that decides leases."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.types import TypeDecorator
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from dicomferry.models.errors import ConfigurationError, OutOfReach

_T = TypeVar("_T")
_Select = TypeVar("_Select", bound=sa.GenerativeSelect)
AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
LOCK_SECONDS = 30.0
"""How long SQLite waits for another writer ..."""
IMPATIENT_LOCK_SECONDS = 5.0
"""... and for a heartbeat, which has more to do than to wait."""
_POSTGRESQL = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_POSTGRESQL |= {"tcp_user_timeout": 30_000}
_PLAIN_PARAMETERS = frozenset(
    {"host", "hostaddr", "port", "db", "dbname", "user", "service", "application_name", "client_encoding"}
    | {"connect_timeout", "target_session_attrs", "load_balance_hosts", "tcp_user_timeout", "virtual_host"}
    | {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "gssencmode", "channel_binding"}
    | {"sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "mode", "cache", "uri"}
    | {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "socket_timeout", "socket_connect_timeout"}
)
"""What may be shown of a URL's parameters: names, numbers, paths, of PostgreSQL, Redis and SQLite."""


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite keeps it as sortable text without offset."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """UTC, without offset for SQLite."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """One database of one process.

    `patience` is how many seconds a call goes on over lost connections and locks before OutOfReach is raised,
    `lock_seconds` how long one try waits for another writer of an SQLite file.
    `clock`, when given, replaces the clock of the system (SQLite) or of the server (PostgreSQL).
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 0.0,
        lock_seconds: float = LOCK_SECONDS,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.url = url
        self.patience = patience
        self._lock_seconds = lock_seconds
        self._clock = clock
        self._engine: Engine | None = None
        self._pid = 0

    def impatient(self) -> Database:
        """The same record on a connection of its own, for calls that must fail within seconds."""
        return Database(self.url, lock_seconds=IMPATIENT_LOCK_SECONDS, clock=self._clock)

    @property
    def engine(self) -> Engine:
        """The engine of this process; a forked child gets its own, the parent's connections stay the parent's."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)
            self._engine = _create_engine(self.url, self._lock_seconds)
            self._pid = os.getpid()
        return self._engine

    @property
    def is_sqlite(self) -> bool:
        """Whether the rows live in a file of this machine."""
        return self.engine.dialect.name == "sqlite"

    def now(self, connection: Connection) -> datetime:
        """Aware UTC now, by the server's clock on PostgreSQL so that the nodes' clocks do not matter."""
        if self._clock:
            return self._clock()
        if connection.dialect.name == "sqlite":
            return datetime.now(UTC)
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def write(self, work: Callable[[Connection], _T], *, durable: bool = False) -> _T:
        """`work(connection)` in one writing transaction.

        It may run again after a lost connection, so it must be harmless when run twice. `durable`: the commit is
        on disk when this returns. Raises OutOfReach.
        """
        return self._run(work, {"durable": durable})

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """`work(connection)` in one reading transaction, which no writer waits for. Raises OutOfReach."""
        return self._run(work, {"reading": True})

    @contextmanager
    def stream(self) -> Iterator[Connection]:
        """A connection for reading long lists row by row. Raises OutOfReach."""
        with (
            self._translated(),
            self.engine.connect().execution_options(reading=True, yield_per=500) as connection,
        ):
            yield connection

    def free_bytes(self) -> int:
        """What of an SQLite file is free for new rows, which it keeps for them; 0 elsewhere. Raises OutOfReach."""
        if not self.is_sqlite:
            return 0

        def work(connection: Connection) -> int:
            pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())

        return self.read(work)

    def compact(self) -> None:
        """Make an SQLite file as small as its rows are. Nobody else can write meanwhile. Raises OutOfReach."""
        with self._translated():
            connection = self.engine.raw_connection()
            try:
                connection.cursor().execute("VACUUM")
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise OutOfReach(f"database {hide_password(self.url)}: {error}") from error
            finally:
                connection.close()

    def close(self) -> None:
        """Give the connections back."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None

    def _run(self, work: Callable[[Connection], _T], options: dict[str, Any]) -> _T:
        def once() -> _T:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                return work(connection)

        with self._translated():
            if not self.patience:
                return once()
            retrying = Retrying(
                retry=retry_if_exception(_is_passing),
                stop=stop_after_delay(self.patience),
                wait=wait_random_exponential(multiplier=0.05, max=2.0),
                reraise=True,
            )
            return retrying(once)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.OperationalError as error:
            if _is_missing_table(error):
                raise ConfigurationError(_no_tables(self.url)) from error
            raise OutOfReach(f"database {hide_password(self.url)}: {_first_line(error)}") from error
        except exc.ProgrammingError as error:
            if _is_missing_table(error):
                raise ConfigurationError(_no_tables(self.url)) from error
            raise
        except exc.InterfaceError as error:
            raise OutOfReach(f"database {hide_password(self.url)}: {_first_line(error)}") from error
        except exc.DatabaseError as error:
            if type(error) is not exc.DatabaseError:
                raise
            # SQLite's word for a file that is damaged, or no database at all.
            raise OutOfReach(f"database {hide_password(self.url)}: {_first_line(error)}") from error


def locking(statement: _Select) -> _Select:
    """Lock the rows that a statement finds, but not against those who only refer to them.

    PostgreSQL checks a foreign key by a lock of its own on the row that is referred to, also where a row is written a
    second time in a transaction: whoever has a job and writes its chunk would wait for the worker that the chunk
    names, and whoever has claimed that worker for the job. SQLite has its one writer.
    """
    return statement.with_for_update(key_share=True)


def run_many(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """One statement for many rows of plain values (numbers, text, bytes), with `?` where each is to stand.

    It goes straight to the driver: for thousands of rows SQLAlchemy's care for each value costs more than writing them.
    """
    if rows:
        connection.exec_driver_sql(_marked(connection, statement), list(rows))


def read_many(connection: Connection, statement: str, values: tuple[Any, ...]) -> dict[Any, Any]:
    """The rows that a statement finds by many plain values, as `run_many` takes them: first column to second."""
    found = connection.exec_driver_sql(_marked(connection, statement), values)
    return {row[0]: row[1] for row in found}


def _marked(connection: Connection, statement: str) -> str:
    return statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")


def insert_many(
    connection: Connection, table: sa.Table, common: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows of plain values that all have the same names, besides `common`; the table's defaults are kept."""
    if not rows:
        return
    names = tuple(rows[0])
    given = {*names, *common}
    fixed = {
        column.name: column.default.arg
        for column in table.columns
        if isinstance(column.default, sa.ColumnDefault) and column.default.is_scalar and column.name not in given
    }
    fixed |= common
    columns = (*fixed, *names)
    marks = ", ".join("?" * len(columns))
    pick, first = itemgetter(*names), tuple(fixed.values())
    run_many(
        connection,
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})",
        [first + pick(row) for row in rows],
    )


def hide_password(url: str) -> str:
    """The URL without its secrets, each as `***`; anything that is no URL unchanged.

    The password in the address; every parameter but those known to hold none, for no list of secret ones is whole
    (`sslpassword`, `token`, `sig`); and the path of a webhook, which for many services is the secret itself.
    """
    # Up to the last @: whoever forgets to quote the @ or / in a password must not see it printed.
    hidden = re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:***@", url)
    hidden = re.sub(r"(?i)^(https?://[^/?#]*)[/?#].+", r"\1/***", hidden)
    head, mark, query = hidden.partition("?") if "://" in hidden else (hidden, "", "")
    return head + mark + "&".join(map(_hide_value, re.split("[&;]", query)))


def _hide_value(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not parameter or (equals and not value) or name.lower() in _PLAIN_PARAMETERS:
        return parameter
    return f"{name}=***" if equals else "***"


def _first_line(error: exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def _is_passing(error: BaseException) -> bool:
    """Whether trying again may help: connection lost, server starting, lock or deadlock."""
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return any(word in str(error.orig) for word in ("locked", "busy"))
    return error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError)


def _is_missing_table(error: exc.DBAPIError) -> bool:
    text = str(error.orig)
    return (
        "no such table" in text or "no such column" in text or getattr(error.orig, "sqlstate", "") in ("42P01", "42703")
    )


def _no_tables(url: str) -> str:
    return f"database {hide_password(url)} is not of this version: run `dicomferry db upgrade`"


def _create_engine(url: str, lock_seconds: float) -> Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigurationError(
                f"database_url: {parsed.get_backend_name()} is not supported; use SQLite or PostgreSQL"
            )
        arguments = dict(_POSTGRESQL) if parsed.get_backend_name() == "postgresql" else {}
        engine = sa.create_engine(parsed, connect_args=arguments, pool_pre_ping=not url.startswith("sqlite"))
    except exc.ArgumentError:
        raise ConfigurationError(f"database_url: {hide_password(url)!r} is not a database URL") from None
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"database_url needs the module {error.name}: pip install 'dicomferry[postgres]'"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_set_up_sqlite, lock_seconds))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(lock_seconds: float, connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.executescript(
        f"PRAGMA busy_timeout={lock_seconds * 1000:.0f}; PRAGMA journal_mode=WAL; "
        "PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON"
    )


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: SQLite cannot wait when a read snapshot would have to be upgraded."""
    options = connection.get_execution_options()
    if options.get("reading"):
        connection.exec_driver_sql("BEGIN")
        return
    # NORMAL keeps the file consistent over a power cut but may lose the last commits; FULL does not.
    level = "FULL" if options.get("durable") else "NORMAL"
    if connection.info.get("synchronous") != level:
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        connection.info["synchronous"] = level
    connection.exec_driver_sql("BEGIN IMMEDIATE")

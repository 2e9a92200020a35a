"""The way to the rows: engines, transactions, retries of lost connections, and the clock that decides leases."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.types import TypeDecorator
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from dicomferry.models.record.engine import create_engine
from dicomferry.models.rules.connection_url import hide_password as hide_password
from dicomferry.models.rules.errors import ConfigurationError, Locked, OutOfReach
from dicomferry.models.rules.waits import StepWatch

_T = TypeVar("_T")
_Select = TypeVar("_Select", bound=sa.GenerativeSelect)
AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
LOCK_SECONDS = 30.0
"""How long SQLite waits for another writer ..."""
IMPATIENT_LOCK_SECONDS = 5.0
"""Seconds that a heartbeat, which has more to do than to wait, waits for a lock."""
PERSONS_PATIENCE = 5.0
"""Seconds for which a person's command goes on over a lost connection: what it writes is written once."""
PAGE = 1000
"""Rows of a long list that are read at once."""
_DEEDS_KEPT = timedelta(days=1)


_LOCK_NOT_AVAILABLE = "55P03"


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

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[datetime | None], object] | None:
        """A function that makes a moment fit for the column, for SQLite in one call: each row has two or three."""
        if dialect.name != "sqlite":
            return super().bind_processor(dialect)

        def process(value: datetime | None) -> str | None:
            return None if value is None else value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

        return process

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_DEED = sa.table("deed", sa.column("token", sa.String), sa.column("at", UTCDateTime))


class Database:
    """One database of one process.

    `patience` is how many seconds a call goes on over lost connections and locks before OutOfReach is raised,
    `lock_seconds` how long one try waits for another writer of an SQLite file.
    `clock`, when given, replaces the clock of the system (SQLite) or of the server (PostgreSQL), `monotonic` the one
    that nobody sets, `host_clock` that of this computer.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 0.0,
        lock_seconds: float = LOCK_SECONDS,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        host_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.url = url
        self.patience = patience
        self._lock_seconds = lock_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._host_clock = host_clock
        self.steps = StepWatch()
        self._engine: Engine | None = None
        self._pid = 0

    def impatient(self) -> Database:
        """A second Database on a connection of its own, for calls that must fail within seconds."""
        return Database(self.url, lock_seconds=IMPATIENT_LOCK_SECONDS, clock=self._clock, monotonic=self._monotonic)

    @property
    def engine(self) -> Engine:
        """The engine of this process; a forked child gets its own, the parent's connections stay the parent's."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)
            self._engine = create_engine(self.url, self._lock_seconds, impatient=self._lock_seconds < LOCK_SECONDS)
            self._pid = os.getpid()
        return self._engine

    @property
    def is_sqlite(self) -> bool:
        """Whether the rows live in a file of this machine."""
        return self.engine.dialect.name == "sqlite"

    def now(self, connection: Connection) -> datetime:
        """Aware UTC now, by the server's clock on PostgreSQL so that the nodes' clocks do not matter."""
        before = self._monotonic()
        moment = self._now(connection)
        self.steps.look(moment, before, self._monotonic())
        return moment

    def ahead(self, connection: Connection) -> timedelta:
        """How far the record's clock is ahead of this computer's: what a computer noted of itself is written down by
        the record's, against which it will be held.
        """
        if self._clock or connection.dialect.name == "sqlite":
            return timedelta()
        return self.now(connection) - self._host_clock()

    def _now(self, connection: Connection) -> datetime:
        if self._clock:
            return self._clock()
        if connection.dialect.name == "sqlite":
            return datetime.now(UTC)
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def write(
        self,
        work: Callable[[Connection], _T],
        *,
        durable: bool = False,
        slow: bool = False,
        patience: float | None = None,
    ) -> _T:
        """`work(connection)` in one writing transaction.

        It may run again after a lost connection, so it must be harmless when run twice. `durable`: the commit is
        on disk when this returns. `slow`: it may take as long as it takes. `patience`: another one than
        this database's. Raises OutOfReach.
        """
        return self._run(work, {"durable": durable, "slow": slow}, patience)

    def write_at_once(self, work: Callable[[Connection], _T]) -> _T:
        """Run one writing transaction, once, hardly waiting for locks of others. Raises Locked, OutOfReach."""
        return self._run(work, {"at_once": True}, patience=0.0)

    def write_once(self, work: Callable[[Connection], _T], *, slow: bool = False) -> _T:
        """What a person asks for, in one durable transaction that is done once, however often it has to be tried.

        It has some seconds' patience at least; `slow`: one of its statements may take longer than a minute. Where the
        connection was lost while the commit was answered, the next try finds a note that the transaction left with it,
        and what the first one came to is the answer.
        Raises OutOfReach.
        """
        token = uuid.uuid4().hex
        came_to: list[_T] = []

        def once(connection: Connection) -> _T:
            if came_to and connection.execute(sa.select(_DEED.c.token).where(_DEED.c.token == token)).first():
                return came_to[-1]
            now = self.now(connection)
            connection.execute(sa.delete(_DEED).where(_DEED.c.at < now - _DEEDS_KEPT))
            connection.execute(sa.insert(_DEED).values(token=token, at=now))
            came_to.append(work(connection))
            return came_to[-1]

        return self.write(once, durable=True, slow=slow, patience=max(self.patience, PERSONS_PATIENCE))

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """`work(connection)` in one reading transaction, which no writer waits for. Raises OutOfReach."""
        return self._run(work, {"reading": True})

    def pages(
        self,
        query: sa.Select[*tuple[Any, ...]],
        *keys: Any,
        limit: int | None = None,
        size: int = PAGE,
    ) -> Iterator[AnyRow]:
        """The rows of a query in the order of these keys, which are never null, for readers who take their time.

        They are read page by page, each by the keys of the last row in a transaction of its own: whoever lists a
        million rows into a pager keeps no old version of anything alive. Where rows have the same keys, they come on
        one page. Raises OutOfReach.
        """
        after: tuple[Any, ...] | None = None
        left = limit
        while left is None or left > 0:
            rows = self.read(partial(_page, query=query, keys=keys, after=after, size=size))
            number = len(keys)
            full = len(rows) > size
            if full:
                whole = [row for row in rows if tuple(row[-number:]) != tuple(rows[-1][-number:])]
                if not whole:
                    size *= 2
                    continue
                rows = whole
            yield from rows[:left]
            if not full:
                return
            left = None if left is None else left - len(rows)
            after = tuple(rows[-1][-number:])

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

    def _run(self, work: Callable[[Connection], _T], options: dict[str, Any], patience: float | None = None) -> _T:
        patience = self.patience if patience is None else patience

        def once() -> _T:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                return work(connection)

        with self._translated():
            if not patience:
                return once()
            retrying = Retrying(
                retry=retry_if_exception(_is_passing),
                stop=stop_after_delay(patience),
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
            kind = Locked if getattr(error.orig, "sqlstate", "") == _LOCK_NOT_AVAILABLE else OutOfReach
            raise kind(f"database {hide_password(self.url)}: {_first_line(error)}") from error
        except exc.TimeoutError as error:
            # SQLAlchemy's own: all connections of this process are in use, since the database is slow to answer.
            raise OutOfReach(f"database {hide_password(self.url)}: no connection became free") from error
        except exc.ProgrammingError as error:
            if _is_missing_table(error):
                raise ConfigurationError(_no_tables(self.url)) from error
            raise
        except exc.InterfaceError as error:
            raise OutOfReach(f"database {hide_password(self.url)}: {_first_line(error)}") from error
        except exc.DatabaseError as error:
            if type(error) is not exc.DatabaseError and not error.connection_invalidated:
                raise
            # SQLite's word for a file that is damaged, or no database at all.
            raise OutOfReach(f"database {hide_password(self.url)}: {_first_line(error)}") from error


def _page(
    connection: Connection, *, query: sa.Select[*tuple[Any, ...]], keys: Sequence[Any], after: Any, size: int
) -> Sequence[AnyRow]:
    """One row more than a page, with the keys behind the columns that were asked for."""
    if after is not None:
        query = query.where(sa.tuple_(*keys) > sa.tuple_(*after))
    columns = [sa.label(f"_key{number}", key) for number, key in enumerate(keys)]
    return connection.execute(query.add_columns(*columns).order_by(*keys).limit(size + 1)).all()


def past(
    until: Any, written: Any, now: datetime | sa.BindParameter[datetime], *, strictly: bool = False
) -> sa.ColumnElement[bool]:
    """Condition on two columns that a wait is past (`waits.is_past`); `strictly`: not at its very end."""
    return sa.or_(until < now if strictly else until <= now, written > now)


def locking(statement: _Select, *, skip: bool = False) -> _Select:
    """Lock the rows that a statement finds, but not against those who only refer to them.

    `skip`: rows that somebody else has locked are not found.

    PostgreSQL checks a foreign key by a lock of its own on the row that is referred to, also where a row is written a
    second time in a transaction: whoever has a job and writes its chunk would wait for the worker that the chunk
    names, and whoever has claimed that worker for the job. SQLite has its one writer.
    """
    return statement.with_for_update(key_share=True, skip_locked=skip)


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


def _first_line(error: exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def _is_passing(error: BaseException) -> bool:
    """Whether trying again may help: connection lost, server starting, lock or deadlock."""
    if isinstance(error, exc.TimeoutError):
        return True
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

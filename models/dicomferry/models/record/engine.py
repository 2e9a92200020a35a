"""Engines of SQLAlchemy, and how each connection of ours is set up: locks, limits, durability."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine

from dicomferry.models.rules.connection_url import hide_password
from dicomferry.models.rules.errors import ConfigurationError

_POSTGRESQL = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_POSTGRESQL |= {"tcp_user_timeout": 30_000}
# What the server is to keep to on each of our connections, so that a process that stands still in the middle of a
# transaction, or whose computer is gone, holds up others for a minute at most. "slow" transactions set their own.
_SESSION = {"statement_timeout": "60s", "idle_in_transaction_session_timeout": "60s"}
_SESSION |= {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_LOCK = 10.0
"""Seconds for which a statement waits for a row or table that another transaction has locked ..."""
_IMPATIENT_LOCK = 2.0
"""Seconds to wait for a lock where there is more to do than to wait."""
_AT_ONCE_LOCK = 0.5
"""Seconds to wait for a lock where another row can be worked on instead."""
_SLOW = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'"


def create_engine(url: str, lock_seconds: float, *, impatient: bool) -> Engine:
    """The engine for a URL; SQLite waits for another writer for `lock_seconds`. Raises ConfigurationError."""
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
    else:
        event.listen(engine, "connect", partial(_set_up_postgresql, _IMPATIENT_LOCK if impatient else _LOCK))
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _set_up_postgresql(lock_seconds: float, connection: Any, _record: object) -> None:
    """The session's limits, by a statement and not at the start: what stands between may not let options through."""
    limits = {**_SESSION, "lock_timeout": f"{lock_seconds * 1000:.0f}ms"}
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in limits.items())
    connection.autocommit = True
    try:
        connection.execute(f"SELECT {calls}")
    finally:
        connection.autocommit = False


def _begin_postgresql(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("slow"):
        connection.exec_driver_sql(_SLOW)
    elif options.get("at_once"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_AT_ONCE_LOCK * 1000:.0f}ms'")


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

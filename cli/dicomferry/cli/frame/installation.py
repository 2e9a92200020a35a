"""The settings and the database of the running command: what is there is opened, what is written to is made."""

from __future__ import annotations

from pathlib import Path

import click
import sqlalchemy as sa

from dicomferry.cli.frame.command_classes import HOME
from dicomferry.models import settings as all_settings
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import NotFound
from dicomferry.models.settings import Settings

NO_JOB_YET = "there is no job yet; `dicomferry submit` makes one"


def settings() -> Settings:
    """The settings of the installation that the command line names. Raises ConfigurationError."""
    return all_settings.load(click.get_current_context().meta.get(HOME))


def connect(settings: Settings) -> Database:
    """The database as it is; given back at the end of the command."""
    database = Database(settings.database)
    click.get_current_context().call_on_close(database.close)
    return database


def is_absent(settings: Settings) -> bool:
    """Whether the database would be a file and is not there: nothing has been written yet."""
    file = sqlite_file(settings) if settings.is_sqlite else None
    return file is not None and not file.exists()


def for_reading(settings: Settings) -> Database | None:
    """The database; None when nothing has been written yet, and then nothing is made. Raises OutOfReach."""
    if is_absent(settings):
        return None
    database = connect(settings)
    return None if settings.is_sqlite and not _has_tables(database) else database


def for_jobs(settings: Settings) -> Database:
    """The database, for a command about a job; raises NotFound when there is no database yet."""
    database = for_reading(settings)
    if database is None:
        raise NotFound(NO_JOB_YET)
    return database


def for_writing(settings: Settings) -> Database:
    """The database; on SQLite its tables are made at the first use. Raises ConfigurationError, OutOfReach."""
    if not settings.is_sqlite:
        return connect(settings)
    make_file(settings)
    database = connect(settings)
    if not _has_tables(database):
        from dicomferry.models.record import schema

        schema.upgrade(database)
    return database


def no_remote(name: str) -> NotFound:
    """The error for a name while the address book is empty."""
    return NotFound(
        f"no remote {name!r}: the address book is empty; `dicomferry remote add NAME AET@HOST:PORT` adds one"
    )


def make_file(settings: Settings) -> None:
    """Make the home and an empty SQLite file in it, for its owner alone. Raises ConfigurationError."""
    all_settings.prepare_home(settings.home)
    file = sqlite_file(settings)
    if file:
        from dicomferry.models.record import schema

        schema.make_private_file(file)


def sqlite_file(settings: Settings) -> Path | None:
    """The file of an SQLite database; None for one in memory, and for what is no URL."""
    try:
        name = sa.make_url(settings.database).database
    except sa.exc.ArgumentError:
        return None
    return None if not name or name == ":memory:" else Path(name)


def _has_tables(database: Database) -> bool:
    return database.read(lambda connection: sa.inspect(connection).has_table("job"))

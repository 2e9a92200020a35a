"""`dicomferry status`, `config`, `db` and `version`."""

from __future__ import annotations

import click

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Command, Group
from dicomferry.cli.frame.layout import Column


@click.command(cls=Command)
@options.json_option
@click.option("--check", is_flag=True, help="Only say whether all is well: exit 0, or 1 and why, in one line.")
@click.option(
    "--role",
    type=click.Choice(["worker", "scp", "scheduler"]),
    multiple=True,
    help="With --check: this role has to run, and what it needs; else a worker. May be given several times.",
)
@click.option(
    "--here",
    is_flag=True,
    help="With --check: only roles of this host, without asking database or broker, as in a container.",
)
def status(as_json: bool, check: bool, role: tuple[str, ...], here: bool) -> None:
    """Show what runs, what waits and what went wrong."""
    if not check:
        if role or here:
            raise click.UsageError("--role and --here belong to --check")
        from dicomferry.cli.status import status as page

        page.show(as_json=as_json)
        return
    from dicomferry.cli.status import check as status_check

    status_check.run(role, here=here, as_json=as_json)


@click.group(cls=Group)
def config() -> None:
    """Show the settings and where they come from."""


@config.command("show")
@options.json_option
@options.wide_option
def config_show(as_json: bool) -> None:
    """Show every setting, its value and where it comes from; passwords are hidden."""
    from dicomferry.cli.frame import installation
    from dicomferry.cli.status import setting_origin
    from dicomferry.models.record.database import hide_password

    settings = installation.settings()
    found = setting_origin.settings(settings)
    if as_json:
        render.document(found)
        return
    in_use = {"database_url": hide_password(settings.database), "broker_url": "embedded"}
    cells = [(row["setting"], _value(row["value"]) or in_use.get(row["setting"]), row["source"]) for row in found]
    render.table(
        (
            Column(heading="setting"),
            Column(heading="value", least=20, middle=True),
            Column(heading="from"),
        ),
        cells,
    )
    render.line(f"settings file: {setting_origin.describe_file(settings.home)}")


def _value(value: object) -> str:
    """A value as the settings file writes it, a list without its brackets."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@click.group(cls=Group)
def db() -> None:
    """Set up, upgrade and check the database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's tables; harmless where they are there."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.record import schema
    from dicomferry.models.record.database import hide_password

    settings = installation.settings()
    if settings.is_sqlite:
        installation.make_file(settings)
    database = installation.connect(settings)
    before = schema.current(database)
    after = schema.upgrade(database)
    came = "was there already" if before == after else "from an empty one" if before is None else f"from {before}"
    render.line(f"database {words.printable(hide_password(settings.database))} has version {after} ({came})")


@db.command()
def check() -> None:
    """Check that the database has exactly this version's tables."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.record import schema
    from dicomferry.models.record.database import hide_password
    from dicomferry.models.rules.errors import ConfigurationError

    settings = installation.settings()
    if installation.is_absent(settings):
        raise ConfigurationError("there is no database yet: run `dicomferry db upgrade`")
    database = installation.connect(settings)
    schema.require_current(database)
    differences = schema.differences(database)
    if differences:
        raise ConfigurationError(f"database differs from what this version needs: {differences}")
    render.line(f"database {words.printable(hide_password(settings.database))} is as it should be ({schema.HEAD})")


@click.command(cls=Command)
def version() -> None:
    """Print the version."""
    from importlib import metadata

    try:
        found = metadata.version("dicomferry")
    except metadata.PackageNotFoundError:
        found = "(not installed)"
    render.line(f"dicomferry {found}")

"""A submit command taken at its word without being run: how a schedule is checked, and what it submits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from dicomferry.cli.frame.submission_time import Occasion, meant
from dicomferry.models.rules.errors import UsageError

if TYPE_CHECKING:
    from dicomferry.cli.submit.asked import Asked
    from dicomferry.models.record.database import Database
    from dicomferry.models.record.schedules.runs import Order
    from dicomferry.models.rules.schedule import Schedule


def of(database: Database, schedule: Schedule, moment: datetime) -> Order:
    """The job that a schedule's command asks for at a moment. Raises UsageError as the command would."""
    return check(database, schedule.words, schedule.folder, schedule.local(moment))


def check(database: Database, words: Sequence[str], folder: str, moment: datetime) -> Order:
    """What the words of a submit command ask for at `moment` (aware, in the zone whose days count), without a schedule.

    Raises UsageError.
    """
    from dicomferry.models.record.remotes import book
    from dicomferry.models.record.schedules.runs import Order

    asked = _asked(words, Occasion(moment, folder, recurring=True))
    return Order(what=asked.what, remote_id=book.resolve_id(database, asked.remote), options=asked.options)


def _asked(words: Sequence[str], occasion: Occasion) -> Asked:
    from dicomferry.cli.submit.asked import WAITING, Asked
    from dicomferry.cli.submit.command import submit

    if not words:
        raise UsageError("what is to be submitted? Write it behind --, such as `-- move pacs1 -k StudyDate=@yesterday`")
    if any(word.partition("=")[0] in ("--home", "--debug") for word in words):
        raise UsageError("--home and --debug have their place before --")
    outer = click.get_current_context()
    name: str | None = None
    try:
        with meant(occasion):
            name, command, rest = submit.resolve_command(outer, list(words))
            assert name is not None and command is not None
            with command.make_context(name, rest, parent=outer) as inner:
                asked = command.invoke(inner)
    except click.UsageError as error:
        told = " ".join(error.format_message().split())
        raise UsageError(f"{told} (see `dicomferry submit {name or ''} --help`)".replace("  ", " ")) from None
    assert isinstance(asked, Asked)
    given = next((name for name in WAITING if asked.how[name]), None)  # type: ignore[literal-required]
    if given:
        raise UsageError(f"--{given.removeprefix('as_')}: nobody waits for what a schedule submits")
    return asked

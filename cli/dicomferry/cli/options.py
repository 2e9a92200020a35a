"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    TextType = click.ParamType[str, Any]
    TimeType = click.ParamType[datetime, Any]
else:  # older versions of click know no type arguments
    TextType = TimeType = click.ParamType

_F = TypeVar("_F", bound=Callable[..., Any])


class Word(TextType):
    """Text that can be written down: the bytes of an argument have to be UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("is not UTF-8 text", param, ctx)
        return text


class RemoteType(Word):
    """A name from the address book, or AET@host:port."""

    name = "remote"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names from the address book."""
        from dicomferry.cli import completion

        return completion.remotes(ctx, incomplete)


class JobType(Word):
    """A job id, or `last`."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Ids of recent jobs."""
        from dicomferry.cli import completion

        return completion.jobs(ctx, incomplete)


class Moment(TimeType):
    """A date and time, local where it names no zone; or HH:MM, the next time that the clock shows that."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """An aware moment."""
        if isinstance(value, datetime):
            return value
        moment = parse_moment(str(value), datetime.now())
        if moment is None:
            self.fail(
                f"{value!r} is no time: write HH:MM, or 2026-11-22T22:00, with a zone as in +01:00 or Z", param, ctx
            )
        return moment


def parse_moment(text: str, now: datetime) -> datetime | None:
    """The moment that was meant, aware; `now` is local time without zone. None for what is no time."""
    clock = re.fullmatch(r"(\d{1,2}):(\d{2})", text.strip())
    try:
        if clock:
            meant = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            return (meant if meant > now else meant + timedelta(days=1)).astimezone()
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def remote_argument(function: _F) -> _F:
    """REMOTE."""
    return click.argument("remote", metavar="REMOTE", type=RemoteType())(function)


def job_argument(function: _F) -> _F:
    """ID."""
    return click.argument("job", metavar="ID", type=JobType())(function)


def json_option(function: _F) -> _F:
    """--json, for one document."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def form_options(function: _F) -> _F:
    """--json, --jsonl or --csv, for lists; `form` is None for text."""
    for form, text in (("csv", "Print CSV."), ("jsonl", "Print one JSON object a line."), ("json", "Print JSON.")):
        function = click.option(f"--{form}", "form", flag_value=form, default=None, help=text)(function)
    return function


def job_options(function: _F) -> _F:
    """What every kind of job takes when it is submitted."""
    for option in reversed(
        (
            click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells how it ended."),
            click.option("--timeout", metavar="S", type=click.FloatRange(min=0), help="Wait at most so many seconds."),
            click.option("--label", metavar="TEXT", type=Word(), help="A note of yours, shown with the job."),
            click.option(
                "--priority",
                type=click.Choice(["low", "normal", "high"]),
                default="normal",
                show_default=True,
                help="The place in our queue.",
            ),
            click.option(
                "--not-before",
                metavar="TIME",
                type=Moment(),
                help="Do not start before: HH:MM (the next one), or a date and time as in 2026-11-22T22:00.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print the job as a JSON document, not its id alone."),
        )
    ):
        function = option(function)
    return function

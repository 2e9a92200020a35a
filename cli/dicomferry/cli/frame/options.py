"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from math import isnan
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from dicomferry.cli.frame.command_classes import remember
from dicomferry.models.rules.pacing import LEAST_SIZE, parse_size
from dicomferry.models.rules.remote import LONGEST, MOST

if TYPE_CHECKING:
    TextType = click.ParamType[str, Any]
    TimeType = click.ParamType[datetime, Any]
else:  # older versions of click know no type arguments
    TextType = TimeType = click.ParamType

_F = TypeVar("_F", bound=Callable[..., Any])
_LABEL_LENGTH = 200
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_AGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([mhdw])")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_OLDEST = 100 * 365 * 86_400.0


class Utf8(TextType):
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


class Label(Utf8):
    """A note that still fits a table."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        text = super().convert(value, param, ctx)
        if len(text) > _LABEL_LENGTH:
            self.fail(f"has {len(text):,} characters; {_LABEL_LENGTH} is the most", param, ctx)
        return text


class Number(click.IntRange):
    """At least 1 (or `least`), and not more than the record can hold."""

    def __init__(self, least: int = 1) -> None:
        super().__init__(min=least, max=MOST)

    def _describe_range(self) -> str:
        """Nothing in the help: the least is what anybody expects, and the most is ours."""
        return ""


class Seconds(click.FloatRange):
    """How long to wait; a year is for ever."""

    def __init__(self) -> None:
        super().__init__(min=0, max=LONGEST)

    def _describe_range(self) -> str:
        """Nothing in the help: nobody waits for longer than a year."""
        return ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; NaN lies in every range, but it is none."""
        seconds = super().convert(value, param, ctx)
        if isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class AgeParam(click.ParamType):  # type: ignore[type-arg]
    """How long ago, with its unit: 90d, 12h, 30m; as seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of seconds."""
        if isinstance(value, float):
            return value
        seconds = parse_age(str(value))
        if seconds is None:
            self.fail(f"{value!r} is no age: write 90d, 12h or 30m", param, ctx)
        return seconds


def parse_age(text: str) -> float | None:
    """Seconds of 90d, 12h, 30m; None: it is no age."""
    found = _AGE.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
    return seconds if 0 <= seconds <= _OLDEST else None


class Rate(click.ParamType):  # type: ignore[type-arg]
    """A number of something in a second or minute; 0 and an empty text are no limit, given as 0."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            rate = float(value) if str(value).strip() else 0.0
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= 1e9:
            self.fail(f"{value!r} is no rate: a number more than 0, or 0 for no limit", param, ctx)
        return rate


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes as in 500k, 10M, 1.5G; 0 and an empty text are no limit, as 0."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        size = parse_size(str(value)) if str(value).strip() else 0
        if size is None or 0 < size < LEAST_SIZE:
            self.fail(
                f"{value!r} is no size: write bytes, or 500k, 10M, 1G; at least 1k, or 0 for no limit", param, ctx
            )
        return size


class RemoteType(Utf8):
    """A name from the address book, or AET@host:port."""

    name = "remote"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names from the address book."""
        from dicomferry.cli.frame import completers

        return completers.remotes(ctx, incomplete)


class JobType(Utf8):
    """A job id, or `last`."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Ids of recent jobs."""
        from dicomferry.cli.frame import completers

        return completers.jobs(ctx, incomplete)


class Moment(TimeType):
    """A date and time, local where it names no zone; or HH:MM, the next time that the clock shows that."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """An aware moment."""
        if isinstance(value, datetime):
            return value
        from dicomferry.cli.frame.submission_time import occasion

        meant = occasion()
        if meant.recurring and not _CLOCK.fullmatch(str(value).strip()):
            self.fail(f"{value!r}: a schedule takes HH:MM, the next one after its due time", param, ctx)
        moment = parse_moment(str(value), meant.moment)
        if moment is None:
            self.fail(
                f"{value!r} is no time: write HH:MM, or 2026-11-22T22:00, with a zone as in +01:00 or Z", param, ctx
            )
        return moment


def parse_moment(text: str, now: datetime) -> datetime | None:
    """The moment that was meant, aware; `now` is local time, without a zone this machine's. None: it is no time."""
    clock = _CLOCK.fullmatch(text.strip())
    try:
        if clock:
            meant = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            return (meant if meant > now else meant + timedelta(days=1)).astimezone()
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)).astimezone()
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
    """--json, --jsonl or --csv (and --raw), for lists; `form` is None for text, which --wide leaves whole."""
    function = wide_option(function)
    function = click.option(
        "--raw", is_flag=True, expose_value=False, callback=remember, help="With --csv: cells exactly as they came."
    )(function)
    for form, text in (("csv", "Print CSV."), ("jsonl", "Print one JSON object a line."), ("json", "Print JSON.")):
        function = form_option(form, text)(function)
    return function


def wide_option(function: _F) -> _F:
    """--wide, for tables."""
    return click.option(
        "--wide",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="All of each row, however narrow the terminal.",
    )(function)


def form_option(form: str, text: str) -> Callable[[_F], _F]:
    """One form of output, as the parameter `form`; raises UsageError where another one is asked for as well."""

    def choose(ctx: click.Context, param: click.Parameter, given: bool) -> None:
        before = ctx.params.setdefault("form", None)
        if given and before:
            raise click.UsageError(f"--{before} and --{form}: choose one form of output", ctx)
        if given:
            ctx.params["form"] = form

    return click.option(f"--{form}", is_flag=True, expose_value=False, callback=choose, help=text)


def job_options(function: _F) -> _F:
    """What every kind of job takes when it is submitted."""
    for option in reversed(
        (
            click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells how it ended."),
            click.option("--timeout", metavar="S", type=Seconds(), help="Wait at most so many seconds."),
            click.option("--label", metavar="TEXT", type=Label(), help="A note of yours, shown with the job."),
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
            click.option(
                "--ignore-window",
                is_flag=True,
                help="It cannot wait: run outside of the hours at which REMOTE may be used as well.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print the job as a JSON document, not its id alone."),
        )
    ):
        function = option(function)
    return function

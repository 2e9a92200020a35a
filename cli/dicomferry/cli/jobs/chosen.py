"""Which jobs a command is about: ids, or what they are like."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from dicomferry.cli.frame import options
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.kind import JOBS
from dicomferry.models.rules.state import JobState

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database
    from dicomferry.models.record.jobs.filter import Filter

_F = TypeVar("_F", bound=Callable[..., Any])
_STATES = [*(state.value for state in JobState), "waiting"]
_DAYS = {"today": 0, "yesterday": 1}


class Chosen(TypedDict):
    """What the options of `filter_options` give."""

    state: str | None
    kind: str | None
    remote: str | None
    since: datetime | None
    label: str | None
    reason: str | None


class Since(options.TimeType):
    """A day such as yesterday, how long ago (12h, 2d), or a date and time; local where it names no zone."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """An aware moment."""
        if isinstance(value, datetime):
            return value
        found = parse_since(str(value), datetime.now().astimezone())
        if found is None:
            self.fail(f"{value!r} is no time: write yesterday, 12h, 2d, 2026-11-22 or 2026-11-22T22:00", param, ctx)
        return found


def parse_since(text: str, now: datetime) -> datetime | None:
    """The moment that was meant, aware; days begin at midnight of this machine's time. None: it is no time."""
    word = text.strip().lower().removeprefix("@")
    if word in _DAYS:
        day = now.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_DAYS[word])
        return day.astimezone()
    age = options.parse_age(word)
    if age is not None:
        return now - timedelta(seconds=age)
    return None if ":" in word and "-" not in word else options.parse_moment(text, now)


def filter_options(function: _F) -> _F:
    """--state, --kind, --remote, --since, --label, --reason."""
    for option in reversed(
        (
            click.option(
                "--state",
                metavar="STATE",
                type=click.Choice(_STATES),
                help=f"Only jobs in this state: {', '.join(_STATES)} (for more than their turn).",
            ),
            click.option(
                "--kind",
                metavar="KIND",
                type=click.Choice([kind.value for kind in JOBS]),
                help=f"Only jobs of this kind: {', '.join(JOBS)}.",
            ),
            click.option("--remote", metavar="REMOTE", type=options.RemoteType(), help="Only jobs with this remote."),
            click.option(
                "--since",
                metavar="WHEN",
                type=Since(),
                help="Submitted or ended since: yesterday, 12h, 2d, 2026-11-22.",
            ),
            click.option("--label", metavar="TEXT", type=options.Utf8(), help="With this label; * is any text."),
            click.option(
                "--reason",
                metavar="WORD",
                type=options.Utf8(),
                help="For this reason, of the job or of one of its items; timeout: any of these.",
            ),
        )
    ):
        function = option(function)
    return function


def filter_of(database: Database, **given: Unpack[Chosen]) -> Filter:
    """What was asked for; raises NotFound for a remote that is none."""
    from dicomferry.models.record.jobs.filter import Filter

    if given["remote"] is not None:
        from dicomferry.models.record.remotes import book

        given["remote"] = book.name_of(database, given["remote"])
    return Filter(**given)


def ids(database: Database, jobs: tuple[str, ...], chosen: Filter, *, among: tuple[JobState, ...]) -> list[int]:
    """The jobs that were named, each once; or those `among` these states that are as was asked for.

    Raises UsageError where both or nothing was given, NotFound where no job is like that.
    """
    from dicomferry.models.documents import jobs as job_documents
    from dicomferry.models.rules.errors import NotFound

    if jobs and chosen:
        raise UsageError("ids, or what the jobs are like: give one of both")
    if not jobs and not chosen:
        raise UsageError("which jobs? Give their ids, or what they are like, such as --state failed --since yesterday")
    if jobs:
        return named(database, jobs)
    found = job_documents.listing(database, chosen=chosen, limit=None)
    of = [job["id"] for job in found if job["state"] in among]
    if not of:
        raise NotFound(f"{_none(len(found))}; see `dicomferry jobs list` with the same options")
    return of[::-1]


def named(database: Database, jobs: tuple[str, ...]) -> list[int]:
    """The jobs that were named, each once."""
    from dicomferry.models.documents import jobs as job_documents

    return list(dict.fromkeys(job_documents.resolve_id(database, job) for job in jobs))


def _none(others: int) -> str:
    if not others:
        return "no job is like that"
    return f"of {others} jobs that are like that none is in a state in which this can be done"

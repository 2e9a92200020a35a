"""`dicomferry jobs cancel, retry, hold, release`: for one job, several, or all that are alike; and `jobs accept`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Command, agree, complain, note
from dicomferry.cli.jobs import chosen
from dicomferry.cli.jobs import words as job_words
from dicomferry.cli.jobs.chosen import Chosen
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.state import JobState

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database
    from dicomferry.models.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])
_NAMED = 5
"""Ids that a question names."""
_GOES_ON = (JobState.PENDING, JobState.RUNNING)
_Act = Callable[["Settings", "Database", int], str]


def _verb(function: _F) -> _F:
    """ID..., the filters, --yes and --json."""
    for option in reversed(
        (
            click.argument("jobs", metavar="[ID...]", nargs=-1, type=options.JobType()),
            chosen.filter_options,
            click.option("--yes", is_flag=True, help="Do not ask, where jobs are chosen by what they are like."),
            click.option("--json", "as_json", is_flag=True, help="Print the job as JSON; of several, a list."),
        )
    ):
        function = option(function)
    return function


@click.command(cls=Command)
@_verb
def cancel(jobs: tuple[str, ...], yes: bool, as_json: bool, **given: Unpack[Chosen]) -> None:
    """Cancel jobs: what waits at once, what runs as soon as it can stop.

    Name them, or say what they are like: then their number is shown, and asked about (where nobody can be: --yes).
    """
    _for_each("cancel", jobs, given, yes, as_json, among=(*_GOES_ON, JobState.HELD), act=_cancel)


def _cancel(_settings: Settings, database: Database, job_id: int) -> str:
    from dicomferry.models.record.jobs import verbs

    if verbs.cancel(database, job_id) is JobState.RUNNING:
        return f"what waited is cancelled, what runs is being stopped; see `dicomferry jobs wait {job_id}`"
    return f"cancelled; `dicomferry jobs retry {job_id}` takes it up again"


@click.command(cls=Command)
@_verb
def retry(jobs: tuple[str, ...], yes: bool, as_json: bool, **given: Unpack[Chosen]) -> None:
    """Try again what ended jobs did not finish; what arrived is not sent twice.

    \b
    dicomferry jobs retry 12 13
    dicomferry jobs retry --state failed --since yesterday --remote pacs1

    Where jobs are chosen by what they are like, their number is shown, and asked about (where nobody can be: --yes).
    """
    unfinished = (JobState.INCOMPLETE, JobState.FAILED, JobState.CANCELLED)
    _for_each("retry", jobs, given, yes, as_json, among=unfinished, act=_retry)


def _retry(settings: Settings, database: Database, job_id: int) -> str:
    from dicomferry.models.record.jobs import verbs

    number = verbs.retry(database, job_id)
    _ring(settings, database, job_id)
    told = f"{words.plural(number, 'item')} tried again" if number else "the search for files goes on"
    return f"{told}; follow with `dicomferry jobs wait {job_id}`"


@click.command(cls=Command)
@_verb
def hold(jobs: tuple[str, ...], yes: bool, as_json: bool, **given: Unpack[Chosen]) -> None:
    """Hold jobs until they are released.

    Name them, or say what they are like: then their number is shown, and asked about (where nobody can be: --yes).
    """
    _for_each("hold", jobs, given, yes, as_json, among=_GOES_ON, act=_hold)


def _hold(_settings: Settings, database: Database, job_id: int) -> str:
    from dicomferry.models.record.jobs import verbs

    running = verbs.hold(database, job_id) is JobState.RUNNING
    told = "what waited is held, what runs is being stopped" if running else "held"
    return f"{told}; go on with `dicomferry jobs release {job_id}`"


@click.command(cls=Command)
@_verb
def release(jobs: tuple[str, ...], yes: bool, as_json: bool, **given: Unpack[Chosen]) -> None:
    """Let held jobs go on.

    Name them, or say what they are like: then their number is shown, and asked about (where nobody can be: --yes).
    """
    # Those that wait as well, but only where that is what was asked for.
    among = (JobState.HELD, *_GOES_ON) if given["state"] else (JobState.HELD,)
    _for_each("release", jobs, given, yes, as_json, among=among, act=_release)


def _release(settings: Settings, database: Database, job_id: int) -> str:
    from dicomferry.models.record.jobs import verbs

    verbs.release(database, job_id)
    _ring(settings, database, job_id)
    return f"released; follow with `dicomferry jobs wait {job_id}`"


@click.command(cls=Command)
@click.argument("jobs", metavar="ID...", nargs=-1, required=True, type=options.JobType())
@click.option("--reason", metavar="TEXT", required=True, type=options.Utf8(), help="Why it is good as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON; of several, a list.")
def accept(jobs: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Close jobs that ended incomplete or failed as they are.

    Who looks at one later sees when and why. It stays what it is: it is not called proven, and its exit code stays 1.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.jobs import verbs

    settings = installation.settings()
    database = installation.for_jobs(settings)

    def act(_settings: Settings, database: Database, job_id: int) -> str:
        return f"accepted as it is ({verbs.accept(database, job_id, reason).value})"

    found = chosen.named(database, jobs)
    _each(settings, database, found, act, as_json=as_json, one=len(jobs) == 1)


def _for_each(
    verb: str,
    jobs: tuple[str, ...],
    given: Chosen,
    yes: bool,
    as_json: bool,
    *,
    among: tuple[JobState, ...],
    act: _Act,
) -> None:
    """Do it to each job that was chosen, where that is agreed to."""
    from dicomferry.cli.frame import installation

    settings = installation.settings()
    database = installation.for_jobs(settings)
    found = chosen.ids(database, jobs, chosen.filter_of(database, **given), among=among)
    if not jobs and not yes:
        agree(f"{verb} {_named(found)}?", f"this would {verb} {_named(found)}: give --yes", "nothing was changed")
    _each(settings, database, found, act, as_json=as_json, one=len(jobs) == 1)


def _each(settings: Settings, database: Database, found: Sequence[int], act: _Act, *, as_json: bool, one: bool) -> None:
    """Act on each job; one that refuses gives the exit code and stops no other. `one`: JSON of it, no list."""
    from dicomferry.models.documents import jobs as job_documents

    refused = 0
    done = []
    for job_id in found:
        try:
            told = act(settings, database, job_id)
        except UsageError as error:
            if len(found) == 1:
                raise
            complain(str(error))
            refused = error.exit_code
            continue
        done.append(job_id)
        if not as_json:
            render.line(f"job {job_id}: {told}")
    if as_json:
        documents = [job_documents.show(database, job_id) for job_id in done]
        render.document(documents[0] if one else documents)
    elif len(found) > 1:
        note(f"{words.plural(len(done), 'job')} of {words.number(len(found))}")
    if refused:
        click.get_current_context().exit(refused)


def _named(found: Sequence[int]) -> str:
    """`12 jobs: 3, 5, 7, 8, 9 and 7 more`."""
    more = f" and {words.number(len(found) - _NAMED)} more" if len(found) > _NAMED else ""
    return f"{words.plural(len(found), 'job')}: {', '.join(map(str, found[:_NAMED]))}{more}"


def _ring(settings: Settings, database: Database, job_id: int) -> None:
    """Tell the workers that there is work; without a broker they find it a little later by themselves."""
    from dicomferry.models.documents import jobs as job_documents
    from dicomferry.models.record.database import hide_password
    from dicomferry.models.rules.spec import lane_of
    from dicomferry.workers.doorbell import submit

    warning = submit.ring(settings, lane_of(job_documents.show(database, job_id)["kind"]))
    if warning:
        note(job_words.not_rung(job_id, hide_password(settings.broker), warning))

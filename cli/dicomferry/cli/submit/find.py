"""`dicomferry submit find`: a query, refused where it makes no sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import click

from dicomferry.cli.frame import options
from dicomferry.cli.frame.command_classes import Command
from dicomferry.models.rules.errors import UsageError

if TYPE_CHECKING:
    from dicomferry.cli.submit.asked import Asked, JobOptions
    from dicomferry.models.rules.spec import FindSpec

LEVELS = ("patient", "study", "series", "image")


@click.command(cls=Command)
@options.remote_argument
@click.option("--level", type=click.Choice(LEVELS), help="What is listed; study, if it is left out.")
@click.option("--root", type=click.Choice(LEVELS[:2]), help="The query model; study, but for --level patient.")
@click.option(
    "-k",
    "--key",
    "texts",
    metavar="KEY[=VALUE]",
    multiple=True,
    type=options.Utf8(),
    help="What to look for, or without a value what to list as well: PatientName=*Jérôme*, 0020,0010, "
    "StudyDate=@today-7..@today, ScheduledProcedureStepSequence[0].Modality=CT; may be repeated.",
)
@click.option("--worklist", is_flag=True, help="Ask for a modality worklist; it has no levels.")
@click.option("--split", is_flag=True, help="Halve by date and time what REMOTE does not list whole.")
@options.job_options
def find(
    remote: str,
    level: str | None,
    root: str | None,
    texts: Sequence[str],
    worklist: bool,
    split: bool,
    **how: Unpack[JobOptions],
) -> Asked:
    """Queue a query of REMOTE; `dicomferry jobs matches` lists what it found.

    The unique key of the level is always asked for. Where the keys leave a level above open, that one is searched
    first: --level image -k PatientID=4711 lists the studies of that patient, their series, and their images.
    """
    from dicomferry.cli.submit.asked import Asked

    if worklist and (level or root or split):
        raise UsageError(
            "--worklist has no --level and no --root, and is not split: ask for fewer days, with "
            "-k ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate=@today or a range"
        )
    level = level or "study"
    what = _checked(level, root or ("patient" if level == "patient" else "study"), texts, worklist, split, remote)
    return Asked(what, remote, how)


def _checked(level: str, root: str, texts: Sequence[str], worklist: bool, split: bool, remote: str) -> FindSpec:
    """What is to be asked; raises UsageError, and NotFound for a remote that is not in the address book."""
    from dicomferry.cli.frame.submission_time import occasion
    from dicomferry.models.rules import query, slices
    from dicomferry.models.rules.spec import FindSpec
    from dicomferry.workers.finding import keys

    if worklist and not texts:
        raise UsageError(
            "--worklist lists what its keys name: give some, such as -k PatientName -k PatientID "
            "-k ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate=@today"
        )
    today = occasion().moment.date()
    found = keys.parse(texts, today=today, charset=_charset(remote))
    query.check(level, root, found, worklist=worklist)
    if split:
        first = query.steps(level, root, found)[0]
        if first.level is query.Level.PATIENT:
            raise UsageError(
                "--split halves a search for studies by their date, and this one begins with patients: "
                "ask for studies (--level study --root study); each tells its patient"
            )
        if first.level is not query.Level.STUDY:
            raise UsageError(
                "--split halves a search for studies by their date, and this one stays within one study: leave it out"
            )
        slices.whole(first.keys, today)
    return FindSpec(level=level, root=root, keys=found, worklist=worklist, split=split)


def _charset(remote: str) -> str | None:
    """The character set in which the address book says that REMOTE is asked."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.remotes import book
    from dicomferry.models.rules.remote import looks_like_address

    if looks_like_address(remote):
        return None
    database = installation.for_reading(installation.settings())
    if database is None:
        raise installation.no_remote(remote)
    charset: str | None = book.show(database, remote)["charset"]
    return charset

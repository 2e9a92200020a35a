"""`dicomferry submit move`, `get` and `retrieve`: what is asked for, refused where it makes no sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from dicomferry.cli.frame import options
from dicomferry.cli.frame.command_classes import Command, note
from dicomferry.models.rules.errors import UsageError

if TYPE_CHECKING:
    from dicomferry.cli.submit.asked import Asked, JobOptions
    from dicomferry.cli.submit.request_file import RequestFile
    from dicomferry.models.rules.query import Key
    from dicomferry.models.rules.spec import Identifier, Retrieve

_F = TypeVar("_F", bound=Callable[..., Any])
METHODS = ("auto", "move", "get")
_ODD_TOLD = 3


class Wanted(TypedDict):
    """What is to be retrieved, as the options say it."""

    level: str
    root: str | None
    key: Sequence[str]
    from_csv: str | None
    refetch: bool
    allow_empty: bool
    trust_answers: Sequence[str]


def _wanted_options(function: _F) -> _F:
    for option in reversed(
        (
            click.option(
                "--level",
                type=click.Choice(["patient", "study", "series", "image"]),
                default="study",
                show_default=True,
                help="What each request names.",
            ),
            click.option(
                "--root",
                type=click.Choice(["patient", "study"]),
                help="The query model; study, but for --level patient.",
            ),
            click.option(
                "-k",
                "--key",
                "key",
                metavar="KEY=VALUE",
                multiple=True,
                type=options.Utf8(),
                help="As in AccessionNumber=4711, 0020,000D=1.2.3 or StudyDate=@yesterday; may be repeated.",
            ),
            click.option(
                "--from-csv",
                metavar="FILE",
                type=click.Path(),
                help="One request a row, columns named by DICOM keywords; - is standard input.",
            ),
            click.option("--refetch", is_flag=True, help="Fetch again also what lies in the archive already."),
            click.option("--allow-empty", is_flag=True, help="Nothing that matches is an answer, and no failure."),
            click.option(
                "--trust-answers",
                metavar="KEY[,KEY]",
                multiple=True,
                type=options.Utf8(),
                help="Take answers that do not tell whether they have what was asked for of KEY; never those that "
                "have something else.",
            ),
        )
    ):
        function = option(function)
    return function


_destination = click.option(
    "--destination",
    metavar="AET",
    type=options.Utf8(),
    help="Have it sent there, an AE title that REMOTE knows; without this it comes here.",
)


@click.command(cls=Command)
@options.remote_argument
@_wanted_options
@_destination
@options.job_options
def move(remote: str, destination: str | None, **given: Any) -> Asked:
    """Queue a C-MOVE: REMOTE sends what is asked for to our storage SCP, or to --destination.

    The job ends when every instance that REMOTE lists is in the archive. A key that is not the unique one of the
    level is looked up by C-FIND first.
    """
    return _retrieve("move", remote, destination, given)


@click.command(cls=Command)
@options.remote_argument
@_wanted_options
@options.job_options
def get(remote: str, **given: Any) -> Asked:
    """Queue a C-GET: REMOTE sends what is asked for on the association that we open.

    For remotes that cannot reach us. The job ends when every instance that REMOTE lists is in the archive.
    """
    return _retrieve("get", remote, None, given)


@click.command(cls=Command)
@options.remote_argument
@_wanted_options
@click.option(
    "--method", type=click.Choice(METHODS), default="auto", show_default=True, help="C-MOVE, C-GET, or what went well."
)
@options.job_options
def retrieve(remote: str, method: str, **given: Any) -> Asked:
    """Queue a C-MOVE or a C-GET, whichever is known to work with REMOTE.

    That is the one that worked last; C-GET where the last C-MOVE was refused or could not reach us; else C-MOVE.
    """
    return _retrieve(method, remote, None, given)


def _retrieve(method: str, remote: str, destination: str | None, given: dict[str, Any]) -> Asked:
    """Parse and check."""
    from dicomferry.cli.submit.asked import Asked

    wanted: Wanted = {name: given.pop(name) for name in Wanted.__annotations__}  # type: ignore[assignment]
    how: JobOptions = given  # type: ignore[assignment]
    identifiers, file = identifiers_of(**wanted)
    if file is not None and file.guessed:
        note(file.guessed)
    if file is not None and file.unused:
        note(f"not used at level {wanted['level']}: {', '.join(file.unused)}")
    _note_odd_uids(identifiers)
    if method == "auto":
        method = _choose(remote)
    return Asked(_spec(method, wanted, identifiers, file, destination), remote, how)


def _note_odd_uids(identifiers: tuple[Identifier, ...]) -> None:
    """Say which UIDs are none by the Standard: a misspelt one would come back as `no match`."""
    from dicomferry.models.rules import query

    odd = [(row, uid) for row, keys in identifiers for uid in query.odd_uids(keys)]
    if odd:
        told = ", ".join(f"row {row}: {uid}" if row is not None else uid for row, uid in odd[:_ODD_TOLD])
        more = f" and {len(odd) - _ODD_TOLD} more" if len(odd) > _ODD_TOLD else ""
        note(f"no UID by the Standard (PS3.5 9.1), asked for as it is: {told}{more}")


def _spec(
    method: str,
    wanted: Wanted,
    identifiers: tuple[Identifier, ...],
    file: RequestFile | None,
    destination: str | None,
) -> Retrieve:
    from dicomferry.models.rules.remote import check_ae_title
    from dicomferry.models.rules.spec import GetSpec, MoveSpec
    from dicomferry.workers.finding import keys as grammar

    others = () if file is None else file.others
    noted: dict[int | None, tuple[str, ...]] = (
        {request.row: request.others for request in file.requests} if file is not None else {}
    )
    common: dict[str, Any] = {
        "identifiers": identifiers,
        "level": wanted["level"],
        "root": _root(wanted),
        "refetch": wanted["refetch"],
        "columns": others,
        "remarks": tuple(noted[row] for row, _ in identifiers) if others else (),
        "allow_empty": wanted["allow_empty"],
        "trust_answers": grammar.paths(wanted["trust_answers"]),
        "csv": wanted["from_csv"],
    }
    if method == "get":
        return GetSpec(**common)
    return MoveSpec(**common, destination=None if destination is None else check_ae_title(destination))


def _root(wanted: Wanted) -> str:
    return wanted["root"] or ("patient" if wanted["level"] == "patient" else "study")


def identifiers_of(**wanted: Unpack[Wanted]) -> tuple[tuple[Identifier, ...], RequestFile | None]:
    """The requests, and the file that they stand in if there is one. Raises UsageError for what makes no sense."""
    from dicomferry.cli.frame.submission_time import occasion
    from dicomferry.cli.submit import request_file
    from dicomferry.models.rules import query
    from dicomferry.workers.finding import keys as grammar

    meant = occasion()
    level, root, today = wanted["level"], _root(wanted), meant.moment.date()
    given = grammar.parse(wanted["key"], today=today)
    query.check(level, root, given)
    for path, _ in given:
        if request_file.is_below(path, query.Level(level), root):
            raise UsageError(f"{grammar.spelled(path)} says nothing about a {level}: choose a lower --level")
    given = tuple((path, value) for path, value in given if value)
    if wanted["from_csv"] is None:
        if not given:
            raise UsageError(f"what is to be retrieved? Give -k, such as -k {_example(level)}=..., or --from-csv FILE")
        check_narrow(level, root, given)
        return _each(None, given, level, root), None
    source = wanted["from_csv"]
    if source == "-" and meant.recurring:
        raise UsageError("--from-csv -: a schedule has no standard input; name a file, which is read each time")
    source = meant.path(source) if meant.recurring else source
    file = request_file.read(source, level=level, root=root, today=today, known=given)
    found: list[Identifier] = []
    for request in file.requests:
        keys = (*given, *request.keys)
        try:
            check_narrow(level, root, keys)
            found += _each(request.row, keys, level, root)
        except UsageError as error:
            raise UsageError(f"{source}: row {request.row}: {error}") from None
    return tuple(found), file


def _each(row: int | None, keys: tuple[Key, ...], level: str, root: str) -> tuple[Identifier, ...]:
    """A request for each value of a list, so that one that is not there has an answer of its own."""
    from dicomferry.models.rules import lists
    from dicomferry.workers.finding import keys as grammar

    return tuple((row, one) for one in lists.alternatives(keys, level, root, grammar.DICTIONARY.vr))


def check_narrow(level: str, root: str, keys: Sequence[Key]) -> None:
    """Raise UsageError for keys that would ask for everything there is, or for it to be searched."""
    from dicomferry.models.rules import query
    from dicomferry.workers.finding import keys as grammar

    if query.above(level, root, keys):
        return
    first = query.steps(level, root, keys)[0]
    if not any(value.strip("*?\\ ") for _, value in first.keys):
        needed = grammar.DICTIONARY.keyword(query.UNIQUE[first.level])
        raise UsageError(
            f"this names no {first.level}: give {needed}, or something to find it by such as AccessionNumber, "
            "PatientID or StudyDate"
        )


def _example(level: str) -> str:
    from dicomferry.models.rules import query
    from dicomferry.workers.finding import keys as grammar

    return "AccessionNumber" if level == "study" else grammar.DICTIONARY.keyword(query.UNIQUE[query.Level(level)])


def _choose(remote: str) -> str:
    """The method that is known to work with a remote; raises NotFound, UsageError."""
    from dicomferry.cli.frame import installation
    from dicomferry.cli.frame.submission_time import occasion
    from dicomferry.models.record.retrieves import method as retrieve_method

    database = installation.for_reading(installation.settings())
    if database is None:
        return "move"
    chosen, why = retrieve_method.choose(database, remote)
    if not occasion().recurring:
        note(f"by C-{chosen.upper()}: {why}")
    return chosen

"""`dicomferry archive`: look at what was received, check it, remove it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Group, confirm, note
from dicomferry.cli.frame.layout import Column
from dicomferry.models.documents import shapes
from dicomferry.models.rules.errors import UsageError

if TYPE_CHECKING:
    from dicomferry.models.record.archive.index import InstanceDocument
    from dicomferry.models.record.database import Database
    from dicomferry.models.settings import Settings

_TABLE = (
    Column(heading="path", least=30, middle=True),
    Column(heading="size", rank=4, right=True),
    Column(heading="from", rank=3),
    Column(heading="stored", rank=2),
    Column(heading="remark", rank=1, least=10),
)
_SHOWN = 20
"""Paths of one kind of problem that are printed for people."""


@click.group(cls=Group, default="list")
def archive() -> None:
    """Look at what was received, check it, remove it.

    Without a command: the list.
    """


@archive.command("list")
@click.option("--job", metavar="ID", type=options.JobType(), help="Only what this job brought.")
@click.option("--study", metavar="UID", type=options.Utf8(), help="Only this study.")
@click.option("--paths", is_flag=True, help="Print full paths alone, one file an instance: the one that counts.")
@options.form_options
def list_(job: str | None, study: str | None, paths: bool, form: str | None) -> None:
    """List the instances in the archive, by path."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.archive import index

    settings = installation.settings()
    database = installation.for_reading(settings)
    job_id = _job(database, job)
    found = index.listing(database, study=study, job_id=job_id) if database else iter(())
    if paths:
        if form:
            raise UsageError("--paths prints paths alone: leave out --json, --jsonl and --csv")
        # One file an instance: what was replaced stays in the archive, and in the list.
        for row in (row for row in found if row["current"]):
            render.verbatim(str(settings.archive / row["path"]))
    else:
        columns = shapes.columns(index.InstanceDocument)
        nothing = "the archive has nothing of that" if study or job else "the archive is empty"
        render.rows(found, form, columns=columns, text=lambda rows: _table(rows, nothing))
    if database is not None and job_id is not None:
        _tell_here(database, job_id)


def _job(database: Database | None, text: str | None) -> int | None:
    """The id of the job that was meant; raises NotFound. One that was pruned is known by its arrivals."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import jobs
    from dicomferry.models.record.archive import of_job
    from dicomferry.models.rules.errors import NotFound

    if text is None:
        return None
    if database is None:
        raise NotFound(installation.NO_JOB_YET)
    job_id = jobs.resolve_id(database, text)
    if not of_job.is_kept(database, job_id):
        if not of_job.has_arrivals(database, job_id):
            raise NotFound(f"no job {job_id}: there never was one, or it was pruned and brought nothing here")
        note(f"job {job_id} was pruned: what is known to have come for it are its arrivals")
    return job_id


def _tell_here(database: Database, job_id: int) -> None:
    """Say what the job asked for and did not bring, for it was here before."""
    from dicomferry.models.record.archive import of_job

    number = of_job.here_before(database, job_id)
    if number:
        note(
            f"{words.plural(number, 'instance')} that job {job_id} asked for {'was' if number == 1 else 'were'} here "
            f"already, so it did not bring {'it' if number == 1 else 'them'}: "
            f"`dicomferry jobs report {job_id} --by instance` names every file"
        )


def _table(found: Iterable[InstanceDocument], nothing: str) -> None:
    cells = (
        (
            row["path"],
            words.size(row["size"]),
            row["calling_ae_title"],
            words.lately(row["stored_at"]),
            row["flaw"] or ("" if row["relation"] == "first" else row["relation"]),
        )
        for row in found
    )
    if not render.table(_TABLE, cells):
        note(nothing)


@archive.command()
@click.option(
    "--repair", is_flag=True, help="Mend the index: rows for files without one, none for files that are gone."
)
@options.json_option
def verify(repair: bool, as_json: bool) -> None:
    """Compare the index with the files, and look into each file for damage.

    Exit code 1 when files are damaged or gone, or have no row and --repair was not given.
    """
    from dicomferry.workers.receiving import archive_check, archive_mark
    from dicomferry.workers.receiving.archive import Archive

    settings, database = _open()
    archive_mark.check(settings.archive, database)
    place = Archive(settings.archive)
    found = archive_check.verify(place, database, repair=repair)
    numbers = {
        "files": found.files,
        "indexed": found.indexed,
        "missing_files": found.missing_files,
        "unindexed": found.unindexed,
        "damaged": found.damaged,
        "temporary": found.temporary,
    }
    if as_json:
        problems = [{"kind": kind, "path": path} for kind, path in found.named]
        render.document(numbers | {"problems": problems})
    else:
        render.line(f"{words.plural(found.files, 'file')} in {settings.archive}, {words.number(found.indexed)} indexed")
        mended = {"unindexed": "indexed now", "missing": "its row is history now"} if repair else {}
        for kind in ("damaged", "missing", "unindexed", "without a row", "temporary"):
            named = [path for one, path in found.named if one == kind]
            for path in named[:_SHOWN]:
                render.line(f"  {kind}: {words.printable(path)}" + (f" ({mended[kind]})" if kind in mended else ""))
            if len(named) > _SHOWN:
                render.line(f"  and more {kind} ones; --json names {words.number(archive_check.MOST_NAMED)}")
        if (found.unindexed or found.missing_files or found.temporary) and not repair:
            note("`dicomferry archive verify --repair` mends the index; it touches no instance")
        if found.damaged:
            note(
                "a damaged file cannot be mended here: have it sent again; both are kept until `dicomferry archive "
                "verify --repair`, which notes the damage, and `dicomferry archive remove --flawed`"
            )
    if found.damaged or found.missing_files or (found.left if repair else found.unindexed):
        sys.exit(1)


@archive.command()
@click.option("--study", metavar="UID", type=options.Utf8(), help="This study.")
@click.option("--job", metavar="ID", type=options.JobType(), help="What this job brought.")
@click.option("--flawed", is_flag=True, help="What counts for nothing: damaged, unreadable, of no study.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(study: str | None, job: str | None, flawed: bool, yes: bool) -> None:
    """Remove the files of a study, of what a job brought, or those that count for nothing; the rows stay as history.

    Says what would go and asks first; where nobody can be asked, --yes has to be given.
    """
    from dicomferry.models.record.archive import index
    from dicomferry.models.rules.errors import NotFound
    from dicomferry.workers.receiving import archive_mark, removal
    from dicomferry.workers.receiving.archive import Archive

    if [study is not None, job is not None, flawed].count(True) != 1:
        raise UsageError("name what to remove: --study UID, --job ID or --flawed")
    settings, database = _open()
    job_id = _job(database, job)
    instances, studies, size = index.extent(database, study=study, job_id=job_id, flawed=flawed)
    if not instances:
        named = "nothing that is flawed" if flawed else f"nothing of {f'study {study}' if study else f'job {job_id}'}"
        raise NotFound(f"the archive has {named}")
    archive_mark.check(settings.archive, database)
    what = f"{words.plural(instances, 'instance')} of {_studies(studies)}, {words.size(size)}"
    if not yes:
        confirm(f"remove {what} from {settings.archive}")
    paths = index.paths(database, study=study, job_id=job_id, flawed=flawed)
    done = removal.remove(Archive(settings.archive), database, paths)
    render.line(f"removed {words.plural(done.number, 'instance')} of {_studies(studies)}, {words.size(done.size)}")
    if done.stay:
        note(f"{words.plural(done.stay, 'instance')} came again meanwhile and {'stays' if done.stay == 1 else 'stay'}")
    if done.logs:
        note(_overwritten_later(done.logs))


def _overwritten_later(logs: Sequence[Path]) -> str:
    from dicomferry.workers.receiving.reception_log.recovery import DAMAGED

    damaged = [path for path in logs if path.suffix == DAMAGED]
    later = [path for path in logs if path.suffix != DAMAGED]
    told = []
    if later:
        told.append(
            "what the reception log still has of what was received before is overwritten by the storage SCP as soon as "
            f"nothing comes for some seconds: {', '.join(map(str, later))}"
        )
    if damaged:
        told.append(f"damaged parts of a reception log are kept until you delete them: {', '.join(map(str, damaged))}")
    return "; ".join(told)


def _studies(number: int) -> str:
    return f"{words.number(number)} {'study' if number == 1 else 'studies'}"


def _open() -> tuple[Settings, Database]:
    from dicomferry.cli.frame import installation

    settings = installation.settings()
    return settings, installation.for_writing(settings)


@archive.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(yes: bool) -> None:
    """Make the folder of scp.archive the archive that this record is about.

    For files that were restored or moved to another disk. Looks first how many of some files that the record names
    are there; what is not is asked for again by the next retrieve.
    """
    from dicomferry.workers.receiving import archive_mark

    settings, database = _open()
    root = settings.archive
    try:
        sample = archive_mark.sampled(root, database)
    except OSError as error:
        raise UsageError(f"scp.archive {root}: {error.strerror or error}") from None
    there = f"{words.number(sample.there)} of {words.plural(sample.looked_for, 'file')} that were looked for are there"
    if not yes:
        confirm(f"make {root} the archive of this record ({there})")
    archive_mark.adopt(root, database)
    render.line(f"{root} is the archive of this record now; {there}")
    if sample.there < sample.looked_for:
        note("`dicomferry archive verify --repair` makes history of the rows whose files are gone")

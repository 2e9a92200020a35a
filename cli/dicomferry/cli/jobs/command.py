"""`dicomferry jobs`: look at jobs, wait for them, change their course."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Unpack

import click

from dicomferry.cli.frame import options, render
from dicomferry.cli.frame.command_classes import Group, note
from dicomferry.cli.jobs import chosen, table, verbs, words
from dicomferry.cli.jobs.chosen import Chosen
from dicomferry.cli.jobs.matches import matches
from dicomferry.cli.jobs.prune import prune
from dicomferry.models.documents import shapes
from dicomferry.models.documents.shapes import EventDocument, ItemDocument, JobDocument, ReportDocument
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.state import ItemState

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database
    from dicomferry.models.settings import Settings

NO_JOB_COLUMN = frozenset({"accepted_reason", "requests", "instances"})
"""Left out of the CSV of jobs: a sentence of a person, and the parts of which `items` is the sum."""
NO_ITEM_COLUMN = frozenset({"identifier"})
"""Left out of the CSV of items: keys and values, of which each request has others."""
NO_EVENT_COLUMN = frozenset({"more", "until"})
"""Left out of the CSV of events: what a screen needs, where many events are told as one."""


@click.group(cls=Group, default="list")
def jobs() -> None:
    """Look at jobs, wait for them, change their course.

    ID is a number, or `last` for the newest job. Without a command: the list.
    """


@jobs.command("list")
@chosen.filter_options
@click.option("--limit", metavar="N", type=options.Number(), default=50, show_default=True, help="At most so many.")
@options.form_options
def list_(limit: int, form: str | None, **given: Unpack[Chosen]) -> None:
    """List jobs, the newest first."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import jobs as job_documents

    database = installation.for_reading(installation.settings())
    if database is None:
        render.rows((), form, columns=shapes.columns(JobDocument, without=NO_JOB_COLUMN), text=table.show)
        told = installation.NO_JOB_YET
    else:
        like = chosen.filter_of(database, **given)
        found = job_documents.listing(database, chosen=like, limit=limit)
        render.rows(found, form, columns=shapes.columns(JobDocument, without=NO_JOB_COLUMN), text=table.show)
        if len(found) == limit:
            told = f"the newest {limit}; --limit N shows more"
        else:
            told = "" if found else "no job is like that" if like else installation.NO_JOB_YET
    if told and not form:
        note(told)


@jobs.command()
@options.job_argument
@options.json_option
@options.wide_option
def show(job: str, as_json: bool) -> None:
    """Show one job on one screen."""
    from dicomferry.cli.jobs import screen
    from dicomferry.models.documents import job_history
    from dicomferry.models.documents import jobs as job_documents

    _, database, job_id = _open(job)
    found = job_documents.show(database, job_id)
    if as_json:
        render.document(found)
    else:
        screen.show(database, found, job_history.story(database, job_id))


@jobs.command()
@options.job_argument
@click.option("--state", type=click.Choice([state.value for state in ItemState]), help="Only items in this state.")
@click.option("--limit", metavar="N", type=options.Number(), help="At most so many.")
@options.form_options
def items(job: str, state: str | None, limit: int | None, form: str | None) -> None:
    """List a job's items: one for each instance or request, with reason and advice."""
    from dicomferry.models.documents import jobs as job_documents

    _, database, job_id = _open(job)
    found = job_documents.items(database, job_id, state=ItemState(state) if state else None, limit=limit)
    render.rows(
        found,
        form,
        columns=shapes.columns(ItemDocument, without=NO_ITEM_COLUMN),
        text=lambda rows: _told_items(rows, state),
    )


def _told_items(found: Iterable[ItemDocument], state: str | None) -> None:
    rows = iter(found)
    first = next(rows, None)
    if first is None:
        note(f"no item of it is {state}" if state else "it has no items yet")
    else:
        _item_lines(chain((first,), rows))


def _item_lines(found: Iterable[ItemDocument]) -> None:
    for item in found:
        _item_line(item["state"], words.item_line(item))


def _item_line(state: str, told: str) -> None:
    render.paragraph(render.coloured(f"{state:<9}") + "  ", told)


jobs.add_command(matches)


@jobs.command()
@options.job_argument
@options.form_options
def events(job: str, form: str | None) -> None:
    """Show a job's history, the oldest first."""
    from dicomferry.models.documents import jobs as job_documents

    _, database, job_id = _open(job)
    render.rows(
        job_documents.events(database, job_id),
        form,
        columns=shapes.columns(EventDocument, without=NO_EVENT_COLUMN),
        text=_event_lines,
    )


def _event_lines(found: Iterable[EventDocument]) -> None:
    from dicomferry.cli.jobs import screen

    for event in found:
        screen.event_line(event)


@jobs.command()
@options.job_argument
@click.option("--timeout", metavar="S", type=options.Seconds(), help="Wait at most so many seconds.")
@options.json_option
def wait(job: str, timeout: float | None, as_json: bool) -> None:
    """Wait for the end of a job; the exit code tells how it ended."""
    from dicomferry.cli.jobs import wait as waiting

    _, database, job_id = _open(job)
    waiting.leave(waiting.follow(database, job_id, timeout=timeout, as_json=as_json, say=render.line))


for _verb in (verbs.cancel, verbs.retry, verbs.hold, verbs.release, verbs.accept):
    jobs.add_command(_verb)


@jobs.command()
@options.job_argument
@click.option(
    "--by", type=click.Choice(["request", "study", "instance"]), help="Of a retrieve: one row for each; study."
)
@click.option("--missing", is_flag=True, help="Of a retrieve: only what is not complete.")
@options.form_options
def report(job: str, by: str | None, missing: bool, form: str | None) -> None:
    """Account for a job: what was asked for, what came of it and why.

    Of a retrieve: a table by study, or all of it with --json. Its CSV may be given back to --from-csv. Of any other
    job: a row for each item, as CSV where nobody reads it on a terminal.
    """
    from dicomferry.models.documents import jobs as job_documents

    _, database, job_id = _open(job)
    if job_documents.show(database, job_id)["kind"] in RETRIEVES:
        from dicomferry.cli.jobs import report as retrieve_report

        retrieve_report.show(database, job_id, by=by, form=form, missing=missing)
        return
    if by or missing:
        raise UsageError(f"job {job_id} is no retrieve: leave out --by and --missing")
    found = map(_reported, job_documents.items(database, job_id))
    columns = shapes.columns(ReportDocument)
    render.rows(found, form or (None if sys.stdout.isatty() else "csv"), columns=columns, text=_report_lines)


def _reported(item: ItemDocument) -> ReportDocument:
    return {
        "path": item["path"],
        "sop_instance_uid": item["sop_instance_uid"],
        "sop_class_uid": item["sop_class_uid"],
        "transfer_syntax_uid": item["transfer_syntax_uid"],
        "state": item["state"],
        "status": item["status"],
        "reason": item["reason"],
        "detail": item["detail"],
        "advice": item["advice"],
        "attempts": item["attempts"],
        "bytes": item["size"],
    }


def _report_lines(found: Iterable[ReportDocument]) -> None:
    for item in found:
        _item_line(item["state"], words.named_line(item["path"] or item["sop_instance_uid"] or "the request", item))


jobs.add_command(prune)


def _open(job: str) -> tuple[Settings, Database, int]:
    """The settings, the database, and the id of the job that was meant."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import jobs as job_documents

    settings = installation.settings()
    database = installation.for_jobs(settings)
    return settings, database, job_documents.resolve_id(database, job)

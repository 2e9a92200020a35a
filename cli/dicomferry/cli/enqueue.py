"""`dicomferry submit`: jobs into the queue."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from dicomferry.cli import options
from dicomferry.cli.commands import Group, note
from dicomferry.models.errors import OutputFailed, UsageError

if TYPE_CHECKING:
    from dicomferry.models.spec import Spec


class JobOptions(TypedDict):
    """What every kind of job takes."""

    wait: bool
    timeout: float | None
    label: str | None
    priority: str
    not_before: datetime | None
    as_json: bool


@click.group(cls=Group)
def submit() -> None:
    """Queue a job: an echo, or files to store.

    The job's id alone goes to stdout; hints and progress go to stderr.
    REMOTE is a name from the address book, or AET@host:port.
    """


@submit.command()
@options.remote_argument
@options.job_options
def echo(remote: str, **how: Unpack[JobOptions]) -> None:
    """Queue one C-ECHO to REMOTE."""
    from dicomferry.models.spec import EchoSpec

    _submit(EchoSpec(), remote, **how)


@submit.command()
@options.remote_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--recursive", "-r", is_flag=True, help="Take the folders inside a folder as well.")
@click.option(
    "--transcode", is_flag=True, help="Send a decompressed copy where REMOTE takes a compressed file in no other way."
)
@options.job_options
def store(remote: str, paths: Sequence[str], recursive: bool, transcode: bool, **how: Unpack[JobOptions]) -> None:
    """Queue files to be stored at REMOTE.

    A PATH is a file or a folder. Of a folder the files that lie directly in it are sent; with -r those in the
    folders inside as well. What is not DICOM is left out and listed as skipped.
    """
    from dicomferry.models.spec import StoreSpec

    spec = StoreSpec(paths=tuple(_absolute(path) for path in paths), recursive=recursive, transcode=transcode)
    _submit(spec, remote, **how)


def _absolute(path: str) -> str:
    """The path from the root on, byte for byte; raises UsageError when nothing is there."""
    whole = os.path.abspath(os.fsencode(path))
    try:
        os.stat(whole)
    except OSError as error:
        from dicomferry.models.job_view import path_text

        raise UsageError(
            f"{path_text(whole)}: {(error.strerror or str(error)).lower()}; nothing was submitted"
        ) from None
    return os.fsdecode(whole)


def _submit(what: Spec, remote: str, **how: Unpack[JobOptions]) -> None:
    """Write the job down, print its id, wait if that was asked for."""
    if how["timeout"] is not None and not how["wait"]:
        raise UsageError("--timeout says how long --wait waits: give both")
    from dicomferry.cli import record, render, wait, words
    from dicomferry.models import job_view, remote_store
    from dicomferry.models.database import hide_password
    from dicomferry.workers import submit as queue

    settings = record.settings()
    database = record.for_writing(settings)
    remote_id = remote_store.resolve_id(database, remote)
    done = queue.submit(
        database,
        settings,
        what,
        remote_id,
        label=how["label"],
        priority=how["priority"],
        not_before=how["not_before"],
    )
    try:
        if not how["as_json"]:
            render.line(str(done.job_id))
        elif not how["wait"]:
            render.document(job_view.show(database, done.job_id))
        sys.stdout.flush()
    except (OutputFailed, BrokenPipeError):
        note(f"job {done.job_id} is recorded, though its id could not be printed")
        raise
    idle = not wait.workers_alive(database)
    if done.warning and (settings.broker_url or not idle):
        note(words.not_rung(done.job_id, hide_password(settings.broker_url), done.warning))
    if how["wait"]:
        wait.leave(wait.follow(database, done.job_id, timeout=how["timeout"], as_json=how["as_json"]))
    if idle:
        note(wait.NO_WORKER)
    elif sys.stderr.isatty():
        note(f"follow it with `dicomferry jobs wait {done.job_id}`")

"""`dicomferry submit`: jobs into the queue."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import click

from dicomferry.cli.frame import options, words
from dicomferry.cli.frame.command_classes import Group, note
from dicomferry.cli.submit.asked import Asked, JobOptions
from dicomferry.cli.submit.find import find
from dicomferry.cli.submit.retrieve import get, move, retrieve
from dicomferry.models.rules.errors import OutputFailed, UsageError

if TYPE_CHECKING:
    pass


@click.group(cls=Group)
def submit() -> None:
    """Queue a job: an echo, files to store, or what is to be retrieved.

    The job's id alone goes to stdout; hints and progress go to stderr.
    REMOTE is a name from the address book, or AET@host:port.
    """


@submit.command()
@options.remote_argument
@options.job_options
def echo(remote: str, **how: Unpack[JobOptions]) -> Asked:
    """Queue one C-ECHO to REMOTE."""
    from dicomferry.models.rules.spec import EchoSpec

    return Asked(EchoSpec(), remote, how)


@submit.command()
@options.remote_argument
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(readable=False))
@click.option("--recursive", "-r", is_flag=True, help="Take the folders inside a folder as well.")
@click.option(
    "--transcode", is_flag=True, help="Send a decompressed copy where REMOTE takes a compressed file in no other way."
)
@click.option(
    "--from-job", metavar="ID", type=options.JobType(), help="Send what this retrieve asked for and the archive has."
)
@click.option("--allow-empty", is_flag=True, help="Nothing to send is no failure.")
@click.option("--verify", is_flag=True, help="Afterwards look by C-FIND whether REMOTE lists each instance.")
@click.option(
    "--strict-meta",
    is_flag=True,
    help="Refuse files whose meta group names another object than their data set, which is what is sent.",
)
@click.option(
    "--send-odd-uids",
    is_flag=True,
    help="Send SOP Instance UIDs of more than 64 characters as well: last, and each on an association of its own.",
)
@options.job_options
def store(
    remote: str,
    paths: Sequence[str],
    recursive: bool,
    transcode: bool,
    from_job: str | None,
    allow_empty: bool,
    verify: bool,
    strict_meta: bool,
    send_odd_uids: bool,
    **how: Unpack[JobOptions],
) -> Asked:
    """Queue files to be stored at REMOTE.

    A PATH is a file or a folder. Of a folder the files that lie directly in it are sent; with -r those in the
    folders inside as well. What is not DICOM is left out and listed as skipped.
    """
    from dicomferry.models.rules.spec import StoreSpec

    if bool(paths) == bool(from_job):
        raise UsageError("what is to be sent? Give PATH..., or --from-job ID for what that retrieve brought")
    given = _retrieved(from_job) if from_job else tuple(_absolute(path) for path in paths)
    what = StoreSpec(
        paths=given,
        recursive=recursive,
        transcode=transcode,
        allow_empty=allow_empty,
        verify=verify,
        strict_meta=strict_meta,
        send_odd_uids=send_odd_uids,
    )
    return Asked(what, remote, how)


for _command in (find, move, get, retrieve):
    submit.add_command(_command)


def _absolute(path: str) -> str:
    """The path from the root on, byte for byte; raises UsageError when nothing is there."""
    from dicomferry.cli.frame.submission_time import occasion

    whole = occasion().path(path)
    try:
        os.stat(whole)
    except OSError as error:
        from dicomferry.models.rules.text import path_text

        raise UsageError(
            f"{path_text(os.fsencode(whole))}: {(error.strerror or str(error)).lower()}; nothing was submitted"
        ) from None
    return whole


def _retrieved(job: str) -> tuple[str, ...]:
    """The files of what a retrieve asked for, as far as they are in the archive; raises NotFound, UsageError."""
    from dicomferry.cli.frame import installation
    from dicomferry.cli.frame.submission_time import occasion
    from dicomferry.models.documents import jobs, retrieves
    from dicomferry.models.rules.proof import Verified
    from dicomferry.models.rules.spec import RETRIEVES
    from dicomferry.models.rules.state import GOOD_ITEM_STATES

    if job == "last" and occasion().recurring:
        raise UsageError("--from-job last: a schedule needs the job's number")
    settings = installation.settings()
    database = installation.for_jobs(settings)
    job_id = jobs.resolve_id(database, job)
    found = jobs.show(database, job_id)
    if found["kind"] not in RETRIEVES:
        raise UsageError(f"job {job_id} is no retrieve, but {found['kind']}: --from-job sends what a retrieve brought")
    rows = retrieves.instances(database, job_id)
    names = {row["path"] for row in rows if row["path"] and row["state"] in GOOD_ITEM_STATES}
    if not names:
        raise UsageError(f"nothing that job {job_id} asked for is in the archive; nothing was submitted")
    if found["state"] == "succeeded" and found["verified"] != Verified.UIDS:
        from dicomferry.cli.jobs import retrieve_words

        note(f"job {job_id} is not proven: {words.plural(len(names), 'instance')} {retrieve_words.proof(found)}")
    elif found["state"] != "succeeded":
        note(f"job {job_id} is {found['state']}: {words.plural(len(names), 'instance')} of it so far")
    return tuple(str(settings.archive / name) for name in sorted(names))


@submit.result_callback()
def enqueue(asked: Asked) -> None:
    """Write the job down, print its id, wait if that was asked for."""
    how = asked.how
    if how["timeout"] is not None and not how["wait"]:
        raise UsageError("--timeout says how long --wait waits: give both")
    from dicomferry.cli.frame import installation, render
    from dicomferry.cli.jobs import wait
    from dicomferry.cli.jobs import words as job_words
    from dicomferry.models.documents import jobs
    from dicomferry.models.record.database import hide_password
    from dicomferry.models.record.remotes import book
    from dicomferry.workers.doorbell import submit as queue

    settings = installation.settings()
    database = installation.for_writing(settings)
    remote_id = book.resolve_id(database, asked.remote)
    done = queue.submit(database, settings, asked.what, remote_id, **asked.options)
    try:
        if not how["as_json"]:
            render.line(str(done.job_id))
        elif not how["wait"]:
            render.document(jobs.show(database, done.job_id))
        sys.stdout.flush()
    except (OutputFailed, BrokenPipeError):
        note(f"job {done.job_id} is recorded, though its id could not be printed")
        raise
    idle = not wait.workers_alive(database)
    if done.warning and (settings.broker or not idle):
        note(job_words.not_rung(done.job_id, hide_password(settings.broker), done.warning))
    if how["wait"]:
        wait.leave(wait.follow(database, done.job_id, timeout=how["timeout"], as_json=how["as_json"]))
    if idle:
        note(wait.NO_WORKER)
    elif sys.stderr.isatty():
        note(f"follow it with `dicomferry jobs wait {done.job_id}`")

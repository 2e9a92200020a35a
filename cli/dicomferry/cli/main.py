"""The command `dicomferry`. Nothing heavy is imported before a command needs it: help and completion stay quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import click

from dicomferry.cli.commands import Lazy, Root, mute
from dicomferry.models.errors import OutputFailed

_COMMANDS = {
    "up": Lazy("dicomferry.cli.roles:up", "Run everything on this machine: broker, workers and storage SCP."),
    "worker": Lazy("dicomferry.cli.roles:worker", "Run workers alone, for systemd and containers."),
    "scp": Lazy("dicomferry.cli.roles:scp", "Run the storage SCP alone, for systemd and containers."),
    "demo": Lazy(
        "dicomferry.cli.demo:demo",
        "Send samples to an archive on this machine, kill a worker on the way, fetch them back, count what came.",
    ),
    "status": Lazy("dicomferry.cli.admin:status", "Show what runs, what waits and what went wrong."),
    "remote": Lazy("dicomferry.cli.remotes:remote", "Keep the address book of remote AEs and test them."),
    "submit": Lazy(
        "dicomferry.cli.enqueue:submit", "Queue a job: an echo, files to store, or what is to be retrieved."
    ),
    "jobs": Lazy("dicomferry.cli.jobs:jobs", "Look at jobs, wait for them, change their course."),
    "explain": Lazy(
        "dicomferry.cli.explain:explain", "Explain a status, a rejection, a reason word or a job: what to check where."
    ),
    "archive": Lazy("dicomferry.cli.archive:archive", "Look at what was received, check it, remove it."),
    "config": Lazy("dicomferry.cli.admin:config", "Show the settings and where they come from."),
    "db": Lazy("dicomferry.cli.admin:db", "Set up, upgrade and check the database."),
    "completion": Lazy("dicomferry.cli.completion:completion", "Print the completion script for a shell."),
    "version": Lazy("dicomferry.cli.admin:version", "Print the version."),
}


@click.group(
    "dicomferry",
    cls=Root,
    lazy=_COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Move DICOM objects between this site and remote archives, in bulk, and know per instance what arrived.

    Without a command: the status, and the next step worth taking.
    """
    if ctx.invoked_subcommand is None:
        from dicomferry.cli import status

        status.show(next_step=True)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that this terminal cannot show must not end a listing.
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None or isinstance(sys.stdout, TextIOWrapper):
        sys.stdout = Output(sys.stdout)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    cli.main(prog_name="dicomferry")


class Output(TextIOWrapper):
    """Standard output that says so when it takes nothing, and takes everything from then on. None: it is closed."""

    def __init__(self, given: TextIOWrapper | None) -> None:
        if given is None:
            # Not the next best file that is opened, such as the database, becomes standard output.
            os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
            given = os.fdopen(1, "w", closefd=False)
        super().__init__(
            given.detach(),
            given.encoding,
            given.errors,
            line_buffering=given.line_buffering,
            write_through=given.write_through,
        )

    def write(self, text: str) -> int:
        """As ever; raises OutputFailed. An empty text is a library's way to find out what kind of file this is."""
        if text != "":
            with self._named():
                super().write(text)
        return len(text)

    def flush(self) -> None:
        """As ever; raises OutputFailed."""
        with self._named():
            super().flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            mute()
            raise OutputFailed(f"cannot write to standard output: {(error.strerror or str(error)).lower()}") from None


if __name__ == "__main__":
    main()

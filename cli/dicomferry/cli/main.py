"""The command `dicomferry`. Nothing heavy is imported before a command needs it: help and completion stay quick."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

from dicomferry.cli.commands import Lazy, Root

_COMMANDS = {
    "up": Lazy("dicomferry.cli.roles:up", "Run everything on this machine: broker, workers and storage SCP."),
    "worker": Lazy("dicomferry.cli.roles:worker", "Run workers alone, for systemd and containers."),
    "scp": Lazy("dicomferry.cli.roles:scp", "Run the storage SCP alone, for systemd and containers."),
    "demo": Lazy(
        "dicomferry.cli.demo:demo",
        "Send sample data to an archive on this machine, kill a worker on the way, and count what arrived.",
    ),
    "status": Lazy("dicomferry.cli.admin:status", "Show what runs, what waits and what went wrong."),
    "remote": Lazy("dicomferry.cli.remotes:remote", "Keep the address book of remote AEs and test them."),
    "submit": Lazy("dicomferry.cli.enqueue:submit", "Queue a job: an echo, or files to store."),
    "jobs": Lazy("dicomferry.cli.jobs:jobs", "Look at jobs, wait for them, change their course."),
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
    cli.main(prog_name="dicomferry")


if __name__ == "__main__":
    main()

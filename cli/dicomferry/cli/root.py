"""The commands of `dicomferry`. Nothing heavy is imported before a command needs it: help and completion stay quick."""

from __future__ import annotations

import click

from dicomferry.cli.frame.command_classes import Lazy, RootGroup
from dicomferry.models.rules.kind import JOBS

_COMMANDS = {
    "up": Lazy(
        "dicomferry.cli.roles:up", "Run everything on this machine: broker, workers, storage SCP and scheduler."
    ),
    "worker": Lazy("dicomferry.cli.roles:worker", "Run workers alone, for systemd and containers."),
    "scp": Lazy("dicomferry.cli.roles:scp", "Run the storage SCP alone, for systemd and containers."),
    "scheduler": Lazy("dicomferry.cli.roles:scheduler", "Run a scheduler alone, for systemd and containers."),
    "demo": Lazy(
        "dicomferry.cli.demo.command:demo",
        "Send samples to an archive on this machine, kill a worker on the way, fetch them back, count what came.",
    ),
    "status": Lazy("dicomferry.cli.status.command:status", "Show what runs, what waits and what went wrong."),
    "remote": Lazy("dicomferry.cli.remotes.command:remote", "Keep the address book of remote AEs and test them."),
    "submit": Lazy(
        "dicomferry.cli.submit.command:submit", "Queue a job: an echo, files to store, or what is to be retrieved."
    ),
    "scu": Lazy("dicomferry.cli.scu.command:scu", "Do one operation now, without a queue: gdcmscu's command line."),
    "jobs": Lazy("dicomferry.cli.jobs.command:jobs", "Look at jobs, wait for them, change their course."),
    "explain": Lazy(
        "dicomferry.cli.explain:explain",
        "Explain an answer: what it means, what is done about it, what to check on which side.",
    ),
    "schedule": Lazy(
        "dicomferry.cli.schedules:schedule", "Submit jobs again and again, at the times of a cron expression."
    ),
    "archive": Lazy("dicomferry.cli.archive:archive", "Look at what was received, check it, remove it."),
    "config": Lazy("dicomferry.cli.status.command:config", "Show the settings and where they come from."),
    "db": Lazy("dicomferry.cli.status.command:db", "Set up, upgrade and check the database."),
    "service": Lazy("dicomferry.cli.service:service", "Run the roles as services of systemd."),
    "completion": Lazy("dicomferry.cli.completion:completion", "Print the completion script for a shell."),
    "version": Lazy("dicomferry.cli.status.command:version", "Print the version."),
}


_ELSEWHERE = {word: f"`submit {word}`" for word in (*JOBS, "retrieve")}
_ELSEWHERE |= {"echo": "`submit echo` (or `remote echo`, now)"}
_ELSEWHERE |= {
    word: f"`jobs {word}`" for word in ("list", "show", "wait", "cancel", "retry", "hold", "release", "report")
}


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
        from dicomferry.cli.status import command

        ctx.exit(ctx.invoke(command.version))


@click.group(
    "dicomferry",
    cls=RootGroup,
    lazy=_COMMANDS,
    elsewhere=_ELSEWHERE,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Move DICOM objects between this site and remote archives, in bulk, and know per instance what arrived.

    Without a command: the status, and the next step worth taking.
    """
    if ctx.invoked_subcommand is None:
        from dicomferry.cli.status import status

        status.show(next_step=True)

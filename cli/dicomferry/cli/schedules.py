"""`dicomferry schedule`: jobs that are submitted again and again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Command, Group, note
from dicomferry.cli.frame.layout import Brief, Column
from dicomferry.cli.jobs import words as job_words
from dicomferry.models.documents import shapes
from dicomferry.models.documents.shapes import PlainSchedule, RunDocument, ScheduleDocument
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.kind import JOBS

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database

NO_COLUMN = frozenset(
    f"last_run_{name}" for name in ("last_due_at", "number", "by_hand", "detail", "at", "job_reason", "notifications")
)
"""Left out of the CSV of schedules: what `schedule show` tells of a run beside its due time and what it came to."""
_TABLE = (
    Column(heading="name", least=12),
    Column(heading="cron", rank=1),
    Column(heading="zone", rank=4),
    Column(heading="next"),
    Column(heading="last run", outcome=True),
    Column(heading="command", rank=2, least=16),
)
_RUNS = (
    Column(heading="due"),
    Column(heading="came to", outcome=True),
    Column(heading="why", rank=1, least=16),
    Column(heading="notified", rank=2, least=12),
)
CAP = 24
"""Due times that `--catch-up all` fires at once, at most: a day of hours."""
NO_SCHEDULER = "no scheduler is running, so nothing fires: start one with `dicomferry up` or `dicomferry scheduler`"


class ScheduleType(options.Utf8):
    """The name of a schedule."""

    name = "schedule"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names of schedules."""
        from dicomferry.cli.frame import completers

        return completers.schedules(ctx, incomplete)


_name = click.argument("name", metavar="NAME", type=ScheduleType())


@click.group(cls=Group, default="list")
def schedule() -> None:
    """Submit jobs again and again, at the times of a cron expression.

    Something has to fire them: `dicomferry up`, or any number of `dicomferry scheduler`. Without a command: the list.
    """


class _Add(Command):
    """A command with another command behind `--`: one that was forgotten is what is wrong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; raises UsageError that says where `--` belongs."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in given:
                raise
            words = [word for word in given if word in (*JOBS, "retrieve")]
            then = f" -- {words[0]} ..." if words else " -- COMMAND ..."
            raise click.UsageError(
                f"{error.option_name} is no option of `schedule add`: what is to be submitted stands behind --, as in "
                f"`dicomferry schedule add NAME --cron EXPR --tz ZONE{then}`",
                ctx,
            ) from None


@schedule.command(cls=_Add)
@click.argument("name", metavar="NAME", type=options.Utf8())
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=options.Utf8())
@click.option(
    "--cron",
    metavar="EXPR",
    required=True,
    type=options.Utf8(),
    help="Minute, hour, day of month, month, day of week: '30 2 * * 1-5' is 02:30 from Monday to Friday.",
)
@click.option("--tz", metavar="ZONE", required=True, type=options.Utf8(), help="Time zone, such as Europe/Berlin.")
@click.option(
    "--catch-up",
    type=click.Choice(["latest", "all", "skip"]),
    default="latest",
    show_default=True,
    help="What to do about due times that passed while no scheduler ran.",
)
@click.option(
    "--grace",
    metavar="S",
    type=options.Seconds(),
    help="How late one may still fire; else until the next is due (latest), or for ever (all).",
)
@click.option("--cap", metavar="N", type=options.Number(), help=f"With all: at most so many, the newest (else {CAP}).")
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue"]),
    help="While the last job of it has not ended: skip the due time, or submit its job after that "
    "(else skip; with --catch-up all queue). A held job is not waited for.",
)
def add(
    name: str,
    command: Sequence[str],
    cron: str,
    tz: str,
    catch_up: str,
    grace: float | None,
    cap: int | None,
    overlap: str | None,
) -> None:
    """Add a schedule. COMMAND is what would follow `dicomferry submit`; it is checked now.

    \b
    dicomferry schedule add nightly --cron '30 2 * * *' --tz Europe/Berlin -- \\
        retrieve pacs1 -k StudyDate=@yesterday -k ModalitiesInStudy=MR

    Days such as @yesterday and times such as --not-before 22:00 are those of the due time in the zone, also when it
    fires late. Folders and files, that of --from-csv included, are read each time that it fires. The job is labelled
    with the schedule's name unless the command has a --label.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.cli.submit import parsed_command
    from dicomferry.models.record.schedules import verbs
    from dicomferry.models.rules import timetable
    from dicomferry.models.rules.timetable import CatchUp, CatchUpPolicy, Overlap

    verbs.check_name(name)
    when = timetable.parse(cron, tz)
    if catch_up == "skip" and grace is not None:
        raise UsageError("--grace says how late a due time may be caught up on; with --catch-up skip none is")
    if catch_up != "all" and cap is not None:
        raise UsageError("--cap goes with --catch-up all: else one fires, the latest")
    if catch_up == "all" and overlap == "skip":
        raise UsageError("--catch-up all and --overlap skip: what is caught up on would be skipped but for the first")
    if command[:1] == ("submit",):
        command = command[1:]
    database = installation.for_writing(installation.settings())
    first = when.next(datetime.now(UTC))
    assert first is not None
    parsed_command.check(database, command, os.getcwd(), first.astimezone(when.zone))
    added = verbs.add(
        database,
        name,
        when,
        words=command,
        folder=os.getcwd(),
        policy=CatchUpPolicy(catch_up=CatchUp(catch_up), grace=grace, cap=cap or CAP),
        overlap=Overlap(overlap or ("queue" if catch_up == "all" else "skip")),
    )
    assert added.next_due is not None
    render.line(f"{name} is saved; it fires first at {_local(added.local(added.next_due))}")
    _tell_idle(database)


@schedule.command("list")
@options.form_options
def list_(form: str | None) -> None:
    """List schedules, with the next due time and the last run of each."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import schedules

    database = installation.for_reading(installation.settings())
    found = schedules.listing(database) if database else []
    render.rows(found, form, columns=shapes.columns(ScheduleDocument, without=NO_COLUMN), text=_table)
    if form or database is None:
        return
    if not found:
        note("there is no schedule yet; `dicomferry schedule add --help` shows how to add one")
    else:
        _tell_idle(database)


def _table(found: Iterable[ScheduleDocument]) -> None:
    cells = (
        (
            row["name"],
            row["cron"],
            row["tz"],
            "paused" if row["paused_at"] else _brief(_in_zone(row["next_due"], row["tz"]), row["next_due"]),
            _last(row),
            row["command"],
        )
        for row in found
    )
    render.table(_TABLE, cells)


def _last(row: ScheduleDocument) -> str | Brief:
    if not row["last_run"]:
        return ""
    run = row["last_run"]
    return Brief(f"{_due(run, row['tz'])}: {_came_to(run)}", _came_to(run))


def _brief(full: str, moment: str | None) -> Brief:
    return Brief(full, words.lately(moment).brief if moment else full)


@schedule.command()
@_name
@options.json_option
@options.wide_option
def show(name: str, as_json: bool) -> None:
    """Show a schedule: when it fires next, its last runs and their jobs, what was missed and why."""
    from dicomferry.models.documents import schedules

    database = _open(name)
    found = schedules.show(database, name)
    if as_json:
        render.document(found)
        return
    render.line(f"{name}: {found['cron']} in {found['tz']}{', paused' if found['paused_at'] else ''}")
    missed = [f"{words.number(found[state])} {state}" for state in ("missed", "skipped", "refused") if found[state]]
    following = [_local(datetime.fromisoformat(slot["local"])) for slot in found["next"]]
    heading = "would be due" if found["paused_at"] else "next"
    render.pairs(
        [
            ("submits", found["command"]),
            ("in folder", found["folder"]),
            ("catch-up", _catch_up(found)),
            ("overlap", _OVERLAP[found["overlap"]]),
            ("paused since", _in_zone(found["paused_at"], found["tz"]) if found["paused_at"] else None),
            *(("" if index else heading, slot) for index, slot in enumerate(following)),
            ("came to no job", ", ".join(missed)),
        ]
    )
    if found["runs"]:
        render.line("last runs, the newest first")
        cells = [(_due(run, found["tz"]), _came_to(run), _why(run), _notified(run)) for run in found["runs"]]
        render.table(_RUNS, cells)
    else:
        render.line("it has not fired yet")
    _tell_idle(database)


_OVERLAP = {
    "skip": "a due time is skipped while the last job has not ended",
    "queue": "a due time waits while the last job has not ended",
}


def _catch_up(found: PlainSchedule) -> str:
    if found["catch_up"] == "skip":
        return "skip: what passed while no scheduler ran is missed"
    grace = f", if at most {words.duration(found['grace'])} late" if found["grace"] is not None else ""
    if found["catch_up"] == "all":
        return f"all: what passed while no scheduler ran fires, {found['cap']} at most{grace}"
    return f"latest: of what passed while no scheduler ran the last one fires{grace or ', until the next is due'}"


def _due(run: RunDocument, tz: str) -> str:
    if run["number"] > 1:
        return f"{run['number']} from {_in_zone(run['due_at'], tz)} to {_in_zone(run['last_due_at'], tz)}"
    return f"by hand, {_in_zone(run['at'], tz)}" if run["by_hand"] else _in_zone(run["due_at"], tz)


def _came_to(run: RunDocument) -> str:
    if run["job"] is None:
        return str(run["state"])
    return f"job {run['job']}, {run['job_state'] or 'pruned'}"


def _why(run: RunDocument) -> str | None:
    if run["job"] is not None:
        return run["job_reason"]
    return f"{run['reason']}: {run['detail']}" if run["detail"] else run["reason"]


def _notified(run: RunDocument) -> str:
    return ", ".join(f"{told['channel']} {told['outcome']}" for told in run["notifications"])


def _in_zone(moment: str | None, tz: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if moment is None:
        return "never"
    found = datetime.fromisoformat(moment)
    try:
        return _local(found.astimezone(ZoneInfo(tz)))
    except ZoneInfoNotFoundError:
        return _local(found)


def _local(moment: datetime) -> str:
    """A moment in print, with its offset, which tells the two readings of an autumn night apart."""
    offset = moment.strftime("%z")
    return f"{moment:%a %Y-%m-%d %H:%M} {offset[:3]}:{offset[3:5]}"


@schedule.command()
@_name
def run(name: str) -> None:
    """Submit the schedule's job now, also while it is paused or another one runs; prints the job's id."""
    from dicomferry.cli.frame import installation
    from dicomferry.cli.jobs import wait
    from dicomferry.cli.submit import parsed_command
    from dicomferry.models.record.database import hide_password
    from dicomferry.models.record.schedules import runs, verbs
    from dicomferry.workers.doorbell import submit

    settings = installation.settings()
    database = _open(name)
    found = verbs.by_name(database, name)
    asked = parsed_command.of(database, found, datetime.now(UTC))
    job_id = runs.by_hand(database, found, asked)
    render.line(str(job_id))
    warning = submit.ring(settings, asked.what.lane)
    if not wait.workers_alive(database):
        note(wait.NO_WORKER)
    elif warning:
        note(job_words.not_rung(job_id, hide_password(settings.broker), warning))


@schedule.command()
@_name
def pause(name: str) -> None:
    """Let nothing of it fire until `resume`; what passes meanwhile is missed."""
    from dicomferry.models.record.schedules import verbs

    verbs.pause(_open(name), name)
    render.line(f"{name} is paused; go on with `dicomferry schedule resume {name}`")


@schedule.command()
@_name
def resume(name: str) -> None:
    """Let it fire again, from its next due time on."""
    from dicomferry.models.record.schedules import verbs

    database = _open(name)
    missed = verbs.resume(database, name)
    found = verbs.by_name(database, name)
    next_due = _local(found.local(found.next_due)) if found.next_due else "never"
    passed = f"; {words.plural(missed, 'due time')} passed meanwhile" if missed else ""
    render.line(f"{name} goes on; it fires next at {next_due}{passed}")
    _tell_idle(database)


@schedule.command()
@_name
def remove(name: str) -> None:
    """Remove a schedule; its jobs stay."""
    from dicomferry.models.record.schedules import verbs

    verbs.remove(_open(name), name)
    render.line(f"{name} is removed; its jobs stay")


def _open(name: str) -> Database:
    """The database; raises NotFound where nothing has been written yet."""
    from dicomferry.cli.frame import installation

    database = installation.for_reading(installation.settings())
    if database is None:
        raise NotFound(f"no schedule {name!r}: there is none yet; see `dicomferry schedule add --help`")
    return database


def _tell_idle(database: Database) -> None:
    from dicomferry.models.record import presence

    if not any(role.role == "scheduler" for role in presence.alive(database)):
        note(NO_SCHEDULER)

"""`dicomferry jobs prune`: old jobs go, with all that was written down of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Command, confirm, note
from dicomferry.models.rules.errors import UsageError

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database
    from dicomferry.models.record.pruning import Age, Pruned
    from dicomferry.models.settings import Settings

_TOLD_EVERY = 5.0
_LONGEST_REST = 0.25
_WORTH_TELLING = 1 << 20


@click.command(cls=Command)
@click.option(
    "--older-than", metavar="AGE", required=True, type=options.AgeParam(), help="What ended longer ago: 90d, 12h, 30m."
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--vacuum",
    is_flag=True,
    help="SQLite: give the space back to the disk as well. Nothing else may run, neither `up` nor a single role.",
)
def prune(older_than: float, dry_run: bool, yes: bool, vacuum: bool) -> None:
    """Remove jobs that ended long ago, with their items, matches, attempts and history, and old runs of schedules.

    What has not ended stays, and what somebody is still to be told of; so do the archive, and which job brought what.
    Says what would go and asks first; where nobody can be asked, --yes has to be given. Workers go on meanwhile. If it
    is interrupted, what was begun is removed by the next one.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.models.record import pruning

    settings = installation.settings()
    database = installation.for_reading(settings)
    if vacuum:
        _check_vacuum(settings, database)
    if database is None:
        render.line("nothing is that old")
        return
    told_within = settings.notify.give_up_after if settings.notify.webhook_url or settings.notify.command else 0.0
    old = pruning.age(database, older_than, told_within=told_within)
    found = pruning.extent(database, old)
    since = f"{old.before.astimezone():%Y-%m-%d %H:%M}"
    if not found:
        render.line(f"nothing is that old: no job ended before {since}")
    elif dry_run:
        render.line(f"this would remove {_words(found)}, all from before {since}")
    else:
        if not yes:
            confirm(f"remove {_words(found)}, all from before {since},")
        render.line(f"removed {_words(_remove(database, old, found))}")
    if not dry_run:
        _give_back(database, vacuum)


def _remove(database: Database, old: Age, found: Pruned) -> Pruned:
    from dicomferry.models.record import pruning

    done = pruning.Pruned()
    began = told = time.monotonic()
    for step in pruning.prune(database, old):
        done += step
        now = time.monotonic()
        if now - told >= _TOLD_EVERY:
            note(f"{words.number(done.items)} of {words.plural(found.items, 'item')} removed")
            told = now
        # SQLite's one lock goes to whoever comes first: half of the time is the others'.
        time.sleep(min(now - began, _LONGEST_REST))
        began = time.monotonic()
    return done


def _words(found: Pruned) -> str:
    parts = [words.plural(found.jobs, "job"), words.plural(found.items, "item")]
    if found.matches:
        parts.append(words.matches(found.matches))
    if found.runs:
        parts.append(f"{words.plural(found.runs, 'run')} of schedules")
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _check_vacuum(settings: Settings, database: Database | None) -> None:
    from dicomferry.models.record import presence

    if not settings.is_sqlite:
        raise UsageError("--vacuum is for SQLite; PostgreSQL uses free space again by itself (autovacuum)")
    if database is not None and (alive := presence.alive(database)):
        roles = ", ".join(sorted({role.role for role in alive}))
        raise UsageError(
            f"--vacuum: nobody else can write meanwhile, and {roles} would lose what they do: stop them first"
        )


def _give_back(database: Database, vacuum: bool) -> None:
    free = database.free_bytes()
    if vacuum:
        database.compact()
        render.line(f"{words.size(free)} given back to the disk")
    elif free >= _WORTH_TELLING:
        note(
            f"the database file keeps {words.size(free)} for new rows; "
            "with --vacuum, while nothing runs, the disk gets them back"
        )

"""`dicomferry status --check`: is all well, for a health check, a monitor or cron; one line, and an exit status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.installation import connect, is_absent, settings
from dicomferry.cli.status import check_here
from dicomferry.cli.status.broker import broker
from dicomferry.daemon import pulse
from dicomferry.models import disks
from dicomferry.models.record import presence, schema
from dicomferry.models.record.presence import Role
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.settings import Settings

USUAL = ("worker",)
"""What has to run where no role is named."""


class NotWell(DicomferryError):
    """Something is not as it should be."""

    exit_code = 1


def run(roles: Sequence[str], *, here: bool, as_json: bool) -> None:
    """Print that all is well; raises NotWell, with the first thing that is not."""
    try:
        told = _check(roles, here=here)
    except DicomferryError as error:
        if as_json:
            render.document({"well": False, "why": str(error)})
        raise NotWell(f"not well: {error}") from None
    if as_json:
        render.document({"well": True, "why": None})
    else:
        render.line(f"well: {told}")


def _check(roles: Sequence[str], *, here: bool) -> str:
    """What runs, in words. Raises DicomferryError for the first thing that is wrong."""
    found = settings()
    if here:
        beats = list(pulse.beats(found.home))
        for problem in check_here.problems(found, beats, roles):
            raise NotWell(problem)
        return check_here.told(beats, roles)
    if is_absent(found):
        raise NotWell("there is no database yet")
    database = connect(found)
    schema.require_current(database)
    alive = presence.alive(database)
    wanted = list(dict.fromkeys(roles)) or list(USUAL)
    for problem in _problems(found, alive, wanted):
        raise NotWell(problem)
    return ", ".join(words.plural(sum(row.role == role for row in alive), role) for role in _named(alive, wanted))


def _named(alive: Sequence[Role], wanted: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*wanted, *(row.role for row in alive)]))


def _problems(found: Settings, alive: Sequence[Role], wanted: Sequence[str]) -> Iterator[str]:
    running = {row.role for row in alive}
    for role in wanted:
        if role not in running:
            yield f"no {role} runs: none gave a sign of life within {presence.SILENT_AFTER:.0f} s"
    # One that stands still says so itself, where it can.
    for row in alive:
        if row.remark:
            yield f"the {row.role} on {row.host}, process {row.pid}: {row.remark}"
    if "worker" in wanted or "worker" in running:
        asked = broker(found)
        if asked["reachable"] is False:
            yield f"the broker {asked['url']} cannot be rung: {asked['why']}"
    for row in alive:
        full = disks.short_archive(row.disks or ())
        if full is not None and ("scp" in wanted or wanted == list(USUAL)):
            yield (
                f"the disk of the archive is full to its reserve: {full['path']} has {words.size(full['free'])} free, "
                f"{words.size(full['reserve'])} are kept free"
            )

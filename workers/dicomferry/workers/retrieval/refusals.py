"""What our own side refused of what an archive sent for a retrieve: so that it is not told as the archive's fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dicomferry.models import disks
from dicomferry.models.record.archive import calls
from dicomferry.models.record.archive.calls import Refusal
from dicomferry.models.record.database import Database
from dicomferry.models.record.retrieves import moves
from dicomferry.models.rules import ending
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.callers import Callers
from dicomferry.models.settings import Settings
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.receiving.reception import NO_RESOURCES
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation

MOST_NAMED = 3
ROWS_SECONDS = 1.0
"""What our storage SCP refused is on record so long after it."""
_DISK = "disk is full"


def no_room(database: Database, settings: Settings, *, here: bool) -> Fault | None:
    """The fault, if what is retrieved has no room: by the storage SCP's word, and where it is written `here`, by what
    this machine sees. Raises OutOfReach.
    """
    found = calls.short_disk(database)
    if found is None and here:
        seen = disks.look("archive", settings.archive, settings.scp.reserve_bytes)
        found = seen if seen is not None and disks.is_short(seen) else None
    if found is None:
        return None
    free, reserve = (f"{int(found[key]) / 1024**2:,.0f} MiB" for key in ("free", "reserve"))
    return Fault(local(ending.DISK_FULL), f"{found['path']} has {free} free, {reserve} are to stay free")


def of_moves(
    database: Database, callers: Callers, after: int, asked: Mapping[tuple[str, int], int], last: int | None
) -> dict[int, list[Refusal]]:
    """What our storage SCP refused since call `after`, by the C-MOVE that it came for.

    `asked` are ours, by AE title and message id. Where the sender named none, and is this remote, it was the `last`.
    """
    found: dict[int, list[Refusal]] = {}
    for row in calls.calls_after(database, after):
        for refusal in row.refusals:
            named = refusal.originator_ae_title, refusal.originator_message_id
            move = asked.get((named[0] or "", named[1])) if named[1] is not None else None
            if named[1] is None and row.id > after and callers.knows(row.calling_ae_title, row.address):
                move = last
            if move is not None:
                found.setdefault(move, []).append(refusal)
    return found


def sentence(refusals: Iterable[Refusal]) -> str:
    """What our side answered, for people; empty where it refused nothing."""
    told = []
    for one in list(refusals)[:MOST_NAMED]:
        what = "1 instance" if one.number == 1 else f"{one.number:,} instances"
        told.append(f"0x{one.status:04X} to {what} ({one.why or 'without a word'}; {one.uids[0]})")
    return f"our side answered {', '.join(told)}" if told else ""


def fault_of(refusals: Sequence[Refusal]) -> Fault | None:
    """The fault, if something was refused for want of room, or because it could not be written, here."""
    unkept = [one for one in refusals if one.status == NO_RESOURCES]
    if not unkept:
        return None
    full = any(one.why.startswith(_DISK) for one in unkept)
    return Fault(local(ending.DISK_FULL if full else ending.REFUSED_HERE), sentence(unkept))


def note(situation: Situation, progress: Progress) -> list[Refusal]:
    """What our side refused of what was asked for, written down with each request. Raises LeaseLost."""
    found: dict[int, list[Refusal]] = {}
    if situation.comes_here and progress.moves:
        last = max(progress.moves.values())
        found = of_moves(situation.database, situation.callers, situation.last_call, progress.moves, last)
    elif not situation.comes_here:
        found = {move_id: list(kept.all()) for move_id, kept in situation.lines.refused.items()}
    moves.note_refusals(situation.database, situation.lease, found)
    return [one for some in found.values() for one in some]


def refused_here(situation: Situation, progress: Progress) -> Fault | None:
    """The fault, if our side had no room for what came; the storage SCP's rows come a moment late."""
    clock = situation.environment.clock
    until = clock() + ROWS_SECONDS
    while True:
        found = fault_of(note(situation, progress))
        doubtful = situation.comes_here and any(report.failed or report.status for report in progress.reports)
        if found is not None or not doubtful or clock() >= until:
            return found
        situation.environment.sleep(0.25)
        situation.heart.progress(0)

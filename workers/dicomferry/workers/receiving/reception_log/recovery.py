"""After a power cut, or the death of a process: what its reception log holds is put back, then the log is freed.

Whoever is about to go by the files of the archive does this first: the storage SCP when it starts, before it listens; a
C-GET; `archive verify --repair`. A log whose process lives is left to that one. Nobody removes files meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dicomferry.models import telemetry
from dicomferry.models.durable import flush_folder
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.reception_log import replay
from dicomferry.workers.receiving.reception_log.record_format import Contents, Lap
from dicomferry.workers.receiving.reception_log.removals import Removals
from dicomferry.workers.receiving.reception_log.segment import SUFFIX, Segment

log = telemetry.logger(__name__)

NAME = "log"
LOCK = "lock"
DAMAGED = ".damaged"
_FOLDER = re.compile(rf"{NAME}-([0-9]+)")


@dataclass
class Recovered:
    """What a recovery came to: paths of the files that were made, and segments that were damaged and are kept."""

    files: list[str] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)


def folder_of(archive: Archive, number: int) -> Path:
    """Where the log of the receiving process of that number lies."""
    return archive.root / OWN / f"{NAME}-{number}"


def folders(archive: Archive) -> list[Path]:
    """The folders of all logs of an archive."""
    found = (path for path in (archive.root / OWN).glob(f"{NAME}-*") if _FOLDER.fullmatch(path.name))
    return sorted(found)


def damaged(archive: Archive) -> list[Path]:
    """Segments that were found damaged and are kept for whoever looks into that."""
    return sorted(path for folder in folders(archive) for path in folder.glob(f"*{DAMAGED}"))


def segments(folder: Path) -> list[Path]:
    """The segments of a log."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def lock(folder: Path) -> int:
    """Be the one that a log belongs to; the descriptor that holds it.

    Raises BlockingIOError where that one lives, OSError.
    """
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def recover(archive: Archive, *, processes: int | None = None) -> Recovered:
    """Put back what is in the logs of processes that are dead, and free them. Raises OSError.

    Logs of numbers that are not among so many `processes`, if that is said, are taken away then.
    """
    found = Recovered()
    logs = folders(archive)
    if not logs:
        return found
    if not archive.flush:
        # What was answered for by the log was promised to last.
        archive = Archive(archive.root)
    removals = Removals(archive.root / OWN)
    try:
        with removals.lock():
            for folder in logs:
                with contextlib.suppress(BlockingIOError):
                    _recover_dead(archive, folder, found, processes)
    finally:
        removals.close()
    if found.files:
        log.warning("put back from the reception log", files=len(found.files))
    return found


def _recover_dead(archive: Archive, folder: Path, found: Recovered, processes: int | None) -> None:
    """Recover one log. Raises BlockingIOError where its process lives."""
    fd = lock(folder)
    try:
        _recover(archive, folder, found)
        if processes is not None and int(folder.name.rpartition("-")[2]) >= processes:
            _take_away(folder)
    finally:
        os.close(fd)


def _recover(archive: Archive, folder: Path, found: Recovered) -> None:
    with _opened(folder) as opened:
        records = [
            (record.position.number, segment, record)
            for segment, contents in opened
            for record in contents.records
            if record.place is not None
        ]
        touched = set()
        for _, segment, record in sorted(records, key=lambda one: (one[1].lap.identity, one[0])):
            assert record.place is not None
            content = segment.bytes_of(record)
            if content is None:
                continue
            path = replay.put_back(archive, record.place, content)
            touched.add(record.place.rpartition("/")[0])
            if path is not None:
                found.files.append(path)
        for place in touched:
            archive.flush_folder(place)
        identity = uuid.uuid4().bytes
        for segment, contents in opened:
            if contents.damage:
                found.damaged.append(_set_aside(segment, contents))
            else:
                segment.free(Lap(identity, segment.lap.number + 1))


def _set_aside(segment: Segment, contents: Contents) -> Path:
    """Keep a damaged segment under a name by which it is not read again."""
    kept = segment.path.with_name(f"{segment.path.stem}-{uuid.uuid4().hex[:8]}{DAMAGED}")
    os.rename(segment.path, kept)
    flush_folder(kept.parent)
    log.error(
        "a reception log is damaged: what was received lately may be missing, ask for it again",
        path=str(kept),
        damage_at=contents.damage[:20],
        read_all_the_same=len(contents.records),
        advice="is the disk sound? The file is kept and holds patient data: delete it once it is not needed",
    )
    return kept


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[list[tuple[Segment, Contents]]]:
    opened: list[tuple[Segment, Contents]] = []
    try:
        for path in segments(folder):
            opened.append(Segment.open(path))
        yield opened
    finally:
        for segment, _ in opened:
            segment.close()


def _take_away(folder: Path) -> None:
    """Overwrite and delete a log that nobody uses any more; one with a damaged segment stays."""
    for path in segments(folder):
        segment, _ = Segment.open(path)
        try:
            segment.wipe()
            path.unlink()
        finally:
            segment.close()
    if not list(folder.glob(f"*{DAMAGED}")):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
    flush_folder(folder.parent)

"""Taking files out of the archive for good, while others receive into it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dicomferry.models.durable import flush_folder
from dicomferry.models.record.archive import identity
from dicomferry.models.record.archive.identity import KnownFile
from dicomferry.models.record.database import Database
from dicomferry.workers.receiving import archive_check, file_hold
from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.receiving.file_hold import Look
from dicomferry.workers.receiving.reception_log import eraser


class Removed(NamedTuple):
    """What came of removing files: how many are gone, the bytes that were freed, and how many came anew meanwhile.

    `logs` are files of the reception log that may hold bytes of them still.
    """

    number: int
    size: int
    stay: int
    logs: list[Path]


def remove(archive: Archive, database: Database, paths: Iterable[str]) -> Removed:
    """Remove these files. Raises OutOfReach, OSError.

    Their rows become history first, durably, and by row: whoever dies in between leaves files without rows, never rows
    without files. What the reception log has of them goes before the files do. A file that is received anew meanwhile,
    or that somebody else put in the place of the one on record, stays and keeps a row, and so does one that the disk
    does not let go.
    """
    number = freed = stay = 0
    for part in archive_check.batches_of(paths):
        rows = identity.files_at(database, part)
        seen = {row.instance_id: file_hold.look(archive.root / row.path) for row in rows}
        history = identity.make_history(database, rows)
        going = [row for row in rows if row.instance_id in history]
        size, trouble = _unlink(archive, going, seen)
        stays = [row.path for row in going if not archive_check.is_gone(archive, row.path)]
        archive_check.index(archive, database, stays)
        freed += size
        if trouble is not None:
            raise trouble
        number += len(going) - len(stays)
        stay += len(rows) - len(going) + len(stays)
    return Removed(number, freed, stay, eraser.overwrite_freed(archive))


def _unlink(archive: Archive, rows: Sequence[KnownFile], seen: dict[int, Look | None]) -> tuple[int, OSError | None]:
    """Unlink those files that are as they were seen: the bytes that this frees, and what kept one from going."""
    size = 0
    trouble: OSError | None = None
    with eraser.erasing(archive) as logs, contextlib.ExitStack() as holds:
        same = []
        for row in rows:
            try:
                if holds.enter_context(file_hold.going(archive.root / row.path, seen[row.instance_id])):
                    same.append(row.path)
            except OSError as error:
                trouble = error
        try:
            if logs is not None:
                logs.erase(same)
        except OSError as error:
            # With a record of it in a log it would come back.
            return 0, error
        for path in same:
            try:
                size += archive.remove(path)
            except OSError as error:
                trouble = error
    try:
        _flush_names(archive, same)
    except OSError as error:
        trouble = error
    return size, trouble


def _flush_names(archive: Archive, paths: Iterable[str]) -> None:
    """That these are gone is on disk when this returns: a power cut brings none of them back. Raises OSError."""
    for folder in {path.rpartition("/")[0] for path in paths}:
        place = archive.root / folder
        while True:
            try:
                flush_folder(place)
                break
            except FileNotFoundError:
                # It went with its last file.
                if place == archive.root:
                    raise
                place = place.parent

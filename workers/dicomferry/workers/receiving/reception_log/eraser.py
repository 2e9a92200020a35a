"""Removing files that the reception log may still hold: their records go first, so that no recovery brings them back.

Freed parts of a log hold what was received before until they are written over. Where no process has the log, they are
written over here; where one has, it does so as soon as nothing comes, and whoever removes is told that this waits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.reception_log import recovery
from dicomferry.workers.receiving.reception_log.removals import Removals
from dicomferry.workers.receiving.reception_log.segment import Segment


class Eraser:
    """All logs of an archive, as one who removes files has them: nobody frees or recovers them meanwhile."""

    def __init__(self, archive: Archive, removals: Removals) -> None:
        self._archive = archive
        self._removals = removals

    def erase(self, places: Sequence[str]) -> None:
        """No recovery puts anything at these places when this returns, and the bytes that it had are written over.

        What lies there is on disk before: whoever dies now leaves whole files. Raises OSError.
        """
        wanted = set(places)
        for folder in recovery.folders(self._archive):
            for path in recovery.segments(folder):
                with contextlib.suppress(FileNotFoundError):
                    self._erase(path, wanted)

    def _erase(self, path: Path, wanted: set[str]) -> None:
        segment = Segment.look(path)
        if segment.records and not _is_owned(path.parent):
            # What a process left that died is not in order: some of it may stand behind what cannot be read.
            segment.close()
            segment, _ = Segment.open(path)
        try:
            records = [record for record in segment.records if record.place in wanted]
            if records:
                self._flush({record.place for record in records if record.place is not None})
                with self._removals.erasing():
                    segment.erase(records)
        finally:
            segment.close()

    def _flush(self, places: set[str]) -> None:
        for place in places:
            folder, _, name = place.rpartition("/")
            with contextlib.suppress(FileNotFoundError):
                self._archive.flush_file(folder, name)


def _is_owned(folder: Path) -> bool:
    """Whether a process lives that has this log. Raises OSError."""
    try:
        os.close(recovery.lock(folder))
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def erasing(archive: Archive) -> Iterator[Eraser | None]:
    """For who removes files: the logs, for as long as this lasts; None where there are none. Raises OSError."""
    if not recovery.folders(archive):
        yield None
        return
    removals = Removals(archive.root / OWN)
    try:
        with removals.lock():
            yield Eraser(archive, removals)
    finally:
        removals.close()


def overwrite_freed(archive: Archive) -> list[Path]:
    """Overwrite what logs hold that counts no more; those files of which another process will do it, or nobody does.

    Raises OSError.
    """
    waiting = recovery.damaged(archive)
    for folder in recovery.folders(archive):
        with erasing(archive):
            try:
                fd = recovery.lock(folder)
            except BlockingIOError:
                waiting += [path for path in recovery.segments(folder) if _has_freed(path)]
                continue
            try:
                for path in recovery.segments(folder):
                    _overwrite_freed(path)
            finally:
                os.close(fd)
    return waiting


def _overwrite_freed(path: Path) -> None:
    segment, _ = Segment.open(path)
    try:
        if segment.has_rest():
            segment.wipe()
    finally:
        segment.close()


def _has_freed(path: Path) -> bool:
    """Whether something stands behind the records that count."""
    try:
        segment = Segment.look(path)
    except FileNotFoundError:
        return False
    try:
        return segment.has_rest()
    finally:
        segment.close()

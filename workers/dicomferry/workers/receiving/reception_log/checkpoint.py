"""Freeing the reception log: files first, then folders, then the log; so that it stays small and a restart short.

Where the system can flush a whole file system and tell whether that failed, one call does for thousands of files what
one flush for each would take minutes for. A file that could not be flushed is not flushed again: what is left of it in
memory may be taken for written from then on. It is made anew from the log.

The rows of the files may be missing still: their folders are on the journal, on disk, since before the first record.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from dicomferry.models import telemetry
from dicomferry.models.durable import flush_file_system, flush_folder, make_folder
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.reception_log import recovery, replay
from dicomferry.workers.receiving.reception_log.reception_log import DEFAULT, ReceptionLog, Tuning
from dicomferry.workers.receiving.reception_log.record_format import Lap, Record
from dicomferry.workers.receiving.reception_log.removals import Removals
from dicomferry.workers.receiving.reception_log.segment import SUFFIX, Segment

log = telemetry.logger(__name__)

MAKE_SECONDS = 30.0
"""After a segment could not be made, until that is tried again."""


class LogKeeper:
    """The log of the receiving process of this number, and the thread that flushes, frees and supplies it.

    `size` bytes are what all its segments have. Made, it has the log to itself; what a forerunner left in it has been
    recovered before. Raises OSError, BlockingIOError where another process has it.
    """

    def __init__(
        self,
        archive: Archive,
        number: int,
        size: int,
        *,
        tuning: Tuning = DEFAULT,
        flush_all: Callable[[int], bool] = flush_file_system,
    ) -> None:
        self._flush_file_system = flush_all
        self._archive = archive
        self._folder = recovery.folder_of(archive, number)
        self._size = size // tuning.segments
        self._tuning = tuning
        self._identity = uuid.uuid4().bytes
        make_folder(self._folder)
        self._removals = Removals(archive.root / OWN)
        # Whoever removes or recovers has each log for a moment: that is waited for.
        with self._removals.lock():
            self._lock = recovery.lock(self._folder)
        self._root = os.open(archive.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        """Open since before the first write: so it hears of each that failed."""
        self._changed = threading.Condition()
        self._is_woken = False
        self._is_ending = False
        self._is_in_trouble = False
        self._is_flush_doubtful = False
        self._make_at = 0.0
        self.log = ReceptionLog(self._removals, tuning=tuning, wake=self._wake)
        for path in recovery.segments(self._folder):
            self._take(path)
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)

    def start(self) -> None:
        """Begin to flush, and to make segments."""
        self._thread.start()

    def close(self) -> None:
        """Nothing is received any more: flush and free all, as far as that is possible, and let go of the log."""
        self.log.close()
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self.look()
        except OSError as error:
            # What it holds is recovered by the next start.
            log.error("the reception log cannot be freed", path=str(self._folder), error=str(error))
        for segment in [*self.log.free, *self.log.full]:
            segment.close()
        os.close(self._root)
        os.close(self._lock)

    def _take(self, path: Path) -> None:
        """Use a segment that is there, unless it has another size, or something in it that was not recovered."""
        segment, contents = Segment.open(path)
        is_free = not contents.records and not contents.damage
        is_needed = segment.size == self._size and len(self.log.free) < self._tuning.segments
        if is_free and is_needed and contents.lap is not None:
            segment.free(Lap(self._identity, segment.lap.number + 1))
            self.log.free.append(segment)
            return
        try:
            if is_free:
                segment.wipe()
                path.unlink()
        finally:
            segment.close()

    def _wake(self) -> None:
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("the reception log cannot be kept", path=str(self._folder))
            with self._changed:
                self._changed.wait_for(lambda: self._is_woken or self._is_ending, self._tuning.tick_seconds)
                self._is_woken = False
                if self._is_ending:
                    return

    def look(self) -> None:
        """Flush and free what is full or old, make what is missing, overwrite what is left. Raises OSError."""
        self.log.retire_aged()
        self._free_full()
        if not self._is_ending:
            self._supply()
        self._overwrite()

    def _free_full(self) -> None:
        with self.log.lock:
            ready = [segment for segment in self.log.full if segment.unsettled == 0]
        if not ready:
            return
        try:
            # Whoever removes files, or recovers, has the logs to itself meanwhile.
            with self._removals.lock_at_once():
                self._flush(ready)
                for segment in ready:
                    self._free(segment)
        except BlockingIOError:
            return
        except OSError as error:
            if not self._is_in_trouble:
                log.error("files of the reception log cannot be flushed: it is kept", error=str(error))
            self._is_in_trouble = True
        else:
            self._is_in_trouble = False

    def _flush(self, ready: Sequence[Segment]) -> None:
        """All files of these segments are on disk when this returns, and all folders. Raises OSError."""
        try:
            is_flushed = self._flush_file_system(self._root)
        except OSError as error:
            log.error("files could not be flushed, they are made anew from the reception log", error=str(error))
            is_flushed = True
            self._doubt()
        doubtful = [segment for segment in ready if segment.is_doubtful]
        for segment in doubtful:
            for record in segment.heads():
                self._make_anew(segment, record)
        if is_flushed:
            return
        folders = set()
        for segment in ready:
            if segment in doubtful:
                continue
            for record in segment.heads():
                if record.place is not None:
                    self._flush_one(segment, record.place, record)
                    folders.add(record.place.rpartition("/")[0])
        for folder in folders:
            self._archive.flush_folder(folder)

    def _doubt(self) -> None:
        """What memory holds of any file may be taken for written, also where the next flush does not fail: so all that
        goes by the log, and what comes in at this moment, is made anew when its turn comes.
        """
        self._is_flush_doubtful = True
        with self.log.lock:
            for segment in (*self.log.full, *self.log.free, *filter(None, [self.log.active])):
                segment.is_doubtful = True

    def _free(self, segment: Segment) -> None:
        lap = Lap(self._identity, segment.lap.number + 1)
        try:
            if not segment.is_failed:
                segment.free(lap)
        except OSError as error:
            log.error("the reception log cannot be freed", path=str(segment.path), error=str(error))
            segment.is_failed = True
        if segment.is_failed:
            segment.path.unlink(missing_ok=True)
            flush_folder(self._folder)
            segment.close()
        with self.log.lock:
            self.log.full.remove(segment)
            if not segment.is_failed:
                self.log.free.append(segment)

    def _supply(self) -> None:
        """One segment at least is ready to be filled, as long as there are fewer than there may be."""
        with self.log.lock:
            number = len(self.log.free) + len(self.log.full) + (self.log.active is not None)
            if self.log.free or number >= self._tuning.segments:
                return
        if time.monotonic() >= self._make_at and self._archive.has_room():
            self._make_at = time.monotonic() + MAKE_SECONDS
            path = self._folder / f"{uuid.uuid4().hex[:8]}{SUFFIX}"
            segment = Segment.make(path, self._size, Lap(self._identity, 1))
            self._make_at = 0.0
            segment.is_doubtful = self._is_flush_doubtful
            with self.log.lock:
                self.log.free.append(segment)

    def _overwrite(self) -> None:
        """While nothing comes, overwrite what freed segments still have."""
        for _ in range(self._tuning.segments):
            with self.log.lock:
                left = [one for one in self.log.free if one.written > one.end]
                if self.log.full or self.log.active is not None or not left:
                    return
                self.log.free.remove(left[0])
            try:
                left[0].wipe()
            finally:
                with self.log.lock:
                    self.log.free.append(left[0])

    def _flush_one(self, segment: Segment, place: str, record: Record) -> None:
        """One file is on disk when this returns, if it is still there. Raises OSError."""
        folder, _, name = place.rpartition("/")
        try:
            fd = self._archive.open_file(folder, name)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(fd)
        except OSError as error:
            log.error("a file could not be flushed, it is made anew from the reception log", error=str(error))
            segment.is_doubtful = True
            self._make_anew(segment, record)
        finally:
            os.close(fd)

    def _make_anew(self, segment: Segment, record: Record) -> None:
        content = segment.bytes_of(record)
        if record.place is not None and content is not None:
            replay.make_anew(self._archive, record.place, content)

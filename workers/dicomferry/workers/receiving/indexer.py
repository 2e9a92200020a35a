"""From published files to rows: in batches, behind the answers, and never later than a restart."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dicomferry.models import telemetry
from dicomferry.models.record.archive import index, unindexed
from dicomferry.models.record.archive.index import Received
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.workers.receiving.journal import Journal

log = telemetry.logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How many rows are written at once, how long is waited for them, and how many may wait. Times in seconds."""

    batch: int = 500
    batch_seconds: float = 0.5
    still_seconds: float = 0.02
    """Seconds without a new file after which rows that wait are written: a retrieve may wait for them."""
    pause_seconds: float = 1.0
    """Until a batch is tried again that the database could not take."""
    most_waiting: int = 50_000
    """Files without a row; with more of them nothing new is taken until the database is back."""
    shorten_seconds: float = 5.0
    """Between two times that the journal is made shorter."""


DEFAULT = Tuning()

Record = Callable[[Database, Sequence[Received]], None]
Look = Callable[[Received, bool], Received | None]
"""Completes what is known of a file that was published, from the file; None where it is no more.

The second argument says that its data set is known to be sound. Raises OutOfReach where that cannot be told for now,
OSError.
"""


@dataclass
class PublishedFile:
    """A file that waits for its row, whether its data set is known to be sound, and whether it was looked at."""

    folder: str
    received: Received
    is_sound: bool = False
    is_seen: bool = False


def write_rows(record: Record, database: Database, batch: Sequence[Received]) -> list[tuple[Received, str]]:
    """Write the rows of a batch; those that were refused, and why. Raises OutOfReach.

    A row that the database, or a rule of ours, does not take must not keep the others out.
    """
    if not batch:
        return []
    try:
        record(database, batch)
        return []
    except OutOfReach:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        if len(batch) > 1:
            log.warning("a batch of rows was refused, each is written alone", rows=len(batch))
            return [refused for received in batch for refused in write_rows(record, database, [received])]
        log.exception("a row was refused", path=batch[0].path)
        return [(batch[0], why)]


class Indexer:
    """One writer thread. `enter`, `leave`, `add`, `hurry` and `has_room` are for any thread."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        *,
        record: Record = index.record,
        look: Look | None = None,
        tuning: Tuning = DEFAULT,
    ) -> None:
        self._database = database
        self._journal = journal
        self._record = record
        self._look = look
        self._tuning = tuning
        self._waiting: list[PublishedFile] = []
        self._changed = threading.Condition()
        self._ending = False
        self._hurried = False
        self._late = False
        self.refused = 0
        """How many files have no row, since none was taken; a restart, or `archive verify --repair`, tries again."""
        self._shortened = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def has_room(self) -> bool:
        """Whether so few files wait for their rows that more may come."""
        return len(self._waiting) < self._tuning.most_waiting

    @property
    def waiting(self) -> int:
        """How many files wait for their rows."""
        return len(self._waiting)

    def enter(self, folder: str) -> None:
        """A file is about to be published in `folder`; `add` or `leave` follows. Raises OSError."""
        self._journal.enter(folder)

    def leave(self, folder: str) -> None:
        """Forget a file that was announced: it was not published after all."""
        self._journal.leave(folder)

    def add(self, folder: str, received: Received, *, is_sound: bool = False) -> None:
        """Take a published file, whose row is to be written. `is_sound`: a walk over its data set found no fault."""
        with self._changed:
            self._waiting.append(PublishedFile(folder, received, is_sound, self._look is None))
            if len(self._waiting) in (1, self._tuning.batch):
                self._changed.notify_all()

    def hurry(self) -> None:
        """Nothing more is coming for now: what waits is written without waiting for a full batch."""
        with self._changed:
            self._hurried = bool(self._waiting)
            self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Write what waits, for at most so long; whether all of it was written. What was not, a restart finds."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._waiting

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._ending:
                    self._changed.wait(self._tuning.shorten_seconds)
                self._gather()
                self._hurried = False
                batch = self._waiting[: self._tuning.batch]
                ending = self._ending
            written = bool(batch) and self._write(batch)
            if not batch or (ending and not written):
                self._shorten(force=ending)
                if ending:
                    return
            elif not written:
                with self._changed:
                    self._changed.wait_for(lambda: self._ending, self._tuning.pause_seconds)
            else:
                self._shorten()

    def _gather(self) -> None:
        """Wait for a full batch, as long as files keep coming."""
        batch = self._tuning.batch
        latest = time.monotonic() + self._tuning.batch_seconds
        before = 0
        while before < len(self._waiting) < batch and time.monotonic() < latest:
            before = len(self._waiting)
            if self._changed.wait_for(
                lambda: len(self._waiting) >= batch or self._ending or self._hurried, self._tuning.still_seconds
            ):
                return

    def _write(self, batch: Sequence[PublishedFile]) -> bool:
        """Write a batch and forget it; False when that has to wait."""
        try:
            here = [entry for entry in batch if self._see(entry)]
            refused = write_rows(self._record, self._database, [entry.received for entry in here])
            self._note(refused)
        except OutOfReach as error:
            if not self._late:
                log.warning("index put off, files are taken all the same", error=str(error), waiting=len(self._waiting))
            self._late = True
            return False
        if self._late:
            log.info("index goes on", waiting=len(self._waiting))
            self._late = False
        with self._changed:
            del self._waiting[: len(batch)]
        self.refused += len(refused)
        # A folder in which a file has no row stays on the journal: a restart tries again.
        kept = {id(received) for received, _ in refused}
        for folder, files in Counter(entry.folder for entry in batch if id(entry.received) not in kept).items():
            self._journal.leave(folder, files)
        return True

    def _note(self, refused: Sequence[tuple[Received, str]]) -> None:
        """Put on the record, for `status`, what has no row. Raises OutOfReach."""
        try:
            unindexed.note(self._database, [(received.path, why) for received, why in refused])
        except OutOfReach:
            raise
        except Exception:
            log.exception("files without a row could not be put on the record", files=len(refused))

    def _see(self, entry: PublishedFile) -> bool:
        """Look at a file before its row is written, once; False where it is gone. Raises OutOfReach."""
        if entry.is_seen or self._look is None:
            return True
        try:
            found = self._look(entry.received, entry.is_sound)
        except OSError as error:
            log.error("a file that was received cannot be read", path=entry.received.path, error=str(error))
            found = replace(entry.received, flaw=f"unreadable: the file: {error.strerror or error}"[:200])
        if found is None:
            log.warning("a file that was received is gone before it had its row", path=entry.received.path)
            return False
        if found.flaw and found.flaw != entry.received.flaw:
            log.warning("what was received is kept, and flawed", path=found.path, flaw=found.flaw)
        entry.received, entry.is_seen = found, True
        return True

    def _shorten(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._shortened >= self._tuning.shorten_seconds:
            self._shortened = now
            try:
                self._journal.shorten()
            except OSError as error:
                log.warning("the journal could not be shortened", error=str(error))

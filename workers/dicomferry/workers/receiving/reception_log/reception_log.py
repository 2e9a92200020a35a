"""The reception log of one process: small instances are durable by one write and one flush for all that wait.

Threads that have something to commit queue up; the first that finds nobody at work writes all of it and flushes once,
while the next ones queue up behind. What is committed may be answered for. Its file, written and linked but not
flushed, is flushed later with many others, see `checkpoint`; until then a restart would make it anew from the log.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dicomferry.models import telemetry
from dicomferry.workers.receiving.reception_log import record_format
from dicomferry.workers.receiving.reception_log.record_format import BLOCK, FIRST, Position, Record
from dicomferry.workers.receiving.reception_log.removals import Removals
from dicomferry.workers.receiving.reception_log.segment import Segment

log = telemetry.logger(__name__)

_ZEROS = bytes(BLOCK)


class NoLog(Exception):
    """The log cannot take it now: it is to be made durable by itself."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Bounds of a log. `instance_bytes`: up to this size an instance goes by the log."""

    instance_bytes: int = 192 * 1024
    segments: int = 4
    age_seconds: float = 10.0
    """Seconds after which what was committed is flushed as files, however little it is."""
    tick_seconds: float = 1.0
    """How often it is looked for what is old, at least."""
    most_batch: int = 128
    """Records that are written at once; each is three buffers, of which a gathering write takes 1024."""


DEFAULT = Tuning()


class Commit:
    """A record that is being committed, or is committed: `segment` and `record` say where. Given back by `commit`."""

    __slots__ = ("checksum", "content", "error", "is_done", "number", "place", "record", "segment", "size", "turn")

    def __init__(self, place: bytes, content: bytes, number: bytes) -> None:
        self.place = place
        self.content = content
        self.checksum = zlib.crc32(content)
        self.size = record_format.size_of(place, len(content))
        self.number = number
        """That of the removals when it began."""
        self.turn = threading.Lock()
        self.turn.acquire()
        """Free for its thread when it is done, or when it is for that thread to write."""
        self.is_done = False
        self.error: Exception | None = None
        self.segment: Segment | None = None
        self.record: Record | None = None


class ReceptionLog:
    """The log of one process. Its methods are for any thread. `identity` is its own, and new with each start.

    `free` are segments that are ready to be filled. What is full goes to `full`; `wake` is called when something is
    there to be flushed, or a segment is to be made.
    """

    def __init__(self, removals: Removals, *, tuning: Tuning = DEFAULT, wake: Callable[[], object]) -> None:
        self.tuning = tuning
        self.lock = threading.Lock()
        self.free: list[Segment] = []
        self.full: list[Segment] = []
        self.active: Segment | None = None
        self.removals = removals
        self._wake = wake
        self._queue: deque[Commit] = deque()
        self._is_led = False
        self._next = 1
        self._closed = False

    def commit(self, place: str, content: bytes) -> Commit:
        """Have these bytes, and the place that they are for, on disk. `settle` has to follow. Raises NoLog."""
        name = place.encode("ascii")
        if len(name) > record_format.MOST_PLACE:
            raise NoLog
        number = self.removals.number()
        if Removals.is_busy(number):
            raise NoLog
        mine = Commit(name, content, number)
        with self.lock:
            if self._closed or (self.active is None and not self.free):
                raise NoLog
            self._queue.append(mine)
            leads = not self._is_led
            self._is_led = True
        if not leads:
            mine.turn.acquire()
        if not mine.is_done:
            self._lead()
        if mine.error is not None:
            raise NoLog from mine.error
        return mine

    def is_disturbed(self, commit: Commit) -> bool:
        """Whether files were being removed meanwhile, and the record perhaps erased with others of its place."""
        return self.removals.number() != commit.number

    def settle(self, commit: Commit) -> None:
        """The file is at its place, or durable without the record: the log may be freed of it."""
        segment = commit.segment
        if segment is not None:
            with self.lock:
                segment.unsettled -= 1
                is_last = segment.unsettled == 0 and segment is not self.active
            commit.segment = None
            if is_last:
                self._wake()

    def withdraw(self, commit: Commit) -> None:
        """It is not to be at that place after all: no recovery puts it there. Raises OSError."""
        segment, record = commit.segment, commit.record
        if segment is None or record is None:
            return
        try:
            segment.erase([record])
        except OSError:
            self._give_up(segment)
            raise
        finally:
            self.settle(commit)

    def close(self) -> None:
        """Commit nothing any more; what is committed goes to `full`."""
        with self.lock:
            self._closed = True
            self._retire()

    def retire_aged(self) -> None:
        """Have what is in use flushed and freed, if its first record is old enough."""
        with self.lock:
            active = self.active
            if active is not None and active.end > FIRST and time.monotonic() - active.began >= self.tuning.age_seconds:
                self._retire()

    def _retire(self) -> None:
        """With the lock held: the active segment is full."""
        active, self.active = self.active, None
        if active is not None:
            (self.full if active.end > FIRST or active.is_failed else self.free).append(active)

    def _give_up(self, segment: Segment) -> None:
        """A write or a flush of it failed: nothing more is written into it."""
        with self.lock:
            segment.is_failed = True
            if self.active is segment:
                self._retire()
        self._wake()

    def _lead(self) -> None:
        """Write what waits, and let the next one lead. The first that waits is that of this thread."""
        batch: list[Commit] = []
        try:
            with self.lock:
                segment = self._segment_for(self._queue[0].size)
                batch = self._take(segment)
            if segment is None:
                error: Exception | None = NoLog()
            else:
                error = self._write(segment, batch)
        except BaseException as trouble:
            error = trouble if isinstance(trouble, Exception) else NoLog()
            raise
        finally:
            with self.lock:
                following = self._queue[0] if self._queue else None
                self._is_led = following is not None
            for one in batch:
                one.error = error
                one.is_done = True
            for one in batch[1:]:
                one.turn.release()
            if following is not None:
                following.turn.release()

    def _segment_for(self, size: int) -> Segment | None:
        """With the lock held: the segment that takes so many bytes; None where there is none now."""
        active = self.active
        if active is not None and active.end + size > active.size:
            self._retire()
            self._wake()
            active = None
        if active is None and self.free:
            active = self.active = self.free.pop(0)
            if not self.free:
                self._wake()
        return active

    def _take(self, segment: Segment | None) -> list[Commit]:
        """With the lock held: those that wait and go into the segment; the first one alone where there is none."""
        batch = [self._queue.popleft()]
        if segment is not None:
            end = segment.end + batch[0].size
            while self._queue and len(batch) < self.tuning.most_batch and end + self._queue[0].size <= segment.size:
                batch.append(self._queue.popleft())
                end += batch[-1].size
            # From here on it is not freed before each of them is settled.
            segment.unsettled += len(batch)
            if segment.end == FIRST:
                segment.began = time.monotonic()
        return batch

    def _write(self, segment: Segment, batch: list[Commit]) -> Exception | None:
        """Have a batch on disk; what went wrong, if anything did."""
        first = number = self._next
        self._next += len(batch)
        parts: list[bytes | memoryview] = []
        at = segment.end
        for one in batch:
            position = Position(number, first)
            length = len(one.content)
            head = record_format.record_head(segment.lap, position, one.place, length, one.checksum)
            parts += (head, one.content)
            filling = one.size - len(head) - length
            if filling:
                parts.append(memoryview(_ZEROS)[:filling])
            one.record = Record(at, one.size, position, one.place.decode("ascii"), at + len(head), length)
            at += one.size
            number += 1
        try:
            segment.append(parts, at - segment.end)
        except OSError as error:
            log.error("the reception log cannot be written", path=str(segment.path), error=str(error))
            with self.lock:
                segment.unsettled -= len(batch)
            self._give_up(segment)
            return error
        for one in batch:
            one.segment = segment
        return None

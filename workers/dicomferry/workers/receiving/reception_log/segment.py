"""A file of the reception log: written with zeros when it is made, so that a record costs no more than its bytes.

Whoever writes a block that a file system has allocated and written before changes nothing but that block: no file
grows, and no transaction of the file system is waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomferry.models.durable import flush_folder
from dicomferry.workers.receiving.reception_log import record_format
from dicomferry.workers.receiving.reception_log.record_format import BLOCK, FIRST, Contents, Lap, Record

SUFFIX = ".segment"
_PIECE = bytes(1024 * 1024)


class Segment:
    """A segment that is open, of `size` bytes. Its methods raise OSError; `end` is where the next record goes."""

    def __init__(self, path: Path, fd: int, size: int, lap: Lap) -> None:
        self.path = path
        self.fd = fd
        self.size = size
        self.lap = lap
        self.end = FIRST
        self.records: list[Record] = []
        """Those that it had when it was opened."""
        self.unsettled = 0
        """How many of those that were written since have no file yet at their places."""
        self.began = 0.0
        """When the first of a lap came, on the monotonic clock."""
        self.is_failed = False
        """Whether a write or a flush of it failed: nothing is written into it any more."""
        self.is_doubtful = False
        """Whether a flush of its records' files failed: no later one is believed, they are made anew."""
        self.written = FIRST
        """Up to where something of a former lap may stand in it."""

    @classmethod
    def make(cls, path: Path, size: int, lap: Lap) -> Segment:
        """A new one, on disk when this returns."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(AttributeError, OSError):  # in one piece, where the file system can
                os.posix_fallocate(fd, 0, size)
            overwrite(fd, 0, size)
            _write(fd, [record_format.segment_head(lap)], 0)
            os.fsync(fd)
            flush_folder(path.parent)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return cls(path, fd, size, lap)

    @classmethod
    def open(cls, path: Path) -> tuple[Segment, Contents]:
        """One that is there, and what it holds."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            found = record_format.read(read_at(fd, 0, size))
        except BaseException:
            os.close(fd)
            raise
        segment = cls(path, fd, size, found.lap or Lap(bytes(16), 0))
        segment.end, segment.written, segment.records = found.end, size, found.records
        return segment, found

    @classmethod
    def look(cls, path: Path) -> Segment:
        """One that another process may be filling: its records as their heads tell, without their bytes."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            lap = record_format.read_lap(read_at(fd, 0, BLOCK))
            segment = cls(path, fd, size, lap or Lap(bytes(16), 0))
            if lap is not None:
                segment.records = list(segment.heads())
                segment.end = segment.records[-1].offset + segment.records[-1].size if segment.records else FIRST
        except BaseException:
            os.close(fd)
            raise
        return segment

    def heads(self) -> Iterator[Record]:
        """Its records as their heads tell, erased ones too, up to the first that has none. Raises OSError."""
        at = FIRST
        while at < self.size:
            found = record_format.head_at(read_at(self.fd, at, BLOCK), at, self.lap)
            if found is None:
                return
            yield found[0]
            at += found[0].size

    def has_rest(self) -> bool:
        """Whether there is anything but zeros behind the last record."""
        for at in range(self.end, self.size, len(_PIECE)):
            found = read_at(self.fd, at, min(len(_PIECE), self.size - at))
            if found != _PIECE[: len(found)]:
                return True
        return False

    def append(self, parts: Sequence[bytes | memoryview], size: int) -> None:
        """Write `size` bytes where the last record ends, and have them on disk."""
        _write(self.fd, parts, self.end)
        os.fdatasync(self.fd)
        self.end += size
        self.written = max(self.written, self.end)

    def bytes_of(self, record: Record) -> bytes | None:
        """What a record has, as it was received; None where it was erased meanwhile."""
        try:
            return record_format.bytes_of(read_at(self.fd, record.offset, record.size), record, self.lap)
        except ValueError as error:
            raise OSError(errno.EIO, str(error), str(self.path)) from error

    def free(self, lap: Lap) -> None:
        """Nothing that stands in it counts any more; so it is on disk when this returns."""
        _write(self.fd, [record_format.segment_head(lap)], 0)
        os.fdatasync(self.fd)
        self.lap, self.end = lap, FIRST
        self.records = []
        self.is_doubtful = False

    def erase(self, records: Sequence[Record]) -> None:
        """Have these count no more, durably, and then overwrite their bytes."""
        for record in records:
            _write(self.fd, [record_format.erased_head(self.lap, record)], record.offset)
        os.fdatasync(self.fd)
        for record in records:
            overwrite(self.fd, record.offset + BLOCK, record.offset + record.size)
        os.fdatasync(self.fd)

    def wipe(self) -> None:
        """Overwrite what stands behind the last record, of former laps."""
        if self.written > self.end:
            overwrite(self.fd, self.end, self.written)
            os.fdatasync(self.fd)
            self.written = self.end

    def close(self) -> None:
        """Let go of the file."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def overwrite(fd: int, begin: int, end: int) -> None:
    """Zeros from `begin` to `end`. Raises OSError."""
    for at in range(begin, end, len(_PIECE)):
        _write(fd, [memoryview(_PIECE)[: min(len(_PIECE), end - at)]], at)


def read_at(fd: int, begin: int, length: int) -> bytes:
    """So many bytes from `begin` on, fewer only where the file ends. Raises OSError."""
    found = os.pread(fd, length, begin)
    while len(found) < length:
        more = os.pread(fd, length - len(found), begin + len(found))
        if not more:
            break
        found += more
    return found


def _write(fd: int, parts: Sequence[bytes | memoryview], at: int) -> None:
    left = sum(map(len, parts))
    written = os.pwritev(fd, parts, at)
    while written < left:
        # A signal, or a disk in trouble: the rest as one piece, until it is done or an error says why not.
        if not written:
            raise OSError(errno.ENOSPC, "the reception log could not be written")
        parts = [memoryview(b"".join(parts))[written:]]
        at, left = at + written, left - written
        written = os.pwritev(fd, parts, at)

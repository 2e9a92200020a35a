"""Who removes files, and who receives them by the log, side by side: a lock and a number in `.ferry/removals`.

What is removed must not come back by a recovery, so a remover erases the records of its files before it unlinks them,
in the log of every process, living or dead. It holds the lock meanwhile, as does who recovers, who writes a file anew
from the log, or fills a segment again: none of them meets a log that changes under its hands.

The number is odd while records are erased, and another one afterwards. A process that commits a record looks at it
before, and again once the file is linked: where it was odd, or has changed, its record may be among the erased ones,
and the file is flushed itself. So receiving costs no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from dicomferry.models.durable import make_folder

NAME = "removals"
_NUMBER = struct.Struct("<Q")


class Removals:
    """The file of an archive, of which `folder` is the own one. Raises OSError. Its methods are for any thread."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._path = folder / NAME
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < _NUMBER.size:
                os.ftruncate(fd, _NUMBER.size)
            self._map = mmap.mmap(fd, _NUMBER.size)
        finally:
            os.close(fd)

    def number(self) -> bytes:
        """The number as it is now; to be compared with another one, and asked whether it `is_busy`."""
        return self._map[: _NUMBER.size]

    @staticmethod
    def is_busy(number: bytes) -> bool:
        """Whether records were being erased when it was read."""
        return bool(number[0] & 1)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for whoever has the lock, and hold it. Raises OSError."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def lock_at_once(self) -> Iterator[None]:
        """Hold the lock. Raises BlockingIOError where somebody else does, OSError."""
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            # Who has the lock and finds the number odd comes after one that died: nobody erases any more.
            self._set_even()
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def erasing(self) -> Iterator[None]:
        """While records are erased, for who has the lock."""
        self._set_odd()
        try:
            yield
        finally:
            self._set_even()

    def _set_odd(self) -> None:
        (number,) = _NUMBER.unpack(self.number())
        self._map[: _NUMBER.size] = _NUMBER.pack(number + 1 if number % 2 == 0 else number)

    def _set_even(self) -> None:
        (number,) = _NUMBER.unpack(self.number())
        if number % 2:
            self._map[: _NUMBER.size] = _NUMBER.pack(number + 1)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()

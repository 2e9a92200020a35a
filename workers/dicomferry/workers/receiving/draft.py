"""A file that is being written and has no place yet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

MOST_VIEWS = 1000
"""Buffers in one gathering write; the system's bound is 1024."""


class Draft:
    """A file that is being written and has no place yet; `path` is its temporary name, None where it has none.

    Its first bytes are kept in memory, if `hold` was called, until it gets longer than that, or `spill` is.
    """

    def __init__(self, fd: int, path: str | None) -> None:
        self.fd = fd
        self.path = path
        self.size = 0
        self._hold = 0
        self._held: list[bytes] = []

    def hold(self, most: int) -> None:
        """Write nothing before there are more bytes than `most`."""
        self._hold = most

    def spill(self) -> bytes | None:
        """Write what is held, and give it back: all there is. None where that was too long. Raises OSError."""
        if not self._hold:
            return None
        content = b"".join(self._held)
        self._hold = 0
        self._held.clear()
        self._write([content])
        return content

    @property
    def source(self) -> str:
        """What a link to the file is made from."""
        return self.path or f"/proc/self/fd/{self.fd}"

    def write(self, views: Sequence[bytes | memoryview]) -> None:
        """Append all of `views`. Raises OSError."""
        if self._hold:
            self.size += sum(map(len, views))
            if self.size <= self._hold:
                self._held += map(bytes, views)
                return
            views = [*self._held, *views]
            self._hold = 0
            self._held.clear()
            self._write(views)
        else:
            self.size += self._write(views)

    def _write(self, views: Sequence[bytes | memoryview]) -> int:
        """Append all of `views` to the file; how many bytes they were. Raises OSError."""
        size = 0
        for first in range(0, len(views), MOST_VIEWS):
            some = list(views[first : first + MOST_VIEWS])
            left = sum(map(len, some))
            while left:
                written = os.writev(self.fd, some)
                size += written
                left -= written
                if left:
                    some = _rest(some, written)
        return size

    def close(self) -> None:
        """Give it up, or let go of it after it was published."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            if self.path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)


def _rest(views: list[bytes | memoryview], skip: int) -> list[bytes | memoryview]:
    """`views` without their first `skip` bytes."""
    rest: list[bytes | memoryview] = []
    for view in views:
        if skip < len(view):
            rest.append(memoryview(view)[skip:])
        skip = max(0, skip - len(view))
    return rest

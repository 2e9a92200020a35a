"""Where the bytes of a data set come from: a file as it lies there, or what a deflate stream in it holds (PS3.5 A.5).

Both are read forwards, a piece at a time: memory does not follow the size of the object, whatever it inflates to.
"""

from __future__ import annotations

import os
import zlib
from typing import Protocol

MOST_INFLATED = 256 * 1024 * 1024
"""Bytes of an inflated data set that are looked at: deflate makes a thousand of one, which is an attack, no image."""

_FED = 64 * 1024
_STEP = 256 * 1024
_WINDOW = 16 * 1024


class Unreadable(Exception):
    """What is asked for cannot be had; the text says why."""


class TooLong(Unreadable):
    """The data set is longer than the bound up to which it is looked at."""


class ByteSource(Protocol):
    """The bytes of a data set by their positions in it."""

    def read(self, pos: int, size: int) -> bytes:
        """Up to `size` bytes from `pos` on, fewer only at the end.

        `pos` is never before one that was asked for. Raises OSError, Unreadable.
        """


class Stored:
    """The bytes of a file from `start` on, as they lie there."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self._start = start
        self._window = b""
        self._base = 0

    def read(self, pos: int, size: int) -> bytes:
        """Bytes from a position on (see `ByteSource.read`); small pieces come from one read for many of them."""
        offset = pos - self._base
        if offset >= 0 and offset + size <= len(self._window):
            return self._window[offset : offset + size]
        if size > _WINDOW:
            return os.pread(self._fd, size, self._start + pos)
        self._window = os.pread(self._fd, _WINDOW, self._start + pos)
        self._base = pos
        return self._window[:size]


class Inflated:
    """What the deflate stream holds that begins at `start` of a file: its first `most` bytes."""

    def __init__(self, fd: int, start: int, most: int = MOST_INFLATED) -> None:
        self._fd = fd
        self._pos = start
        self._most = most
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._window = b""
        self._base = 0

    @property
    def is_ended(self) -> bool:
        """Whether the stream has come to its own end."""
        return self._inflater.eof

    @property
    def size(self) -> int:
        """How many bytes it holds, as far as it was inflated."""
        return self._base + len(self._window)

    def read(self, pos: int, size: int) -> bytes:
        """Bytes from a position on (see `ByteSource.read`). Raises TooLong beyond the bound."""
        while self._base + len(self._window) < pos + size:
            block = self._block()
            if not block:
                break
            end = self._base + len(self._window)
            if end + len(block) > self._most:
                raise TooLong(f"the deflated data set holds more than {self._most >> 20} MiB")
            kept = self._window[pos - self._base :] if pos < end else b""
            self._base = end - len(kept)
            self._window = kept + block
        offset = pos - self._base
        return self._window[offset : offset + size] if offset >= 0 else b""

    def _block(self) -> bytes:
        """The next inflated bytes; none at the end of the stream or of the file."""
        while not self._inflater.eof:
            fed = self._inflater.unconsumed_tail
            if not fed:
                fed = os.pread(self._fd, _FED, self._pos)
                self._pos += len(fed)
                if not fed:
                    return b""
            try:
                block = self._inflater.decompress(fed, _STEP)
            except zlib.error as error:
                raise Unreadable(f"the deflated data set is damaged: {error}") from None
            if block:
                return block
        return b""

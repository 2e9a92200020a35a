"""Which folders of the archive may hold files that the index does not know: so that a restart finds them again.

A folder is written down, and flushed, before the first file is published in it; it may be taken off the list once the
rows of all its files are committed. So a flush is paid once a series, not once an instance, and after a power cut a
handful of folders is read instead of the whole archive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dicomferry.models.durable import flush_folder

NAME = "journal"
MOST_LINES = 1000
"""Folders beyond which the list is rewritten although some of them are still in use."""

_LINE = re.compile(rb"[0-9A-Za-z_][0-9A-Za-z_.\-]*(/[0-9A-Za-z_][0-9A-Za-z_.\-]*)*")


def path_of(folder: Path, number: int) -> Path:
    """Where the receiving process of that number has its list, in the archive's own folder."""
    return folder / (f"{NAME}-{number}" if number else NAME)


def left_behind(folder: Path, processes: int) -> list[Path]:
    """The lists of receiving processes whose numbers are used no longer, now that there are so many processes."""
    found = ((path, re.fullmatch(rf"{NAME}-([0-9]+)", path.name)) for path in folder.glob(f"{NAME}-*"))
    return sorted(path for path, match in found if match and int(match[1]) >= processes)


class Journal:
    """The list in the file at `path`; any thread may use it."""

    def __init__(self, path: Path, *, flush: bool = True, most_lines: int = MOST_LINES) -> None:
        self._path = path
        self._most_lines = most_lines
        self._flush = flush
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._written: set[str] = set()
        self._fd = -1
        self._unflushed = False
        """Whether the list's name is not known to be on disk: until it is, nothing may be promised by the list."""

    def read(self) -> list[str]:
        """The folders on the list, as a former process left it. Raises OSError, also where the list is damaged."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        # What follows the last line end was cut off while it was written: nothing was published for it.
        whole = [line for line in lines[:-1] if line]
        if not all(map(_LINE.fullmatch, whole)):
            raise OSError(errno.EILSEQ, "the list is damaged", str(self._path))
        return sorted({line.decode("ascii") for line in whole})

    def keep(self, folders: Iterable[str]) -> None:
        """What a former process left in these could not be finished: they stay on the list as long as this one does."""
        with self._lock:
            for folder in folders:
                self._open[folder] += 1
                self._written.add(folder)

    def enter(self, folder: str) -> None:
        """A file is about to be published in `folder`. Raises OSError; then it must not be."""
        with self._lock:
            if folder not in self._written:
                if self._fd < 0:
                    self._begin(self._written)
                self._flush_name()
                self._append(folder)
            self._open[folder] += 1

    def leave(self, folder: str, files: int = 1) -> None:
        """Note that `files` files of a folder are in the index for good, or were not published after all."""
        with self._lock:
            self._open[folder] -= files
            if self._open[folder] <= 0:
                del self._open[folder]

    def shorten(self) -> None:
        """Take the folders off the list that nothing is open in, where that is worth a flush. Raises OSError."""
        with self._lock:
            kept = set(self._open)
            if len(self._written) > (self._most_lines if kept else 0) and kept != self._written:
                self._begin(kept)
                self._flush_name()

    def close(self) -> None:
        """Let go of the file; what is open in it stays on the list."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _append(self, folder: str) -> None:
        line = folder.encode("ascii") + b"\n"
        end = os.fstat(self._fd).st_size
        try:
            _write_all(self._fd, line)
            if self._flush:
                os.fdatasync(self._fd)
        except OSError:
            # Half a line must not be glued to the next one; where even that fails, the next one begins a new list.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, end)
            self._let_go()
            raise
        self._written.add(folder)

    def _begin(self, folders: set[str]) -> None:
        """Put a new list in the old one's place, in one step: the old one is whole until the new one is."""
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, b"".join(folder.encode("ascii") + b"\n" for folder in sorted(folders)))
            if self._flush:
                os.fsync(fd)
            os.replace(fresh, self._path)
        except BaseException:
            os.close(fd)
            raise
        # The old list has no name from here on, whatever the flush of the folder comes to.
        with contextlib.suppress(OSError):
            self._let_go()
        self._fd = fd
        self._written = set(folders)
        self._unflushed = self._flush

    def _flush_name(self) -> None:
        """The list's name is on disk when this returns. Raises OSError."""
        if self._unflushed:
            flush_folder(self._path.parent)
            self._unflushed = False


def _write_all(fd: int, data: bytes) -> None:
    """Append all of `data`; a disk that fills takes the beginning of it. Raises OSError."""
    while data:
        written = os.write(fd, data)
        if not written:
            raise OSError(errno.ENOSPC, "the journal could not be written")
        data = data[written:]

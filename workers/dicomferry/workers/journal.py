"""Which folders of the archive may hold files that the index does not know: so that a restart finds them again.

A folder is written down, and flushed, before the first file is published in it; it may be taken off the list once the
rows of all its files are committed. So a flush is paid once a series, not once an instance, and after a power cut a
handful of folders is read instead of the whole archive.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from pathlib import Path

MOST_LINES = 1000
"""With more folders than this the list is rewritten although some of them are still in use."""


class Journal:
    """The list in the file at `path`; any thread may use it."""

    def __init__(self, path: Path, *, flush: bool = True) -> None:
        self._path = path
        self._flush = flush
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._written: set[str] = set()
        self._fd = -1

    def read(self) -> list[str]:
        """The folders on the list, as a former process left it."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        # What follows the last line end was cut off while it was written: nothing was published for it.
        return sorted({line.decode("ascii", "replace") for line in lines[:-1] if line})

    def enter(self, folder: str) -> None:
        """A file is about to be published in `folder`. Raises OSError; then it must not be."""
        with self._lock:
            if folder not in self._written:
                if self._fd < 0:
                    self._begin(self._written)
                self._append(folder)
            self._open[folder] += 1

    def leave(self, folder: str, files: int = 1) -> None:
        """That many files of `folder` are in the index for good, or were not published after all."""
        with self._lock:
            self._open[folder] -= files
            if self._open[folder] <= 0:
                del self._open[folder]

    def shorten(self) -> None:
        """Take the folders off the list that nothing is open in, where that is worth a flush. Raises OSError."""
        with self._lock:
            kept = set(self._open)
            if len(self._written) > (MOST_LINES if kept else 0) and kept != self._written:
                self._begin(kept)

    def close(self) -> None:
        """Let go of the file; what is open in it stays on the list."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _append(self, folder: str) -> None:
        line = folder.encode("ascii") + b"\n"
        end = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(28, "the journal could not be written")
            if self._flush:
                os.fdatasync(self._fd)
        except OSError:
            # Half a line must not be glued to the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, end)
            raise
        self._written.add(folder)

    def _begin(self, folders: set[str]) -> None:
        """Put a new list in the old one's place, in one step."""
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"".join(folder.encode("ascii") + b"\n" for folder in sorted(folders)))
            if self._flush:
                os.fsync(fd)
            os.replace(fresh, self._path)
            if self._flush:
                self._flush_folder()
        except BaseException:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._written = set(folders)

    def _flush_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

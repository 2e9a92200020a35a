"""Taking a file out of the archive while others receive: what was answered for meanwhile must not go.

Whoever removes looks at the file, makes its row history, and unlinks the file under a lock if it is still as it was.
Whoever receives the same instance again and keeps the file that is there marks it, under the same lock, as one that is
needed: its times change. So either the remover sees that and leaves it, or the receiver sees that it is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

Look = tuple[int, int, int, int]
"""Device, number, and the times of the last changes of a file's content and entry, in ns."""


def look(path: Path) -> Look | None:
    """What a file is now; None where there is none. Raises OSError."""
    try:
        return _look(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _look(found: os.stat_result) -> Look:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def need(fd: int) -> bool:
    """Keep the open file from being removed by who has looked at it before; False where it is too late for that."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    found = os.fstat(fd)
    os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    return found.st_nlink > 0


@contextlib.contextmanager
def going(path: Path, seen: Look | None) -> Iterator[bool]:
    """Whether the file is still what was seen: then it may be unlinked within the block. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    except OSError:
        # A link, or somebody else's: nobody received it, and nobody keeps it for an instance.
        yield seen is not None and look(path) == seen
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield _look(os.fstat(fd)) == seen == look(path)
    finally:
        os.close(fd)

"""What a file system tells of a file, so that a change of its bytes shows."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from dicomferry.workers.files.part10 import Header

TICK = 0.01
"""Seconds by which file systems' clocks move on, at most: of two changes within one, the second leaves no trace."""


class FileState(NamedTuple):
    """Size in bytes, when bytes and status changed in nanoseconds, number of names, and which file it is."""

    size: int
    mtime_ns: int
    ctime_ns: int
    names: int
    inode: int
    device: int

    def has_bytes_of(self, seen: FileState) -> bool:
        """Whether the bytes are those that were there in the state `seen`, as far as the file system can tell."""
        # A name given or taken moves the third on as well, and none of the bytes.
        return self == seen or (self[:2] == seen[:2] and self.names != seen.names)


class Content(NamedTuple):
    """All bytes of a file, its state when they were read, and what their beginning tells."""

    data: bytes
    state: FileState
    header: Header


def state_of(status: os.stat_result) -> FileState:
    """The part of a file's status that shows changes."""
    return FileState(
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_nlink,
        status.st_ino,
        status.st_dev,
    )


def is_settled(status: os.stat_result) -> bool:
    """Whether another change of the file would change its status as well."""
    return not 0 <= time.time() - status.st_ctime < TICK

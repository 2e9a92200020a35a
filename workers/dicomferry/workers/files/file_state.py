"""What a file system tells of a file, so that a change of its bytes shows."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from dicomferry.workers.files.part10 import Header

TICK = 0.01
"""Seconds by which file systems' clocks move on, at most: of two changes within one, the second leaves no trace."""


FileState = tuple[int, int, int, int, int, int]
"""Size in bytes, when bytes and status changed in nanoseconds, number of names, which file it is (inode, device)."""


class Content(NamedTuple):
    """All bytes of a file, its state when they were read, and what their beginning tells."""

    data: bytes
    state: FileState
    header: Header


def state_of(status: os.stat_result) -> FileState:
    """The part of a file's status that shows changes."""
    size, changed = status.st_size, (status.st_mtime_ns, status.st_ctime_ns)
    return size, *changed, status.st_nlink, status.st_ino, status.st_dev


def is_same_bytes(now: FileState, seen: FileState) -> bool:
    """Whether the bytes are those that were there in the state `seen`, as far as the file system can tell."""
    # A name given or taken moves the third on as well, and none of the bytes.
    return now == seen or (now[:2] == seen[:2] and now[3] != seen[3] and now[4:] == seen[4:])


def is_settled(status: os.stat_result) -> bool:
    """Whether another change of the file would change its status as well."""
    return not 0 <= time.time() - status.st_ctime < TICK

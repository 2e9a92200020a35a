"""New folders that survive a power cut, and whole file systems."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import cast


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make `folder`, with this mode, and what is missing above it; all that is new is on disk then. Raises OSError.

    A new folder is an entry of the one above it, so that one is flushed, up to the first that was there. What was there
    costs no flush.
    """
    missing = []
    above = folder
    while not above.exists() and above != above.parent:
        missing.append(above)
        above = above.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode if one == folder else 0o777)
    for one in missing:
        flush_folder(one.parent)
    # Something else may stand at its place.
    folder.mkdir(mode, exist_ok=True)


def flush_folder(folder: Path) -> None:
    """Every name in `folder` is on disk when this returns. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_file_system(fd: int) -> bool:
    """Everything on the file system of the open file `fd` is on disk when this returns True.

    False where the system has no such call, or one that does not tell whether it failed (Linux before 5.8); nothing is
    known to be flushed then. Raises OSError.
    """
    syncfs = _syncfs()
    if syncfs is None:
        return False
    if syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


@lru_cache(maxsize=1)
def _syncfs() -> Callable[[int], int] | None:
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if sys.platform != "linux" or version is None or (int(version[1]), int(version[2])) < (5, 8):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    call.argtypes, call.restype = [ctypes.c_int], ctypes.c_int
    return cast(Callable[[int], int], call)

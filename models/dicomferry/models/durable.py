"""New folders that survive a power cut."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


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

"""How much room the disks have that we write to, and when that is too little."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from dicomferry.models.settings import Settings

NEAR = 2
"""Below this many times its reserve a disk is told to be nearly full."""


class Disk(TypedDict):
    """Room on one disk, in bytes; `what` is `archive` or `home`."""

    what: str
    path: str
    free: int
    size: int
    reserve: int


def look(what: str, path: Path, reserve: int) -> Disk | None:
    """The disk on which this folder lies, or would lie; None where it cannot be asked."""
    try:
        found = os.statvfs(next((one for one in (path, *path.parents) if one.exists()), path))
    except OSError:
        return None
    return Disk(
        what=what,
        path=str(path),
        free=found.f_bavail * found.f_frsize,
        size=found.f_blocks * found.f_frsize,
        reserve=reserve,
    )


def of(settings: Settings) -> list[Disk]:
    """The disks of an installation, seen from this machine."""
    reserve = settings.scp.reserve_bytes
    found = (look("archive", settings.archive, reserve), look("home", settings.home, reserve))
    return [one for one in found if one is not None]


def is_short(disk: Mapping[str, Any]) -> bool:
    """Whether nothing more is taken in there."""
    return int(disk["free"]) <= int(disk["reserve"])


def is_near(disk: Mapping[str, Any]) -> bool:
    """Whether that is not far away."""
    return int(disk["free"]) < NEAR * int(disk["reserve"])


def short_archive(disks: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The archive's disk, if it is short; what is retrieved goes there."""
    return next((disk for disk in disks if disk["what"] == "archive" and is_short(disk)), None)

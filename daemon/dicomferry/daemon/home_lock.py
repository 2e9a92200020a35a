"""Locks on the home: one `up` at a time, and a share for every worker that lives off it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dicomferry.models.rules.errors import ConfigurationError


def take_home(home: Path) -> int:
    """Lock the home for one `up`; the file descriptor that holds it. Raises ConfigurationError when it is taken."""
    fd = os.open(home / "run" / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
        os.close(fd)
        raise ConfigurationError(
            f"`dicomferry up` is running on this home already (process {holder}, home {home}); "
            "stop it first, or use another --home"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def share_home(home: Path) -> int:
    """Hold a worker's share; its pool processes inherit it, so it lasts until the last of them is gone."""
    fd = os.open(home / "run" / "workers.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.set_inheritable(fd, True)
    return fd


def no_worker_lives(home: Path) -> bool:
    """Whether nobody holds a worker's share of this home."""
    fd = os.open(home / "run" / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True

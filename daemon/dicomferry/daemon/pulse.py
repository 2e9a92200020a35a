"""The pulse of a role: that its own loop turns, told to whoever looks after it on this host.

A file in the home is for health checks: it needs neither database nor broker, whose absence is no illness of the role.
systemd is told as well, where it asked for that (sd_notify(3): readiness, and its watchdog).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dicomferry.workers import parent

EVERY_SECONDS = 5.0
FORGOTTEN_AFTER_SECONDS = 7 * 86_400.0
_SUFFIX = ".alive"


class Beat(NamedTuple):
    """The last pulse of a role: which one, its process id, and how many seconds ago that was."""

    role: str
    pid: int
    age: float


class Pulse:
    """The pulse of this process, which is `role`. For one thread: the one whose loop is to turn."""

    def __init__(self, home: Path, role: str) -> None:
        self._file = _file(home, role)
        self._next = 0.0
        _forget(self._file.parent)

    def __call__(self) -> None:
        """The loop has turned once more. Never raises, and costs nothing more often than every few seconds."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_SECONDS
            with contextlib.suppress(OSError):
                self._file.write_text(str(os.getpid()))
            tell_systemd("WATCHDOG=1")

    def end(self) -> None:
        """The role ends in good order: nobody is to miss it."""
        tell_systemd("STOPPING=1")
        with contextlib.suppress(OSError):
            self._file.unlink()


def beats(home: Path) -> Iterator[Beat]:
    """The last pulse of each role of this host that has not ended, in the order of their names."""
    with contextlib.suppress(FileNotFoundError):
        for file in sorted((home / "run").iterdir()):
            host, _, role = file.name.removesuffix(_SUFFIX).rpartition(".")
            if file.name.endswith(_SUFFIX) and host == socket.gethostname():
                with contextlib.suppress(OSError, ValueError):
                    pid, age = int(file.read_text()), time.time() - file.stat().st_mtime
                    yield Beat(role, pid, age)


def tell_ready() -> None:
    """Say that this role is ready: to the parent that keeps it up, else to the service manager."""
    parent.tell_ready()
    if not parent.is_watched():
        tell_systemd("READY=1")


def tell_systemd(state: str) -> None:
    """Send a state such as `READY=1` to the service manager that started us, if there is one. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def _file(home: Path, role: str) -> Path:
    return home / "run" / f"{socket.gethostname()}.{role}{_SUFFIX}"


def _forget(folder: Path) -> None:
    """Remove what roles of hosts, or containers, left that are long gone."""
    with contextlib.suppress(OSError):
        for file in folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > FORGOTTEN_AFTER_SECONDS:
                    file.unlink()

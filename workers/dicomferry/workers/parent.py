"""What a role process owes the one that started it: to say when it is ready, and to end when that one is gone.

The second is done by looking at the parent's process id once a second: that needs no system call that only Linux has,
and works in a forked pool process as well.
"""

from __future__ import annotations

import os
import threading
import time

PARENT = "_DICOMFERRY_PARENT"
"""Environment variable: the process id of the parent to live and die with."""
READY_FD = "_DICOMFERRY_READY_FD"
"""Environment variable: the file descriptor of a pipe on which one byte says that the role is ready."""

OUTPUT = "_DICOMFERRY_OUTPUT"
"""Environment variable: `inherited` where the parent's output is this role's as well, and no file."""


ORPHANED = 75
"""Exit code of a process whose parent is gone."""


def tell_ready() -> None:
    """Tell the parent that this role is ready, if it wants to know."""
    number = os.environ.pop(READY_FD, None)
    if number is not None:
        os.write(int(number), b"1")
        os.close(int(number))


def is_watched() -> bool:
    """Whether a parent started this role and keeps it up."""
    return PARENT in os.environ


def shares_output() -> bool:
    """Whether a parent wants this role's log where its own goes."""
    return os.environ.get(OUTPUT) == "inherited"


def end_with_parent() -> None:
    """Watch the parent that the environment names; nothing where it names none, as for a role started by hand."""
    expected = os.environ.get(PARENT)
    if expected:
        end_with(int(expected))


def end_with(parent_pid: int) -> None:
    """End this process at once when its parent is no longer `parent_pid`."""

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()

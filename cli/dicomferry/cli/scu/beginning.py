"""Interruptions while there is nothing to put away: the process ends at once.

An exception would come to modules half imported, and to callbacks that swallow it. This has to be in place before
anything is imported that takes its time, so it imports nothing that does.
"""

# `signal` builds enumerations over it, which takes a part of the start.
import _signal  # type: ignore[import-not-found]
import os

INTERRUPTED = 130


def exit_at_once(_number: int = 0, _frame: object = None) -> None:
    """The handler, which any thread may call as well."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)


def watch() -> None:
    """From now on INT and TERM do that."""
    _signal.signal(_signal.SIGINT, exit_at_once)
    _signal.signal(_signal.SIGTERM, exit_at_once)

"""TERM, INT and HUP as something a loop can look at and wait for."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType


class StopSignal:
    """Counts TERM and INT, and HUP where it is not ignored, from the moment it is made; for the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(signal.SIGHUP, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        os.write(self._writing, b"!")

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self.count > 0

    def is_urgent(self) -> bool:
        """Whether it was asked for twice."""
        return self.count > 1

    def fileno(self) -> int:
        """Readable once a stop was asked for."""
        return self._reading

    def wait(self, seconds: float) -> bool:
        """Wait until a stop is asked for, at most so long; whether it was."""
        if not self.count:
            select.select([self._reading], [], [], seconds)
        return self.count > 0

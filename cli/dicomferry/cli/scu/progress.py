"""What a mode that moves instances says while it runs: its messages, its totals, and a progress line on a terminal."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable

from dicomferry.cli.frame import words
from dicomferry.cli.scu.messages import Messages
from dicomferry.models.rules.errors import AssociationRejected

FIRST_SECONDS = 1.0
"""What is over sooner needs no progress line."""
EVERY_SECONDS = 0.2
CLEAR = "\r\x1b[K"


class Progress:
    """Messages with a progress line under them. Any thread may use it.

    The line is shown where standard error is a terminal, and not beside the lines of -V and -D. `total` is how many
    instances are to be moved, None as long as nobody knows.
    """

    def __init__(self, say: Messages, *, doing: str, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.total: int | None = None
        self.done = self.failed = self.bytes = 0
        self._say = say
        self._doing = doing
        self._clock = clock
        self._began = clock()
        self._next = self._began + FIRST_SECONDS
        self._shows = sys.stderr.isatty() and not quiet
        self._shown = False
        self._lock = threading.RLock()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self._clock() - self._began

    def sent(self, path: str, status: int, size: int) -> None:
        """A file is at the peer."""
        with self._lock:
            self.done += 1
            self.bytes += size
            self._clear()
            self._say.sent(path, status)
            self.tick()

    def received(self, path: str, size: int) -> None:
        """A file has come."""
        with self._lock:
            self.done += 1
            self.bytes += size
            self._clear()
            self._say.received(path, 0)
            self.tick()

    def failure(self, text: str, *, instances: int = 0) -> None:
        """Something went wrong, which these instances are lost to."""
        with self._lock:
            self.failed += instances
            self._clear()
            self._say.failure(text)

    def warn(self, text: str) -> None:
        """Something that is no failure, and has to be read."""
        with self._lock:
            self._clear()
            self._say.warn(text)

    def note(self, text: str) -> None:
        """Something for those who asked for more."""
        with self._lock:
            self._clear()
            self._say.note(text)

    def rejection(self, error: AssociationRejected) -> None:
        """The association was rejected."""
        with self._lock:
            self._clear()
            self._say.rejection(error)

    def tick(self) -> None:
        """Bring the progress line up to date, when it is time."""
        if not self._shows:
            return
        with self._lock:
            now = self._clock()
            if now < self._next:
                return
            self._next = now + EVERY_SECONDS
            line = f"{self._doing} {self._numbers()}"[: shutil.get_terminal_size().columns - 1]
            self._shown = True
            print(f"{CLEAR}{line}", end="", file=sys.stderr, flush=True)

    def close(self, done: str) -> None:
        """Take the progress line away; with -V the totals: `done` is what happened to the instances."""
        with self._lock:
            self._clear()
            of = f" of {words.number(self.total)}" if self.total else ""
            rest = f"{self.failed} failed, {words.size(self.bytes)}, {self.seconds:.1f} s"
            self._say.total(f"{words.number(self.done)}{of} {done}, {rest}")

    def _numbers(self) -> str:
        """`12 of 40, 6.1 MB, 8/s`."""
        many = words.number(self.done + self.failed)
        parts = [f"{many} of {words.number(self.total)}" if self.total else many, words.size(self.bytes)]
        if self.failed:
            parts.insert(1, f"{self.failed} failed")
        if self.seconds >= FIRST_SECONDS:
            parts.append(words.rate(self.done / self.seconds))
        return ", ".join(parts)

    def _clear(self) -> None:
        if self._shown:
            self._shown = False
            print(CLEAR, end="", file=sys.stderr, flush=True)

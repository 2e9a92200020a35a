"""The progress of a job on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from dicomferry.cli.frame import layout, words
from dicomferry.cli.frame.command_classes import note
from dicomferry.models.documents.shapes import JobDocument
from dicomferry.models.rules.spec import RETRIEVES

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_EVERY = 10.0
"""Seconds between two plain lines, at least."""
_WINDOW = 20.0


class Display(Protocol):
    """Where a wait shows what happens."""

    def say(self, text: str) -> None:
        """Something that stays to be read."""

    def update(self, job: JobDocument) -> None:
        """How far the job is."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def display() -> Display:
    """The one that fits stderr."""
    return Bar() if sys.stderr.isatty() else Plain()


class Speed:
    """How fast items end, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, done: int) -> float:
        """Items in a second; 0 as long as that cannot be said."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        return (done - before) / (now - then) if now > then else 0.0


def done(job: JobDocument) -> int:
    """Items that have an outcome; of a retrieve, whose items are requests as well, the instances that are here."""
    if job["kind"] in RETRIEVES:
        return int(job["received"] or 0)
    return int(job["items"]["total"] - job["items"]["pending"])


def whole(job: JobDocument) -> int | None:
    """How many there are; None as long as nobody knows."""
    if job["kind"] in RETRIEVES:
        return job["expected"] or None
    return int(job["items"]["total"]) or None if job["planned"] else None


def describe(job: JobDocument, pace: float) -> str:
    """`1,200 of 10,000, 39 MB, 244/s, 36 s left`."""
    items, total = job["items"], whole(job)
    if total is not None:
        parts = [f"{words.number(done(job))} of {words.number(total)}"]
    elif job["kind"] in RETRIEVES:
        parts = [f"{words.number(done(job))} here so far"]
    else:
        parts = [f"{words.number(done(job))} of {words.number(items['total'])} found so far"]
    failed = job["instances"]["failed"] if job["kind"] in RETRIEVES else items["failed"]
    if failed:
        parts.append(f"{words.number(failed)} failed")
    if job["bytes"]:
        parts.append(words.size(job["bytes"]))
    if pace > 0:
        parts.append(words.rate(pace))
        if total is not None:
            parts.append(f"{words.duration(max(0, total - done(job)) / pace)} left")
    return ", ".join(parts)


class Plain:
    """Lines for a log: only when something changed, and not many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_at = clock()
        self._last: tuple[object, ...] | None = None
        self._pace = Speed()

    def say(self, text: str) -> None:
        """One line."""
        note(text)

    def update(self, job: JobDocument) -> None:
        """One line, when it is time and something has changed."""
        now = self._clock()
        pace = self._pace.note(now, done(job))
        state = (done(job), job["items"]["total"], whole(job))
        if now - self._last_at < PLAIN_EVERY or state == self._last or not job["items"]["total"]:
            return
        self._last_at, self._last = now, state
        note(f"job {job['id']}: {describe(job, pace)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Bar:
    """A bar that leaves no trace when it ends."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, name="", text="")
        self._pace = Speed()

    def say(self, text: str) -> None:
        """One line above the bar."""
        console = self._progress.console
        for line in layout.wrapped(words.printable(text), console.width):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, job: JobDocument) -> None:
        """The bar as it is now; without an end as long as nobody knows how much there is."""
        total = whole(job)
        pace = self._pace.note(time.monotonic(), done(job))
        self._progress.update(
            self._task,
            total=total,
            completed=done(job) if total else 0,
            name=f"job {job['id']}",
            text=describe(job, pace) if job["items"]["total"] else job["state"],
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

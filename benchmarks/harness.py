"""Interleaved runs, their medians, and the raw figures kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

RESULTS = Path(__file__).parent / "results"
WORK = Path(os.environ.get("BENCHMARK_DATA", "/tmp/dicomferry-benchmarks"))
"""Where the data is made once and kept for the next run."""

T = TypeVar("T")
Run = Callable[[], "Measured"]


@dataclass(frozen=True)
class Measured:
    """One run: the figure (a rate, or what the row's unit says), and processor seconds of the side measured."""

    rate: float
    cpu_seconds: float | None = None
    rss_mb: dict[str, float] | None = None


@dataclass
class Row:
    """One line of the table; `target` is the least ratio wanted, None where a figure is only noted.

    `does` and `they_do` say what each side does for its figure: reads, proves, flushes, records. Without a program
    to compare with, `against` is empty and `most` is what ours may cost.
    """

    name: str
    unit: str
    against: str
    target: float | None
    does: str = ""
    they_do: str = ""
    most: float | None = None
    ours: list[Measured] = field(default_factory=list)
    theirs: list[Measured] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Median of ours over median of theirs."""
        return median(self.ours) / median(self.theirs) if self.theirs else None

    @property
    def reached(self) -> bool | None:
        """Whether it is as was wanted; None where nothing was."""
        if self.most is not None:
            return median(self.ours) <= self.most
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target

    def lines(self) -> list[str]:
        """For the terminal: the figures, and under them what each side does for its own."""
        other = f"{_figure(median(self.theirs), self.unit):>12}" if self.theirs else f"{'-':>12}"
        ratio = f"{self.ratio:5.2f}x" if self.ratio is not None else f"{'-':>6}"
        text = f"{self.name:<46} {_figure(median(self.ours), self.unit):>12} {other} {ratio}  {self._wanted():<22}"
        found = [text.rstrip()]
        found += [f"    ours: {self.does}"] if self.does else []
        found += [f"    {self.against}: {self.they_do}"] if self.against else []
        if self.theirs and self.ours[0].cpu_seconds and self.theirs[0].cpu_seconds:
            cpu = [statistics.median(run.cpu_seconds or 0.0 for run in runs) for runs in (self.ours, self.theirs)]
            found.append(f"    processor time: {cpu[0] / cpu[1]:.2f} times the other's" if cpu[1] else "")
        return [line for line in found if line]

    def _wanted(self) -> str:
        if self.reached is None:
            return ""
        wanted = f"at most {_figure(self.most, self.unit)}" if self.most is not None else f"{self.target:g}x"
        return f"wanted {wanted}: {'reached' if self.reached else 'NOT reached'}"

    def save(self) -> None:
        """Keep the raw runs."""
        RESULTS.mkdir(exist_ok=True)
        document = asdict(self) | {
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "load": [round(value, 2) for value in os.getloadavg()],
            },
        }
        name = "".join(char if char.isalnum() else "-" for char in self.name.lower()).strip("-")
        while "--" in name:
            name = name.replace("--", "-")
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


HEADING = f"{'what':<46} {'ours':>12} {'the other':>12} {'ratio':>6}"


def _figure(value: float, unit: str) -> str:
    return f"{value:,.{2 if value < 10 else 0}f} {unit}"


def median(runs: list[Measured]) -> float:
    """The median rate."""
    return statistics.median(run.rate for run in runs)


def interleave(row: Row, ours: Run, theirs: Run | None, rounds: int) -> Row:
    """One round to warm up, then the two sides in turn; saved and printed."""
    sides = [(row.ours, ours)] + ([(row.theirs, theirs)] if theirs else [])
    for _, run in sides:
        run()
    for _ in range(rounds):
        for kept, run in sides:
            kept.append(run())
    row.save()
    print("\n".join(row.lines()), flush=True)
    return row


def sized(work: Callable[[T], float], few: T, many: T, more: int) -> Run:
    """A run that does `work` on a small and on a large amount and gives the rate between the two.

    `work` returns the seconds from its beginning to its end, `more` is by how much `many` is larger. So starting and
    ending a process, which both have, count on neither side.
    """

    def once() -> Measured:
        before = _children()
        short = work(few)
        between = _children()
        long = work(many)
        cpu = (_children() - between) - (between - before)
        return Measured(marginal(short, long, more), cpu if cpu > 0 else None)

    return once


def marginal(few: float, many: float, more: int) -> float:
    """The rate of what a run of `many` seconds did more than one of `few` seconds."""
    if many <= few:
        raise RuntimeError(f"the larger run took {many:.2f} s and the smaller one {few:.2f} s: too small to tell")
    return more / (many - few)


def _children() -> float:
    """Processor seconds of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(argv: list[str], environment: dict[str, str] | None = None) -> float:
    """The seconds that a command takes, as whoever types it waits for it. Raises CalledProcessError."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def timed_process(argv: list[str], amount: int, environment: dict[str, str] | None = None) -> Measured:
    """Run a program to its end: `amount` per second, and its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(amount / seconds, cpu)

"""Real scheduler processes on a clock that a test moves, and who tells when they ought to fire."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from dicomferry.cli.submit import parsed_command
from dicomferry.daemon.scheduler import Scan
from dicomferry.models.record.database import Database

_MINUTE = timedelta(minutes=1)
# Forked from a process that has all modules and no connection: a new one takes a moment.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["support.schedulers", "dicomferry.cli.submit.command", "dicomferry.workers.dimse.identifier"]
)


class ClockFile:
    """A clock that several processes see."""

    def __init__(self, path: Path, start: datetime) -> None:
        self.path = path
        self.set(start)

    def set(self, moment: datetime) -> None:
        """It is so late now, for everyone at the same time."""
        new = self.path.with_suffix(".new")
        new.write_text(moment.isoformat())
        os.replace(new, self.path)

    def __call__(self) -> datetime:
        return datetime.fromisoformat(self.path.read_text())


def _look(url: str, clock: ClockFile) -> None:
    """What the scheduler role does, with that clock and without a rest."""
    os.environ["DICOMFERRY_DATABASE_URL"] = url
    database = Database(url, patience=60, clock=clock)
    scan = Scan(database, parsed_command.of)
    with click.Context(click.Command("scheduler")):
        while True:
            scan()
            time.sleep(0.02)


class Schedulers:
    """Some of them; one that was killed is made good for by a new one."""

    def __init__(self, url: str, clock: ClockFile, number: int) -> None:
        self._url, self._clock = url, clock
        self.running: list[ForkServerProcess] = []
        for _ in range(number):
            self.start()

    def start(self) -> None:
        process = _FORKS.Process(target=_look, args=(self._url, self._clock), daemon=True)
        process.start()
        self.running.append(process)

    def kill(self, index: int) -> None:
        """Kill -9, wherever it is."""
        process = self.running.pop(index)
        process.kill()
        process.join()

    def kill_all(self) -> None:
        while self.running:
            self.kill(0)


@contextmanager
def schedulers(url: str, clock: ClockFile, number: int = 3) -> Iterator[Schedulers]:
    """So many until the end of the block."""
    found = Schedulers(url, clock, number)
    try:
        yield found
    finally:
        found.kill_all()


# --- when they ought to fire, by looking at a wall clock each minute --------------------------------------------------


def _minutes(begin: datetime, end: datetime) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += _MINUTE


def by_the_hours(
    zone: ZoneInfo, matches: Callable[[datetime], bool], begin: datetime, end: datetime
) -> Iterator[datetime]:
    """Every minute whose local time matches, each of the two that an autumn night has."""
    return (minute for minute in _minutes(begin, end) if matches(minute.astimezone(zone)))


def once_a_day(zone: ZoneInfo, hour: int, minute: int, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The first minute of each local day that shows this time, or what follows where the day has none such."""
    done: date | None = None
    for moment in _minutes(begin - timedelta(days=1), end):
        local = moment.astimezone(zone)
        if local.date() != done and (local.hour, local.minute) >= (hour, minute):
            done = local.date()
            if moment >= begin:
                yield moment.astimezone(UTC)

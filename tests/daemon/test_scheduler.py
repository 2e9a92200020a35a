"""Schedulers as processes: on a clock that the test moves, several at once, killed wherever they are."""

import random
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from dicomferry.models.record import schema
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.jobs import verbs as job_verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.schedules import runs as schedule_runs
from dicomferry.models.record.schedules import verbs as schedule_verbs
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.record.tables.schedules import RunRow, ScheduleRow
from dicomferry.models.rules import spec, timetable
from dicomferry.models.rules.state import JobState
from dicomferry.models.rules.timetable import CatchUp, CatchUpPolicy, Overlap
from support.installation import until
from support.schedulers import ClockFile, by_the_hours, once_a_day, schedulers

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
DAY = timedelta(days=1)
FIND = ("find", "pacs1", "-k", "StudyDate=@yesterday")
ECHO = ("echo", "pacs1")
SCHEDULES = {
    "night-berlin": ("30 2 * * *", BERLIN, FIND, CatchUp.LATEST),
    "night-york": ("30 1 * * *", NEW_YORK, ECHO, CatchUp.LATEST),
    "hours-berlin": ("0 */3 * * *", BERLIN, ECHO, CatchUp.ALL),
    "quarters-york": ("*/30 1-2 * * *", NEW_YORK, ECHO, CatchUp.SKIP),
}


def _expected(begin: datetime, end: datetime) -> dict[str, list[datetime]]:
    """Due times by the wall clock, without cron."""
    return {
        "night-berlin": list(once_a_day(BERLIN, 2, 30, begin, end)),
        "night-york": list(once_a_day(NEW_YORK, 1, 30, begin, end)),
        "hours-berlin": list(by_the_hours(BERLIN, lambda local: local.hour % 3 == 0 and local.minute == 0, begin, end)),
        "quarters-york": list(
            by_the_hours(NEW_YORK, lambda local: local.hour in (1, 2) and local.minute in (0, 30), begin, end)
        ),
    }


class World:
    """The rows of an installation, its clock, and workers that end every job at once."""

    def __init__(self, url: str, folder: Path, begin: datetime) -> None:
        self.clock = ClockFile(folder / "clock", begin)
        self.database = Database(url, patience=60, clock=self.clock)
        schema.upgrade(self.database)
        book.add(self.database, "pacs1", "PACS1@127.0.0.1:104")
        for name, (cron, zone, words, catch_up) in SCHEDULES.items():
            schedule_verbs.add(
                self.database,
                name,
                timetable.parse(cron, zone.key),
                words=words,
                folder="/",
                policy=CatchUpPolicy(catch_up=catch_up, grace=None, cap=4),
                overlap=Overlap.QUEUE if catch_up is CatchUp.ALL else Overlap.SKIP,
            )

    def rows(self, query: sa.Executable) -> list[AnyRow]:
        return list(self.database.read(lambda connection: connection.execute(query).all()))

    def at_rest(self) -> bool:
        """Whether nothing is due, waits or runs."""
        due = sa.select(ScheduleRow.id).where(ScheduleRow.next_due <= self.clock())
        waits = sa.select(RunRow.id).where(RunRow.state == schedule_runs.WAITING)
        busy = bool(self.rows(due.limit(1)) or self.rows(waits.limit(1)))
        jobs = self.rows(sa.select(JobRow.id).where(JobRow.state == JobState.PENDING))
        for job in jobs:
            job_verbs.cancel(self.database, job.id)
        return not (busy or jobs)

    def settle(self) -> None:
        until(self.at_rest, "the schedulers have settled what is due", pause=0.01)

    def runs(self) -> dict[str, list[AnyRow]]:
        found: dict[str, list[AnyRow]] = {name: [] for name in SCHEDULES}
        query = sa.select(RunRow.__table__, ScheduleRow.name).join(ScheduleRow, ScheduleRow.id == RunRow.schedule_id)
        for row in self.rows(query.order_by(RunRow.due_at)):
            found[row.name].append(row)
        return found


def _simulate(url: str, folder: Path, nights: list[datetime], *, days: int, seed: int) -> None:
    """Three schedulers from each of these moments on, for so many days; one is killed each day, at times all are."""
    chance = random.Random(seed)
    world = World(url, folder, nights[0])
    spans = [(night, night + days * DAY) for night in nights]
    with closing(world.database), schedulers(url, world.clock) as running:
        for begin, end in spans:
            if begin != nights[0]:  # nobody looks at the months between
                for name in SCHEDULES:
                    schedule_verbs.pause(world.database, name)
                world.clock.set(begin)
                for name in SCHEDULES:
                    schedule_verbs.resume(world.database, name)
            moments = sorted({slot for slots in _expected(begin, end).values() for slot in slots})
            killed_on = None
            down_until = begin
            for slot in moments:
                if running.running:
                    world.settle()
                world.clock.set(slot + timedelta(seconds=chance.uniform(0, 30)))
                if slot < down_until:
                    continue
                while len(running.running) < 3:
                    running.start()
                if slot.date() != killed_on and chance.random() < 0.3:
                    killed_on = slot.date()
                    if chance.random() < 0.2:
                        running.kill_all()
                        world.at_rest()  # the workers are there and end what was submitted
                        down_until = slot + timedelta(hours=chance.uniform(1, 30))
                    else:
                        time.sleep(chance.uniform(0, 0.015))
                        running.kill(chance.randrange(3))
            while len(running.running) < 3:
                running.start()
            world.clock.set(end - timedelta(seconds=1))
            world.settle()
        _check(world, spans)


def _check(world: World, spans: list[tuple[datetime, datetime]]) -> None:
    """Every due time is one run, or one of those that a run says were missed; and whatever fired has one job."""
    runs = world.runs()
    jobs = {row.id: row for row in world.rows(sa.select(JobRow.__table__))}
    asked = Counter(run.job_id for some in runs.values() for run in some if run.job_id is not None)
    assert asked == Counter(jobs.keys()), "each job belongs to one run, each run that has one has another"
    for name, some in runs.items():
        expected = [slot for begin, end in spans for slot in _expected(begin, end)[name]]
        left = Counter(expected)
        for run in some:
            if run.reason == schedule_runs.PAUSED:
                continue
            covered = [slot for slot in expected if run.due_at <= slot <= run.last_due_at]
            assert len(covered) == run.number, (name, run)
            assert run.number == 1 or run.state == schedule_runs.MISSED
            left.subtract(covered)
        assert {slot: number for slot, number in left.items() if number} == {}, name
        assert {run.state for run in some} <= {schedule_runs.SUBMITTED, schedule_runs.MISSED}
        fired = sum(run.state == schedule_runs.SUBMITTED for run in some)
        assert fired > len(expected) / 2, f"{name}: {fired} of {len(expected)}"
    for run in runs["night-berlin"]:
        if run.job_id is not None:
            what = spec.from_json("find", jobs[run.job_id].spec)
            assert isinstance(what, spec.FindSpec)
            yesterday = run.due_at.astimezone(BERLIN).date() - DAY
            assert what.keys == (("00080020", f"{yesterday:%Y%m%d}"),), "the day is that of the due time"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'record.db'}"
    return str(request.getfixturevalue("postgres_url"))


def test_both_nights_in_two_zones(url: str, tmp_path: Path) -> None:
    """Nothing is fired twice and nothing is lost where clocks are set, while schedulers die and come back."""
    nights = [
        datetime(2026, 3, 7, 12, tzinfo=UTC),  # New York, forward
        datetime(2026, 3, 28, 12, tzinfo=UTC),  # Berlin, forward
        datetime(2026, 10, 24, 12, tzinfo=UTC),  # Berlin, back
        datetime(2026, 10, 31, 12, tzinfo=UTC),  # New York, back
    ]
    _simulate(url, tmp_path, nights, days=1, seed=7)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_year(url: str, tmp_path: Path) -> None:
    """The same for each day of a year."""
    _simulate(url, tmp_path, [datetime(2026, 1, 1, tzinfo=UTC)], days=365, seed=11)

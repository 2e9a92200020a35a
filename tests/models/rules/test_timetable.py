"""When a schedule is due, and what becomes of due times that nobody was there for."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.timetable import OVER_CAP, SUPERSEDED, TOO_LATE, CatchUp, CatchUpPolicy, parse, plan
from support.schedulers import by_the_hours, once_a_day

START = datetime(2026, 3, 27, 12, tzinfo=UTC)
HOURLY = parse("0 * * * *", "UTC")


def _policy(catch_up: str, grace: float | None = None, cap: int = 3) -> CatchUpPolicy:
    return CatchUpPolicy(catch_up=CatchUp(catch_up), grace=grace, cap=cap)


def _local(cron: str, zone: str, after: datetime, number: int) -> list[str]:
    when = parse(cron, zone)
    return [f"{due.astimezone(when.zone):%d %H:%M %z}" for due in islice(when.after(after), number)]


# --- due times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["29 03:00 +0200", "30 02:30 +0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["25 02:30 +0200", "26 02:30 +0100"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28 12:00", ["29 03:00 +0200", "30 02:00 +0200"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-25 00:30", ["25 02:00 +0100", "25 03:00 +0100"]),
        ("30 1 * * *", "America/New_York", "2026-10-31 12:00", ["01 01:30 -0400", "02 01:30 -0500"]),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["29 00:00 +0000"]),
        ("0 6 * * mon", "UTC", "2026-11-22 00:00", ["23 06:00 +0000", "30 06:00 +0000"]),
    ],
)
def test_the_nights_in_which_clocks_are_set(cron: str, zone: str, after: str, expected: list[str]) -> None:
    """What has a fixed time runs once a day; what runs every hour runs every hour that there is."""
    begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert _local(cron, zone, begin, len(expected)) == expected


def test_within_the_hour_that_there_is_twice() -> None:
    """Counted from its second reading, a due time of the first one is not due again."""
    second_reading = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 in Berlin, for the second time
    assert _local("30 2 * * *", "Europe/Berlin", second_reading, 1) == ["26 02:30 +0100"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_a_year_agrees_with_the_wall_clock(zone: str) -> None:
    """Minute by minute, for a time at night and for the quarters of some hours."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    end = begin + timedelta(days=365)
    found = parse("15 2 * * *", zone).after(begin - timedelta(minutes=1))
    assert [due for due in islice(found, 366) if due < end] == list(once_a_day(ZoneInfo(zone), 2, 15, begin, end))
    quarters = parse("*/15 1-3 * * *", zone).after(begin - timedelta(minutes=1))
    expected = list(
        by_the_hours(ZoneInfo(zone), lambda local: local.hour in (1, 2, 3) and local.minute % 15 == 0, begin, end)
    )
    assert list(islice(quarters, len(expected))) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("30 2 * *", "UTC", "4 fields instead of five"),
        ("0 30 2 * * *", "UTC", "6 fields instead of five"),
        ("30 25 * * *", "UTC", "the hour is not"),
        ("61 2 * * *", "UTC", "the minute is not"),
        ("0 0 30 2 *", "UTC", "day-of-month"),
        ("often", "UTC", "fields instead of five"),
        ("", "UTC", "fields instead of five"),
        ("0 0 * * *", "Europe/Berln", "did you mean Europe/Berlin?"),
        ("0 0 * * *", "Europe", "no time zone"),
        ("0 0 * * *", "../../etc/passwd", "no time zone"),
        ("0 0 * * *", "", "no time zone"),
    ],
)
def test_what_makes_no_sense_is_refused(cron: str, zone: str, words: str) -> None:
    """Said at once, and what of it is wrong."""
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        parse(cron, zone)


# --- what is past -----------------------------------------------------------------------------------------------------


def _hours(*numbers: int) -> list[datetime]:
    return [START + timedelta(hours=number) for number in numbers]


def test_nothing_is_due() -> None:
    """Before the first due time there is nothing to be decided."""
    assert plan(HOURLY, _policy("latest"), counted_from=START, now=START + timedelta(minutes=59)) is None


@pytest.mark.parametrize(
    ("policy", "late", "fire", "missed"),
    [
        (_policy("latest"), 0, [1], []),
        (_policy("latest"), 5 * 3600 + 1800, [6], [(1, 5, 5, SUPERSEDED)]),
        (_policy("latest", 600), 5 * 3600 + 1800, [], [(1, 5, 5, SUPERSEDED), (6, 6, 1, TOO_LATE)]),
        (_policy("latest", 600), 600, [1], []),
        (_policy("all"), 1800 + 3600, [1, 2], []),
        (_policy("all"), 5 * 3600 + 1800, [4, 5, 6], [(1, 3, 3, OVER_CAP)]),
        (_policy("all", 7200), 5 * 3600 + 1800, [5, 6], [(1, 3, 3, OVER_CAP), (4, 4, 1, TOO_LATE)]),
        (_policy("skip"), 30, [1], []),
        (_policy("skip"), 90, [], [(1, 1, 1, TOO_LATE)]),
        (_policy("skip"), 5 * 3600 + 30, [6], [(1, 5, 5, SUPERSEDED)]),
    ],
)
def test_what_is_caught_up_on(
    policy: CatchUpPolicy, late: float, fire: list[int], missed: list[tuple[int, int, int, str]]
) -> None:
    """The latest, all within a cap, or nothing; what does not fire says why."""
    found = plan(HOURLY, policy, counted_from=START, now=START + timedelta(hours=1, seconds=late))
    assert found is not None
    assert list(found.fire) == _hours(*fire)
    told = [(some.first, some.last, some.number, some.reason) for some in found.missed]
    assert told == [(*_hours(first, last), number, reason) for first, last, number, reason in missed]
    assert found.following == found.settled + timedelta(hours=1)


@given(
    waits=st.lists(st.integers(1, 400), min_size=1, max_size=8),
    catch_up=st.sampled_from(CatchUp),
    grace=st.none() | st.floats(0, 40_000),
    cap=st.integers(1, 5),
    limit=st.integers(1, 12),
)
@settings(max_examples=150, deadline=None)
def test_every_due_time_is_decided_once(
    waits: list[int], catch_up: CatchUp, grace: float | None, cap: int, limit: int
) -> None:
    """However long nobody looks, and however little is looked at in one step: fired or missed, one after the other."""
    timetable = parse("*/20 * * * *", "Europe/Berlin")
    policy = CatchUpPolicy(catch_up=catch_up, grace=grace, cap=cap)
    counted_from = now = datetime(2026, 10, 24, 20, tzinfo=UTC)
    decided: list[datetime] = []
    for minutes in waits:
        now += timedelta(minutes=minutes)
        while (found := plan(timetable, policy, counted_from=counted_from, now=now, limit=limit)) is not None:
            for some in found.missed:
                inside = [slot for slot in timetable_until(some.last) if slot >= some.first]
                assert len(inside) == some.number
                decided += inside
            decided += found.fire
            assert found.settled == decided[-1]
            assert found.following == timetable.next(found.settled)
            counted_from = found.settled
    assert decided == timetable_until(now)


def timetable_until(end: datetime) -> list[datetime]:
    """Each third of an hour: Berlin's clocks are set by whole ones."""
    begin = datetime(2026, 10, 24, 20, tzinfo=UTC)
    return [begin + timedelta(minutes=20 * step) for step in range(1, 1 + (end - begin) // timedelta(minutes=20))]

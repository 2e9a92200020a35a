"""When a remote may be used: against a clock on the wall that is read every minute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicomferry.models.rules import window
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.window import Window, hours_text, parse_hours

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
MINUTE = timedelta(minutes=1)
NIGHTS = "mon-fri 22:00-06:00, sat-sun 00:00-24:00"


def made(hours: str, zone: str = BERLIN, **more: object) -> Window:
    return Window(parse_hours(hours), zone, **more)  # type: ignore[arg-type]


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


@cache
def wall(zone: str, begin: datetime, end: datetime) -> Sequence[tuple[datetime, datetime]]:
    """(moment, what the clock on the wall shows then), every minute."""
    minutes = int((end - begin) / MINUTE)
    moments = [begin + number * MINUTE for number in range(minutes)]
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in moments]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
@pytest.mark.parametrize("hours", [NIGHTS, "daily 02:30-04:00"])
def test_a_year_minute_by_minute(hours: str, zone: str) -> None:
    """Open exactly where the clock on the wall shows an hour of the window, each minute of a year with both changes."""
    begin, end = utc(2026, 1, 1), utc(2027, 1, 1)
    spans = list(made(hours, zone).spans(begin, days=370))
    expected = _by_the_wall(hours, wall(zone, begin, end))
    opened = 0
    current = iter(spans)
    span = next(current)
    for (moment, shown), is_open in zip(wall(zone, begin, end), expected, strict=True):
        while moment >= span[1]:
            span = next(current)
        assert (span[0] <= moment) == is_open, f"{shown} {zone}"
        opened += is_open
    assert 0 < opened < len(expected)


def _by_the_wall(hours: str, clock: Sequence[tuple[datetime, datetime]]) -> list[bool]:
    if hours != NIGHTS:
        return list(_open_from_the_first_reading(clock))
    weekend = (5, 6)
    return [
        shown.weekday() in weekend
        or shown.hour >= 22
        # The hours of a night belong to the day on which it begins; Monday's early ones would be Sunday's.
        or (shown.hour < 6 and shown.weekday() not in (0, *weekend))
        for _, shown in clock
    ]


def _open_from_the_first_reading(clock: Sequence[tuple[datetime, datetime]]) -> Iterator[bool]:
    """From the first time that the clock shows 02:30 on a day until 04:00, though it goes back to 02:00 meanwhile."""
    begun: date | None = None
    for _, shown in clock:
        if (shown.hour, shown.minute) >= (2, 30):
            begun = shown.date()
        yield begun == shown.date() and shown.hour < 4


@pytest.mark.parametrize(
    ("hours", "day", "expected"),
    [
        ("22:00-06:00", date(2026, 3, 28), 7.0),
        ("22:00-06:00", date(2026, 10, 24), 9.0),
        ("22:00-06:00", date(2026, 6, 1), 8.0),
        ("02:30-04:00", date(2026, 3, 29), 1.0),
        ("02:30-04:00", date(2026, 10, 25), 2.5),
    ],
)
def test_the_nights_on_which_the_clock_changes(hours: str, day: date, expected: float) -> None:
    """So many hours lie in the window that begins on this day."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    begin = noon if hours.startswith("22") else noon - timedelta(hours=18)
    assert made(hours).open_seconds(begin, begin + timedelta(hours=20)) == expected * 3600


CHANGES = {
    BERLIN: (date(2026, 3, 29), date(2026, 10, 25)),
    NEW_YORK: (date(2026, 3, 8), date(2026, 11, 1)),
    LORD_HOWE: (date(2026, 10, 4), date(2026, 4, 5)),
}


@settings(deadline=None, max_examples=60)
@given(
    zone=st.sampled_from(sorted(CHANGES)),
    which=st.sampled_from([0, 1]),
    begin=st.integers(0, 24 * 60 - 1),
    length=st.integers(1, 24 * 60),
)
@example(zone=BERLIN, which=1, begin=2 * 60 + 15, length=30)
@example(zone=BERLIN, which=0, begin=2 * 60 + 15, length=30)
@example(zone=BERLIN, which=1, begin=22 * 60, length=4 * 60)
@example(zone=NEW_YORK, which=0, begin=19 * 60 + 2, length=24 * 60 - 1)
@example(zone=NEW_YORK, which=0, begin=20 * 60 + 1, length=24 * 60 - 1)
def test_odd_hours_around_a_change(zone: str, which: int, begin: int, length: int) -> None:
    """It opens when the clock first shows the beginning or more, and closes at the last moment that it shows the end,
    or jumps over it: by a scan of the wall.
    """
    end = begin + length
    if begin == end % (24 * 60) and end != begin + 24 * 60:
        return
    hours = f"daily {begin // 60:02}:{begin % 60:02}-{end // 60 % 24:02}:{end % 60:02}"
    if length == 24 * 60:
        hours = "daily 00:00-24:00"
        begin, end = 0, 24 * 60
    day = CHANGES[zone][which]
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=3)
    clock = wall(zone, first, first + timedelta(days=9))
    inside = [False] * len(clock)
    shown = [local for _, local in clock]
    for offset in range(-2, 3):
        midnight = datetime(day.year, day.month, day.day) + timedelta(days=offset)
        opening = _first(shown, midnight + begin * MINUTE)
        closing = _last(shown, midnight + end * MINUTE)
        inside[opening:closing] = [True] * max(closing - opening, 0)
    subject = made(hours, zone)
    # In the middle all that could reach in has been looked at.
    for place in range(24 * 60 * 3, 24 * 60 * 4 + 12 * 60, 7):
        moment = clock[place][0]
        assert subject.is_open(moment) == inside[place], (hours, shown[place], moment)


def _first(shown: Sequence[datetime], wanted: datetime) -> int:
    return next(place for place, local in enumerate(shown) if local >= wanted)


def _last(shown: Sequence[datetime], wanted: datetime) -> int:
    """Where the clock shows it the last time, else where it first shows more."""
    places = [place for place, local in enumerate(shown) if local == wanted]
    return places[-1] if places else _first(shown, wanted)


def test_openings_and_closings_are_where_it_changes() -> None:
    """`opens_at`, `closes_at` and `is_open` agree with each other and with the seconds between them."""
    subject = made(NIGHTS, holidays=frozenset([date(2026, 12, 25)]))
    moment = utc(2026, 12, 20, 12)
    for _ in range(12):
        closing = subject.closes_at(moment)
        if closing is None:
            opening = subject.opens_at(moment)
            assert opening is not None and not subject.is_open(opening - MINUTE) and subject.is_open(opening)
            assert subject.open_seconds(moment, opening) == 0
            moment = opening
        else:
            assert subject.opens_at(moment) is None
            assert subject.is_open(closing - MINUTE) and not subject.is_open(closing)
            assert subject.open_seconds(moment, closing) == (closing - moment).total_seconds()
            moment = closing


def test_a_holiday_is_a_sunday_unless_it_has_hours_of_its_own() -> None:
    """Christmas 2026 is a Friday."""
    christmas, noon = frozenset([date(2026, 12, 25)]), utc(2026, 12, 25, 11)
    assert not made(NIGHTS).is_open(noon)
    assert made(NIGHTS, holidays=christmas).is_open(noon)
    assert not made(f"{NIGHTS}, holiday closed", holidays=christmas).is_open(noon)
    assert made(f"{NIGHTS}, holiday 10:00-13:00", holidays=christmas).is_open(noon)
    assert not made("mon-fri 08:00-18:00", holidays=christmas).is_open(noon)


def test_a_blackout_wins() -> None:
    """Within it nothing is open, whatever the hours say; around it all is as it was. Also without any hours."""
    blackout = window.parse_blackout("2026-12-01T10:00/2026-12-01T14:00", BERLIN)
    assert blackout == (utc(2026, 12, 1, 9), utc(2026, 12, 1, 13))
    for hours in (parse_hours("daily 00:00-24:00"), None):
        subject = Window(hours, BERLIN, blackouts=(blackout,))
        assert subject.is_open(utc(2026, 12, 1, 8, 59)) and subject.is_open(utc(2026, 12, 1, 13))
        assert not subject.is_open(utc(2026, 12, 1, 9)) and not subject.is_open(utc(2026, 12, 1, 12, 59))
        assert subject.opens_at(utc(2026, 12, 1, 10)) == utc(2026, 12, 1, 13)
        assert subject.closes_at(utc(2026, 12, 1, 8)) == utc(2026, 12, 1, 9)
        assert subject.open_seconds(utc(2026, 12, 1, 8), utc(2026, 12, 1, 14)) == 2 * 3600
        assert subject.closes_at(utc(2026, 12, 2)) is None
    assert window.parse_blackout("2026-12-01", BERLIN) == (utc(2026, 11, 30, 23), utc(2026, 12, 1, 23))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (NIGHTS, "mon-fri 22:00-06:00, sat-sun 00:00-24:00"),
        ("22:00-06:00", "mon-sun 22:00-06:00"),
        ("daily 9:00-10:30", "mon-sun 09:00-10:30"),
        ("Mon, Wed 20:00-24:00", "mon 20:00-24:00, wed 20:00-24:00"),
        ("weekdays 12:00-13:00, 22:00-06:00", "mon-fri 12:00-13:00, mon-fri 22:00-06:00"),
        ("fri-mon 20:00-00:00", "mon 20:00-24:00, fri-sun 20:00-24:00"),
        ("monday - friday 22:00 \u2013 06:00; saturday open", "mon-fri 22:00-06:00, sat 00:00-24:00"),
        ("daily 20:00-06:00, holiday closed", "mon-sun 20:00-06:00, holiday closed"),
    ],
)
def test_what_an_administrator_writes(text: str, meant: str) -> None:
    """It is shown in one way of writing, which means the same."""
    hours = parse_hours(text)
    assert hours_text(hours) == meant
    assert hours_text(parse_hours(meant)) == meant


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("mon-fri", "no hours"),
        ("mon-fri 22-06", "'22' is no time of day"),
        ("mon-fri 25:00-06:00", "'25:00' is no time of day"),
        ("mon-frx 22:00-06:00", "'mon-frx' is no day"),
        ("mon 22:00-22:00", "00:00-24:00"),
        ("mon 24:00-06:00", "24:00 is an end"),
        ("mon 22:00", "not understood"),
        ("mon 22:00-06:00,", "not understood"),
        ("daily closed", "never opens"),
    ],
)
def test_what_makes_no_sense_is_named(text: str, word: str) -> None:
    """The part that is wrong, and what to write instead."""
    with pytest.raises(UsageError, match=word):
        parse_hours(text)


def test_what_a_row_keeps() -> None:
    """Each part can be changed alone, an empty text takes it away, and what is kept is the window again."""
    document = window.changed(None, hours="22:00-06:00", local_tz=BERLIN, holidays=["2026-12-25"])
    assert document == {"hours": "mon-sun 22:00-06:00", "tz": BERLIN, "holidays": ["2026-12-25"], "blackouts": []}
    document = window.changed(document, blackouts=["2026-12-01T10:00/2026-12-01T14:00"], local_tz=NEW_YORK)
    assert document is not None and document["tz"] == BERLIN
    assert document["blackouts"] == [["2026-12-01T09:00:00Z", "2026-12-01T13:00:00Z"]]
    found = window.from_document(document)
    assert found is not None and found.holidays == {date(2026, 12, 25)} and not found.is_open(utc(2026, 12, 1, 10))
    document = window.changed(document, hours="")
    assert document is not None and document["hours"] is None
    assert window.changed(document, blackouts=[""]) is None
    assert window.from_document(None) is None


@pytest.mark.parametrize(
    "given",
    [
        {"hours": "22:00-06:00"},
        {"hours": "22:00-06:00", "tz": "Europe/Atlantis"},
        {"hours": "22:00-06:00", "tz": BERLIN, "holidays": ["25.12.2026"]},
        {"tz": BERLIN, "blackouts": ["2026-12-01T10:00"]},
        {"tz": BERLIN, "blackouts": ["2026-12-01T10:00/2026-12-01T09:00"]},
    ],
)
def test_what_cannot_be_kept_is_refused(given: dict[str, str]) -> None:
    """No zone, or one that nobody knows; dates and times that are none."""
    with pytest.raises(UsageError):
        window.changed(None, **given)

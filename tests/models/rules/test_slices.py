"""Halving by date and time loses nothing that has a date, and comes to an end."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules import slices
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.slices import Halving, Slice

TODAY = date(2026, 11, 22)
DATE, TIME = "00080020", "00080030"


def matches(keys: tuple[Key, ...], day: str, clock: str) -> bool:
    """As an archive matches ranges, both ends included."""
    for path, held in ((DATE, day), (TIME, clock)):
        value = dict(keys).get(path, "")
        first, between, last = value.partition("-")
        if value and not (first <= held and (not last or held <= last) if between else held == value):
            return False
    return True


days = st.dates(date(1899, 12, 1), date(2026, 12, 20))
clocks = st.times().map(lambda time: time.strftime("%H%M%S"))


@given(days, clocks, st.data())
def test_halves_are_the_whole(day: date, clock: str, data: st.DataObject) -> None:
    """A study that a slice finds, one of its halves finds, down to the minute."""
    part, held = slices.whole((), TODAY), (f"{day:%Y%m%d}", clock)
    for _ in range(60):
        halves = part.halves()
        if halves is None:
            assert part.is_day and part.end - part.begin == 1
            return
        inside = [half for half in halves if matches(half.keys, *held)]
        assert inside, (part, halves)
        part = data.draw(st.sampled_from(inside))
        assert part.outside(*held) is None and part.unplaced(*held) is None


def test_the_number_of_halvings_is_bounded() -> None:
    """From a century to one minute in fewer than thirty steps."""
    part, steps = slices.whole(((DATE, "19300101-20291231"),), TODAY), 0
    while halves := part.halves():
        part, steps = halves[1], steps + 1
    assert steps < 30


def test_bounds_overlap_in_time_and_not_in_days() -> None:
    """Whether a range's last second belongs to it, archives do not agree on; about days they do."""
    halves = Slice(date(2026, 1, 1), date(2026, 1, 4)).halves()
    assert halves
    first, second = halves
    assert (first.last, second.first) == (date(2026, 1, 2), date(2026, 1, 3))
    halves = Slice(TODAY, TODAY).halves()
    assert halves
    early, late = halves
    assert dict(early.keys)[TIME] == "-120000"
    assert dict(late.keys)[TIME] == "120000-"


@pytest.mark.parametrize(
    ("value", "first", "last", "open_start", "open_end"),
    [
        ("", slices.EARLIEST, TODAY + timedelta(days=1), True, True),
        ("20260101", date(2026, 1, 1), date(2026, 1, 1), False, False),
        ("20260101-20260131", date(2026, 1, 1), date(2026, 1, 31), False, False),
        ("20260101-", date(2026, 1, 1), TODAY + timedelta(days=1), False, True),
        ("-20260131", slices.EARLIEST, date(2026, 1, 31), True, False),
    ],
)
def test_what_is_asked_for(value: str, first: date, last: date, open_start: bool, open_end: bool) -> None:
    """The first query is the one that was asked for."""
    part = slices.whole(((DATE, value),), TODAY)
    assert part == Slice(first, last, open_start=open_start, open_end=open_end)
    assert dict(part.keys)[DATE] == value


@pytest.mark.parametrize("keys", [((DATE, "2026*"),), ((DATE, "20260101\\20260102"),), ((DATE, "20261301"),)])
def test_dates_that_are_no_range(keys: tuple[Key, ...]) -> None:
    """What cannot be halved is refused."""
    with pytest.raises(UsageError):
        slices.whole(keys, TODAY)


def test_a_time_of_ones_own() -> None:
    """Halving needs StudyTime."""
    with pytest.raises(UsageError, match="StudyTime"):
        slices.whole(((TIME, "1200-"),), TODAY)


def test_an_answer_outside_of_its_slice_is_seen() -> None:
    """So an archive that does not match on StudyDate is found out."""
    part = Slice(date(2026, 1, 1), date(2026, 1, 31))
    assert part.outside("20260101", None) is None and part.outside("2026.01.31", "1200") is None
    assert part.outside("20251231", None) == "StudyDate" == part.outside("20260201", None)
    assert part.outside(None, None) is None and part.unplaced(None, None) == "StudyDate" == part.unplaced("x", "12")
    assert slices.whole((), TODAY).unplaced(None, None) is None
    assert Slice(date(1900, 1, 1), date(1950, 1, 1), open_start=True).outside("18800101", None) is None
    half = Slice(TODAY, TODAY, begin=720, end=721)
    assert half.outside("20261122", "120030") is None and half.outside("20261122", "115959") == "StudyTime"
    assert half.outside("20261122", "1300") == "StudyTime" and half.outside("20261121", "1200") == "StudyDate"
    assert half.unplaced("20261122", None) == "StudyTime" and half.unplaced("20261122", "12") is None


def test_what_no_range_covers() -> None:
    """Studies without a time on a day that was halved, and without a date where no bound was asked for."""
    halving = Halving()
    assert halving.gaps is None
    halving.of(Slice(date(2026, 1, 1), date(2026, 1, 31)))
    assert halving.halved and halving.gaps is None
    halving.of(Slice(TODAY, TODAY))
    halving.of(Slice(TODAY, TODAY, begin=0, end=720))
    assert halving.gaps == "not covered: studies without a StudyTime on 2026-11-22"
    halving.of(slices.whole((), TODAY))
    assert str(halving.gaps).startswith("not covered: studies without a StudyDate and studies without a StudyTime on ")


def test_when_halving_is_in_vain() -> None:
    """At the first answer of another day or time, and where no answer shows that the remote keeps to the slice."""
    day = Slice(TODAY, TODAY, begin=0, end=720)
    halving = Halving()
    look = halving.look(day)
    look.at("20261122", None, False)
    look.at("20261122", "0830", False)
    assert look.may_be_halved()
    look.at("20261122", "1830", True)
    assert look.may_be_halved(), "it is in a zone of its own"
    look.at("20261122", "1830", False)
    assert not look.may_be_halved() and "does not match on StudyTime" in str(halving.ignored)
    mute = Halving()
    look = mute.look(day)
    look.at("20261122", None, False)
    assert not look.may_be_halved() and "without a StudyTime alone" in str(mute.ignored)


def test_a_slice_in_words() -> None:
    """As the reason of a job names it."""
    assert str(Slice(TODAY, TODAY)) == "2026-11-22"
    assert str(Slice(TODAY, TODAY, begin=0, end=1)) == "2026-11-22 00:00 to 00:01"
    assert str(Slice(date(2026, 1, 1), TODAY)) == "2026-01-01 to 2026-11-22"

"""Halving a query by study date, then by study time, until a remote lists each part whole."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from dicomferry.models.rules import moments
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import STUDY_DATE, STUDY_TIME, Key, value_of

DAY_MINUTES = 24 * 60
EARLIEST = date(1900, 1, 1)
_TOLD = 5
_RANGE = re.compile(r"(\d{8})?(-)?(\d{8})?")


@dataclass(frozen=True)
class Slice:
    """Studies of the days `first` to `last`, or of one day from minute `begin` to minute `end`.

    With `open_start` or `open_end` the range has no bound on that side: the day there is only where halving begins.
    """

    first: date
    last: date
    open_start: bool = False
    open_end: bool = False
    begin: int = 0
    end: int = DAY_MINUTES

    def halves(self) -> tuple[Slice, Slice] | None:
        """Two slices that are this one together; None for one minute. Halves of a day share the minute between them:
        whether a time is part of a range that ends with it, archives do not agree on.
        """
        day = timedelta(days=1)
        if self.first < self.last:
            middle = self.first + (self.last - self.first) // 2
            return (
                Slice(self.first, middle, open_start=self.open_start),
                Slice(middle + day, self.last, open_end=self.open_end),
            )
        if self.open_start:
            before = self.first - day
            return Slice(before, before, open_start=True), replace(self, open_start=False)
        if self.open_end:
            after = self.last + day
            return replace(self, open_end=False), Slice(after, after, open_end=True)
        if self.end - self.begin <= 1:
            return None
        minute = (self.begin + self.end) // 2
        return replace(self, end=minute), replace(self, begin=minute)

    @property
    def is_day(self) -> bool:
        """Whether it is one day, or a part of one."""
        return self.first == self.last and not (self.open_start or self.open_end)

    @property
    def keys(self) -> tuple[Key, ...]:
        """StudyDate, and StudyTime where it is less than a day."""
        if self.is_day:
            days = f"{self.first:%Y%m%d}"
        else:
            start = "" if self.open_start else f"{self.first:%Y%m%d}"
            days = f"{start}-" + ("" if self.open_end else f"{self.last:%Y%m%d}")
        found = [(f"{STUDY_DATE:08X}", "" if days == "-" else days)]
        if self.is_part_of_day:
            begin = _clock(self.begin) if self.begin else ""
            end = _clock(self.end) if self.end < DAY_MINUTES else ""
            found.append((f"{STUDY_TIME:08X}", f"{begin}-{end}"))
        return tuple(found)

    @property
    def is_part_of_day(self) -> bool:
        """Whether it is bounded by times."""
        return (self.begin, self.end) != (0, DAY_MINUTES)

    def outside(self, study_date: str | None, study_time: str | None) -> str | None:
        """The key by which a study of this date and time is no answer to it; None where it is one, or may be one."""
        day = moments.day_of(study_date or "")
        if day and not (self.open_start or self.first <= day):
            return "StudyDate"
        if day and not (self.open_end or day <= self.last):
            return "StudyDate"
        minute = moments.minute_of(study_time or "")
        # Some archives leave the seconds out of account.
        if minute is not None and self.is_part_of_day and not self.begin <= minute < self.end + 1:
            return "StudyTime"
        return None

    def unplaced(self, study_date: str | None, study_time: str | None) -> str | None:
        """The key without a value of which nobody can tell whether a study of this date and time is an answer to it."""
        if not (self.open_start and self.open_end) and moments.day_of(study_date or "") is None:
            return "StudyDate"
        return "StudyTime" if self.is_part_of_day and moments.minute_of(study_time or "") is None else None

    def __str__(self) -> str:
        text = f"{self.first:%Y-%m-%d}" + ("" if self.is_day else f" to {self.last:%Y-%m-%d}")
        times = (f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begin, self.end))
        return text if (self.begin, self.end) == (0, DAY_MINUTES) else f"{text} {' to '.join(times)}"


class Halving:
    """What came of asking slice by slice. `ignored` says why halving is in vain, once it is."""

    def __init__(self) -> None:
        self.halved = False
        self.ignored: str | None = None
        self._days: dict[date, None] = {}
        self._undated = False

    def of(self, part: Slice) -> tuple[Slice, Slice] | None:
        """The halves of a slice that the remote does not list whole; None for one minute."""
        self.halved = True
        halves = part.halves()
        if halves is not None and halves[0].is_part_of_day:
            self._days[part.first] = None
        # Who names no bounds asks for studies without a date as well.
        self._undated = self._undated or (halves is not None and part.open_start and part.open_end)
        return halves

    def look(self, part: Slice) -> Look:
        """What takes the answers to one slice, one by one."""
        return Look(self, part)

    @property
    def gaps(self) -> str | None:
        """What no range covers of that which was asked for; None where nothing can be missing."""
        days = [f"{day:%Y-%m-%d}" for day in sorted(self._days)]
        more = f" and {len(days) - _TOLD:,} more days" if len(days) > _TOLD else ""
        found = [f"studies without a StudyTime on {', '.join(days[:_TOLD])}{more}"] if days else []
        found = ["studies without a StudyDate"] * self._undated + found
        return f"not covered: {' and '.join(found)}" if found else None


@dataclass
class Look:
    """The answers to one slice, one after the other."""

    halving: Halving
    part: Slice
    placed: int = 0
    unplaced: str | None = None

    def at(self, study_date: str | None, study_time: str | None, zoned: bool) -> None:
        """One answer; one of another day or time ends halving. `zoned`: date and time are those of another zone."""
        wrong = self.part.outside(study_date, study_time)
        if wrong and not zoned and self.halving.ignored is None:
            what = "days" if wrong == "StudyDate" else "times"
            self.halving.ignored = (
                f"asked for {self.part}, it listed studies of other {what}: it does not match on {wrong}"
            )
        missing = self.part.unplaced(study_date, study_time)
        if missing:
            self.unplaced = missing
        elif not wrong:
            self.placed += 1

    def may_be_halved(self) -> bool:
        """Whether any answer shows that the remote keeps to the slice; without one, halving might go on in vain."""
        if self.unplaced and not self.placed and self.halving.ignored is None:
            self.halving.ignored = (
                f"asked for {self.part}, it listed studies without a {self.unplaced} alone: nothing shows that it "
                "matches on it"
            )
        return self.halving.ignored is None


def _clock(minute: int) -> str:
    return f"{minute // 60:02}{minute % 60:02}00"


def whole(keys: tuple[Key, ...], today: date) -> Slice:
    """What these keys ask for, as one slice; raises UsageError for dates that are no range, and for a time."""
    if value_of(keys, STUDY_TIME):
        raise UsageError("--split halves by StudyTime itself: leave that key empty")
    value = value_of(keys, STUDY_DATE) or ""
    found = _RANGE.fullmatch(value)
    if not found or (found[3] and not found[2]):
        raise UsageError(f"--split needs one day or a range of days, and StudyDate={value} is neither")
    try:
        first, last = (datetime.strptime(day, "%Y%m%d").date() if day else None for day in (found[1], found[3]))
    except ValueError:
        raise UsageError(f"StudyDate={value}: no such day") from None
    if first and not found[2]:
        last = first
    begin = first or min(EARLIEST, last or EARLIEST)
    # A day ahead of us: elsewhere it may be tomorrow already.
    end = last or max(today + timedelta(days=1), begin)
    return Slice(begin, end, open_start=first is None, open_end=last is None)


def replaced(keys: tuple[Key, ...], part: Slice) -> tuple[Key, ...]:
    """The keys with the dates and times of a slice; StudyDate is among them in any case."""
    return tuple((dict(keys) | dict(part.keys)).items())

"""Halving a query by study date, then by study time, until a remote lists each part whole."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from dicomferry.models.errors import UsageError
from dicomferry.models.query import STUDY_DATE, STUDY_TIME, Key, value_of

DAY_MINUTES = 24 * 60
EARLIEST = date(1900, 1, 1)
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
        if (self.begin, self.end) != (0, DAY_MINUTES):
            begin = _clock(self.begin) if self.begin else ""
            end = _clock(self.end) if self.end < DAY_MINUTES else ""
            found.append((f"{STUDY_TIME:08X}", f"{begin}-{end}"))
        return tuple(found)

    def holds(self, study_date: str | None) -> bool:
        """Whether a study of this date can be an answer to it; without bounds everything can."""
        if self.open_start and self.open_end:
            return True
        day = (study_date or "").replace(".", "").replace("-", "")
        if not re.fullmatch(r"\d{8}", day):
            return False
        after = self.open_start or day >= f"{self.first:%Y%m%d}"
        return after and (self.open_end or day <= f"{self.last:%Y%m%d}")

    def __str__(self) -> str:
        text = f"{self.first:%Y-%m-%d}" + ("" if self.is_day else f" to {self.last:%Y-%m-%d}")
        times = (f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begin, self.end))
        return text if (self.begin, self.end) == (0, DAY_MINUTES) else f"{text} {' to '.join(times)}"


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

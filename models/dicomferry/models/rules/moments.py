"""Dates, times and date-times as keys and answers write them (VR DA, TM and DT, PS3.5 6.2), as spans of time. Pure.

A value covers all that it leaves open: `0830` is a minute, `202402` of a DT a month. Numbers are microseconds; those of
a TM since midnight, those of the others since 1 January of the year 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from dicomferry.models.rules.errors import UsageError

_SECOND = 1_000_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_EARLIEST, _LATEST = -(10**24), 10**24
_WIDEST = 26 * _HOUR
"""How far two clocks may be apart of which one names no zone: zones reach from -12 to +14 hours (PS3.5 6.2)."""
_DATES = re.compile(r'|\*|""|\d{8}|\d{8}-|-\d{8}|\d{8}-\d{8}|[\d?]*[*?][\d*?]*|\d{4}\.\d\d\.\d\d', re.ASCII)
"""A date, a range of them (PS3.4 C.2.2.2.5), universal or empty matching, wildcards, a date as ACR-NEMA wrote it."""
_WRITTEN: Mapping[str, tuple[str, str]] = {
    "DA": ("date", "20260131, or 20260101-20260131 for a range"),
    "TM": ("time", "0830 or 083015, or 0800-1730 for a range"),
    "DT": ("date and time", "20260131, 20260131083000 or 20260131083000+0100, with a hyphen between for a range"),
}
_DA = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})[.-](\d\d)[.-](\d\d)", re.ASCII)
_TM = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_DT = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?P<time>(?:\d\d(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?)?))?)?"
    r"(?P<zone>[+-]\d{4})?",
    re.ASCII,
)


@dataclass(frozen=True)
class Span:
    """From `first` up to and including `last`; `zoned` tells that both are UTC, not a clock of unknown zone."""

    first: int
    last: int
    zoned: bool = False
    is_range: bool = False

    @property
    def is_one_day(self) -> bool:
        """Whether it is a day or less."""
        return self.last - self.first < _DAY

    def holds(self, other: Span) -> Literal["within", "apart", "unsure"]:
        """Where another span, a value, lies to this one, which was asked for."""
        slack = 0 if self.zoned is other.zoned else _WIDEST
        if self.is_range and self.first + slack <= other.first <= self.last - slack:
            return "within"
        if self.first + slack <= other.first and other.last <= self.last - slack:
            return "within"
        if other.last < self.first - slack or other.first > self.last + slack:
            return "apart"
        # Equal up to what the value says: 20240229 where 20240229101500 was asked for.
        return "unsure"


def told(vr: str, text: str) -> Span | None:
    """What a value says; None where it is none."""
    text = text.strip(" \0")
    return {"DA": _date, "TM": _time}.get(vr, _date_time)(text)


def asked(vr: str, text: str) -> Span | None:
    """What a key asks for, a value or a range (PS3.4 C.2.2.2.5); None where it is neither.

    A range that ends before it begins is an empty span: `last` is before `first`.
    """
    text = text.strip(" \0")
    one = told(vr, text)
    if one is not None:
        return one
    for begin, end in _halves(text):
        first, last = (told(vr, part) if part else None for part in (begin, end))
        if (begin and first is None) or (end and last is None):
            continue
        zoned = {part.zoned for part in (first, last) if part}
        if len(zoned) == 1:
            return Span(
                first.first if first else _EARLIEST, last.last if last else _LATEST, zoned=zoned.pop(), is_range=True
            )
    return None


def is_backward(span: Span) -> bool:
    """Whether a range ends before it begins."""
    return span.last < span.first


def _halves(text: str) -> Iterator[tuple[str, str]]:
    """Both sides of each hyphen: one may be the sign of a zone (PS3.4 C.2.2.2.5), and only one is a range's."""
    for number, char in enumerate(text):
        if char == "-":
            yield text[:number].strip(" \0"), text[number + 1 :].strip(" \0")


def _date(text: str) -> Span | None:
    found = _DA.fullmatch(text)
    if not found:
        return None
    start = _days(*(int(part) for part in found.groups() if part))
    return None if start is None else Span(start, start + _DAY - 1)


def _time(text: str) -> Span | None:
    found = _TM.fullmatch(text)
    return None if not found else _clock(found)


def _clock(found: re.Match[str]) -> Span | None:
    hour, minute, second, fraction = found.groups()
    # 60 is a leap second (PS3.5 6.2).
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return None
    start = int(hour) * _HOUR + int(minute or 0) * _MINUTE + int(second or 0) * _SECOND
    start += int((fraction or "").ljust(6, "0"))
    unit = _HOUR if minute is None else _MINUTE if second is None else _SECOND
    return Span(start, start + (unit if fraction is None else 10 ** (6 - len(fraction))) - 1)


def _date_time(text: str) -> Span | None:
    found = _DT.fullmatch(text)
    if not found:
        return None
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    start = _days(year, month, day)
    if start is None:
        return None
    if found["time"]:
        clock = _time(found["time"])
        if clock is None:
            return None
        first, last = start + clock.first, start + clock.last
    else:
        after = _after(year, month, day, found)
        if after is None:
            return None
        first, last = start, after - 1
    if not found["zone"]:
        return Span(first, last)
    sign, hours, minutes = found["zone"][0], int(found["zone"][1:3]), int(found["zone"][3:])
    offset = (hours * _HOUR + minutes * _MINUTE) * (-1 if sign == "-" else 1)
    if minutes > 59 or not -12 * _HOUR <= offset <= 14 * _HOUR:
        return None
    return Span(first - offset, last - offset, zoned=True)


def _after(year: int, month: int, day: int, found: re.Match[str]) -> int | None:
    """The first moment after a day, month or year, whichever is the last that is named."""
    if found["day"]:
        start = _days(year, month, day)
        return None if start is None else start + _DAY
    if found["month"]:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        return _days(year, month, 1) if year <= 9999 else _LATEST
    return _days(year + 1, 1, 1) if year < 9999 else _LATEST


def _days(year: int, month: int, day: int) -> int | None:
    try:
        return (date(year, month, day) - date.min) // timedelta(days=1) * _DAY
    except ValueError:
        return None


def day_of(text: str) -> date | None:
    """The day of a DA, in either way of writing it; None where there is none."""
    span = _date(text.strip(" \0"))
    return None if span is None else date.min + timedelta(days=span.first // _DAY)


def minute_of(text: str) -> float | None:
    """The minutes since midnight of a TM; None where there is none."""
    span = _time(text.strip(" \0"))
    return None if span is None else span.first / _MINUTE


def check(name: str, vr: str, value: str) -> None:
    """Raise UsageError for a DA, TM or DT that is none, and for a range that ends before it begins."""
    what, example = _WRITTEN[vr]
    for one in value.strip().split("\\"):
        if not one.strip('*" ') or ("*" in one or "?" in one):
            if vr == "DA" and not _DATES.fullmatch(one):
                raise UsageError(f"key {name}: {value!r} is no {what} as DICOM writes it: {example}")
            continue
        span = asked(vr, one) if vr != "DA" or _DATES.fullmatch(one) else None
        if span is None:
            wrong = "is no such day" if vr == "DA" and _DATES.fullmatch(one) else f"is no {what} as DICOM writes it"
            raise UsageError(f"key {name}: {value!r} {wrong}: {example}")
        if is_backward(span):
            raise UsageError(f"key {name}: the range {one!r} ends before it begins: put it right, then submit again")

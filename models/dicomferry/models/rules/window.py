"""When a remote may be used: hours of the week in a time zone, holidays and blackouts.

Pure arithmetic. Hours are wall-clock time and become moments at each use, so that they follow daylight saving:
opening takes the first reading of a time that the clock shows twice, closing the second; a time that the clock leaves
out is the moment at which it jumps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dicomferry.models.rules.errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOLIDAY = "holiday"
_GROUPS = {"daily": DAYS, "weekdays": DAYS[:5], "weekends": DAYS[5:], "holidays": (HOLIDAY,)}
_LONG = dict(zip(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), DAYS, strict=True))
_PART = re.compile(r"(?P<days>[a-z][a-z\s-]*?)?\s*(?P<hours>\d[\d:]*\s*-\s*\d[\d:]*|closed|open)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_EXAMPLE = 'write, for example, "mon-fri 22:00-06:00, sat-sun 00:00-24:00"'
_WHOLE_DAY = 24 * 60
_ONE_DAY = timedelta(days=1)
_HORIZON = 800
"""Days to look ahead for an opening or a closing: a holiday comes once a year, and some leap one."""

Hours = tuple[int, int]
"""Minutes from midnight, the second more than the first and perhaps on the next day."""
Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Window:
    """The hours of each day by its name; None where there is no restriction. Hours belong to the day they begin on.

    A holiday has the hours of `holiday`, or else those of a Sunday. `blackouts` are moments from and until, and win.
    """

    hours: tuple[tuple[str, tuple[Hours, ...]], ...] | None
    zone: str
    holidays: frozenset[date] = frozenset()
    blackouts: tuple[Span, ...] = ()

    def is_open(self, at: datetime) -> bool:
        """Whether the remote may be used at this moment."""
        if any(dark <= at < light for dark, light in self.blackouts):
            return False
        return any(begin <= at < end for begin, end in self._raw(at, days=3))

    def opens_at(self, at: datetime) -> datetime | None:
        """The next opening; None where it is open, or does not open for two years."""
        if self.is_open(at):
            return None
        return next((begin for begin, _ in self.spans(at) if begin > at), None)

    def closes_at(self, at: datetime) -> datetime | None:
        """The next closing; None where it is closed, or does not close for two years."""
        begin, end = next(self.spans(at), (at, at))
        return end if begin <= at < end <= at + (_HORIZON - 4) * _ONE_DAY else None

    def open_seconds(self, begin: datetime, end: datetime) -> float:
        """How much of this time lies inside of the window."""
        total = 0.0
        for opening, closing in self.spans(begin, days=(end - begin).days + 4):
            if opening >= end:
                break
            total += max((min(closing, end) - max(opening, begin)).total_seconds(), 0.0)
        return total

    def spans(self, at: datetime, *, days: int = _HORIZON) -> Iterator[Span]:
        """(from, until) in UTC, in order and apart from each other, of so many days; the first one ends after `at`."""
        for begin, end in self._without_blackouts(_joined(self._raw(at, days))):
            if end > at:
                yield begin, end

    def _raw(self, at: datetime, days: int) -> Iterator[Span]:
        if self.hours is None:
            yield datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
            return
        zone = ZoneInfo(self.zone)
        hours = dict(self.hours)
        # The hours of a day may reach into the next.
        first = at.astimezone(zone).date() - _ONE_DAY
        for number in range(days):
            day = first + number * _ONE_DAY
            for begin, end in self._hours_of(day, hours):
                opening = _moment(day, begin, zone, closing=False)
                closing = _moment(day, end, zone, closing=True)
                if opening < closing:
                    yield opening, closing

    def _hours_of(self, day: date, hours: Mapping[str, tuple[Hours, ...]]) -> tuple[Hours, ...]:
        name = DAYS[day.weekday()]
        if day in self.holidays:
            name = HOLIDAY if HOLIDAY in hours else "sun"
        return hours.get(name, ())

    def _without_blackouts(self, spans: Iterator[Span]) -> Iterator[Span]:
        for begin, end in spans:
            for dark, light in sorted(self.blackouts):
                if dark < end and light > begin:
                    if dark > begin:
                        yield begin, dark
                    begin = light
                    if begin >= end:
                        break
            if begin < end:
                yield begin, end

    def __str__(self) -> str:
        return f"{hours_text(self.hours) or 'always'} ({self.zone})"


def _joined(spans: Iterator[Span]) -> Iterator[Span]:
    """Spans that begin in order, those that touch or overlap made one; each is given once the next is known."""
    held: Span | None = None
    for begin, end in spans:
        if held is not None and begin <= held[1]:
            held = held[0], max(held[1], end)
        else:
            if held is not None:
                yield held
            held = begin, end
    if held is not None:
        yield held


def _moment(day: date, minutes: int, zone: ZoneInfo, *, closing: bool) -> datetime:
    """The moment at which clocks of the zone show this, by the rule at the top of this module."""
    local = datetime.combine(day, time()) + timedelta(minutes=minutes)
    before, after = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert before is not None and after is not None
    if before >= after:  # at most ambiguous: the second reading has the smaller offset
        return (local - (after if closing else before)).replace(tzinfo=UTC)
    return _jump((local - after).replace(tzinfo=UTC), (local - before).replace(tzinfo=UTC), zone)


def _jump(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The moment between these two from which on the clock has its new offset."""
    old = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == old:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)


# --- what an administrator writes


def parse_hours(text: str) -> tuple[tuple[str, tuple[Hours, ...]], ...]:
    """The hours of `mon-fri 22:00-06:00, sat-sun 00:00-24:00`; raises UsageError that says what is wrong where.

    Days are named or spanned (`fri-mon`), or `daily`, `weekdays`, `weekends`, `holiday`; several stand before one
    comma each (`mon, wed 20:00-24:00`). Hours without a day are for the days before them, at the start for every day.
    An end that is not after its start is on the next day. `sun closed` and `sat open` are whole days.
    """
    found: dict[str, list[Hours]] = {}
    days: list[str] = []
    named = False
    parts = [part.strip() for part in re.split(r"[,;]", text.lower().replace("\u2013", "-"))]
    if parts == [""]:
        raise UsageError(f"the window is empty: {_EXAMPLE}")
    for part in parts:
        match = _PART.fullmatch(part)
        if not part or match is None:
            raise UsageError(f"window {part!r} is not understood: {_EXAMPLE}")
        words, hours = (match["days"] or "").strip(), match["hours"]
        if words:
            days = [*(days if not named else []), *_days(words, part)]
            named = False
        if hours is None:
            continue
        named = True
        for day in days or DAYS:
            interval = _interval(hours, part)
            found.setdefault(day, []).extend([interval] if interval else [])
    if not named:
        raise UsageError(f"window {parts[-1]!r} has no hours: {_EXAMPLE}")
    if not any(found.values()):
        raise UsageError("that window never opens; to stop work with a remote, hold its jobs")
    return tuple((day, tuple(sorted(set(found[day])))) for day in (*DAYS, HOLIDAY) if day in found)


def _days(words: str, part: str) -> list[str]:
    names: list[str] = []
    for word in re.sub(r"\s*-\s*", "-", words).split():
        ends = [_LONG.get(end, end) for end in word.split("-")]
        if word in _GROUPS:
            names += _GROUPS[word]
        elif ends == [HOLIDAY]:
            names.append(HOLIDAY)
        elif len(ends) <= 2 and all(end in DAYS for end in ends):
            first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
            names += [DAYS[number % 7] for number in range(first, (last if last >= first else last + 7) + 1)]
        else:
            known = ", ".join((*DAYS, HOLIDAY, "daily", "weekdays", "weekends"))
            raise UsageError(f"window {part!r}: {word!r} is no day; days are {known}")
    return names


def _interval(hours: str, part: str) -> Hours | None:
    if hours == "closed":
        return None
    if hours == "open":
        return 0, _WHOLE_DAY
    begin, end = (_minutes(clock.strip(), part) for clock in hours.split("-"))
    if begin == end:
        raise UsageError(f"window {part!r} is empty: a whole day is 00:00-24:00")
    if begin == _WHOLE_DAY:
        raise UsageError(f"window {part!r}: 24:00 is an end; to begin with the day, write 00:00")
    return begin, end if end > begin else end + _WHOLE_DAY


def _minutes(clock: str, part: str) -> int:
    match = _CLOCK.fullmatch(clock)
    if match:
        hour, minute = int(match[1]), int(match[2])
        if minute < 60 and (hour < 24 or (hour, minute) == (24, 0)):
            return hour * 60 + minute
    raise UsageError(f"window {part!r}: {clock!r} is no time of day; write HH:MM, 00:00 to 24:00")


def hours_text(hours: Sequence[tuple[str, Sequence[Hours]]] | None) -> str | None:
    """Hours of the week as text that `parse_hours` reads again; days that are alike stand together."""
    if hours is None:
        return None
    parts: list[str] = []
    listed = dict(hours)
    names = [day for day in (*DAYS, HOLIDAY) if day in listed]
    while names:
        first = last = names.pop(0)
        while (
            names and last in DAYS[:6] and names[0] == DAYS[DAYS.index(last) + 1] and listed[names[0]] == listed[first]
        ):
            last = names.pop(0)
        days = first if first == last else f"{first}-{last}"
        parts += [f"{days} {_clock(begin)}-{_clock(end)}" for begin, end in listed[first]] or [f"{days} closed"]
    return ", ".join(parts)


def _clock(minutes: int) -> str:
    if minutes > _WHOLE_DAY:
        minutes -= _WHOLE_DAY
    return f"{minutes // 60:02}:{minutes % 60:02}"


def parse_zone(text: str) -> str:
    """An IANA time zone; raises UsageError for what is none."""
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"time zone {text!r} is not known: write an IANA name, such as Europe/Berlin or UTC") from None


def parse_holiday(text: str) -> date:
    """A day as YYYY-MM-DD; raises UsageError."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"holiday {text!r} is no date: write YYYY-MM-DD, such as 2026-12-25") from None


def parse_blackout(text: str, zone: str) -> Span:
    """Two moments with a `/` between them, or a day; in `zone` where they name none of their own. Raises UsageError."""
    begin_text, slash, end_text = (part.strip() for part in text.partition("/"))
    try:
        begin = _local(datetime.fromisoformat(begin_text), zone, closing=False)
        if slash:
            end = _local(datetime.fromisoformat(end_text), zone, closing=True)
        else:
            end = _local(datetime.combine(date.fromisoformat(begin_text) + _ONE_DAY, time()), zone, closing=True)
    except (ValueError, OverflowError):
        raise UsageError(
            f"blackout {text!r} is not understood: write FROM/UNTIL, as in 2026-12-01T10:00/2026-12-01T14:00, or a day"
        ) from None
    if end <= begin:
        raise UsageError(f"blackout {text!r} ends before it begins")
    return begin, end


def _local(moment: datetime, zone: str, *, closing: bool) -> datetime:
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    minutes = moment.hour * 60 + moment.minute
    return _moment(moment.date(), minutes, ZoneInfo(zone), closing=closing) + timedelta(seconds=moment.second)


# --- as it is kept


def changed(
    present: Mapping[str, Any] | None,
    *,
    hours: str | None = None,
    tz: str | None = None,
    holidays: Sequence[str] | None = None,
    blackouts: Sequence[str] | None = None,
    local_tz: str | None = None,
) -> dict[str, Any] | None:
    """What a remote's row keeps: `present` with what was given anew, an empty text for nothing; None where nothing
    restricts it. `local_tz` stands in where no zone was ever given. Raises UsageError.
    """
    kept: Mapping[str, Any] = present or {"hours": None, "tz": None, "holidays": [], "blackouts": []}
    zone = tz or kept["tz"] or local_tz
    if not zone:
        raise UsageError("which time zone? Give --window-tz, such as --window-tz Europe/Berlin")
    zone = parse_zone(zone)
    document = {**kept, "tz": zone}
    if hours is not None:
        document["hours"] = hours_text(parse_hours(hours)) if hours.strip() else None
    if holidays is not None:
        document["holidays"] = sorted({parse_holiday(day).isoformat() for day in holidays if day.strip()})
    if blackouts is not None:
        spans = sorted({parse_blackout(text, zone) for text in blackouts if text.strip()})
        document["blackouts"] = [[_utc(begin), _utc(end)] for begin, end in spans]
    return document if document["hours"] is not None or document["blackouts"] else None


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def from_document(document: Mapping[str, Any] | None) -> Window | None:
    """The window that `changed` wrote down."""
    if document is None:
        return None
    return _window(
        document["hours"],
        document["tz"],
        tuple(document["holidays"]),
        tuple((begin, end) for begin, end in document["blackouts"]),
    )


@lru_cache(maxsize=256)
def _window(hours: str | None, zone: str, holidays: tuple[str, ...], blackouts: tuple[tuple[str, str], ...]) -> Window:
    return Window(
        parse_hours(hours) if hours is not None else None,
        zone,
        frozenset(map(date.fromisoformat, holidays)),
        tuple((datetime.fromisoformat(begin), datetime.fromisoformat(end)) for begin, end in blackouts),
    )

"""A schedule as a value: when, what, and by which rules. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from dicomferry.models.rules import timetable
from dicomferry.models.rules.timetable import CatchUpPolicy, Overlap, Timetable


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as it is written down."""

    id: int
    name: str
    cron: str
    zone: str
    words: tuple[str, ...]
    """The submit command, without `submit`."""
    folder: str
    """Where its relative paths begin."""
    policy: CatchUpPolicy
    overlap: Overlap
    counted_from: datetime
    next_due: datetime | None
    paused_at: datetime | None
    created_at: datetime

    @property
    def timetable(self) -> Timetable:
        """Raises UsageError where this machine's time zones do not know the zone any more."""
        return timetable.parse(self.cron, self.zone)

    def local(self, moment: datetime) -> datetime:
        """A moment by the clock of the schedule's zone."""
        return moment.astimezone(ZoneInfo(self.zone))

    def minute(self, moment: datetime) -> str:
        """A moment in words, in the schedule's time zone."""
        return f"{self.local(moment):%Y-%m-%d %H:%M %Z}"

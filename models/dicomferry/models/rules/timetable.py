"""When a schedule is due: cron in a time zone, and what becomes of the due times that nobody was there for.

Cron is Debian's, as `cronsim` has it: a job at a fixed time runs once in each of the two nights in which the clocks are
set, one that runs every so many minutes or hours follows the hours as they go by.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from dicomferry.models.rules.errors import UsageError

PUNCTUAL_SECONDS = 60.0
"""How late is punctual, whatever the grace: a scheduler that is started again needs a moment."""
MOST_AT_ONCE = 5_000
"""Due times that are looked at in one step, however long nobody was there."""


class CatchUp(StrEnum):
    """What is done about due times that went by while no scheduler ran."""

    LATEST = "latest"
    ALL = "all"
    SKIP = "skip"


class Overlap(StrEnum):
    """What is done while a job of the same schedule has not ended."""

    SKIP = "skip"
    QUEUE = "queue"


@dataclass(frozen=True)
class Timetable:
    """A cron expression of five fields, in a time zone. Made by `parse`."""

    cron: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The due times after a moment in UTC, each later than the one before; it ends where fifty years have none."""
        last = moment.astimezone(UTC)
        for local in CronSim(self.cron, moment.astimezone(self.zone)):
            # In the hour that there is twice, what follows by the wall clock may be what was there before.
            due = local.astimezone(UTC)
            if due > last:
                last = due
                yield due

    def next(self, moment: datetime) -> datetime | None:
        """The first due time after a moment; None where there is none."""
        return next(self.after(moment), None)


def parse(cron: str, zone: str) -> Timetable:
    """The timetable of five cron fields and an IANA time zone; raises UsageError."""
    fields = cron.split()
    if len(fields) != 5:
        raise UsageError(
            f"--cron {cron!r}: {len(fields)} fields instead of five: minute, hour, day of month, month, day of week, "
            "such as '30 2 * * *' for 02:30 every night"
        )
    expression = " ".join(fields).upper()
    try:
        CronSim(expression, datetime.now(UTC))
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        raise UsageError(f"--cron {cron!r}: the {name} is not what cron understands") from None
    found = Timetable(expression, _zone(zone))
    if found.next(datetime.now(UTC)) is None:
        raise UsageError(f"--cron {cron!r}: there is no such day")
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there, not a name, a folder of names
        known = {zone.lower(): zone for zone in available_timezones()}
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {known[near[0]]}?" if near else "write one as Europe/Berlin or America/New_York, or UTC"
        raise UsageError(f"--tz {name!r} is no time zone; {hint}") from None


@dataclass(frozen=True, kw_only=True)
class CatchUpPolicy:
    """What is done about due times that are past: at most `cap` of them fire, none that is `grace` seconds late.

    Without a grace, `latest` fires as long as the next one is not due, `all` for ever, `skip` for a minute.
    """

    catch_up: CatchUp
    grace: float | None
    cap: int

    @property
    def kept(self) -> int:
        """How many past due times are worth firing, the newest."""
        return self.cap if self.catch_up is CatchUp.ALL else 1

    def is_useful(self, due: datetime, now: datetime) -> bool:
        """Whether a due time may still fire."""
        grace = 0.0 if self.catch_up is CatchUp.SKIP else self.grace
        return grace is None or now - due <= timedelta(seconds=max(grace, PUNCTUAL_SECONDS))


@dataclass(frozen=True)
class Missed:
    """Due times that do not fire, for one reason: the first, the last, and how many they are."""

    first: datetime
    last: datetime
    number: int
    reason: str


SUPERSEDED, OVER_CAP, TOO_LATE = "a later one was due", "over the cap", "too late"


@dataclass(frozen=True)
class Plan:
    """What is to be done about what is due; `settled` is the last due time that this decides, `following` the next."""

    fire: tuple[datetime, ...]
    missed: tuple[Missed, ...]
    settled: datetime
    following: datetime | None


def plan(
    timetable: Timetable, policy: CatchUpPolicy, *, counted_from: datetime, now: datetime, limit: int = MOST_AT_ONCE
) -> Plan | None:
    """What is to be done about the due times after `counted_from` up to `now`; None where there is none.

    Of more than `limit` of them the first are decided now, those that come to nothing however many follow.
    """
    due: list[datetime] = []
    following = None
    for slot in timetable.after(counted_from):
        if slot > now or len(due) == limit + policy.kept:
            following = slot
            break
        due.append(slot)
    if not due:
        return None
    reason = OVER_CAP if policy.catch_up is CatchUp.ALL else SUPERSEDED
    old, kept = due[: -policy.kept], due[-policy.kept :]
    missed = [Missed(old[0], old[-1], len(old), reason)] if old else []
    if following is not None and following <= now:
        return Plan((), tuple(missed), old[-1], kept[0])
    late = [slot for slot in kept if not policy.is_useful(slot, now)]
    if late:
        missed.append(Missed(late[0], late[-1], len(late), TOO_LATE))
    return Plan(tuple(kept[len(late) :]), tuple(missed), due[-1], following)

"""Waits that we computed and wrote down, and a clock that was set: pure rules.

A wait that we computed has a length, from the moment at which it was written to its end. A clock that now shows a time
before that moment was set back, and the wait counts as past: nobody can have meant it to last so much longer. Times
that a person gave, hours of a window and times of a schedule are meant as they stand, and have no such moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

WAITS: Mapping[str, str] = {
    "chunk.lease_until": "chunk.leased_at",
    "chunk.not_before": "chunk.waits_from",
    "governor.requests_until": "governor.requests_taken_at",
    "governor.instances_until": "governor.instances_taken_at",
    "governor.size_until": "governor.size_taken_at",
    "governor.probe_at": "governor.probe_set_at",
    "notification.not_before": "notification.waits_from",
    "turn.until": "turn.taken_at",
}
"""The ends of waits that are kept on record, each with the column that says when it was written. Where that is empty,
a person, a window or a schedule gave the time, and it stands."""
FOUND = frozenset(
    {"governor.rate_learned_at", "governor.associations_learned_at", "key_trial.tried_at", "worker.seen_at"}
)
"""Moments that mean something for a fixed time after them, whose end is not kept: one in the future means nothing."""
GIVEN = frozenset({"schedule.next_due", "schedule.counted_from", "schedule_run.due_at", "schedule_run.last_due_at"})
"""Times of a schedule: never moved, and each is settled once, since `counted_from` never goes back."""
MOMENTS = frozenset(
    f"{table}.{name}"
    for table, names in {
        "archive": "known_since",
        "arrival": "at",
        "attempt": "started_at ended_at",
        "call": "at moved_at ended_at",
        "chunk": "waiting_since",
        "deed": "at",
        "event": "at",
        "governor": "broken_since",
        "instance": "stored_at removed_at",
        "look": "asked_at",
        "item": "listed_at",
        "job": "accepted_at submitted_at served_at started_at finished_at busy_since pruned_at",
        "move": "asked_at answered_at",
        "notification": "at",
        "remote": "created_at removed_at",
        "schedule": "created_at paused_at removed_at",
        "schedule_run": "at",
        "unindexed": "at",
        "worker": "started_at ended_at",
    }.items()
    for name in names.split()
)
"""When something happened: nothing waits for these."""
STEP = timedelta(seconds=1)
"""A clock that goes so much further than time, or less far, between two looks was set."""


def is_past(until: datetime | None, written: datetime | None, now: datetime) -> bool:
    """Whether a wait is over; it is where none was written down."""
    return until is None or until <= now or (written is not None and now < written)


def ahead(until: datetime | None, written: datetime | None, now: datetime) -> datetime | None:
    """The end of a wait that is not over yet, else None."""
    return None if is_past(until, written, now) else until


class StepWatch:
    """Tells a clock that was set from time that passed: a wall clock is held against one that nobody sets.

    A computer that was asleep counts as well: its monotonic clock stood still meanwhile.
    """

    def __init__(self) -> None:
        self._apart: tuple[datetime, datetime] | None = None
        self._stepped = False

    def look(self, wall: datetime, before: float, after: float) -> None:
        """The wall clock was read between these two seconds of the monotonic clock."""
        apart = (wall - timedelta(seconds=after), wall - timedelta(seconds=before))
        known = self._apart
        if known is not None and (apart[0] - known[1] > STEP or known[0] - apart[1] > STEP):
            self._stepped = True
        self._apart = apart

    def take(self) -> bool:
        """Whether the clock was set since the last time that this was asked."""
        stepped, self._stepped = self._stepped, False
        return stepped

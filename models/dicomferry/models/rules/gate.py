"""Whether a chunk may be begun now: by its remote's window, breaker and limits, and by how much of it is in use. Pure.

`closed` is asked first; only where nothing is closed is what runs counted, and `opened` asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.pacing import RateLimits
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.window import Window

WINDOW = Reason.WINDOW
"""Why a chunk waits whose remote may not be used at this hour."""
LIMIT = Reason.LIMIT
"""Why a chunk waits whose remote was used as much as it may be."""
DEBT_SECONDS = 1.0
"""A request that would have to wait longer than this for its place is not begun."""
_NEVER = timedelta(days=1)
_IN_ITS_WINDOW = "it starts by itself when the remote's window opens; `submit --ignore-window` is for what cannot wait"
_IN_ITS_LIMITS = "the remote's limits (see `dicomferry remote show`) leave no room for another request before that"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Whether a chunk may be begun now: yes unless `until` (then again) or `full` (when something ends) is set.

    `probe`: it may, to find out whether the remote can be used again. `failures` is how often in a row it could not.
    `ahead`: it may be listed, and nothing of it moved yet.
    """

    until: datetime | None = None
    reason: str | None = None
    advice: str | None = None
    full: bool = False
    probe: bool = False
    ahead: bool = False
    failures: int = 0
    limits: RateLimits | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a remote when a chunk of this kind wants to use it.

    `hours` is its window, None where it has none or the job ignores it. `is_broken`: its breaker is open; until
    `look_at`, None for a moment that is past, nobody looks at it again, and `reason` and `advice` are what was met.
    `taken` tells for each limit until when its places are taken, where that is in the future. `most` associations and
    `most_moves` moves may be open at once.
    """

    kind: Kind
    now: datetime
    hours: Window | None = None
    is_broken: bool = False
    look_at: datetime | None = None
    reason: str | None = None
    advice: str | None = None
    failures: int = 0
    taken: Mapping[str, datetime] = field(default_factory=dict)
    limits: RateLimits | None = None
    most: int = 1
    most_moves: int = 1


@dataclass(frozen=True, kw_only=True)
class InUse:
    """What uses a remote now: chunks that run, those of them that move, and whether one is the breaker's look.

    `may_list`: the chunk was never tried, and none is listed ahead, or was and waits for its move.
    """

    running: int = 0
    moves: int = 0
    looks: bool = False
    may_list: bool = False


def closed(known: Known) -> Gate | None:
    """The gate that opens at a known time; None where none is closed."""
    if known.hours is not None and not known.hours.is_open(known.now):
        opening = known.hours.opens_at(known.now) or known.now + _NEVER
        return Gate(until=opening, reason=WINDOW, advice=_IN_ITS_WINDOW)
    if known.is_broken and known.look_at is not None:
        return Gate(until=known.look_at, reason=known.reason, advice=known.advice)
    debt = _debt(known)
    if known.limits and debt - known.now > timedelta(seconds=DEBT_SECONDS):
        return Gate(until=debt, reason=LIMIT, advice=_IN_ITS_LIMITS)
    return None


def _debt(known: Known) -> datetime:
    """Until when the places are taken that a chunk of this kind needs. A retrieve needs those of what comes as well;
    instances that are sent take their places one by one.
    """
    needed: tuple[str, ...] = () if known.kind == Kind.STORE else ("requests",)
    if known.kind in RETRIEVES:
        needed = ("requests", "instances", "size")
    return max((known.taken[name] for name in needed if name in known.taken), default=known.now)


def opened(known: Known, in_use: InUse) -> Gate:
    """The gate of a remote that may be used at this hour, where there is room left."""
    if (known.is_broken and in_use.looks) or in_use.running >= known.most:
        return Gate(full=True)
    if known.kind == Kind.MOVE and in_use.moves >= known.most_moves:
        # To list takes an association, and no move.
        is_ahead = in_use.may_list and not known.is_broken
        return Gate(ahead=True, limits=known.limits) if is_ahead else Gate(full=True)
    return Gate(probe=known.is_broken, failures=known.failures, limits=known.limits)

"""How fast a remote may be used: places in time that several processes take in turn, and speeds it was found to bear.

Pure arithmetic. A limit of so many a second is a row of places, one after the other. Who has something to do takes a
few of them at once, waits for the first, and then goes on at the limit's own pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

AHEAD_SECONDS = 0.1
"""All who share a limit hold so much of it in their hands at once."""
CARRY_SECONDS = 0.1
"""Seconds of a limit that nobody has taken and that are not lost."""
BURST_SECONDS = AHEAD_SECONDS + CARRY_SECONDS
"""In no second more than the limit and so much of it besides is used."""
LEAST_RATE = 0.5
"""Instances in a second: slower than that no remote is found to be."""
SLOWER = 0.7
"""The factor by which each refusal multiplies a learned rate."""
FASTER_PER_SECOND = 0.05
"""The part of itself by which a learned rate grows in every second without a refusal."""
FORGOTTEN_AFTER = timedelta(minutes=10)
"""What was learned of a remote counts for so long after the last refusal."""
ONE_MORE_AFTER = timedelta(minutes=1)
"""After an association was refused for want of room, one more is tried each minute."""


@dataclass(frozen=True, kw_only=True)
class RateLimits:
    """What a remote may be used for, each in a second; None is without limit."""

    requests: float | None = None
    instances: float | None = None
    size: float | None = None

    def __bool__(self) -> bool:
        return self != RateLimits()


@dataclass(frozen=True, kw_only=True)
class Grant:
    """`amount` places of `rate` a second, the first one in `starts_in` seconds (less than 0: it was a moment ago)."""

    amount: float
    starts_in: float
    rate: float


def share(rate: float, takers: int) -> float:
    """How much one of so many takers takes at once: at least one."""
    return max(1.0, rate * AHEAD_SECONDS / max(takers, 1))


def reserve(
    taken_until: datetime | None, now: datetime, rate: float, amount: float, taken_at: datetime | None = None
) -> tuple[Grant, datetime]:
    """The next places, and until when they are all taken from now on.

    `taken_until` is where the last taker left off, at `taken_at`; what nobody took is lost but for `CARRY_SECONDS`.
    """
    if taken_at is not None and now < taken_at:
        taken_until = None  # the clock was set back
    earliest = now - timedelta(seconds=CARRY_SECONDS)
    start = max(taken_until, earliest) if taken_until else now
    grant = Grant(amount=amount, starts_in=(start - now).total_seconds(), rate=rate)
    return grant, start + timedelta(seconds=amount / rate)


def slower(rate: float | None, seen: float) -> float:
    """The rate to keep to after a refusal, where `seen` instances in a second were tried and `rate` was kept to."""
    return max(LEAST_RATE, SLOWER * (seen if rate is None else min(rate, max(seen, LEAST_RATE))))


def learned_rate(rate: float | None, since: datetime | None, now: datetime) -> float | None:
    """What a rate that was found at `since` has grown to; None where nothing is known any more."""
    if rate is None or since is None or not now - FORGOTTEN_AFTER < since <= now:
        return None
    return rate * (1.0 + FASTER_PER_SECOND * (now - since).total_seconds())


def learned_associations(number: int | None, since: datetime | None, now: datetime) -> int | None:
    """The associations at once that a remote bears: `number` at `since`, and one more for each ONE_MORE_AFTER."""
    if number is None or since is None or not now - FORGOTTEN_AFTER < since <= now:
        return None
    return number + int((now - since) / ONE_MORE_AFTER)


def lowest(*rates: float | None) -> float | None:
    """The strictest of several limits."""
    known: Sequence[float] = [rate for rate in rates if rate is not None]
    return min(known, default=None)


# --- what an administrator writes

LEAST_SIZE = 1000
"""Bytes in a second that a limit leaves at least."""
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


def parse_size(text: str) -> int | None:
    """A number of bytes as in 500k, 10M or 1.5G (decimal units); None for what is none."""
    number = text.strip().lower().removesuffix("/s").removesuffix("b").strip()
    unit = number[-1:] if number[-1:] in ("k", "m", "g") else ""
    try:
        found = float(number[: len(number) - len(unit)])
    except ValueError:
        return None
    return round(found * _UNITS[unit]) if 0 <= found < 1e12 else None

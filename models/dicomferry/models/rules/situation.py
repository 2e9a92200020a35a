"""The situation at the end of an attempt, by which `ending` decides: what the attempt says of itself, and what the
record knows. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.retry import RetryPolicy
from dicomferry.models.rules.state import AttemptEnd

# --- what an attempt says of itself


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The attempt tried what it could, and `left` of its items are still to be done.

    `fault` is what ended it, None where nothing did. `progressed`: the remote took or refused an item for good, or
    something came. `well`: the remote answers all the same, so that an association that broke in the middle of an item
    says nothing of it. `mute`: an archive kept silent, as it has for all that was ever asked of it for this chunk.
    """

    fault: Answer | None
    left: int = 1
    progressed: bool = False
    well: bool = False
    mute: bool = False


@dataclass(frozen=True, kw_only=True)
class Round:
    """Every request of a retrieve was answered, not all has come: the archive is asked again after `pause` seconds."""

    answer: Answer
    pause: float


@dataclass(frozen=True, kw_only=True)
class Recall:
    """The archive has what is missing on slow media, and brings it back: it is looked for again after `settle` seconds,
    then ever more rarely; `given_up` is what is said where that took too long. `anew`: something came this time.
    """

    answer: Answer
    given_up: Answer
    settle: float
    anew: bool = False


@dataclass(frozen=True, kw_only=True)
class Death:
    """The worker died, for the `deaths`th time in a row without finishing or settling an item.

    `blamed` tells whether it is known on what: then the chunk goes on, since each item is given up the second time.
    """

    deaths: int
    blamed: bool


Cause = Tried | Round | Recall | Death


@dataclass(frozen=True, kw_only=True)
class Account:
    """What an attempt says of itself at its end.

    `cause` is what it came to; None where it was asked to stop, gave its slot back, or has done all there was to do.
    `finished` counts the items that it brought to an end, `planned` says that it was a plan and that this is complete.
    """

    end: AttemptEnd = AttemptEnd.COMPLETED
    cause: Cause | None = None
    finished: int = 0
    planned: bool = False
    detail: str | None = None

    @property
    def fault(self) -> Answer | None:
        """What ended the attempt."""
        return self.cause.fault if isinstance(self.cause, Tried) else None

    @property
    def may_blame_remote(self) -> bool:
        """Whether this may be a failure of the remote, that its breaker counts."""
        return self.fault is not None and self.fault.rule in (Rule.AWAY, Rule.SUSPECT, Rule.BROKEN)


# --- what the record knows


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """The breaker of the chunk's remote: failures in a row, whether it is open, and whether this chunk is its look."""

    failures: int = 0
    is_open: bool = False
    is_look: bool = False


@dataclass(frozen=True, kw_only=True)
class AttemptFacts:
    """What the record knows when an attempt ends, after the attempt's last outcomes were written.

    `cancel` and `hold` are asked for the job, `left` items of the chunk have no outcome, `plan` tells a plan.
    `barren` counts the fruitless attempts in a row before this one, `alike` those of them, counted backwards, that
    ended for the same reason. The chunk has waited since `waiting_since`; `waited` is how many seconds of that count,
    where the remote has a window. `served`: the remote was of use within a day. `failures` of the remote were known
    when the attempt began. `jitter` is in 0..1.
    """

    now: datetime
    cancel: bool = False
    hold: bool = False
    plan: bool = False
    left: int = 0
    barren: int = 0
    alike: int = 0
    waiting_since: datetime | None = None
    waited: float | None = None
    served: bool = False
    failures: int = 0
    breaker: Breaker = field(default_factory=Breaker)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    jitter: float = 0.0

    def after(self, seconds: float) -> datetime:
        """The moment so many seconds from now."""
        return self.now + timedelta(seconds=seconds)

    @property
    def since(self) -> datetime:
        """When the wait began that this attempt has not ended; a clock that was set back lets it begin anew."""
        return min(self.waiting_since or self.now, self.now)

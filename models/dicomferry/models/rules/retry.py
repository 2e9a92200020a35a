"""How faults are waited out: which item is charged for an answer, how often it is tried, and how long the pauses are.

What becomes of the chunk at the end of an attempt is said in `ending`. Pure arithmetic; time and randomness come in as
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.state import ItemState

MAX_CHARGES = 3
"""An item that was in flight this often when its association broke fails."""
MAX_DEATHS = 5
"""A chunk whose workers died this often in a row, nobody knows on what, is held."""
LONGEST_AFTER_DEATH = 60.0
"""Seconds that a chunk waits at most after a worker died on it."""
MAX_ROUNDS = 3
"""A retrieve asks for what is missing so often: as it was asked, by lists of instances, one by one."""
MAX_ROUNDS_IN_VAIN = 2
"""Rounds in which each request was refused before any sub-operation, so that nothing can be under way, at most."""
MAX_CONGESTED_IN_A_ROW = 3
"""After so many refusals for lack of resources in a row, the association is given up for a while."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Delays in seconds. `give_up_after` bounds how long a remote's fault is waited out before a person is asked."""

    first_delay: float = 10.0
    max_delay: float = 600.0
    give_up_after: float = 43_200.0


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How a kind of fault is waited out: `first` and `most` are multiples of the policy's delays.

    After `tries` fruitless attempts in a row that ended for the same reason, a person is asked.
    """

    first: float = 1.0
    most: float = 1.0
    tries: int | None = None


BACKOFFS: Mapping[Rule, Backoff] = {
    # Whoever hangs up without a word may be starting: three tries are to span more than a minute and a half.
    Rule.SUSPECT: Backoff(first=3.0, tries=3),
    # A person's to mend, as far as can be seen.
    Rule.DOUBTFUL: Backoff(tries=2),
}
_PLAIN = Backoff()


def decide_item(answer: Answer, *, charges: int, to_blame: bool = True, again: bool = True) -> tuple[ItemState, int]:
    """The item's new state and number of charges after this answer; `pending` means that it is tried again.

    `charges` is what it had before. `to_blame` tells whether a refusal for lack of resources is this item's alone: a
    remote that takes nothing is at fault itself, and charges nobody. `again` tells whether the item's last answer, if
    there was one, had this reason as well.
    """
    match answer.rule:
        case Rule.DONE:
            return ItemState.SUCCEEDED, charges
        case Rule.WARNING:
            return ItemState.WARNING, charges
        case Rule.FINAL:
            return ItemState.FAILED, charges
        case Rule.AGAIN:
            charges += 1
            once_more = charges == 1 or (not again and charges < MAX_CHARGES)
            return (ItemState.PENDING if once_more else ItemState.FAILED), charges
        case Rule.BROKEN:
            charges += 1
            return (ItemState.FAILED if charges >= MAX_CHARGES else ItemState.PENDING), charges
        case Rule.CONGESTED:
            charges += to_blame
            return (ItemState.FAILED if charges >= MAX_CHARGES else ItemState.PENDING), charges
        case Rule.LATER | Rule.AWAY | Rule.SUSPECT | Rule.DOUBTFUL | Rule.HOLD:
            return ItemState.PENDING, charges


def is_tired(waiting_since: datetime | None, *, now: datetime, policy: RetryPolicy) -> bool:
    """Whether something was waited for so long that a person has to look at it."""
    return waiting_since is not None and (now - waiting_since).total_seconds() >= policy.give_up_after


def backoff_of(fault: Answer | None) -> Backoff:
    """How this kind of fault is waited out."""
    return BACKOFFS.get(fault.rule, _PLAIN) if fault else _PLAIN


def delay(barren: int, *, jitter: float, policy: RetryPolicy, pace: Backoff = _PLAIN) -> float:
    """Seconds to wait after so many fruitless attempts in a row: doubling up to the most, less up to a fifth."""
    full = min(policy.max_delay * pace.most, policy.first_delay * pace.first * 2.0 ** min(barren - 1, 30))
    return full * (1.0 - 0.2 * jitter)


# fmt: off
_IN_WORDS: Mapping[Rule, str] = {
    Rule.DONE: "nothing: it is settled",
    Rule.WARNING: "nothing: it counts as done, and the remark is kept with the item",
    Rule.FINAL: "the item fails at once and is not tried again; the rest goes on",
    Rule.AGAIN: f"the item is tried once more, at the end of its chunk (up to {MAX_CHARGES} times where the answers differ), then it fails; the rest goes on",
    Rule.LATER: "it waits: this is no end yet",
    Rule.CONGESTED: f"the item is tried again, more slowly; {MAX_CONGESTED_IN_A_ROW} such answers in a row end the association for a while, longer each time. An item refused {MAX_CHARGES} times while others get through fails; a remote that takes nothing has time until retry.give_up_after, then the job is held",
    Rule.BROKEN: f"the rest goes on at once over a new association, where something else or a C-ECHO gets through; the item in flight comes last and alone, and one that was in flight {MAX_CHARGES} times fails",
    Rule.AWAY: "everything for this remote waits, longer each time, and no item is charged; after retry.give_up_after the job is held",
    Rule.SUSPECT: f"everything for this remote waits, and no item is charged; after {BACKOFFS[Rule.SUSPECT].tries} such tries in a row the job is held until `dicomferry jobs release`; a remote that was of use within a day is down, and has time until retry.give_up_after",
    Rule.DOUBTFUL: f"it is tried {BACKOFFS[Rule.DOUBTFUL].tries} times, and no item is charged; then the job is held until `dicomferry jobs release`",
    Rule.HOLD: "the job is held at once, and no item is charged: something has to be changed first, then `dicomferry jobs release`",
}
# fmt: on


def in_words(rule: Rule) -> str:
    """What we do about an answer of this rule, for people."""
    return _IN_WORDS[rule]

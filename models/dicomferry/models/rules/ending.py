"""How an attempt ends: the one place that says whether a chunk is done, tried again or held, until when, and who waits
or is held along with it.

`of` is given the situation (what the attempt says of itself, and what the record knows) and says all that is written
down: of the attempt, its chunk, its job, and the remote's breaker. How long a kind of fault is waited out, and which
item is charged for it, is in `retry`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from dicomferry.models.rules import retry
from dicomferry.models.rules.answers.answer import Category
from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.situation import Account, AttemptFacts, Cause, Death, Recall, Round, Tried
from dicomferry.models.rules.state import AttemptEnd, ChunkState

MAX_BROKEN = 5
"""After so many attempts in a row that broke off without having achieved anything, the breaker opens."""
MAX_MUTE = 3
"""After so many attempts in a row at which an archive only kept silent, and with nothing ever come, a person looks."""
ALONE = frozenset({Reason.ANSWERS_UNDECIDED})
"""Reasons that hold one request and say nothing of the others."""
NO_SCP = Reason.STORAGE_SCP_IS_NOT_RUNNING
"""Why moves to this installation wait: nobody here would take what they bring."""
DISK_FULL = Reason.DISK_FULL
"""Why moves and gets wait: the archive's disk is full to its reserve."""
REFUSED_HERE = Reason.REFUSED_HERE
"""What the storage SCP could not keep for another reason."""
OURS = frozenset({NO_SCP, DISK_FULL, REFUSED_HERE, Reason.STORAGE_SCP_WAS_RESTARTED, Reason.ARCHIVE_OUT_OF_SIGHT})
"""Faults of this installation's own side: they tell nothing of the remote, and however much came before them, a pause
follows."""
CROWDED = Reason.REJECTED_FOR_NOW
"""What is said of a remote that has no room for one more association."""
LOST = Reason.WORKER_LOST
"""Why an attempt ended whose worker gave no sign of life any more."""
BY_PERSON = Reason.HELD_BY_A_PERSON
"""Why a chunk is held whose job a person held while the chunk ran."""
RELEASE = "release it when it may go on"
"""Advice for what a person held."""
_DIED = "a worker process died or froze; what it had not recorded is done again by another one"
_DIED_AGAIN = "worker processes die or freeze on this again and again: see their log, then release"


# --- what comes of it


class Next(StrEnum):
    """What an attempt comes to for its chunk."""

    DONE = "done"
    RETRY = "retry"
    HOLD = "hold"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an attempt comes to by itself, whatever was asked for its job. `barren` and `waiting_since` are to be kept
    on the chunk's row.
    """

    next: Next
    at: datetime | None = None
    reason: str | None = None
    advice: str | None = None
    barren: int = 0
    waiting_since: datetime | None = None
    for_all: bool = False
    """Whether whatever else waits for the remote has to wait as well: it is the remote that cannot, not this chunk."""
    leave_until: datetime | None = None
    """Until when the remote is better left alone; None where the attempt says nothing against it."""
    alone: bool = False
    """Whether a hold is about this chunk only, and the rest of the job goes on."""
    away: bool = False
    """Whether this one attempt is enough to leave the remote alone."""


class Along(StrEnum):
    """Which chunks share the fate of the one whose attempt has ended, those of them that wait."""

    NOBODY = "nobody"
    JOB = "job"
    """The waiting chunks of its job are held as well."""
    REMOTE = "remote"
    """The waiting chunks for its remote wait as well."""
    MOVES_HERE = "moves here"
    """Moves that would come to this installation wait as well ..."""
    ALL_HERE = "all that comes here"
    """Moves that would come to this installation, and gets, wait as well."""


class Seen(StrEnum):
    """What the attempt tells of its remote."""

    NOTHING = "nothing"
    WELL = "well"
    """The remote can be used: its breaker closes."""
    FAILED = "failed"
    """The remote could not be used: that is counted."""
    AWAY = "away"
    """The remote could not be used, and is left alone from now on: its breaker opens, or stays open."""
    CROWDED = "crowded"
    """The remote has no room for one more association."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """All that is written down at the end of an attempt.

    `decision` is what the attempt came to by itself, None where it was stopped or came through; the chunk's state,
    reason and advice are what is left of that after what was asked for its job.
    """

    attempt: AttemptEnd
    chunk: ChunkState
    decision: Decision | None = None
    reason: str | None = None
    advice: str | None = None
    due: datetime | None = None
    """When a chunk that waits is tried again."""
    keeps_count: bool = False
    """Whether the decision's `barren` and `waiting_since` go to the chunk's row."""
    careful: bool = False
    """Whether the next attempt writes down each item before it tries it."""
    along: Along = Along.NOBODY
    seen: Seen = Seen.NOTHING
    failures: int = 0
    """The remote's failures in a row, this one included."""
    frees_others: bool = False
    """Whether what waited along for the remote has waited enough, since it takes items again."""
    tells_pause: bool = False
    """Whether the job's history gets a line that says when the chunk is tried again."""


def of(account: Account, facts: AttemptFacts) -> Ending:
    """What is written down at the end of an attempt."""
    return settled(account, decided(account.cause, facts), facts)


def decided(cause: Cause | None, facts: AttemptFacts) -> Decision | None:
    """What an attempt comes to by itself; None where it was stopped, or has done all there was to do."""
    match cause:
        case Tried():
            return _after_try(cause, facts)
        case Round():
            return _again(cause.answer, facts.after(cause.pause))
        case Recall():
            return _after_recall(cause, facts)
        case Death():
            return _after_death(cause, facts)
        case None:
            return None


# --- the decision


def _again(answer: Answer, at: datetime) -> Decision:
    return Decision(next=Next.RETRY, at=at, reason=answer.reason, advice=answer.advice)


def _after_try(tried: Tried, facts: AttemptFacts) -> Decision:
    fault = tried.fault
    if not tried.left:
        return Decision(next=Next.DONE)
    if tried.mute and fault and facts.alike + 1 >= MAX_MUTE:
        since = facts.waiting_since or facts.now
        return Decision(
            next=Next.HOLD, reason=fault.reason, advice=fault.advice, barren=facts.barren + 1, waiting_since=since
        )
    decision = _of_chunk(tried, facts)
    if fault is None or not _is_against_remote(tried, fault):
        return decision
    # Chunks take turns in looking again, so that the pause grows with the failures of all of them.
    fruitless = max(decision.barren, facts.failures + 1)
    until = facts.after(_delay(fruitless, fault, facts))
    away = fault.rule is not Rule.BROKEN
    return replace(decision, leave_until=until, away=away, at=until if decision.for_all else decision.at)


def _of_chunk(tried: Tried, facts: AttemptFacts) -> Decision:
    """What becomes of the chunk, the remote apart."""
    fault = tried.fault
    reason, advice = (fault.reason, fault.advice) if fault else (Reason.NO_PROGRESS, "see the worker's log")
    plain = Decision(next=Next.HOLD, reason=reason, advice=advice)
    if fault and fault.rule is Rule.HOLD:
        return replace(plain, alone=reason in ALONE)
    if _progressed(tried):
        pause = _delay(1, None, facts) if fault and fault.rule is Rule.CONGESTED else 0.0
        return replace(plain, next=Next.RETRY, at=facts.after(pause))
    barren = facts.barren + 1
    plain = replace(plain, barren=barren, waiting_since=facts.since)
    if _is_tired(facts) or _is_hopeless(tried, facts):
        return plain
    at = facts.after(_delay(barren, fault, facts))
    for_all = fault is not None and fault.rule in (Rule.AWAY, Rule.SUSPECT) and reason not in OURS
    return replace(plain, next=Next.RETRY, at=at, for_all=for_all)


def _delay(barren: int, fault: Answer | None, facts: AttemptFacts) -> float:
    return retry.delay(barren, jitter=facts.jitter, policy=facts.policy, pace=retry.backoff_of(fault))


def _progressed(tried: Tried) -> bool:
    """Whether the attempt got on. What came says nothing against a fault that a person has to mend, or that is ours."""
    fault = tried.fault
    return tried.progressed and not (fault and (fault.rule is Rule.DOUBTFUL or fault.reason in OURS))


def _is_tired(facts: AttemptFacts) -> bool:
    """Whether the chunk has waited so long that a person has to look at it."""
    waited = (facts.now - facts.since).total_seconds() if facts.waited is None else facts.waited
    return waited >= facts.policy.give_up_after


def _is_hopeless(tried: Tried, facts: AttemptFacts) -> bool:
    """Whether this fault was met as often in a row as its kind is waited out. A remote that was of use not long ago and
    hangs up now is down, whatever else that may mean, and comes back without a person.
    """
    tries = retry.backoff_of(tried.fault).tries
    is_down = facts.served and tried.fault is not None and tried.fault.rule is Rule.SUSPECT
    return tries is not None and facts.alike + 1 >= tries and not is_down


def _is_against_remote(tried: Tried, fault: Answer) -> bool:
    """Whether the attempt shows that the remote cannot be used. What is our own fault says nothing of it, and one that
    has no place left is not away.
    """
    if _progressed(tried) or tried.well or fault.rule not in (Rule.AWAY, Rule.SUSPECT, Rule.BROKEN):
        return False
    return fault.category is not Category.HERE and fault.reason != CROWDED


def _after_recall(recall: Recall, facts: AttemptFacts) -> Decision:
    barren = 0 if recall.anew else facts.barren
    since = facts.now if recall.anew else facts.since
    if not recall.anew and retry.is_tired(facts.waiting_since, now=facts.now, policy=facts.policy):
        told = recall.given_up
        return Decision(next=Next.HOLD, reason=told.reason, advice=told.advice, barren=barren + 1, waiting_since=since)
    pause = min(recall.settle * 2.0 ** min(barren, 30), max(recall.settle, facts.policy.max_delay))
    return replace(_again(recall.answer, facts.after(pause)), barren=barren + 1, waiting_since=since)


def _after_death(death: Death, facts: AttemptFacts) -> Decision:
    """The pauses double, so that what kills workers does not keep others from one."""
    is_hopeless = death.deaths >= retry.MAX_DEATHS and not death.blamed
    pause = min(2.0 ** (max(death.deaths, 1) - 1), retry.LONGEST_AFTER_DEATH)
    return Decision(
        next=Next.HOLD if is_hopeless else Next.RETRY,
        at=facts.after(pause),
        reason=LOST,
        advice=_DIED_AGAIN if is_hopeless else _DIED,
        barren=facts.barren,
        waiting_since=facts.waiting_since,
        alone=True,
    )


# --- what is left of it after what was asked for the job, and what it means for others


def settled(account: Account, decision: Decision | None, facts: AttemptFacts) -> Ending:
    """What is written down where an attempt came to this by itself."""
    is_complete = account.planned if facts.plan else not facts.left
    seen, failures = _of_remote(account, decision, facts)
    ending = replace(
        _of_asked(account, decision, facts, is_complete=is_complete),
        attempt=_attempt_end(account, decision, facts, is_complete=is_complete),
        careful=isinstance(account.cause, Death),
        seen=seen,
        failures=failures,
        frees_others=account.finished > 0 and not (decision and decision.for_all),
    )
    is_retry = decision is not None and decision.next is Next.RETRY and decision.reason is not None
    return replace(
        ending,
        along=_along(ending, is_complete=is_complete),
        tells_pause=is_retry and not is_complete and not ending.careful,
    )


def _attempt_end(account: Account, decision: Decision | None, facts: AttemptFacts, *, is_complete: bool) -> AttemptEnd:
    """An attempt that stopped because that was asked for its job ended so, whatever it says itself."""
    if is_complete or decision is not None or not (facts.cancel or facts.hold):
        return account.end
    return AttemptEnd.CANCELLED if facts.cancel else AttemptEnd.INTERRUPTED


def _of_asked(account: Account, decision: Decision | None, facts: AttemptFacts, *, is_complete: bool) -> Ending:
    """The chunk's next state."""
    plain = Ending(attempt=account.end, chunk=ChunkState.PENDING, decision=decision, due=facts.now)
    if is_complete:
        return replace(plain, chunk=ChunkState.DONE, due=None)
    if facts.cancel:
        return replace(plain, chunk=ChunkState.CANCELLED, due=None)
    if decision and decision.next is Next.HOLD:
        held = replace(plain, chunk=ChunkState.HELD, due=None, keeps_count=True)
        return replace(held, reason=decision.reason, advice=decision.advice)
    if facts.hold:
        return replace(plain, chunk=ChunkState.HELD, due=None, reason=BY_PERSON, advice=RELEASE)
    if decision:
        due = decision.at or facts.now
        return replace(plain, due=due, reason=decision.reason, advice=decision.advice, keeps_count=True)
    return plain


def _along(ending: Ending, *, is_complete: bool) -> Along:
    decision = ending.decision
    if decision is None:
        return Along.NOBODY
    if decision.at and decision.reason in (NO_SCP, DISK_FULL):
        return Along.ALL_HERE if decision.reason == DISK_FULL else Along.MOVES_HERE
    if decision.next is Next.HOLD:
        is_held = ending.chunk is ChunkState.HELD and ending.keeps_count
        return Along.JOB if is_held and not decision.alone else Along.NOBODY
    return Along.REMOTE if decision.for_all and decision.reason and not is_complete else Along.NOBODY


def _of_remote(account: Account, decision: Decision | None, facts: AttemptFacts) -> tuple[Seen, int]:
    """What the attempt tells of its remote, and the remote's failures in a row with it."""
    known = facts.breaker
    if decision and (decision.for_all or decision.leave_until):
        if decision.reason == CROWDED:
            return Seen.CROWDED, known.failures
        if decision.leave_until is None or (known.is_open and not known.is_look):
            return Seen.NOTHING, known.failures  # it began before the breaker opened, and tells nothing new
        failures = known.failures + 1
        opens = known.is_open or decision.away or failures >= MAX_BROKEN
        return (Seen.AWAY if opens else Seen.FAILED), failures
    achieved = account.finished > 0 or account.end is AttemptEnd.COMPLETED
    if not facts.plan and achieved and (known.is_open or known.failures):
        return Seen.WELL, 0
    return Seen.NOTHING, known.failures

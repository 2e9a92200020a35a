"""The table of endings: what becomes of a chunk, of others and of the remote's breaker in each situation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules import ending, errors, retry
from dicomferry.models.rules.answers.lookup import Answer, Rule, for_error, for_status, local
from dicomferry.models.rules.ending import Along, Decision, Ending, Next, Seen
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.retry import decide_item
from dicomferry.models.rules.situation import Account, AttemptFacts, Breaker, Cause, Death, Recall, Round, Tried
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState
from support.faults import (
    ABORTED,
    CONGESTION,
    HANGS_UP,
    NO_REASON,
    NO_ROOM,
    POLICY,
    SILENT,
    UNKNOWN_CALLED,
    UNKNOWN_CALLER,
    UNREACHABLE,
)

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
NOT_YET = local(Reason.NOT_DELIVERED_YET)
SLOW_MEDIA, SLOW_FOR_LONG = local(Reason.NEARLINE), local(Reason.NEARLINE, "ask")
STUCK = local(Reason.NO_PROGRESS)
INTERNAL = local(Reason.INTERNAL_ERROR)
CANNOT_REACH_US = local(Reason.ARCHIVE_CANNOT_REACH_US)
CROWDED = for_error(errors.AssociationRejected(2, 3, 2))


# --- the table


@dataclass(frozen=True, kw_only=True)
class Row:
    """A situation: what the attempt came to, what the record knows beside that the chunk has items left; its ending."""

    cause: Cause | None = None
    end: AttemptEnd = AttemptEnd.ERROR
    finished: int = 0
    planned: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    becomes: dict[str, Any]

    def ending(self) -> Ending:
        """What the rule says."""
        account = Account(end=self.end, cause=self.cause, finished=self.finished, planned=self.planned)
        return ending.of(account, AttemptFacts(**{"now": NOW, "left": 3, "policy": POLICY, **self.facts}))


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


DONE = {"chunk": ChunkState.DONE, "reason": None, "along": Along.NOBODY, "keeps_count": False, "tells_pause": False}
CANCELLED = {"chunk": ChunkState.CANCELLED, "reason": None, "along": Along.NOBODY, "due": None}
AT_ONCE = {"chunk": ChunkState.PENDING, "due": NOW, "along": Along.NOBODY, "seen": Seen.NOTHING}
WAITS = {"chunk": ChunkState.PENDING, "tells_pause": True, "keeps_count": True}
HELD = {"chunk": ChunkState.HELD, "due": None, "tells_pause": False, "keeps_count": True}
BY_PERSON = {"chunk": ChunkState.HELD, "reason": "held by a person", "advice": ending.RELEASE, "keeps_count": False}
UNTIL = {"waiting_since": NOW - timedelta(seconds=3600)}
OPEN = Breaker(failures=2, is_open=True)

TABLE = {
    # nothing decided: through, given back, stopped
    "through": Row(end=AttemptEnd.COMPLETED, finished=3, facts={"left": 0}, becomes={
        **DONE, "attempt": AttemptEnd.COMPLETED, "frees_others": True, "seen": Seen.NOTHING}),
    "through, and the breaker was open": Row(end=AttemptEnd.COMPLETED, facts={"left": 0, "breaker": OPEN}, becomes={
        **DONE, "seen": Seen.WELL, "frees_others": False}),
    "through, and failures were counted": Row(
        end=AttemptEnd.COMPLETED, facts={"left": 0, "breaker": Breaker(failures=1)}, becomes={"seen": Seen.WELL}),
    "slot given back": Row(end=AttemptEnd.COMPLETED, facts={"plan": True, "left": 0}, becomes={
        **AT_ONCE, "reason": None, "keeps_count": False, "tells_pause": False}),
    "plan complete": Row(end=AttemptEnd.COMPLETED, planned=True, facts={"plan": True}, becomes=DONE),
    "plan complete, cancelled too late": Row(
        end=AttemptEnd.COMPLETED, planned=True, facts={"plan": True, "cancel": True}, becomes={
            **DONE, "attempt": AttemptEnd.COMPLETED}),
    "a plan says nothing of the remote": Row(
        end=AttemptEnd.COMPLETED, planned=True, facts={"plan": True, "breaker": OPEN}, becomes={"seen": Seen.NOTHING}),
    "drain": Row(end=AttemptEnd.INTERRUPTED, facts={"breaker": OPEN}, becomes={
        **AT_ONCE, "attempt": AttemptEnd.INTERRUPTED}),
    "drain, some were sent": Row(end=AttemptEnd.INTERRUPTED, finished=2, facts={"breaker": OPEN}, becomes={
        "chunk": ChunkState.PENDING, "seen": Seen.WELL, "frees_others": True}),
    "cancel": Row(end=AttemptEnd.INTERRUPTED, facts={"cancel": True}, becomes={
        **CANCELLED, "attempt": AttemptEnd.CANCELLED}),
    "cancel and hold": Row(end=AttemptEnd.INTERRUPTED, facts={"cancel": True, "hold": True}, becomes=CANCELLED),
    "cancel came too late": Row(end=AttemptEnd.COMPLETED, facts={"cancel": True, "left": 0}, becomes=DONE),
    "hold": Row(end=AttemptEnd.COMPLETED, facts={"hold": True}, becomes={
        **BY_PERSON, "attempt": AttemptEnd.INTERRUPTED, "along": Along.NOBODY}),
    # a fault of the remote
    "away": Row(cause=Tried(fault=UNREACHABLE), becomes={
        **WAITS, "due": after(10), "reason": "unreachable", "along": Along.REMOTE, "seen": Seen.AWAY, "failures": 1}),
    "away, the wait began long ago": Row(cause=Tried(fault=UNREACHABLE), facts=UNTIL, becomes={
        **HELD, "reason": "unreachable", "along": Along.JOB, "seen": Seen.AWAY}),
    "away, the window was closed for most of it": Row(
        cause=Tried(fault=UNREACHABLE), facts={**UNTIL, "waited": 60.0}, becomes={**WAITS, "along": Along.REMOTE}),
    "away as others found": Row(cause=Tried(fault=UNREACHABLE), facts={"failures": 4}, becomes={"due": after(160)}),
    "the look failed": Row(
        cause=Tried(fault=UNREACHABLE), facts={"breaker": replace(OPEN, is_look=True), "failures": 2}, becomes={
            **WAITS, "due": after(40), "seen": Seen.AWAY, "failures": 3}),
    "it began before the breaker opened": Row(cause=Tried(fault=UNREACHABLE), facts={"breaker": OPEN}, becomes={
        **WAITS, "along": Along.REMOTE, "seen": Seen.NOTHING}),
    "away, cancelled": Row(cause=Tried(fault=UNREACHABLE), facts={"cancel": True}, becomes={
        "chunk": ChunkState.CANCELLED, "attempt": AttemptEnd.ERROR, "seen": Seen.AWAY}),
    "away, to be held": Row(cause=Tried(fault=UNREACHABLE), facts={"hold": True}, becomes=BY_PERSON),
    "away, nothing left": Row(cause=Tried(fault=UNREACHABLE, left=0), finished=3, facts={"left": 0}, becomes={
        **DONE, "attempt": AttemptEnd.ERROR, "seen": Seen.NOTHING, "frees_others": True}),
    "away, others have come meanwhile": Row(cause=Tried(fault=UNREACHABLE), facts={"left": 0}, becomes={
        **DONE, "seen": Seen.AWAY}),
    "a file that gave its UID up brings its twins back": Row(
        cause=Tried(fault=None, left=0), end=AttemptEnd.COMPLETED, finished=1, becomes={
            **AT_ONCE, "reason": None, "tells_pause": False, "keeps_count": True}),
    "no room for one more": Row(cause=Tried(fault=CROWDED), becomes={
        **WAITS, "due": after(10), "along": Along.REMOTE, "seen": Seen.CROWDED}),
    "hangs up": Row(cause=Tried(fault=HANGS_UP), becomes={**WAITS, "due": after(30), "seen": Seen.AWAY}),
    "hangs up a third time": Row(cause=Tried(fault=HANGS_UP), facts={"barren": 2, "alike": 2}, becomes={
        **HELD, "along": Along.JOB, "seen": Seen.AWAY}),
    "hangs up, was of use lately": Row(
        cause=Tried(fault=HANGS_UP), facts={"barren": 2, "alike": 2, "served": True}, becomes=WAITS),
    "refused for good": Row(cause=Tried(fault=UNKNOWN_CALLER, progressed=True), finished=1, becomes={
        **HELD, "along": Along.JOB, "seen": Seen.NOTHING, "frees_others": True}),
    "refused for good, cancelled": Row(cause=Tried(fault=UNKNOWN_CALLER), facts={"cancel": True}, becomes=CANCELLED),
    # broken off
    "broke off": Row(cause=Tried(fault=ABORTED), becomes={
        **WAITS, "due": after(10), "along": Along.NOBODY, "seen": Seen.FAILED, "failures": 1}),
    "broke off once too often": Row(
        cause=Tried(fault=ABORTED), facts={"breaker": Breaker(failures=ending.MAX_BROKEN - 1)}, becomes={
            "along": Along.NOBODY, "seen": Seen.AWAY, "failures": ending.MAX_BROKEN}),
    "broke off, the remote answers": Row(cause=Tried(fault=ABORTED, well=True), becomes={
        **WAITS, "seen": Seen.NOTHING}),
    "broke off, some got through": Row(cause=Tried(fault=ABORTED, progressed=True), finished=2, becomes={
        **AT_ONCE, "reason": "aborted", "tells_pause": True, "frees_others": True}),
    "our own fault": Row(cause=Tried(fault=INTERNAL), becomes={
        **WAITS, "reason": "internal error", "seen": Seen.NOTHING, "along": Along.NOBODY}),
    # a retrieve
    "next round": Row(cause=Round(answer=NOT_YET, pause=30.0), end=AttemptEnd.COMPLETED, finished=2, becomes={
        **WAITS, "due": after(30), "reason": NOT_YET.reason, "along": Along.NOBODY, "frees_others": True}),
    "slow media": Row(cause=Recall(answer=SLOW_MEDIA, given_up=SLOW_FOR_LONG, settle=60.0), becomes={
        **WAITS, "due": after(60), "reason": "nearline", "seen": Seen.NOTHING}),
    "slow media, some came back": Row(
        cause=Recall(answer=SLOW_MEDIA, given_up=SLOW_FOR_LONG, settle=60.0, anew=True),
        finished=1, facts={**UNTIL, "barren": 7}, becomes={**WAITS, "due": after(60)}),
    "slow media, for too long": Row(
        cause=Recall(answer=SLOW_MEDIA, given_up=SLOW_FOR_LONG, settle=60.0), facts=UNTIL, becomes={
            **HELD, "advice": "ask", "along": Along.JOB}),
    "nothing ever moved": Row(cause=Tried(fault=STUCK, mute=True), facts={"barren": 1, "alike": 1}, becomes={
        **WAITS, "seen": Seen.NOTHING}),
    "nothing ever moved, three times": Row(
        cause=Tried(fault=STUCK, mute=True), facts={"barren": 2, "alike": 2}, becomes={
            **HELD, "reason": "no progress", "along": Along.JOB, "seen": Seen.NOTHING}),
    "cannot reach us": Row(cause=Tried(fault=CANNOT_REACH_US, progressed=True), finished=1, becomes={
        **WAITS, "due": after(10), "along": Along.NOBODY, "seen": Seen.NOTHING}),
    "cannot reach us again": Row(
        cause=Tried(fault=CANNOT_REACH_US), facts={"barren": 1, "alike": 1}, becomes={**HELD, "along": Along.JOB}),
    "no storage SCP": Row(cause=Tried(fault=local(ending.NO_SCP)), becomes={
        **WAITS, "due": after(10), "along": Along.MOVES_HERE, "seen": Seen.NOTHING}),
    "no room on our disk": Row(cause=Tried(fault=local(ending.DISK_FULL), progressed=True), finished=5, becomes={
        **WAITS, "due": after(10), "along": Along.ALL_HERE, "frees_others": True}),
    "refused here": Row(cause=Tried(fault=local(ending.REFUSED_HERE), progressed=True), becomes={
        **WAITS, "due": after(10), "along": Along.NOBODY}),
    "one request is undecided": Row(cause=Tried(fault=local(Reason.ANSWERS_UNDECIDED)), becomes={
        **HELD, "along": Along.NOBODY}),
    # the worker died
    "died": Row(cause=Death(deaths=2, blamed=False), end=AttemptEnd.LOST, facts={"barren": 4}, becomes={
        "attempt": AttemptEnd.LOST, "chunk": ChunkState.PENDING, "due": after(2), "reason": "worker lost",
        "careful": True, "along": Along.NOBODY, "seen": Seen.NOTHING, "tells_pause": False}),
    "died again and again": Row(cause=Death(deaths=5, blamed=False), end=AttemptEnd.LOST, becomes={
        **HELD, "careful": True, "along": Along.NOBODY}),
    "died again and again, on what is known": Row(cause=Death(deaths=9, blamed=True), end=AttemptEnd.LOST, becomes={
        "chunk": ChunkState.PENDING, "due": after(60)}),
    "died, all was recorded": Row(cause=Death(deaths=1, blamed=False), end=AttemptEnd.LOST, facts={"left": 0}, becomes={
        **DONE, "attempt": AttemptEnd.LOST}),
    "died, cancelled": Row(cause=Death(deaths=1, blamed=False), end=AttemptEnd.LOST, facts={"cancel": True}, becomes={
        **CANCELLED, "attempt": AttemptEnd.LOST}),
}  # fmt: skip


@pytest.mark.parametrize("situation", TABLE)
def test_the_table_of_endings(situation: str) -> None:
    """Each situation has one ending: the chunk's state, until when, who shares it, and what it tells of the remote."""
    row = TABLE[situation]
    found = row.ending()
    assert {name: getattr(found, name) for name in row.becomes} == row.becomes


@given(
    st.sampled_from([row.cause for row in TABLE.values()]),
    st.sampled_from(AttemptEnd),
    st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2), st.integers(0, 2),
)  # fmt: skip
def test_every_situation_has_an_ending(
    cause: Cause | None, end: AttemptEnd, cancel: bool, hold: bool, plan: bool, left: int, finished: int
) -> None:
    """A chunk is left in a state that a running one may come to: what waits has a time, what is held says why and what
    to do, and nothing that was asked to stop goes on by itself.
    """
    account = Account(end=end, cause=cause, finished=finished)
    found = ending.of(account, AttemptFacts(now=NOW, cancel=cancel, hold=hold, plan=plan, left=left, policy=POLICY))
    assert (found.chunk is ChunkState.PENDING) == (found.due is not None)
    if found.chunk is ChunkState.HELD:
        assert found.reason and found.advice
    if cancel or hold:
        assert found.chunk is not ChunkState.PENDING
    if found.chunk is ChunkState.DONE:
        assert not plan and not left


def test_our_own_faults_are_in_the_table_of_answers() -> None:
    """The reasons by which it is told whose fault it was are words of the table."""
    for reason in ending.OURS | ending.ALONE | {ending.LOST, ending.BY_PERSON, ending.CROWDED}:
        assert reason == ending.CROWDED or local(reason).reason == reason
    assert CROWDED.reason == ending.CROWDED


def _chunk(
    fault: Answer | None,
    *,
    left: int = 5,
    progressed: bool = False,
    barren: int = 0,
    same_before: int = 0,
    waited: float | None = None,
    jitter: float = 0.0,
    served: bool = False,
) -> Decision:
    facts = AttemptFacts(
        now=NOW,
        barren=barren,
        alike=same_before,
        waiting_since=None if waited is None else NOW - timedelta(seconds=waited),
        jitter=jitter,
        policy=POLICY,
        served=served,
    )
    decision = ending.decided(Tried(fault=fault, left=left, progressed=progressed), facts)
    assert decision is not None
    return decision


def _pause(decision: Decision) -> float:
    assert decision.next is Next.RETRY and decision.at
    return (decision.at - NOW).total_seconds()


# --- chunks


@pytest.mark.parametrize("fault", [None, UNREACHABLE, ABORTED, UNKNOWN_CALLER, HANGS_UP])
def test_a_chunk_without_items_left_is_done(fault: Answer | None) -> None:
    """Whatever ended the association: when no item is left there is nothing to try again or to hold."""
    assert _chunk(fault, left=0, barren=9, waited=99_999).next is Next.DONE


@pytest.mark.parametrize("fault", [ABORTED, UNREACHABLE, CONGESTION, HANGS_UP], ids=lambda answer: answer.reason)
def test_barren_grows_only_when_no_item_was_finished(fault: Answer) -> None:
    """An attempt that finished an item starts the count and the clock of giving up anew."""
    without = _chunk(fault, barren=1, waited=100)
    assert without.barren == 2 and without.waiting_since == NOW - timedelta(seconds=100)
    got_on = _chunk(fault, progressed=True, barren=2, waited=3599)
    assert (got_on.next, got_on.barren, got_on.waiting_since) == (Next.RETRY, 0, None)


def test_the_clock_of_giving_up_starts_with_the_first_barren_attempt() -> None:
    """`waiting_since` is kept from the first attempt in vain on."""
    assert _chunk(UNREACHABLE).waiting_since == NOW


def test_an_unreachable_remote_is_waited_for_until_give_up_after() -> None:
    """Pending with its reason, tried ever more rarely, however many attempts; then held, with reason and advice."""
    waiting = _chunk(UNREACHABLE, barren=500, waited=3599)
    assert waiting.next is Next.RETRY and waiting.reason == "unreachable" and waiting.advice
    held = _chunk(UNREACHABLE, barren=3, waited=3600)
    assert held.next is Next.HOLD and held.reason == "unreachable" and held.advice


@pytest.mark.parametrize("fault", [UNKNOWN_CALLER, UNKNOWN_CALLED, for_status("store", 0x0124)])
@pytest.mark.parametrize("progressed", [False, True])
def test_an_unknown_ae_title_is_held_at_once(fault: Answer, progressed: bool) -> None:
    """A person has to change something: no further try, and the advice says what."""
    held = _chunk(fault, progressed=progressed)
    assert held.next is Next.HOLD and held.reason == fault.reason and held.advice == fault.advice


@pytest.mark.parametrize("fault", [NO_REASON, HANGS_UP], ids=["1/1/1", "closed"])
def test_a_rejection_without_reason_has_three_tries(fault: Answer) -> None:
    """1/1/1, or TCP closed before an answer: three tries, then held with `is our address allowed`."""
    assert _chunk(fault, barren=0).next is Next.RETRY
    assert _chunk(fault, barren=1, same_before=1).next is Next.RETRY
    assert _chunk(fault, barren=5, same_before=0).next is Next.RETRY  # the tries before found it away
    held = _chunk(fault, barren=2, same_before=2)
    assert held.next is Next.HOLD and held.advice and "is our address allowed" in held.advice


@pytest.mark.parametrize("fault", [NO_REASON, HANGS_UP], ids=["1/1/1", "closed"])
def test_a_remote_that_was_of_use_is_down_and_not_against_us(fault: Answer) -> None:
    """What stands before an archive that is down hangs up as well: it is waited for as long as for one that is away."""
    assert _chunk(fault, barren=7, same_before=7, served=True).next is Next.RETRY
    assert _chunk(fault, barren=7, same_before=7, served=True, waited=3600).next is Next.HOLD
    doubtful = replace(fault, rule=Rule.DOUBTFUL)
    assert _chunk(doubtful, barren=1, same_before=1, served=True).next is Next.HOLD, "for this it is no matter"


def test_only_the_remote_makes_others_wait() -> None:
    """Away, hanging up, congested: whatever waits for it waits along. One file that breaks associations is its own."""
    assert _chunk(HANGS_UP).for_all and _chunk(CONGESTION).for_all
    assert not _chunk(ABORTED).for_all


def test_congestion_slows_down() -> None:
    """Refused for lack of resources: a pause even where the attempt got on; an abort that got on goes on at once."""
    assert _pause(_chunk(NO_ROOM, progressed=True)) == POLICY.first_delay
    assert _pause(_chunk(ABORTED, progressed=True)) == 0
    assert _pause(_chunk(CONGESTION)) == 10


def test_each_barren_attempt_doubles_the_delay() -> None:
    """The chunk's own count tells how far; jitter takes off up to a fifth."""
    assert _pause(_chunk(UNREACHABLE, barren=2)) == 40
    assert _pause(_chunk(UNREACHABLE, barren=2, jitter=0.5)) == pytest.approx(36)


# --- whatever the remote answers

_ANSWERS = [
    *(for_status("store", status) for status in (0, 0xB000, 0xA700, 0xA900, 0xC000, 0x0110, 0x0124, 0x0213, 0x4711)),
    UNREACHABLE, HANGS_UP, NO_REASON, CONGESTION, UNKNOWN_CALLER, ABORTED, SILENT,
]  # fmt: skip
_PER_ITEM = {Rule.DONE, Rule.WARNING, Rule.FINAL, Rule.AGAIN, Rule.CONGESTED}
_MOST = {Rule.AGAIN: 2, Rule.BROKEN: retry.MAX_CHARGES}


@given(st.lists(st.sampled_from(_ANSWERS), min_size=1, max_size=12), st.integers(1, 6), st.floats(0, 1))
def test_every_sequence_of_answers_comes_to_an_end(answers: list[Answer], number: int, jitter: float) -> None:
    """Whatever a remote answers for n items: the chunk ends or is held, and no item is tried more than its rule says.

    The answers repeat for ever; time passes only by the delays.
    """
    feed = cycle(answers)
    charges = dict.fromkeys(range(number), 0)
    charged_by: dict[tuple[int, Rule], int] = {}
    barren, since, now = 0, None, NOW
    for _ in range(2000):
        progressed, fault, congested = False, None, 0
        for item in sorted(charges, key=lambda item: (charges[item], item)):
            answer = next(feed)
            state, after = decide_item(answer, charges=charges[item], to_blame=progressed)
            assert after <= retry.MAX_CHARGES
            if after > charges[item]:
                key = (item, answer.rule)
                charged_by[key] = charged_by.get(key, 0) + 1
                assert charged_by[key] <= _MOST.get(answer.rule, retry.MAX_CHARGES)
            charges[item] = after
            if state is not ItemState.PENDING:
                del charges[item]
                progressed = True
            congested = congested + 1 if answer.rule is Rule.CONGESTED else 0
            if answer.rule not in _PER_ITEM or congested >= retry.MAX_CONGESTED_IN_A_ROW:
                fault = answer
                break
        decision = ending.decided(
            Tried(fault=fault, left=len(charges), progressed=progressed),
            AttemptFacts(now=now, barren=barren, waiting_since=since, jitter=jitter, policy=POLICY),
        )
        assert decision is not None
        if decision.next is not Next.RETRY:
            assert (decision.next is Next.DONE) == (not charges)
            return
        assert decision.at and decision.at >= now
        barren, since, now = decision.barren, decision.waiting_since, decision.at
    pytest.fail(f"no end: {list(islice(feed, 12))}")


def test_slow_media_are_looked_for_ever_less_often_and_then_a_person_is_asked() -> None:
    """`settle` seconds after the first look, then twice the pause up to `max_delay`; what `settle` asks for is kept."""
    nearline, given_up = SLOW_MEDIA, local(Reason.NEARLINE, "ask them")

    def look(looks: int, waited: float | None, settle: float = 200) -> Decision:
        since = None if waited is None else NOW - timedelta(seconds=waited)
        recall = Recall(answer=nearline, given_up=given_up, settle=settle)
        decision = ending.decided(recall, AttemptFacts(now=NOW, barren=looks, waiting_since=since, policy=POLICY))
        assert decision is not None
        return decision

    assert [_pause(look(n, None)) for n in range(4)] == [200, 400, 600, 600]
    assert _pause(look(5, 10, settle=900)) == 900
    first = look(0, None)
    assert (first.reason, first.barren, first.waiting_since, first.for_all) == ("nearline", 1, NOW, False)
    assert look(9, POLICY.give_up_after - 1).next is Next.RETRY
    last = look(9, POLICY.give_up_after)
    assert (last.next, last.advice) == (Next.HOLD, "ask them")

"""Who is charged for what, when a chunk is tried again, and when a person is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules import errors, retry
from dicomferry.models.rules.answers.lookup import Answer, Rule, for_error, for_status, local
from dicomferry.models.rules.retry import Decision, Next, Policy, decide_chunk, decide_item, decide_recall, delay
from dicomferry.models.rules.state import ItemState

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
POLICY = Policy(first_delay=10, max_delay=600, give_up_after=3600)

UNREACHABLE = for_error(errors.RemoteUnreachable("refused"))
HANGS_UP = for_error(errors.RemoteUnreachable("closed", closed=True))
NO_REASON = for_error(errors.AssociationRejected(1, 1, 1))
CONGESTION = for_error(errors.AssociationRejected(2, 3, 1))
UNKNOWN_CALLER = for_error(errors.AssociationRejected(1, 1, 3))
UNKNOWN_CALLED = for_error(errors.AssociationRejected(1, 1, 7))
ABORTED = for_error(errors.AssociationAborted("abort"))
SILENT = for_error(errors.DimseTimeout("store_answer", 300))
NO_ROOM = for_status("store", 0xA700)


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
    since = None if waited is None else NOW - timedelta(seconds=waited)
    return decide_chunk(
        fault, left=left, progressed=progressed, barren=barren, same_before=same_before, waiting_since=since,
        now=NOW, jitter=jitter, policy=POLICY, served=served,
    )  # fmt: skip


def _pause(decision: Decision) -> float:
    assert decision.next is Next.RETRY and decision.at
    return (decision.at - NOW).total_seconds()


# --- items


@pytest.mark.parametrize("fault", [ABORTED, SILENT], ids=["abort", "time-out"])
def test_an_item_charged_three_times_fails(fault: Answer) -> None:
    """An abort or time-out charges the item in flight; charged 3 times, it fails."""
    assert decide_item(fault, charges=0) == (ItemState.PENDING, 1)
    assert decide_item(fault, charges=1) == (ItemState.PENDING, 2)
    assert decide_item(fault, charges=2) == (ItemState.FAILED, 3)


@pytest.mark.parametrize(
    "fault",
    [UNREACHABLE, HANGS_UP, NO_REASON, CONGESTION, UNKNOWN_CALLER, UNKNOWN_CALLED],
    ids=lambda answer: answer.reason,
)
@pytest.mark.parametrize("charges", [0, 1, 2])
def test_faults_of_the_remote_charge_nobody(fault: Answer, charges: int) -> None:
    """Unreachable, rejected, held: no item pays for it, whatever it was charged before."""
    assert decide_item(fault, charges=charges) == (ItemState.PENDING, charges)


def test_an_answer_for_good_is_final_at_once() -> None:
    """A900, Cxxx, 0117 and their like: the item failed, uncharged."""
    for status in (0xA900, 0xC000, 0x0117, 0x0118):
        assert decide_item(for_status("store", status), charges=0) == (ItemState.FAILED, 0)


def test_processing_failure_and_unlisted_statuses_are_tried_once_more() -> None:
    """0110 and any status not listed: one retry, then final."""
    for status in (0x0110, 0x4711):
        answer = for_status("store", status)
        assert decide_item(answer, charges=0) == (ItemState.PENDING, 1)
        assert decide_item(answer, charges=1) == (ItemState.FAILED, 2)


def test_success_and_warning_end_an_item() -> None:
    """0000 succeeded, Bxxx and 0111 warning, uncharged."""
    assert decide_item(for_status("store", 0), charges=2) == (ItemState.SUCCEEDED, 2)
    for status in (0xB000, 0xB123, 0x0111):
        assert decide_item(for_status("store", status), charges=2) == (ItemState.WARNING, 2)


def test_lack_of_resources_charges_an_item_only_where_others_got_through() -> None:
    """A remote that takes nothing is at fault itself; where it refuses this one alone, the item has three tries."""
    assert decide_item(NO_ROOM, charges=2, to_blame=False) == (ItemState.PENDING, 2)
    assert decide_item(NO_ROOM, charges=0, to_blame=True) == (ItemState.PENDING, 1)
    assert decide_item(NO_ROOM, charges=2, to_blame=True) == (ItemState.FAILED, 3)


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


def test_another_answer_gives_an_item_another_chance() -> None:
    """One more try an answer; whatever the answers, three charges end it."""
    state, charges = decide_item(ABORTED, charges=0)
    assert (state, charges) == (ItemState.PENDING, 1)
    failing = for_status("store", 0x0110)
    assert decide_item(failing, charges=1, again=False) == (ItemState.PENDING, 2)
    assert decide_item(failing, charges=1, again=True) == (ItemState.FAILED, 2)
    assert decide_item(failing, charges=2, again=False) == (ItemState.FAILED, 3)


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
    """First 10 s, doubling, at most max_delay; jitter takes up to a fifth off so that chunks do not march in step."""
    assert [delay(n, jitter=0, policy=POLICY) for n in (1, 2, 3, 6, 7, 8)] == [10, 20, 40, 320, 600, 600]
    assert delay(1, jitter=1, policy=POLICY) == pytest.approx(8)
    assert delay(100_000, jitter=0, policy=POLICY) == 600
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
        decision = decide_chunk(
            fault, left=len(charges), progressed=progressed, barren=barren, waiting_since=since, now=now,
            jitter=jitter, policy=POLICY,
        )  # fmt: skip
        if decision.next is not Next.RETRY:
            assert (decision.next is Next.DONE) == (not charges)
            return
        assert decision.at and decision.at >= now
        barren, since, now = decision.barren, decision.waiting_since, decision.at
    pytest.fail(f"no end: {list(islice(feed, 12))}")


def test_slow_media_are_looked_for_ever_less_often_and_then_a_person_is_asked() -> None:
    """`settle` seconds after the first look, then twice the pause up to `max_delay`; what `settle` asks for is kept."""
    nearline = local("nearline")

    def look(looks: int, waited: float | None, settle: float = 200) -> Decision:
        since = None if waited is None else NOW - timedelta(seconds=waited)
        return decide_recall(nearline, looks=looks, settle=settle, waiting_since=since, now=NOW, policy=POLICY)

    assert [_pause(look(n, None)) for n in range(4)] == [200, 400, 600, 600]
    assert _pause(look(5, 10, settle=900)) == 900
    first = look(0, None)
    assert (first.reason, first.barren, first.waiting_since, first.for_all) == ("nearline", 1, NOW, False)
    assert look(9, POLICY.give_up_after - 1).next is Next.RETRY
    assert look(9, POLICY.give_up_after).next is Next.HOLD

"""Which item is charged for what, and how long the pauses are."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.answers.lookup import Answer, for_status
from dicomferry.models.rules.retry import decide_item, delay
from dicomferry.models.rules.state import ItemState
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


def test_another_answer_gives_an_item_another_chance() -> None:
    """One more try an answer; whatever the answers, three charges end it."""
    state, charges = decide_item(ABORTED, charges=0)
    assert (state, charges) == (ItemState.PENDING, 1)
    failing = for_status("store", 0x0110)
    assert decide_item(failing, charges=1, again=False) == (ItemState.PENDING, 2)
    assert decide_item(failing, charges=1, again=True) == (ItemState.FAILED, 2)
    assert decide_item(failing, charges=2, again=False) == (ItemState.FAILED, 3)


# --- pauses


def test_each_barren_attempt_doubles_the_delay() -> None:
    """First 10 s, doubling, at most max_delay; jitter takes up to a fifth off so that chunks do not march in step."""
    assert [delay(n, jitter=0, policy=POLICY) for n in (1, 2, 3, 6, 7, 8)] == [10, 20, 40, 320, 600, 600]
    assert delay(1, jitter=1, policy=POLICY) == pytest.approx(8)
    assert delay(100_000, jitter=0, policy=POLICY) == 600

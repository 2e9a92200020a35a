"""The state machines, pair by pair, and the derivation of a job's state, case by case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import product
from typing import Any

import pytest

from dicomferry.models.rules.errors import IllegalTransition
from dicomferry.models.rules.state import (
    CHUNK_TRANSITIONS,
    FINAL_JOB_STATES,
    ITEM_TRANSITIONS,
    JOB_TRANSITIONS,
    ChunkState,
    ItemState,
    JobState,
    Tally,
    derive_job,
    step,
)

# As the design page has them, one line a state.
ITEM = {
    "pending": "succeeded warning failed skipped cancelled",
    "succeeded": "failed",  # its file is gone when its request ends
    "warning": "failed",
    "failed": "pending succeeded",  # retry; a late arrival
    "skipped": "pending",  # a duplicate of what cannot be sent
    "cancelled": "pending",  # retry
}
CHUNK = {
    "pending": "running held cancelled",
    "running": "pending done held cancelled",
    "held": "pending cancelled",
    "done": "pending",  # retry
    "cancelled": "pending",  # retry
}
JOB = {
    "pending": "running held succeeded incomplete failed cancelled",
    "running": "held succeeded incomplete failed cancelled",
    "held": "pending running succeeded incomplete failed cancelled",  # pending: released before it ever ran
    "succeeded": "",
    "incomplete": "running succeeded",
    "failed": "running succeeded incomplete",
    "cancelled": "pending running",  # pending: retried, and cancelled before it ever ran
}


def _pairs() -> Iterator[Any]:
    tables: list[tuple[type[StrEnum], Mapping[Any, Any], Mapping[str, str]]] = [
        (ItemState, ITEM_TRANSITIONS, ITEM),
        (ChunkState, CHUNK_TRANSITIONS, CHUNK),
        (JobState, JOB_TRANSITIONS, JOB),
    ]
    for kind, table, written in tables:
        assert set(written) == {state.value for state in kind}
        for old, new in product(kind, kind):
            allowed = new.value in written[old.value].split()
            yield pytest.param(table, old, new, allowed, id=f"{kind.__name__}-{old}-{new}")


@pytest.mark.parametrize(("table", "old", "new", "allowed"), list(_pairs()))
def test_transitions(table: Mapping[Any, Any], old: Any, new: Any, allowed: bool) -> None:
    """A pair in the table passes; any other raises and names both states."""
    if allowed:
        assert step(table, old, new) is new
        return
    with pytest.raises(IllegalTransition) as raised:
        step(table, old, new)
    assert f"{old} -> {new}" in str(raised.value)


def test_nothing_brings_back_what_arrived() -> None:
    """Finished items are never redone: succeeded and warning items stay what they are, unless their file is gone."""
    for state in (ItemState.SUCCEEDED, ItemState.WARNING):
        assert ITEM_TRANSITIONS[state] == {ItemState.FAILED}


_COUNTS = ("succeeded", "warning", "failed", "skipped", "cancelled", "pending")


def _expected(items: Mapping[str, int], *, planned: bool, chunks: set[ChunkState], started: bool) -> str:
    """The design page's section 4, sentence by sentence."""
    if ChunkState.RUNNING in chunks:
        return "running"
    if ChunkState.PENDING in chunks:  # waiting: nothing to see before the first start, under way after it
        return "running" if started else "pending"
    if ChunkState.HELD in chunks:  # only held chunks are left
        return "held"
    if items["cancelled"] or not planned:  # something was given up on demand, be it the rest of the plan
        return "cancelled"
    if items["succeeded"] + items["warning"] == 0:  # none succeeded, be it that nothing counted
        return "failed"
    if items["failed"] + items["pending"] == 0:  # every item succeeded, warning or skipped
        return "succeeded"
    return "incomplete"


def test_job_state_over_the_whole_grid() -> None:
    """Every set of chunk states, with 0 or 1 item of each state, planned or not, started or not."""
    seen = set()
    for present in product((0, 1), repeat=len(ChunkState)):
        chunks = {state for state, is_there in zip(ChunkState, present, strict=True) if is_there}
        for numbers in product((0, 1), repeat=len(_COUNTS)):
            items = dict(zip(_COUNTS, numbers, strict=True))
            tally = Tally(total=sum(numbers), **{name: items[name] for name in _COUNTS[:-1]})
            assert tally.pending == items["pending"]
            for planned, started in product((False, True), repeat=2):
                state = derive_job(tally, planned=planned, chunks=chunks, started=started)
                assert state == _expected(items, planned=planned, chunks=chunks, started=started)
                seen.add(state)
                if state in FINAL_JOB_STATES:
                    assert not chunks & {ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD}
    assert seen == set(JobState)


def test_a_store_with_nothing_to_send_failed() -> None:
    """Neither no item at all nor skipped ones alone make a success: one at least has to count."""
    for tally in (Tally(), Tally(total=3, skipped=3)):
        assert derive_job(tally, planned=True, chunks={ChunkState.DONE}, started=True) is JobState.FAILED


def test_a_store_that_may_be_empty_succeeded() -> None:
    """Only where nothing failed, and nothing was left."""
    done = {"planned": True, "chunks": {ChunkState.DONE}, "started": True, "empty_is_well": True}
    assert derive_job(Tally(), **done) is JobState.SUCCEEDED  # type: ignore[arg-type]
    assert derive_job(Tally(total=2, skipped=2), **done) is JobState.SUCCEEDED  # type: ignore[arg-type]
    assert derive_job(Tally(total=2, skipped=1, failed=1), **done) is JobState.FAILED  # type: ignore[arg-type]


def test_a_find_that_broke_off_with_matches_is_incomplete() -> None:
    """What a failed item left and what is kept counts for something; with an item that arrived nothing changes."""
    failed, both = Tally(total=1, failed=1), Tally(total=2, failed=1, succeeded=1)
    for tally in (failed, both):
        state = derive_job(tally, planned=True, chunks={ChunkState.DONE}, started=True, partial=True)
        assert state is JobState.INCOMPLETE


def test_skipped_items_never_count_against_a_job() -> None:
    """Skipped beside arrived is success; a warning is an arrival."""
    tally = Tally(total=3, succeeded=1, warning=1, skipped=1)
    assert derive_job(tally, planned=True, chunks={ChunkState.DONE}, started=True) is JobState.SUCCEEDED

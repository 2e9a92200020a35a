"""The state machines as tables, and how a job's state follows from its items and chunks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from dicomferry.models.rules.errors import IllegalTransition


class ItemState(StrEnum):
    """Only items carry outcomes."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    """What a worker may do with a chunk. Waiting is `pending` with `not_before` and `reason`."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    HELD = "held"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """Derived from items and chunks by `derive_job`."""

    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptEnd(StrEnum):
    """How one try of a chunk ended; an attempt that has not ended has none."""

    COMPLETED = "completed"
    ERROR = "error"
    LOST = "lost"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


FINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.INCOMPLETE, JobState.FAILED, JobState.CANCELLED})
LIVE_JOB_STATES = tuple(state for state in JobState if state not in FINAL_JOB_STATES)
GOOD_ITEM_STATES = frozenset({ItemState.SUCCEEDED, ItemState.WARNING, ItemState.SKIPPED})

_ITEM = ItemState
_CHUNK = ChunkState
_JOB = JobState

# `retry` brings failed and cancelled items back. One that arrived fails where its file is gone when its request ends. A
# duplicate comes back where the file that it is the same as cannot be sent.
ITEM_TRANSITIONS: Mapping[ItemState, frozenset[ItemState]] = {
    _ITEM.PENDING: frozenset({_ITEM.SUCCEEDED, _ITEM.WARNING, _ITEM.FAILED, _ITEM.SKIPPED, _ITEM.CANCELLED}),
    _ITEM.SUCCEEDED: frozenset({_ITEM.FAILED}),
    _ITEM.WARNING: frozenset({_ITEM.FAILED}),
    _ITEM.FAILED: frozenset({_ITEM.PENDING, _ITEM.SUCCEEDED}),
    _ITEM.SKIPPED: frozenset({_ITEM.PENDING}),
    _ITEM.CANCELLED: frozenset({_ITEM.PENDING}),
}

CHUNK_TRANSITIONS: Mapping[ChunkState, frozenset[ChunkState]] = {
    _CHUNK.PENDING: frozenset({_CHUNK.RUNNING, _CHUNK.HELD, _CHUNK.CANCELLED}),
    _CHUNK.RUNNING: frozenset({_CHUNK.PENDING, _CHUNK.DONE, _CHUNK.HELD, _CHUNK.CANCELLED}),
    _CHUNK.HELD: frozenset({_CHUNK.PENDING, _CHUNK.CANCELLED}),
    _CHUNK.DONE: frozenset({_CHUNK.PENDING}),
    _CHUNK.CANCELLED: frozenset({_CHUNK.PENDING}),
}

# Back to pending: released, or retried, before it ever ran.
_ENDS = frozenset({_JOB.SUCCEEDED, _JOB.INCOMPLETE, _JOB.FAILED, _JOB.CANCELLED})
JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _JOB.PENDING: _ENDS | {_JOB.RUNNING, _JOB.HELD},
    _JOB.RUNNING: _ENDS | {_JOB.HELD},
    _JOB.HELD: _ENDS | {_JOB.RUNNING, _JOB.PENDING},
    _JOB.SUCCEEDED: frozenset(),
    _JOB.INCOMPLETE: frozenset({_JOB.RUNNING, _JOB.SUCCEEDED}),
    _JOB.FAILED: frozenset({_JOB.RUNNING, _JOB.SUCCEEDED, _JOB.INCOMPLETE}),
    _JOB.CANCELLED: frozenset({_JOB.RUNNING, _JOB.PENDING}),
}


_S = TypeVar("_S", bound=StrEnum)


def step(table: Mapping[_S, frozenset[_S]], old: _S, new: _S) -> _S:
    """`new`, if the table allows it after `old`; raises IllegalTransition with both names otherwise."""
    if new not in table[old]:
        raise IllegalTransition(f"{type(old).__name__}: {old} -> {new} is not in the table")
    return new


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Numbers of items by state, of one chunk or summed over a job."""

    total: int = 0
    succeeded: int = 0
    warning: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0

    def __sub__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__})

    @property
    def pending(self) -> int:
        """Items without an outcome yet."""
        return self.total - self.succeeded - self.warning - self.failed - self.skipped - self.cancelled


def derive_job(
    tally: Tally,
    *,
    planned: bool,
    chunks: Collection[ChunkState],
    started: bool,
    partial: bool = False,
    empty_is_well: bool = False,
) -> JobState:
    """The job's state as its items and chunks have it.

    `chunks` are the states that chunks of the job are in. `planned` is False while a plan is still to be finished.
    `partial` says that a failed item left something that is kept, as the matches of a find that broke off.
    `empty_is_well` says that a job with nothing to do has done it.
    A job ends only when nothing is pending, running or held; what was skipped never counts against it.
    """
    if ChunkState.RUNNING in chunks:
        return JobState.RUNNING
    if ChunkState.PENDING in chunks:
        return JobState.RUNNING if started else JobState.PENDING
    if ChunkState.HELD in chunks:
        return JobState.HELD
    if tally.cancelled or not planned:
        return JobState.CANCELLED
    arrived = tally.succeeded + tally.warning
    if not arrived and empty_is_well and tally.skipped == tally.total:
        return JobState.SUCCEEDED
    if not arrived:
        return JobState.INCOMPLETE if partial else JobState.FAILED
    return JobState.INCOMPLETE if tally.failed or tally.pending else JobState.SUCCEEDED

"""Times and sizes of attempts that no setting names, as values: who runs an attempt hands in others, such as a test."""

from __future__ import annotations

from dataclasses import dataclass, field

from dicomferry.models.record.jobs import claims
from dicomferry.workers.dimse.wire.pdu_writer import RUN_BYTES


@dataclass(frozen=True, kw_only=True)
class Beats:
    """How often a heartbeat looks, and how long it lets a silent peer or a stuck thread be. In seconds."""

    tick: float = 1.0
    """Between two looks for cancel, hold and drain."""
    cancel_grace: float = 10.0
    """How long a peer may leave unanswered what nothing can cancel, once its attempt is cancelled."""
    stop_grace: float = 30.0
    """How long a peer may leave a request unanswered, once its attempt is stopped for a reason but cancel."""
    stuck_grace: float = 15.0
    """After an abort for want of progress, how long the main thread has to come back."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """When what came of items is written down: whichever bound is met first."""

    items: int = 100
    matches: int = 500
    seconds: float = 0.5
    large_bytes: int = 16 << 20
    """Before a file of this size is sent, what is known already is recorded."""


@dataclass(frozen=True, kw_only=True)
class Planning:
    """How much of a plan is written at once, and when it gives way to what it has planned."""

    batch_items: int = 1000
    batch_requests: int = 500
    batch_seconds: float = 2.0
    """A batch is written after this time even if it is small, so that sending begins soon on slow disks."""
    slot_seconds: float = 10.0
    """After this time a plan gives its slot back."""
    stops_at: int = claims.PLAN_STOPS_AT
    goes_on_below: int = claims.PLAN_GOES_ON_BELOW
    chunk_instances: int = 500


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """All of it for one environment."""

    beats: Beats = field(default_factory=Beats)
    records: Records = field(default_factory=Records)
    planning: Planning = field(default_factory=Planning)
    congestion_pauses: tuple[float, ...] = (0.5, 2.0, 5.0)
    """Seconds to wait, within an association, after the first, second ... refusal for lack of resources in a row."""
    most_broken_in_a_row: int = 100
    """After so many associations in a row that broke before anything was answered, a C-ECHO proves nothing any more."""
    run_bytes: int = RUN_BYTES
    """Bytes of a file that are read at once."""
    cancel_seconds: float = 30.0
    """How long the last answer to a request that we cancelled is waited for (PS3.4 C.4.2.3.1 sets no limit)."""


DEFAULT = Tuning()

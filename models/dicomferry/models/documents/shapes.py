"""The documents that are shown: the keys of the JSON that commands print, and the columns of their CSV in this order.

Moments are ISO 8601 text in UTC, DIMSE statuses `0xNNNN`; None stands for what is not known or has no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any, NotRequired, TypedDict, get_type_hints, is_typeddict


class CountsDocument(TypedDict):
    """How many there are, and in which states."""

    total: int
    pending: int
    succeeded: int
    warning: int
    failed: int
    skipped: int
    cancelled: int


class JobDocument(TypedDict):
    """A job. `reason` says why it waits, or why it ended as it did; `reason_text` is the advice that belongs to it.

    Of a retrieve, `items` are its `requests` and the `instances` that these expect.
    """

    id: int
    kind: str
    remote: str
    remote_address: str
    destination: str | None
    label: str | None
    priority: str
    ignore_window: bool
    state: str
    reason: str | None
    detail: str | None
    reason_text: str | None
    planned: bool
    verified: str | None
    basis: str | None
    listed_at: str | None
    accepted_at: str | None
    accepted_reason: str | None
    expectation: str | None
    submitted_at: str | None
    started_at: str | None
    finished_at: str | None
    not_before: str | None
    attempts: int
    items: CountsDocument
    requests: CountsDocument
    instances: CountsDocument
    matches: int | None
    expected: int | None
    received: int | None
    missing: int | None
    surplus: int | None
    conflicts: int | None
    bytes: int
    rate_instances_per_s: float | None
    waiting_for: str | None


class EventDocument(TypedDict):
    """Something that happened to a job. Where many are told as one, `more` came after it, the last at `until`."""

    at: str | None
    kind: str
    text: str
    more: NotRequired[int]
    until: NotRequired[str | None]


class RowDocument(TypedDict):
    """One request as it was given."""

    row: int | None
    keys: list[list[str]]


class AskedDocument(TypedDict):
    """What a job was asked for: of a find its keys, of a retrieve its `first` requests and how many there are."""

    level: NotRequired[str | None]
    root: NotRequired[str | None]
    keys: NotRequired[list[list[str]]]
    csv: NotRequired[str | None]
    requests: NotRequired[int]
    first: NotRequired[list[RowDocument]]
    options: dict[str, Any]


class ShownJob(JobDocument):
    """A job by itself, with its last events, and what was asked for."""

    events: list[EventDocument]
    paths: list[str]
    recursive: bool
    asked: AskedDocument


class ItemDocument(TypedDict):
    """A file, an instance or a request of a job, and what came of it."""

    kind: str
    row: int | None
    sop_instance_uid: str | None
    sop_class_uid: str | None
    transfer_syntax_uid: str | None
    path: str | None
    size: int | None
    state: str
    status: str | None
    reason: str | None
    detail: str | None
    advice: str | None
    sent_as: str | None
    attempts: int
    identifier: list[list[str]] | None


class ReportDocument(TypedDict):
    """An item as a report has it: `bytes` is the size of its file."""

    path: str | None
    sop_instance_uid: str | None
    sop_class_uid: str | None
    transfer_syntax_uid: str | None
    state: str
    status: str | None
    reason: str | None
    detail: str | None
    advice: str | None
    attempts: int
    bytes: int | None


class AttemptDocument(TypedDict):
    """One try of a chunk."""

    chunk_id: int
    fence: int
    worker: str
    pid: int
    end: str | None
    reason: str | None
    detail: str | None
    finished_items: int
    started_at: str | None
    ended_at: str | None


class RefusalDocument(TypedDict):
    """What our own side answered to what came, and how often."""

    status: str
    why: str
    number: int
    such_as: str


class RequestDocument(TypedDict):
    """A request of a retrieve, and what came of its instances, whoever asked for them."""

    id: int
    row: int | None
    identifier: list[list[str]]
    expectation: str | None
    verified: str | None
    basis: str | None
    listed_at: str | None
    expected: int | None
    received: int
    state: str
    reason: str | None
    detail: str | None
    status: str | None


class ExpectedDocument(TypedDict):
    """An instance that a retrieve expects; `path` is its file in the archive."""

    request_id: int
    row: int | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    filed_study: str | None
    filed_series: str | None
    sop_instance_uid: str | None
    sop_class_uid: str | None
    state: str
    status: str | None
    reason: str | None
    detail: str | None
    path: str | None


class SurplusDocument(TypedDict):
    """An instance that came for a retrieve although nothing of it names it."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    path: str


class MoveDocument(TypedDict):
    """A C-MOVE or C-GET as it was asked for, and its final answer, if any."""

    id: int
    job_id: int
    chunk_id: int
    item_id: int
    fence: int
    round: int
    method: str
    message_id: int
    ae_title: str
    destination: str | None
    level: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    asked: int | None
    asked_at: str | None
    answered_at: str | None
    status: str | None
    remaining: int | None
    completed: int | None
    failed: int | None
    warning: int | None
    failed_uids: list[str] | None
    comment: str | None
    reason: str | None
    refused_here: list[Any] | None


class LearnedDocument(TypedDict):
    """What a remote was found to bear, where that is less than what was set."""

    instances_per_second: float | None
    associations: int | None


class BreakerDocument(TypedDict):
    """Whether a remote is left alone for a while: `state` is closed, open or half-open."""

    state: str
    since: str | None
    probe_at: str | None
    failures: int
    reason: str | None
    detail: str | None
    advice: str | None


class InUseDocument(TypedDict):
    """How much of a remote is in use now."""

    associations: int
    moves: int


class RecentDocument(TypedDict):
    """An attempt at a remote that has ended."""

    at: str | None
    job: int
    kind: str
    end: str
    reason: str | None
    detail: str | None
    finished_items: int


class RemoteState(TypedDict):
    """How a remote is treated at this moment."""

    open: bool
    opens_at: str | None
    closes_at: str | None
    learned: LearnedDocument
    breaker: BreakerDocument


class ExceptionDocument(RemoteState):
    """A remote that cannot be used now, or not as much as it might."""

    name: str
    window: dict[str, Any] | None


class ShownState(RemoteState):
    """How a remote is treated at this moment, with what is under way and what waits."""

    in_use: InUseDocument
    waiting: int
    held: int
    recent: list[RecentDocument]


class ToldDocument(TypedDict):
    """A notification that somebody wanted."""

    channel: str
    state: str
    outcome: str
    tries: int
    detail: str | None
    at: str | None


class RunDocument(TypedDict):
    """What became of one due time of a schedule, or of several that were missed."""

    due_at: str | None
    last_due_at: str | None
    number: int
    by_hand: bool
    state: str
    reason: str | None
    detail: str | None
    at: str | None
    job: int | None
    job_state: str | None
    job_reason: str | None
    notifications: list[ToldDocument]


class SlotDocument(TypedDict):
    """A due time, in UTC and in the schedule's zone."""

    at: str | None
    local: str


class PlainSchedule(TypedDict):
    """A schedule as it was added, and when it is due next."""

    name: str
    cron: str
    tz: str
    command: str
    folder: str
    catch_up: str
    grace: float | None
    cap: int
    overlap: str
    created_at: str | None
    paused_at: str | None
    next_due: str | None


class ScheduleDocument(PlainSchedule):
    """A schedule with its last run."""

    last_run: RunDocument | None


class ShownSchedule(PlainSchedule):
    """A schedule with its next due times and its last runs, and how many due times came to nothing."""

    next: list[SlotDocument]
    missed: int
    skipped: int
    refused: int
    runs: list[RunDocument]


def columns(shape: type, *, without: Set[str] = frozenset()) -> tuple[str, ...]:
    """The columns of a document's CSV: its keys, those of documents inside as `items_total`; `without` are left out.

    A key is left out by its own name or by that of its column.
    """
    return tuple(column for column in _columns(shape, without) if column not in without)


def _columns(shape: type, without: Set[str]) -> Iterator[str]:
    for key, kind in get_type_hints(shape).items():
        if key in without:
            continue
        inner = next((one for one in (kind, *getattr(kind, "__args__", ())) if is_typeddict(one)), None)
        if inner is None or getattr(kind, "__origin__", None) is list:
            yield key
        else:
            yield from (f"{key}_{name}" for name in get_type_hints(inner))

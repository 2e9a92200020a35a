"""Which chunk a worker gets next, and whether every gate on the way is open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database, UTCDateTime, locking, past
from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.remotes import governor
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, JobRow, RemoteRow, WorkerRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.gate import Gate
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.pacing import RateLimits
from dicomferry.models.rules.state import LIVE_JOB_STATES, ChunkState

PLAN = Kind.PLAN
PLAN_STOPS_AT = 50
"""Waiting chunks of a job from which on its plan gives way."""
PLAN_GOES_ON_BELOW = 25
"""Waiting chunks of a job below which its plan is claimed again."""

_NEVER = datetime.min.replace(tzinfo=UTC)
_DUE = ChunkRow.state == ChunkState.PENDING
# Statements of every claim are built once: building one costs more than running it.
_SLOTS = locking(sa.select(WorkerRow.draining).where(WorkerRow.id == sa.bindparam("worker")))
# Asked per job, and per job for the first chunks alone: a claim costs no more where thousands wait.
_BEST = ChunkRow.__table__.alias("best")
_WAITS = (ChunkRow.job_id == JobRow.id, _DUE, ChunkRow.lane == sa.bindparam("lane"))
_OF_PLAN, _OF_ITEMS = ChunkRow.kind == PLAN, ChunkRow.kind != PLAN


def _first(condition: sa.ColumnElement[bool], place: int) -> sa.ScalarSelect[int]:
    """The id of a job's first due chunk of this lane, or of the one behind it."""
    due = past(ChunkRow.not_before, ChunkRow.waits_from, sa.bindparam("now", type_=UTCDateTime))
    own = sa.select(ChunkRow.id).where(*_WAITS, condition, due)
    return own.order_by(ChunkRow.id).limit(1).offset(place).correlate(JobRow).scalar_subquery()


def _groups(condition: sa.ColumnElement[bool], *conditions: sa.ColumnElement[bool]) -> sa.Select[*tuple[Any, ...]]:
    columns = (_BEST.c.id, _BEST.c.priority, _BEST.c.job_id, _BEST.c.remote_id, _BEST.c.kind)
    return (
        sa.select(*columns, JobRow.served_at, JobRow.ignore_window, _first(condition, 1).label("next"))
        .select_from(JobRow)
        .join(_BEST, _BEST.c.id == _first(condition, 0))
        .where(JobRow.state.in_(LIVE_JOB_STATES), sa.not_(JobRow.cancel_asked), sa.not_(JobRow.hold_asked), *conditions)
    )


def _waiting_of(job: Any) -> sa.Select[int]:
    """The chunks of a job, plans apart, that are pending."""
    return sa.select(ChunkRow.id).where(ChunkRow.job_id == job, _DUE, _OF_ITEMS)


_ENOUGH = _waiting_of(JobRow.id).order_by(ChunkRow.id).limit(1).offset(sa.bindparam("enough")).correlate(JobRow)
_GROUPS = sa.union_all(
    _groups(_OF_ITEMS),
    _groups(_OF_PLAN, sa.not_(JobRow.planned), sa.not_(_ENOUGH.exists())),
)
_RUNNING_OF_JOBS = (
    sa.select(ChunkRow.job_id, sa.func.count().label("number"))
    .where(ChunkRow.state == ChunkState.RUNNING, ChunkRow.kind != PLAN)
    .group_by(ChunkRow.job_id)
)
_RUNNING_OF_WORKER = sa.select(sa.func.count()).where(
    ChunkRow.state == ChunkState.RUNNING,
    ChunkRow.owner_id == sa.bindparam("worker"),
    ChunkRow.lane == sa.bindparam("lane"),
)
_JOB = locking(
    sa.select(JobRow.id, JobRow.kind, JobRow.spec, JobRow.remote_id, JobRow.ignore_window).where(
        JobRow.id == sa.bindparam("job")
    )
)
_REMOTE = locking(sa.select(RemoteRow.id).where(RemoteRow.id == sa.bindparam("remote")))
_SERVED = sa.update(JobRow.__table__).where(JobRow.id == sa.bindparam("job"))  # type: ignore[arg-type]
_ATTEMPT = sa.insert(AttemptRow.__table__)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on one chunk, as long as the lease is renewed."""

    chunk_id: int
    job_id: int
    fence: int
    kind: Kind
    lane: str
    spec: spec.Spec
    remote_id: int
    careful: bool
    barren: int
    waiting_since: datetime | None
    cursor: bytes | None
    more: bool
    """Whether other chunks of the lane were due at this moment."""
    probe: bool = False
    """Whether this attempt is to find out first if the remote can be used again."""
    ahead: bool = False
    """Whether it may be listed what a move is to bring, and nothing moved."""
    failures: int = 0
    """How many attempts in a row found that it cannot."""
    limits: RateLimits | None = None


def take(
    database: Database,
    lane: str,
    worker: Worker,
    *,
    lease_seconds: float,
    jitter: float = 0.0,
    plan_below: int = PLAN_GOES_ON_BELOW,
) -> Lease | None:
    """The best due chunk of a lane for this worker; None when nothing is due or every gate is closed.

    Gates: the worker's slots for this lane, and what the governor says of each remote. A closed gate writes no attempt
    and no event; what waits behind one that opens at a known time waits until then, with the reason. `jitter` is in
    0..1. A plan is due while fewer than `plan_below` chunks of its job wait.
    """
    while True:
        found = database.write(lambda connection: _take(database, connection, lane, worker, lease_seconds, plan_below))
        if not isinstance(found, _Closed):
            return found
        governor.put_off(database, found.remote_id, found.kind, ignore_window=found.ignore_window, jitter=jitter)


@dataclass(frozen=True)
class _Closed:
    """A gate that opens at a known time."""

    remote_id: int
    kind: Kind
    ignore_window: bool


def _take(
    database: Database, connection: Connection, lane: str, worker: Worker, lease_seconds: float, plan_below: int
) -> Lease | _Closed | None:
    own = {"worker": worker.id}
    if connection.execute(_SLOTS, own).scalar():  # it drains
        return None
    # The pool has one process more than slots: neither lane takes all of it.
    if connection.execute(_RUNNING_OF_WORKER, {**own, "lane": lane}).scalar_one() >= worker.slots:
        return None
    full: set[tuple[int, bool]] = set()
    listable: set[tuple[int, bool]] = set()
    lists = False
    while True:
        now = database.now(connection)
        candidates = _candidates(connection, lane, now, full, plan_below)
        if not candidates and listable and not lists:
            # Only where nothing else is to be done it is listed what a later move brings.
            lists, full = True, full - listable
            continue
        if not candidates:
            return None
        best = candidates[0]
        # Rolling back to the savepoint gives the locks of job and remote back before the next job's is asked for:
        # holding on to them, two claimers that look at two jobs in different orders would wait for each other.
        with connection.begin_nested() as savepoint:
            gates = _Gates(full, listable, lists)
            lease = _lease(connection, best, lane, worker, now, lease_seconds, gates, more=len(candidates) > 1)
            if lease is not None:
                return lease
            savepoint.rollback()


def _lease(
    connection: Connection,
    best: _Candidate,
    lane: str,
    worker: Worker,
    now: datetime,
    lease_seconds: float,
    gates: _Gates,
    *,
    more: bool,
) -> Lease | _Closed | None:
    """Lock the job and the remote and take the chunk; None when the remote is full or somebody was faster."""
    job = connection.execute(_JOB, {"job": best.job_id}).one()
    gate = Gate()
    if best.remote_id is not None:
        # Locked first, so that what the gate counts cannot be outdated.
        connection.execute(_REMOTE, {"remote": best.remote_id})
        gate = governor.gate(
            connection, best.remote_id, best.kind, now, ignore_window=job.ignore_window, chunk_id=best.id
        )
        if gate.until is not None:
            return _Closed(best.remote_id, best.kind, job.ignore_window)
        if gate.full or (gate.ahead and not gates.lists):
            gates.full.add((best.remote_id, best.kind == Kind.MOVE))
            if gate.ahead:
                gates.listable.add((best.remote_id, True))
            return None
    taken = connection.execute(
        sa.update(ChunkRow)
        .where(ChunkRow.id == best.id, _DUE, past(ChunkRow.not_before, ChunkRow.waits_from, now))
        .values(
            state=ChunkState.RUNNING,
            fence=ChunkRow.fence + 1,
            owner_id=worker.id,
            lease_until=now + timedelta(seconds=lease_seconds),
            leased_at=now,
            reason=None,
            advice=None,
            in_flight_item_id=None,
            matches=0,
        )
        .returning(ChunkRow.fence, ChunkRow.careful, ChunkRow.barren, ChunkRow.waiting_since, ChunkRow.cursor)
    ).one_or_none()
    if taken is None:  # another claimer was faster while we waited for the job's row
        return None
    if gate.probe and best.remote_id is not None:
        governor.mark_probe(connection, best.remote_id, best.id)
    if best.kind == Kind.MOVE and best.remote_id is not None:
        mark = governor.mark_ahead if gate.ahead else governor.unmark_ahead
        mark(connection, best.remote_id, best.id)
    attempt = {"job_id": job.id, "chunk_id": best.id, "fence": taken.fence, "started_at": now}
    connection.execute(_ATTEMPT, {**attempt, "worker": worker.name, "pid": os.getpid()})
    connection.execute(_SERVED, {"job": job.id, "served_at": now})
    ledger.add_event(
        connection,
        job.id,
        now,
        "chunk_started",
        f"chunk {best.id} ({best.kind}{', to be listed' if gate.ahead else ''}) on {worker.name}, "
        f"process {os.getpid()}",
    )
    ledger.derive(connection, job.id, now)
    return Lease(
        chunk_id=best.id,
        job_id=job.id,
        fence=taken.fence,
        kind=best.kind,
        lane=lane,
        spec=spec.from_json(job.kind, job.spec),
        remote_id=job.remote_id,
        careful=taken.careful,
        barren=taken.barren,
        waiting_since=taken.waiting_since,
        cursor=taken.cursor,
        more=more or best.more,
        probe=gate.probe,
        ahead=gate.ahead,
        failures=gate.failures,
        limits=gate.limits,
    )


@dataclass(frozen=True)
class _Gates:
    """What was found of remotes so far, each with whether that is of moves alone: `full` are those that take no more,
    `listable` those of them of which a chunk may be listed; `lists` tells that it is time to.
    """

    full: set[tuple[int, bool]]
    listable: set[tuple[int, bool]]
    lists: bool


@dataclass(frozen=True)
class _Candidate:
    id: int
    job_id: int
    remote_id: int | None
    kind: Kind
    more: bool
    ignore_window: bool


def _candidates(
    connection: Connection, lane: str, now: datetime, full: set[tuple[int, bool]], plan_below: int
) -> list[_Candidate]:
    """The first due chunk of each job, kind and remote, best first.

    By priority, then the job with the fewest running chunks, then the one that was served longest ago, then the oldest.
    """
    asked = {"lane": lane, "now": now, "enough": max(plan_below - 1, 0)}
    groups = connection.execute(_GROUPS, asked).all()
    if not groups:
        return []
    running: Mapping[int, int] = {row.job_id: row.number for row in connection.execute(_RUNNING_OF_JOBS)}
    free = [group for group in groups if (group.remote_id, group.kind == Kind.MOVE) not in full]
    # Without turns, a long job would keep a single association to itself: none of it runs at the moment of a claim.
    free.sort(key=lambda group: (-group.priority, running.get(group.job_id, 0), group.served_at or _NEVER, group.id))
    return [
        _Candidate(
            group.id, group.job_id, group.remote_id, Kind(group.kind), group.next is not None, group.ignore_window
        )
        for group in free
    ]


def waiting_chunks(connection: Connection, job_id: int) -> int:
    """How many chunks of a job, plans apart, are pending."""
    waiting = _waiting_of(job_id).subquery()
    number: int = connection.execute(sa.select(sa.func.count()).select_from(waiting)).scalar_one()
    return number


def any_due(database: Database, lane: str, *, plan_below: int = PLAN_GOES_ON_BELOW) -> bool:
    """Whether a worker with a free slot would find something in this lane: a chunk to claim, or some to put off."""

    def work(connection: Connection) -> bool:
        now = database.now(connection)
        return any(
            candidate.remote_id is None or not _is_full(connection, candidate, now)
            for candidate in _candidates(connection, lane, now, set(), plan_below)
        )

    return database.read(work)


def idle_lanes(database: Database, worker: Worker, *, since: int | None) -> tuple[list[str], int]:
    """The lanes in which this worker has a free process and a chunk to claim, and has claimed none since the attempt
    of this number; with the number of the newest attempt.
    """

    def work(connection: Connection) -> tuple[list[str], int]:
        newest = int(connection.execute(sa.select(sa.func.max(AttemptRow.id))).scalar() or 0)
        own = sa.select(AttemptRow.id).where(AttemptRow.id > (newest if since is None else since))
        claimed = connection.execute(own.where(AttemptRow.worker == worker.name).limit(1)).first()
        runs = {
            lane: connection.execute(_RUNNING_OF_WORKER, {"worker": worker.id, "lane": lane}).scalar_one()
            for lane in spec.LANES
        }
        # The pool has one process more than slots.
        if claimed or since is None or sum(runs.values()) > worker.slots:
            return [], newest
        return [lane for lane in spec.LANES if runs[lane] < worker.slots], newest

    free, newest = database.read(work)
    return [lane for lane in free if any_due(database, lane)], newest


def is_busy(database: Database, worker: Worker) -> bool:
    """Whether this worker has a chunk that runs. Raises OutOfReach."""

    def work(connection: Connection) -> bool:
        return any(
            connection.execute(_RUNNING_OF_WORKER, {"worker": worker.id, "lane": lane}).scalar_one()
            for lane in spec.LANES
        )

    return database.read(work)


def _is_full(connection: Connection, candidate: _Candidate, now: datetime) -> bool:
    """A gate that opens at a known time is another matter: whoever comes to it puts off what waits there."""
    assert candidate.remote_id is not None
    gate = governor.gate(
        connection,
        candidate.remote_id,
        candidate.kind,
        now,
        ignore_window=candidate.ignore_window,
        chunk_id=candidate.id,
    )
    return gate.until is None and gate.full

"""What becomes of jobs and remotes, for the log: read from the record, whichever process made it happen.

Ids, kinds, states and reason words alone: what a job asked for and what was said of its items names patients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from dicomferry.models import telemetry
from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import EventRow, JobRow, RemoteRow
from dicomferry.models.rules.state import JobState

log = telemetry.logger(__name__)

TURN = "chronicle"
TURN_SECONDS = 10.0
MOST_EVENTS = 1000
"""Events that one look tells of, at most; as many ids back are looked at again, since rows may become visible late."""
_COUNTS = ("total", "succeeded", "warning", "failed", "skipped", "cancelled")
_KINDS = {
    "submitted": "job submitted",
    "chunk_started": "job begun",
    "held": "job held",
    "released": "job released",
    "cancelled": "job cancelled",
    "retry": "job retried",
    "ended": "job ended",
}


class _Event(NamedTuple):
    """Something that became of a job, and how the job is by now."""

    id: int
    kind: str
    job_id: int
    job_kind: str
    state: JobState
    reason: str | None
    remote: str


class _OpenBreaker(NamedTuple):
    """A remote that is not called for a while: its breaker is open."""

    remote_id: int
    name: str
    reason: str | None


@dataclass
class Chronicle:
    """What one role process has told so far. What happened before its first one is not told again."""

    database: Database
    worker: Worker
    log: Any = field(default=log, repr=False)
    _seen: set[int] = field(default_factory=set)
    _last: int | None = None
    _broken: dict[int, str] | None = None

    def look(self) -> None:
        """Tell what is new, if it is this role's turn to. Raises OutOfReach."""
        events, broken = self.database.read(self._read)
        new = [row for row in events if row.id not in self._seen]
        first_look = self._last is None
        self._seen = {row.id for row in events}
        self._last = max([self._last or 0, *self._seen])
        before, self._broken = self._broken, {row.remote_id: row.name for row in broken}
        opened = [row for row in broken if before is not None and row.remote_id not in before]
        closed = {} if before is None else {key: name for key, name in before.items() if key not in self._broken}
        if first_look or not (new or opened or closed):
            return
        if not presence.take_turn(self.database, TURN, self.worker, seconds=TURN_SECONDS):
            return
        for row in new:
            self._tell(row)
        for remote in opened:
            self.log.warning("breaker opened", remote=remote.name, reason=remote.reason)
        for name in closed.values():
            self.log.info("breaker closed", remote=name)

    def _read(self, connection: Connection) -> tuple[list[_Event], list[_OpenBreaker]]:
        last = self._last
        if last is None:
            last = connection.execute(sa.select(sa.func.max(EventRow.id))).scalar() or 0
        earlier = aliased(EventRow)
        first = ~(
            sa.select(earlier.id)
            .where(earlier.job_id == EventRow.job_id, earlier.kind == "chunk_started", earlier.id < EventRow.id)
            .exists()
        )
        events = connection.execute(
            sa.select(
                EventRow.id,
                EventRow.kind,
                EventRow.job_id,
                JobRow.kind,
                JobRow.state,
                JobRow.reason,
                RemoteRow.name,
            )
            .join(JobRow, JobRow.id == EventRow.job_id)
            .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
            .where(
                EventRow.id > last - MOST_EVENTS,
                EventRow.kind.in_(list(_KINDS)),
                sa.or_(EventRow.kind != "chunk_started", first),
                # That a chunk is tried again is no person's retry.
                sa.or_(EventRow.kind != "retry", ~EventRow.text.startswith("chunk ")),
            )
            .order_by(EventRow.id)
        ).all()
        broken = connection.execute(
            sa.select(GovernorRow.remote_id, RemoteRow.name, GovernorRow.reason)
            .join(RemoteRow, RemoteRow.id == GovernorRow.remote_id)
            .where(GovernorRow.broken_since.is_not(None))
            .order_by(GovernorRow.remote_id)
        ).all()
        return [_Event(*row) for row in events], [_OpenBreaker(*row) for row in broken]

    def _tell(self, row: _Event) -> None:
        told = {"job": row.job_id, "kind": row.job_kind, "remote": row.remote}
        if row.kind not in ("ended", "held"):
            self.log.info(_KINDS[row.kind], **told)
            return
        good = row.kind == "ended" and row.state is JobState.SUCCEEDED
        say = self.log.info if good or row.state is JobState.CANCELLED else self.log.warning
        numbers = self.database.read(lambda connection: ledger.tally(connection, row.job_id))
        counts = {name: number for name in _COUNTS if (number := getattr(numbers, name))}
        say(_KINDS[row.kind], **told, state=row.state.value, reason=row.reason, items=counts)

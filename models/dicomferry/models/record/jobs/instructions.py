"""What an attempt has to know of the world while it runs: what was asked of it, and how it may use its remote."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.remotes import governor
from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import JobRow, RemoteRow, WorkerRow
from dicomferry.models.rules import window
from dicomferry.models.rules.pacing import RateLimits


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What the heartbeat found beside its lease. `closed`: the remote's window is over, and the job keeps to it."""

    cancel: bool
    hold: bool
    drain: bool
    closed: bool = False
    limits: RateLimits | None = None

    @property
    def stop(self) -> bool:
        """Whether the attempt should end between two items."""
        return self.cancel or self.hold or self.drain or self.closed


def read(connection: Connection, job_id: int, worker_id: int, now: datetime, *, plan: bool) -> Signals | None:
    """What is so at this moment; a plan uses no remote. None when the job was pruned."""
    row = connection.execute(
        sa.select(
            JobRow.cancel_asked,
            JobRow.hold_asked,
            JobRow.ignore_window,
            RemoteRow.window,
            *governor.LIMITS,
            WorkerRow.draining,
            GovernorRow.learned_rate,
            GovernorRow.rate_learned_at,
        )
        .select_from(JobRow)
        .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
        .join(WorkerRow, WorkerRow.id == worker_id)
        .outerjoin(GovernorRow, GovernorRow.remote_id == JobRow.remote_id)
        .where(JobRow.id == job_id)
    ).one_or_none()
    if row is None:
        return None
    hours = None if plan or row.ignore_window else window.from_document(row.window)
    return Signals(
        cancel=row.cancel_asked,
        hold=row.hold_asked,
        drain=row.draining,
        closed=hours is not None and not hours.is_open(now),
        limits=governor.limits(row, now),
    )

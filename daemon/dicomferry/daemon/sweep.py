"""The sweep heals what messages and processes lose: dead leases, missed rings, missed ends of jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models import telemetry
from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims, leases, ledger, loss
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.errors import LeaseLost, Locked
from dicomferry.models.rules.state import FINAL_JOB_STATES, ChunkState

INTERVAL_SECONDS = 2.0
_TURN_SECONDS = 10.0

log = telemetry.logger(__name__)


def sweep(database: Database, worker: Worker, ring: Callable[[str], object]) -> None:
    """One round, if it is this role's turn; the next one makes up for what this one could not reach.

    Raises OutOfReach.
    """
    if not presence.take_turn(database, "sweep", worker, seconds=_TURN_SECONDS):
        database.steps.take()  # a clock that was set is the matter of whoever has the turn
        return
    lost = loss.expire(database)
    if lost:
        log.warning("leases ended", number=lost)
    for job_id in _missed_ends(database):
        # What somebody else has locked is left for the next round; a job that was pruned meanwhile has ended.
        with contextlib.suppress(Locked, LeaseLost):
            _end(database, job_id)
    for lane in spec.LANES:
        if claims.any_due(database, lane):
            ring(lane)


def _missed_ends(database: Database) -> Sequence[int]:
    """Jobs that are not final although nothing of them is pending, running or held."""

    def work(connection: Connection) -> Sequence[int]:
        live = (
            sa.select(ChunkRow.id)
            .where(
                ChunkRow.job_id == JobRow.id,
                ChunkRow.state.in_((ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD)),
            )
            .exists()
        )
        return (
            connection.execute(sa.select(JobRow.id).where(JobRow.state.not_in(list(FINAL_JOB_STATES)), sa.not_(live)))
            .scalars()
            .all()
        )

    return database.read(work)


def _end(database: Database, job_id: int) -> None:
    def work(connection: Connection) -> None:
        leases.lock_job(connection, job_id)
        ledger.derive(connection, job_id, database.now(connection))

    database.write_at_once(work)
    log.warning("a missed end was made up for", job=job_id)

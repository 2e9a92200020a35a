"""C-MOVE or C-GET: what is known to work with a remote."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow, RemoteRow
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.state import ChunkState, JobState

CANNOT_COME_HERE = (Reason.ARCHIVE_CANNOT_REACH_US, Reason.MOVE_DESTINATION_UNKNOWN)
"""Why C-MOVE does not work from there to here, which C-GET does not mind."""
_LOOKED_AT = 50


def choose(database: Database, remote: str) -> tuple[str, str]:
    """`move` or `get`, and why. Raises OutOfReach."""

    def work(connection: Connection) -> tuple[str, str]:
        jobs = connection.execute(
            sa.select(JobRow.id, JobRow.kind, JobRow.state, JobRow.reason)
            .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
            .where(RemoteRow.name == remote, JobRow.kind.in_(RETRIEVES))
            .order_by(JobRow.id.desc())
            .limit(_LOOKED_AT)
        ).all()
        for job in jobs:
            if job.state is JobState.SUCCEEDED:
                return job.kind, f"it worked with job {job.id}"
            reasons = {job.reason, *_held(connection, job.id)}
            if job.kind == Kind.MOVE and not reasons.isdisjoint(CANNOT_COME_HERE):
                return "get", f"C-MOVE did not come here with job {job.id}"
        return "move", "nothing else is known to work"

    return database.read(work)


def _held(connection: Connection, job_id: int) -> list[str | None]:
    query = sa.select(ChunkRow.reason).where(ChunkRow.job_id == job_id, ChunkRow.state == ChunkState.HELD)
    return list(connection.execute(query).scalars())

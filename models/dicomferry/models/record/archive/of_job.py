"""What the archive knows of a job, whose own rows may have been pruned: arrivals keep its number."""

from __future__ import annotations

import sqlalchemy as sa

from dicomferry.models.record.database import Database
from dicomferry.models.record.retrieves.expected import ALREADY_HERE
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import ItemRow, JobRow
from dicomferry.models.rules.state import ItemState


def is_kept(database: Database, job_id: int) -> bool:
    """Whether there is such a job, and it is not being removed. Raises OutOfReach."""
    query = sa.select(JobRow.id).where(JobRow.id == job_id, JobRow.pruned_at.is_(None))
    return database.read(lambda connection: connection.execute(query).first()) is not None


def has_arrivals(database: Database, job_id: int) -> bool:
    """Whether anything came that this job had asked for. Raises OutOfReach."""
    query = sa.select(ArrivalRow.id).where(ArrivalRow.job_id == job_id).limit(1)
    return database.read(lambda connection: connection.execute(query).first()) is not None


def here_before(database: Database, job_id: int) -> int:
    """How many instances that a retrieve asked for lay in the archive before. Raises OutOfReach."""
    query = sa.select(sa.func.count()).where(
        ItemRow.job_id == job_id,
        ItemRow.kind == "instance",
        ItemRow.state == ItemState.SUCCEEDED,
        ItemRow.reason == ALREADY_HERE,
    )
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))

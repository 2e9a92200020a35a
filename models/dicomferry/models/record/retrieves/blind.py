"""What lies in the archive of a target whose instances its archive does not list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import here
from dicomferry.models.record.archive.here import Found
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.retrieves.expected import KEY, Listed
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.target import Target


@dataclass(frozen=True)
class Kept:
    """An instance that lies in the archive, and its file."""

    listed: Listed
    file: Found


def archived(database: Database, lease: Lease, one: Target, *, refetch: bool, after: int | None = None) -> list[Kept]:
    """What lies in the archive of a target, by its rows. With `refetch` only what came for this job.

    `after` names the last arrival before the target was asked for: then only what came later and for no other job.
    """

    def work(connection: Connection) -> list[Kept]:
        who = here.asker(connection, lease.job_id)
        query = sa.select(
            InstanceRow.sop_instance_uid,
            InstanceRow.sop_class_uid,
            InstanceRow.study_instance_uid,
            InstanceRow.series_instance_uid,
            *here.file_columns(who),
        ).where(here.is_worthy(who))
        if one.study:
            query = query.where(here.is_in_study(who, one.study))
        if one.series:
            query = query.where(here.is_in_series(who, one.series))
        if one.images:
            query = query.where(InstanceRow.sop_instance_uid.in_(one.images))
        if refetch or after is not None or not one.study:
            ours = sa.select(ArrivalRow.id).where(ArrivalRow.instance_id == InstanceRow.id)
            if after is None:
                ours = ours.where(ArrivalRow.job_id == lease.job_id)
            else:
                mine = [ArrivalRow.job_id == lease.job_id]
                if one.study:
                    mine.append(ArrivalRow.job_id.is_(None))
                ours = ours.where(ArrivalRow.id > after, sa.or_(*mine))
            query = query.where(ours.exists())
        rows = connection.execute(query.order_by(InstanceRow.id)).all()
        return [Kept(Listed(*row[:4]), here.found_of(row, item_id=0)) for row in rows]

    return database.read(work)


def unnamed(database: Database, lease: Lease, request_id: int, found: Sequence[Kept]) -> list[Kept]:
    """The files among these of which the request has no item yet."""
    query = sa.select(*KEY).where(ItemRow.chunk_id == lease.chunk_id, ItemRow.request_id == request_id)
    known = {(study, series, uid or "") for study, series, uid in database.read(lambda c: c.execute(query).all())}
    return [one for one in found if one.listed.key not in known]


def add_archived(database: Database, lease: Lease, request_id: int, found: Sequence[Kept]) -> None:
    """Make items of what lies in the archive for a request whose instances nobody has listed; what is there stays."""
    for batch in batches(found):

        def work(connection: Connection, batch: Sequence[Kept] = batch) -> None:
            why = {one.listed.key: one.file.outcome().reason for one in batch}
            expected.write_expected(connection, lease, request_id, [one.listed for one in batch], why)
            named = sa.select(InstanceRow.id).where(InstanceRow.sop_instance_uid.in_([one.listed.uid for one in batch]))
            connection.execute(
                sa.update(ArrivalRow)
                .where(ArrivalRow.surplus_of == lease.job_id, ArrivalRow.instance_id.in_(named))
                .values(surplus_of=None)
            )

        leases.fenced(database, lease, work)

"""What a request called here, and is not there any more when the request ends."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import here
from dicomferry.models.record.archive.here import Found
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases, ledger
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ITEM_TRANSITIONS, ItemState, step

FILE_GONE = Reason.FILE_GONE
"""The reason of an instance that came and whose file is not there, or not whole, when its request ends."""
_ARRIVED = (ItemState.SUCCEEDED, ItemState.WARNING)


def counted(database: Database, lease: Lease) -> list[Found]:
    """The files by which instances of the chunk's request are called here."""
    arrived = sa.and_(
        ItemRow.chunk_id == lease.chunk_id, ItemRow.request_id.is_not(None), ItemRow.state.in_(list(_ARRIVED))
    )

    def work(connection: Connection) -> list[Found]:
        return here.found(connection, here.asker(connection, lease.job_id), arrived, refetch=False)

    return database.read(work)


def fail(database: Database, lease: Lease, gone: Sequence[Found]) -> None:
    """Fail the items of these files. Raises LeaseLost."""
    for state in _ARRIVED:
        step(ITEM_TRANSITIONS, state, ItemState.FAILED)
    items = [one.item_id for one in gone]

    def work(connection: Connection) -> None:
        for batch in batches(items):
            connection.execute(
                sa.update(ItemRow)
                .where(ItemRow.id.in_(batch), ItemRow.state.in_(list(_ARRIVED)))
                .values(state=ItemState.FAILED, reason=FILE_GONE, detail=None, status=None)
            )
        ledger.recount(connection, lease.chunk_id)

    leases.fenced(database, lease, work)

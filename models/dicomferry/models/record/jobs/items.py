"""The items of a chunk as an attempt reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.state import ItemState


class Item(NamedTuple):
    """A file to send, or one request of an echo or a find, without an outcome yet.

    Each field is the column of its name. `size` is in bytes, `mtime_ns` in nanoseconds; both and `path` are of a file.
    `status`, `reason`, `detail` and `sent_as` tell of the last try, `charges` how often it was in flight when its
    association broke.
    """

    id: int
    path: bytes | None
    size: int | None
    mtime_ns: int | None
    sop_class_uid: str | None
    sop_instance_uid: str | None
    transfer_syntax_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    is_first: bool
    row: int | None
    identifier: list[Any] | None
    charges: int
    status: int | None
    reason: str | None
    detail: str | None
    sent_as: str | None


_PENDING = (
    sa.select(*(getattr(ItemRow, name) for name in Item._fields))
    .where(ItemRow.chunk_id == sa.bindparam("chunk"), ItemRow.state == ItemState.PENDING)
    .order_by(ItemRow.charges, ItemRow.losses, ItemRow.tries, ItemRow.id)
)


def pending_items(database: Database, chunk_id: int) -> Sequence[Item]:
    """The items of a chunk that have no outcome yet: those that broke an association before at the end, and before
    them those that were tried at all, so that a remote which refuses a few is asked for the others as well.
    """
    rows = database.read(lambda connection: connection.execute(_PENDING, {"chunk": chunk_id}).all())
    return [Item(*row) for row in rows]

"""The request of a retrieve as the record has it: what was asked for, what of that is listed, how far it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules import target
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.target import Target


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request item of a chunk, and how many rounds of the chunk have counted (`rounds`).

    `targets` are what its identifier came to, `expectation` how far they were listed (as `Depth`), `expected` how many
    instances that is; None and empty until they are listed. `listed_at` is when the list was made, `relisted` how far a
    list that is not whole was looked into, `noted` what was odd about the matches of the identifier.
    """

    item_id: int
    state: ItemState
    reason: str | None
    charges: int
    rounds: int
    identifier: tuple[Key, ...]
    targets: tuple[Target, ...]
    expectation: str | None
    expected: int | None
    listed_at: datetime | None
    relisted: int | None
    noted: Mapping[str, Any]

    @property
    def is_pending(self) -> bool:
        """Whether there is something left to do for it."""
        return self.state is ItemState.PENDING

    @property
    def is_listed(self) -> bool:
        """Whether its archive was asked what there is."""
        return self.expectation is not None

    @classmethod
    def from_row(cls, row: AnyRow, rounds: int) -> Request:
        """From a row of `item`."""
        return cls(
            item_id=row.id,
            state=row.state,
            reason=row.reason,
            charges=row.charges,
            rounds=rounds,
            identifier=tuple((path, value) for path, value in row.identifier or ()),
            targets=tuple(map(target.from_json, row.targets or ())),
            expectation=row.expectation,
            expected=row.expected,
            listed_at=row.listed_at,
            relisted=row.relisted,
            noted=MappingProxyType(row.noted or {}),
        )


def of_chunk(database: Database, chunk_id: int) -> Request:
    """The request of a chunk. Raises OutOfReach."""

    def work(connection: Connection) -> Request:
        row = connection.execute(
            sa.select(ItemRow.__table__).where(ItemRow.chunk_id == chunk_id, ItemRow.kind == "request")
        ).one()
        rounds = connection.execute(sa.select(ChunkRow.round).where(ChunkRow.id == chunk_id)).scalar_one()
        return Request.from_row(row, rounds)

    return database.read(work)

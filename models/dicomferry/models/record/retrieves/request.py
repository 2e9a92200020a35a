"""The request of a retrieve as the record has it: what was asked for, what of that is listed, how far it got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules import target, together
from dicomferry.models.rules.proof import Depth
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.target import Target


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a chunk asks for: its request item, and how many rounds of the chunk have counted (`rounds`).

    `targets` are what its identifier came to, `expectation` how far they were listed (as `Depth`), `expected` how many
    instances that is; None and empty until they are listed. `listed_at` is when the list was made, `relisted` how far a
    list that is not whole was looked into, `noted` what was odd about the matches of the identifier.

    Where several requests for single images share the chunk, this is all that is left to do of them, as one request
    that has no identifier: `shares` are those requests, each by itself, and `item_id` is the first one's.
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
    shares: tuple[Request, ...] = ()

    @property
    def each(self) -> tuple[Request, ...]:
        """The requests that this stands for: itself, where it shares its chunk with no other one."""
        return self.shares or (self,)

    @property
    def item_ids(self) -> tuple[int, ...]:
        """Their items."""
        return tuple(one.item_id for one in self.each)

    @property
    def names_images(self) -> bool:
        """Whether it is for images that it names, all of which its archive was asked for by their UIDs."""
        return bool(self.targets) and all(one.images and one.depth == Depth.IMAGES for one in self.targets)

    def asker_of(self, asked: Target) -> int:
        """The item of the request that the first image of a list is asked for by; of more than images the first."""
        for one in self.shares:
            for own in one.targets:
                if asked.images and own.holds(asked.study, asked.series) and asked.images[0] in own.images:
                    return one.item_id
        return self.item_id

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
    """The request of a chunk, or what is left to do of those that share it. Raises OutOfReach."""

    def work(connection: Connection) -> Request:
        rows = connection.execute(
            sa.select(ItemRow.__table__)
            .where(ItemRow.chunk_id == chunk_id, ItemRow.kind == "request")
            .order_by(ItemRow.id)
        ).all()
        rounds = connection.execute(sa.select(ChunkRow.round).where(ChunkRow.id == chunk_id)).scalar_one()
        return _of([Request.from_row(row, rounds) for row in rows])

    return database.read(work)


def _of(requests: Sequence[Request]) -> Request:
    """What is left to do of the requests of a chunk; the first of them where nothing is."""
    left = [one for one in requests if one.is_pending]
    if len(requests) == 1 or not left:
        return requests[0]
    is_listed = all(one.is_listed for one in left)
    return replace(
        left[0],
        reason=next((one.reason for one in left if one.reason), None),
        charges=max(one.charges for one in left),
        identifier=(),
        targets=together.merged(target for one in left for target in one.targets) if is_listed else (),
        expectation=left[0].expectation if is_listed else None,
        expected=sum(one.expected or 0 for one in left) if is_listed else None,
        listed_at=min((one.listed_at for one in left if one.listed_at), default=None) if is_listed else None,
        relisted=max((one.relisted or 0 for one in left), default=0) or None,
        noted=MappingProxyType({}),
        shares=tuple(left),
    )

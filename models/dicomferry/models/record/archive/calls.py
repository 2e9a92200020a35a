"""The associations that were asked of the storage SCP: whether an archive that was to send to us came at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models import disks
from dicomferry.models.record import presence
from dicomferry.models.record.database import AnyRow, Database, locking
from dicomferry.models.record.tables.jobs import CallRow, ChunkRow, JobRow, WorkerRow
from dicomferry.models.record.upsert import upsert
from dicomferry.models.rules import peer_text
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.ending import DISK_FULL, NO_SCP, Decision
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.state import ChunkState

KEPT_DAYS = 7
MOST_UIDS = 10
"""SOP Instance UIDs that are kept, at most, with what was refused for one reason."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Instances that our side answered with this status, for this reason; `uids` are those of the first ones.

    `originator_ae_title` and `originator_message_id` name the C-MOVE that they came for, where the sender said so.
    """

    status: int
    why: str
    number: int
    uids: tuple[str, ...]
    originator_ae_title: str | None = None
    originator_message_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form in which the record keeps it."""
        return {**asdict(self), "uids": list(self.uids)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Refusal:
        """From what was kept."""
        return cls(**{**values, "uids": tuple(values["uids"])})


@dataclass(frozen=True, kw_only=True)
class Call:
    """One association, as far as it is known now; `moved_at` is when it carried data last."""

    association: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    at: datetime
    accepted: bool
    why: str | None = None
    refused: tuple[str, ...] = ()
    moved_at: datetime | None = None
    ended_at: datetime | None = None
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeptCall(Call):
    """One association as the record has it."""

    id: int

    @classmethod
    def from_row(cls, row: AnyRow) -> KeptCall:
        """From a row of `call`."""
        return cls(
            id=row.id,
            association=row.association,
            calling_ae_title=row.calling_ae_title,
            called_ae_title=row.called_ae_title,
            address=row.address,
            at=row.at,
            accepted=row.accepted,
            why=row.why,
            refused=tuple(row.refused or ()),
            moved_at=row.moved_at,
            ended_at=row.ended_at,
            refusals=tuple(map(Refusal.from_json, row.refusals or ())),
        )


def record(database: Database, calls: Sequence[Call]) -> None:
    """Write calls down, or what became of them since. Raises OutOfReach."""

    def work(connection: Connection) -> None:
        for call in calls:
            values = {
                "association": call.association,
                "calling_ae_title": call.calling_ae_title,
                "called_ae_title": call.called_ae_title,
                "address": call.address,
                "at": call.at,
                "accepted": call.accepted,
                "why": call.why,
                "refused": [peer_text.short(one, peer_text.MOST_UID) for one in call.refused],
            }
            later = {
                "moved_at": call.moved_at,
                "ended_at": call.ended_at,
                "refusals": [one.to_json() for one in call.refusals] or None,
            }
            connection.execute(upsert(connection, CallRow, values | later, key="association", later=later))

    if calls:
        database.write(work)


def begin(database: Database) -> None:
    """A storage SCP has begun: what its forerunner left open is over, what waited for one is due, old calls go."""

    def work(connection: Connection) -> None:
        now = database.now(connection)
        connection.execute(sa.update(CallRow).where(CallRow.ended_at.is_(None)).values(ended_at=now))
        connection.execute(sa.delete(CallRow).where(CallRow.at < now - timedelta(days=KEPT_DAYS)))
        _go_on(connection, NO_SCP, now)

    database.write(work)


def end(database: Database, associations: Sequence[str]) -> None:
    """These associations are over: the process that had them is gone. Raises OutOfReach."""

    def work(connection: Connection) -> None:
        now = database.now(connection)
        for some in batches(associations):
            there = sa.and_(CallRow.association.in_(some), CallRow.ended_at.is_(None))
            connection.execute(sa.update(CallRow).where(there).values(ended_at=now))

    database.write(work)


def room_again(database: Database) -> None:
    """The archive's disk has room: what waited for that is due. Raises OutOfReach."""
    database.write(lambda connection: _go_on(connection, DISK_FULL, database.now(connection)))


def _go_on(connection: Connection, reason: str, now: datetime) -> None:
    """What waits for this reason is due now."""
    waiting = sa.and_(ChunkRow.state == ChunkState.PENDING, ChunkRow.reason == reason)
    ids = connection.execute(locking(sa.select(ChunkRow.id).where(waiting).order_by(ChunkRow.id)))
    due = [row.id for row in ids]
    for batch in batches(due):
        some = ChunkRow.id.in_(batch)
        connection.execute(sa.update(ChunkRow).where(some).values(not_before=now, waits_from=now))


def put_off(connection: Connection, decision: Decision, now: datetime) -> None:
    """Moves that would come to us wait along: one of them has found out that there is no storage SCP; or that the disk
    is full, and then C-GETs as well.
    """
    to_us = sa.select(JobRow.id).where(JobRow.destination.is_(None))
    condition = sa.and_(
        ChunkRow.state == ChunkState.PENDING,
        ChunkRow.kind.in_((Kind.MOVE, Kind.GET) if decision.reason == DISK_FULL else (Kind.MOVE,)),
        ChunkRow.not_before < decision.at,
        ChunkRow.job_id.in_(to_us),
    )
    ids = connection.execute(locking(sa.select(ChunkRow.id).where(condition).order_by(ChunkRow.id)))
    due = [row.id for row in ids]
    for batch in batches(due):
        connection.execute(
            sa.update(ChunkRow)
            .where(ChunkRow.id.in_(batch))
            .values(not_before=decision.at, waits_from=now, reason=decision.reason, advice=decision.advice)
        )


def living_scps(database: Database, within: float | None = None) -> frozenset[int]:
    """The storage SCPs that gave a sign of life lately (`within` seconds); one that was restarted is another."""

    def work(connection: Connection) -> frozenset[int]:
        living = presence.lives(database.now(connection), presence.SILENT_AFTER if within is None else within)
        query = sa.select(WorkerRow.id).where(WorkerRow.role == "scp", living)
        return frozenset(connection.execute(query).scalars())

    return database.read(work)


def short_disk(database: Database) -> Mapping[str, Any] | None:
    """The archive's disk as the living storage SCPs saw it last, where it is short. Raises OutOfReach."""
    query = sa.select(WorkerRow.disks).where(WorkerRow.disks.is_not(None), WorkerRow.id.in_(living_scps(database)))
    rows = database.read(lambda connection: connection.execute(query).scalars().all())
    return next((found for found in map(disks.short_archive, rows) if found is not None), None)


def last_call(database: Database) -> int:
    """The number of the last association that was asked of the storage SCP; 0 where there is none."""
    query = sa.select(sa.func.max(CallRow.id))
    return int(database.read(lambda connection: connection.execute(query).scalar()) or 0)


def calls_after(database: Database, call_id: int) -> tuple[KeptCall, ...]:
    """The associations that were asked of the storage SCP after this one, and those that are still open."""
    query = (
        sa.select(CallRow.__table__)
        .where(sa.or_(CallRow.id > call_id, sa.and_(CallRow.ended_at.is_(None), CallRow.accepted)))
        .order_by(CallRow.id)
    )
    return database.read(lambda connection: tuple(map(KeptCall.from_row, connection.execute(query))))

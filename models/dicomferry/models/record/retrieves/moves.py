"""What was asked for by C-MOVE and C-GET, and what was answered. Every write is fenced and raises LeaseLost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive.calls import Refusal
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, MoveRow
from dicomferry.models.rules import flaws
from dicomferry.models.rules.query import Level
from dicomferry.models.rules.rounds import Ask, Capabilities
from dicomferry.models.rules.state import ItemState

MESSAGE_IDS = 65_535
"""Message ids are 1 to this (PS3.7 E.1); each is used again after so many moves of the installation."""
_NOT_TAKEN = "refused"
"""What the column `reason` says of a request whose kind its archive does not take."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One C-MOVE or C-GET, and what was answered.

    `asked` is how many SOP Instance UIDs it names, None above IMAGE level. `status` is the final one, None where there
    was none. `not_taken` tells that the archive does not take requests of its kind.
    """

    id: int
    level: Level
    study: str | None
    series: str | None
    asked: int | None
    asked_at: datetime
    answered_at: datetime | None
    status: int | None
    completed: int | None
    failed: int | None
    warning: int | None
    failed_uids: tuple[str, ...]
    not_taken: bool

    @property
    def is_for_all(self) -> bool:
        """Whether it asks for all of something, and was answered."""
        return self.asked is None and self.status is not None

    @property
    def has_begun(self) -> bool:
        """Whether its final answer tells of sub-operations that were tried."""
        return bool(self.completed or self.failed or self.warning)

    @classmethod
    def from_row(cls, row: AnyRow) -> Move:
        """From a row of `move`."""
        return cls(
            id=row.id,
            level=Level(row.level),
            study=row.study_instance_uid,
            series=row.series_instance_uid,
            asked=row.asked,
            asked_at=row.asked_at,
            answered_at=row.answered_at,
            status=row.status,
            completed=row.completed,
            failed=row.failed,
            warning=row.warning,
            failed_uids=tuple(row.failed_uids or ()),
            not_taken=row.reason == _NOT_TAKEN,
        )


@dataclass(frozen=True, kw_only=True)
class FinalAnswer:
    """The final answer to a C-MOVE or C-GET, as it is kept; `not_taken` as in `Move`."""

    status: int
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    failed_uids: tuple[str, ...] = ()
    comment: str | None = None
    not_taken: bool = False


def begin_move(
    database: Database,
    lease: Lease,
    request_id: int,
    ask: Ask,
    *,
    rounds: int,
    method: str,
    ae_title: str,
    destination: str | None,
) -> tuple[int, int]:
    """Write down that a C-MOVE or C-GET is about to be asked; its id and its message id (PS3.7 9.1.4)."""
    one = ask.target

    def work(connection: Connection) -> tuple[int, int]:
        values = {
            "job_id": lease.job_id,
            "chunk_id": lease.chunk_id,
            "item_id": request_id,
            "fence": lease.fence,
            "round": rounds,
            "method": method,
            "message_id": 0,
            "ae_title": ae_title,
            "destination": destination,
            "level": one.level.value,
            "study_instance_uid": one.study,
            "series_instance_uid": one.series,
            "asked": len(one.images) or None,
            "asked_at": database.now(connection),
        }
        key: int = connection.execute(sa.insert(MoveRow).values(**values).returning(MoveRow.id)).scalar_one()
        message_id = (key - 1) % MESSAGE_IDS + 1
        connection.execute(sa.update(MoveRow).where(MoveRow.id == key).values(message_id=message_id))
        return key, message_id

    return leases.fenced(database, lease, work)


def note_answer(database: Database, lease: Lease, move_id: int, answer: FinalAnswer) -> None:
    """Write down the final answer to a request."""
    values = asdict(answer)
    reason = _NOT_TAKEN if values.pop("not_taken") else None
    _end(database, lease, move_id, {**values, "failed_uids": list(answer.failed_uids) or None, "reason": reason})


def note_no_answer(
    database: Database, lease: Lease, move_id: int, reason: str | None, comment: str | None = None
) -> None:
    """Write down why a request has no final answer."""
    _end(database, lease, move_id, {"reason": reason, **({"comment": comment} if comment else {})})


def _end(database: Database, lease: Lease, move_id: int, values: Mapping[str, Any]) -> None:
    def work(connection: Connection) -> None:
        connection.execute(
            sa.update(MoveRow).where(MoveRow.id == move_id).values(answered_at=database.now(connection), **values)
        )

    leases.fenced(database, lease, work)


def note_refusals(database: Database, lease: Lease, found: Mapping[int, Sequence[Refusal]]) -> None:
    """Write down what our side refused of what each request brought."""

    def work(connection: Connection) -> None:
        for move_id, refusals in found.items():
            values = {"refused_here": [one.to_json() for one in refusals]}
            connection.execute(sa.update(MoveRow).where(MoveRow.id == move_id).values(values))

    if any(found.values()):
        leases.fenced(database, lease, work)


def repairs() -> sa.ColumnElement[bool]:
    """Of a chunk: it asks for the second time, and the first time the archive said that it could not send some of it.

    A common reason is that an archive takes one transfer syntax for all that it has of a SOP class.
    """
    lost = sa.select(MoveRow.id).where(MoveRow.chunk_id == ChunkRow.id, MoveRow.round == 0, MoveRow.failed > 0)
    return sa.and_(ChunkRow.round == 1, lost.exists())


def is_ill_encoded() -> sa.ColumnElement[bool]:
    """Of a chunk: it asks for the second time, and something came in another encoding than its transfer syntax says.

    Then it is asked for in the uncompressed little endian syntaxes alone, which every application has.
    """
    flaw = sa.func.coalesce(InstanceRow.flaw, "")
    came = (
        sa.select(ItemRow.id)
        .join(InstanceRow, InstanceRow.sop_instance_uid == ItemRow.sop_instance_uid)
        .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
        .where(
            ItemRow.chunk_id == ChunkRow.id,
            ItemRow.request_id.is_not(None),
            ItemRow.state == ItemState.PENDING,
            ArrivalRow.job_id == ItemRow.job_id,
            InstanceRow.removed_at.is_(None),
            sa.or_(*(flaw.startswith(one, autoescape=True) for one in flaws.ENCODING)),
        )
        .correlate(ChunkRow)
    )
    return sa.and_(ChunkRow.round == 1, came.exists())


def asks_plainly(database: Database, chunk_id: int) -> bool:
    """The same of this chunk."""
    query = sa.select(ChunkRow.id).where(ChunkRow.id == chunk_id, is_ill_encoded())
    return database.read(lambda connection: connection.execute(query).first()) is not None


def is_repair(database: Database, chunk_id: int) -> bool:
    """The same of this chunk."""
    query = sa.select(ChunkRow.id).where(ChunkRow.id == chunk_id, repairs())
    return database.read(lambda connection: connection.execute(query).first()) is not None


def moves_of(database: Database, chunk_id: int) -> tuple[Move, ...]:
    """The C-MOVEs and C-GETs of a chunk, oldest first."""
    return database.read(lambda connection: read(connection, chunk_id))


def limits_of(database: Database, lease: Lease, *, of_job: bool = False) -> Capabilities:
    """What its archive was found not to take, by its answers to the requests of a chunk; with `of_job`, whether it
    takes lists of UIDs by those of the whole job.
    """
    limits = Capabilities()
    for move in moves_of(database, lease.chunk_id):
        if move.not_taken:
            limits = limits.without(move.level, move.asked or 0) or limits
    if of_job and limits.lists and not _takes_lists(database, lease.job_id):
        return replace(limits, lists=False)
    return limits


def _takes_lists(database: Database, job_id: int) -> bool:
    """Whether no request of a job for several UIDs was refused as such, or called done with fewer sub-operations."""
    numbers = (MoveRow.completed, MoveRow.failed, MoveRow.warning)
    told = sum((sa.func.coalesce(number, 0) for number in numbers), sa.literal(0))
    fewer = sa.and_(MoveRow.status == 0, MoveRow.completed.is_not(None), told < MoveRow.asked)
    query = sa.select(MoveRow.id).where(
        MoveRow.job_id == job_id, MoveRow.asked > 1, sa.or_(MoveRow.reason == _NOT_TAKEN, fewer)
    )
    return database.read(lambda connection: connection.execute(query.limit(1)).first()) is None


def read(connection: Connection, chunk_id: int) -> tuple[Move, ...]:
    """The C-MOVEs and C-GETs of a chunk, oldest first, within a transaction."""
    query = sa.select(MoveRow.__table__).where(MoveRow.chunk_id == chunk_id).order_by(MoveRow.id)
    return tuple(map(Move.from_row, connection.execute(query)))

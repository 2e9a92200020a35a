"""The rows. Words as in the glossary of docs/design.md; every time is UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dicomferry.models.record.database import UTCDateTime
from dicomferry.models.record.tables.text_columns import TITLE, UID, PeerText, PeerWords
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState

_TWIN = "reason IN ('duplicate', 'conflict')"
BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _enum(kind: type) -> sa.Enum:
    return sa.Enum(kind, native_enum=False, length=16, values_callable=lambda cls: [member.value for member in cls])


def index_of_some(name: str, columns: str, condition: str, *, unique: bool = False) -> Index:
    """An index of rows with `condition`; `columns` by blanks. PostgreSQL's dialect is loaded in migrations alone."""
    return Index(name, *columns.split(), unique=unique, sqlite_where=sa.text(condition))


class Base(DeclarativeBase):
    """Base of all tables, with the naming convention that migrations rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime(),
        ItemState: _enum(ItemState),
        ChunkState: _enum(ChunkState),
        JobState: _enum(JobState),
        AttemptEnd: _enum(AttemptEnd),
    }


class RemoteRow(Base):
    """A remote AE: of the address book, or (`in_book` false) one given as AET@host:port."""

    __tablename__ = "remote"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(320), unique=True)
    in_book: Mapped[bool]
    ae_title: Mapped[str] = mapped_column(sa.String(16))
    host: Mapped[str] = mapped_column(sa.String(255))
    port: Mapped[int]
    calling_ae_title: Mapped[str | None] = mapped_column(sa.String(16))
    store_address: Mapped[str | None] = mapped_column(sa.String(300))
    also_from: Mapped[list[str]] = mapped_column(sa.JSON)
    charset: Mapped[str | None] = mapped_column(sa.String(64))
    max_associations: Mapped[int]
    max_moves: Mapped[int]
    max_uids: Mapped[int]
    find_cap: Mapped[int | None] = mapped_column(comment="how many matches it lists at most, where that is known")
    relational: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="takes one query over several levels (PS3.4 C.4.1.2.2.2)"
    )
    numbers: Mapped[str] = mapped_column(
        sa.String(8), server_default="used", comment="ignored: what it says of how many there are is wrong for good"
    )
    prefer_syntax: Mapped[str | None] = mapped_column(sa.String(64))
    timeouts: Mapped[dict[str, float]] = mapped_column(sa.JSON)
    window: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True), comment="when it may be used")
    max_requests_per_minute: Mapped[float | None]
    max_instances_per_second: Mapped[float | None]
    max_bytes_per_second: Mapped[int | None] = mapped_column(sa.BigInteger)
    quirks: Mapped[list[str]] = mapped_column(sa.JSON, server_default="[]", comment="answers that mean something else")
    trust_answers: Mapped[list[str]] = mapped_column(
        sa.JSON, server_default="[]", comment="keys whose answers are taken though they do not tell"
    )
    coerces: Mapped[str | None] = mapped_column(sa.String(16), comment="UIDs that its files may carry otherwise")
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class JobRow(Base):
    """What was asked for. Its items' numbers are sums over its chunks."""

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_state", "state"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(sa.String(32), unique=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    spec: Mapped[str] = mapped_column(sa.Text)
    remote_id: Mapped[int] = mapped_column(ForeignKey("remote.id"))
    destination: Mapped[str | None] = mapped_column(
        sa.String(16), comment="AE title that a move goes to; null: it comes to us"
    )
    label: Mapped[str | None] = mapped_column(sa.Text)
    priority: Mapped[int]
    ignore_window: Mapped[bool] = mapped_column(server_default=sa.false(), comment="runs at any hour")
    state: Mapped[JobState]
    planned: Mapped[bool]
    cancel_asked: Mapped[bool] = mapped_column(default=False)
    hold_asked: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(sa.String(80))
    verified: Mapped[str | None] = mapped_column(sa.String(8))
    submitted_at: Mapped[datetime]
    served_at: Mapped[datetime | None] = mapped_column(comment="when a chunk of it was claimed last")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    busy_since: Mapped[datetime | None] = mapped_column(comment="since when something of it runs, if it does")
    busy_seconds: Mapped[float | None] = mapped_column(
        default=0.0, comment="how long something of it ran before; null: that was not counted yet"
    )
    received_bytes: Mapped[int] = mapped_column(
        sa.BigInteger, default=0, server_default="0", comment="of what came for a retrieve, each arrival counted"
    )
    pruned_at: Mapped[datetime | None] = mapped_column(comment="since when it is being removed")
    accepted_at: Mapped[datetime | None] = mapped_column(comment="when a person closed it though it is not whole")
    accepted_reason: Mapped[str | None] = mapped_column(sa.Text)


class ChunkRow(Base):
    """What a worker claims: a plan, or some items that share one association."""

    __tablename__ = "chunk"
    __table_args__ = (
        Index("ix_chunk_job_id_state_id", "job_id", "state", "id"),  # in the order of claims
        Index("ix_chunk_state_lane", "state", "lane"),
        Index("ix_chunk_remote_id_state", "remote_id", "state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    kind: Mapped[str] = mapped_column(sa.String(16))
    lane: Mapped[str] = mapped_column(sa.String(8))
    priority: Mapped[int]
    remote_id: Mapped[int | None] = mapped_column(
        ForeignKey("remote.id"), comment="null for a plan: it opens no association"
    )
    state: Mapped[ChunkState]
    fence: Mapped[int] = mapped_column(default=0, comment="grows with each claim; writes of an older one are refused")
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("worker.id"))
    lease_until: Mapped[datetime | None]
    leased_at: Mapped[datetime | None] = mapped_column(comment="when the lease was written")
    not_before: Mapped[datetime]
    waits_from: Mapped[datetime | None] = mapped_column(
        comment="when not_before was written, if we computed it; null: a person, a window or a schedule gave it"
    )
    reason: Mapped[str | None] = mapped_column(sa.String(80))
    advice: Mapped[str | None] = mapped_column(sa.Text)
    barren: Mapped[int] = mapped_column(default=0, comment="attempts in a row that finished no item")
    deaths: Mapped[int] = mapped_column(default=0, comment="leases lost in a row without finishing an item")
    round: Mapped[int] = mapped_column(
        default=0, server_default="0", comment="rounds of a retrieve that counted: 0 none, 1 first, 2 lists, 3 singly"
    )
    waiting_since: Mapped[datetime | None]
    careful: Mapped[bool] = mapped_column(default=False, comment="a worker died on it: record item by item")
    in_flight_item_id: Mapped[int | None] = mapped_column(BigId, comment="kept by careful attempts only")
    cursor: Mapped[bytes | None] = mapped_column(sa.LargeBinary, comment="last path that the plan has recorded")
    in_flight_path: Mapped[bytes | None] = mapped_column(sa.LargeBinary, comment="what a careful plan is about to open")
    in_flight_losses: Mapped[int] = mapped_column(
        default=0, server_default="0", comment="times that a worker died on that path"
    )
    total: Mapped[int] = mapped_column(default=0)
    succeeded: Mapped[int] = mapped_column(default=0)
    warning: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    cancelled: Mapped[int] = mapped_column(default=0)
    sent_bytes: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    matches: Mapped[int] = mapped_column(
        default=0, server_default="0", comment="answers to a C-FIND, those of the last attempt"
    )


class ItemRow(Base):
    """One SOP instance, or one request, and what came of it."""

    __tablename__ = "item"
    __table_args__ = (
        Index("ix_item_chunk_id_state", "chunk_id", "state"),
        # One file speaks for a UID in a job; a duplicate or a conflict (a twin) names it and takes no place.
        index_of_some(
            "uq_item_job_id_sop_instance_uid", "job_id sop_instance_uid", "is_first AND request_id IS NULL", unique=True
        ),
        index_of_some("ix_item_twins", "job_id sop_instance_uid", f"{_TWIN} AND request_id IS NULL"),
        # What a retrieve expects is an instance of a series of a study: archives list one UID in several.
        index_of_some(
            "uq_item_expected",
            "job_id sop_instance_uid series_instance_uid study_instance_uid",
            "is_first AND request_id IS NOT NULL",
            unique=True,
        ),
        index_of_some("ix_item_expected", "sop_instance_uid", "request_id IS NOT NULL"),  # by the UID that arrives
        Index("ix_item_job_id_kind", "job_id", "kind"),
        index_of_some("ix_item_answer", "job_id reason state status id", "reason IS NOT NULL"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunk.id"))
    kind: Mapped[str] = mapped_column(sa.String(8))
    is_first: Mapped[bool]
    row: Mapped[int | None]
    path: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    size: Mapped[int | None] = mapped_column(sa.BigInteger)
    mtime_ns: Mapped[int | None] = mapped_column(sa.BigInteger)
    sop_class_uid: Mapped[str | None] = mapped_column(UID)
    sop_instance_uid: Mapped[str | None] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str | None] = mapped_column(UID)
    study_instance_uid: Mapped[str | None] = mapped_column(UID)
    series_instance_uid: Mapped[str | None] = mapped_column(UID)
    state: Mapped[ItemState]
    status: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(sa.String(80))
    detail: Mapped[str | None] = mapped_column(PeerWords)
    sent_as: Mapped[str | None] = mapped_column(UID)
    sent_bytes: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    tries: Mapped[int] = mapped_column(default=0)
    charges: Mapped[int] = mapped_column(default=0, comment="times it was in flight when its association broke")
    losses: Mapped[int] = mapped_column(default=0, comment="times it was in flight when its worker died")
    request_id: Mapped[int | None] = mapped_column(BigId, comment="of an instance: the request item that it belongs to")
    identifier: Mapped[list[Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="of a request: its keys as [path, value]"
    )
    targets: Mapped[list[Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="of a request: the targets that its identifier came to"
    )
    filed_study_uid: Mapped[str | None] = mapped_column(UID, comment="under which it lies here, if not as listed")
    filed_series_uid: Mapped[str | None] = mapped_column(UID)
    expectation: Mapped[str | None] = mapped_column(sa.String(8), comment="of a request: images, counts or unknown")
    expected: Mapped[int | None] = mapped_column(comment="of a request: instances, those that others have included")
    listed_at: Mapped[datetime | None] = mapped_column(comment="of a request: when the list was made that it rests on")
    relisted: Mapped[int | None] = mapped_column(
        comment="of a request whose list is not whole: 1 waits to be listed again, 2 was, 3 was asked for whole"
    )
    verified: Mapped[str | None] = mapped_column(sa.String(8), comment="of a request: uids, counts or none")
    basis: Mapped[str | None] = mapped_column(sa.String(16), comment="of a request: what its proof rests on")
    noted: Mapped[dict[str, Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="of a request: what was odd about the matches of its identifier"
    )


class AttemptRow(Base):
    """One try of a chunk; never deleted while its job is kept."""

    __tablename__ = "attempt"
    __table_args__ = (UniqueConstraint("chunk_id", "fence"), Index("ix_attempt_job_id", "job_id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunk.id"))
    fence: Mapped[int]
    worker: Mapped[str] = mapped_column(sa.String(300))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end: Mapped[AttemptEnd | None]
    reason: Mapped[str | None] = mapped_column(sa.String(80))
    detail: Mapped[str | None] = mapped_column(PeerWords)
    finished_items: Mapped[int] = mapped_column(default=0)


class EventRow(Base):
    """Append-only history of a job."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_job_id", "job_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(sa.String(16))
    text: Mapped[str] = mapped_column(PeerWords)


class WorkerRow(Base):
    """A living role of an installation, by its last sign of life."""

    __tablename__ = "worker"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(sa.String(16))
    host: Mapped[str] = mapped_column(sa.String(255))
    pid: Mapped[int]
    slots: Mapped[int]
    draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    facts: Mapped[dict[str, Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="version and settings that it began with"
    )
    disks: Mapped[list[Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="free space of what it writes to, at its last sign of life"
    )
    remark: Mapped[str | None] = mapped_column(sa.Text, comment="what is to be known of it")


class MoveRow(Base):
    """One C-MOVE or C-GET as it was asked for, and its final answer, if any."""

    __tablename__ = "move"
    __table_args__ = (
        Index("ix_move_chunk_id", "chunk_id"),
        Index("ix_move_item_id", "item_id"),
        Index("ix_move_job_id", "job_id"),
        Index("ix_move_message_id", "message_id"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunk.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), comment="the request")
    fence: Mapped[int] = mapped_column(comment="which attempt of the chunk")
    round: Mapped[int]
    method: Mapped[str] = mapped_column(sa.String(4), comment="move or get")
    message_id: Mapped[int] = mapped_column(comment="not used again for 65,535 moves of this installation")
    ae_title: Mapped[str] = mapped_column(sa.String(16), comment="ours on that association: the move originator")
    destination: Mapped[str | None] = mapped_column(sa.String(16))
    level: Mapped[str] = mapped_column(sa.String(8))
    study_instance_uid: Mapped[str | None] = mapped_column(UID)
    series_instance_uid: Mapped[str | None] = mapped_column(UID)
    asked: Mapped[int | None] = mapped_column(comment="SOP Instance UIDs in its list; null above IMAGE level")
    asked_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    status: Mapped[int | None] = mapped_column(comment="the final one")
    remaining: Mapped[int | None]
    completed: Mapped[int | None]
    failed: Mapped[int | None]
    warning: Mapped[int | None]
    failed_uids: Mapped[list[str] | None] = mapped_column(sa.JSON(none_as_null=True))
    comment: Mapped[str | None] = mapped_column(PeerWords)
    reason: Mapped[str | None] = mapped_column(sa.String(80), comment="why it has no final answer")
    refused_here: Mapped[list[Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="what our side refused of what it brought"
    )


class CallRow(Base):
    """An association that was asked of the storage SCP; kept for some days."""

    __tablename__ = "call"
    __table_args__ = (UniqueConstraint("association"), Index("ix_call_at", "at"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    association: Mapped[str] = mapped_column(sa.String(32))
    calling_ae_title: Mapped[str] = mapped_column(TITLE)
    called_ae_title: Mapped[str] = mapped_column(TITLE)
    address: Mapped[str] = mapped_column(PeerText(64))
    at: Mapped[datetime]
    accepted: Mapped[bool]
    why: Mapped[str | None] = mapped_column(PeerWords, comment="why it was rejected")
    refused: Mapped[list[str]] = mapped_column(sa.JSON, comment="SOP classes of the contexts that were refused")
    moved_at: Mapped[datetime | None] = mapped_column(comment="when it carried data last, to a few seconds")
    ended_at: Mapped[datetime | None]
    refusals: Mapped[list[Any] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="what our storage SCP refused on it"
    )


class MatchRow(Base):
    """One answer to a C-FIND. Those of an item's last attempt count; a new attempt replaces them."""

    __tablename__ = "match"
    __table_args__ = (UniqueConstraint("item_id", "number"), Index("ix_match_job_id", "job_id"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"))
    fence: Mapped[int] = mapped_column(comment="which attempt of the item's chunk")
    number: Mapped[int] = mapped_column(comment="in the order of arrival, from 1")
    patient_id: Mapped[str | None] = mapped_column(UID)
    study_instance_uid: Mapped[str | None] = mapped_column(UID)
    series_instance_uid: Mapped[str | None] = mapped_column(UID)
    sop_instance_uid: Mapped[str | None] = mapped_column(UID)
    attributes: Mapped[str] = mapped_column(sa.Text, comment="DICOM JSON model (PS3.18 F.2), ASCII")
    character_set: Mapped[str] = mapped_column(PeerText(128), comment="in which its text was read")
    flaw: Mapped[str | None] = mapped_column(PeerText(200), comment="what of it could not be read")
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    data: Mapped[bytes] = mapped_column(sa.LargeBinary, comment="the identifier as received")
    repeats: Mapped[bool] = mapped_column(server_default=sa.false(), comment="its unique key came before")


class TurnRow(Base):
    """Something that only one process at a time may do, such as the sweep."""

    __tablename__ = "turn"
    name: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    worker_id: Mapped[int | None]
    until: Mapped[datetime]
    taken_at: Mapped[datetime | None] = mapped_column(comment="when the turn was taken")


class DeedRow(Base):
    """A transaction that a person asked for, and that is done: a caller that tries it again finds this row."""

    __tablename__ = "deed"
    token: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    at: Mapped[datetime]

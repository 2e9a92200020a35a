"""The rows of the archive: its files, and what arrived; what their words mean is in docs/design.md, section 3."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dicomferry.models.record.tables.jobs import Base, BigId, index_of_some
from dicomferry.models.record.tables.text_columns import TITLE, UID, PeerText


class InstanceRow(Base):
    """A file in the archive; a removed one's row stays as history."""

    __tablename__ = "instance"
    __table_args__ = (
        index_of_some("uq_instance_path", "path", "removed_at IS NULL", unique=True),
        Index("ix_instance_sop_instance_uid", "sop_instance_uid"),
        Index("ix_instance_study_instance_uid", "study_instance_uid"),
        index_of_some("ix_instance_size", "size", "removed_at IS NULL"),  # how much there is, without reading the rows
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    path: Mapped[str] = mapped_column(sa.String(255), comment="below the archive's root")
    size: Mapped[int] = mapped_column(sa.BigInteger)
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    study_instance_uid: Mapped[str | None] = mapped_column(UID)
    series_instance_uid: Mapped[str | None] = mapped_column(UID)
    relation: Mapped[str] = mapped_column(sa.String(16), comment="first, alternate or conflict")
    is_current: Mapped[bool] = mapped_column(comment="the file that counts for its SOP Instance UID")
    flaw: Mapped[str | None] = mapped_column(PeerText(200), comment="what is odd about it, though it is kept")
    stored_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class ArrivalRow(Base):
    """One C-STORE that was received and kept."""

    __tablename__ = "arrival"
    __table_args__ = (
        UniqueConstraint("association", "number"),
        Index("ix_arrival_instance_id", "instance_id"),
        Index("ix_arrival_job_id", "job_id"),
        Index("ix_arrival_move_id", "move_id"),
        index_of_some("ix_arrival_surplus_of", "surplus_of", "surplus_of IS NOT NULL"),
        index_of_some("ix_arrival_conflict", "job_id", "outcome = 'conflict'"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"))
    job_id: Mapped[int | None] = mapped_column(comment="the retrieve that asked for it, or null; it may be pruned")
    association: Mapped[str] = mapped_column(sa.String(32))
    number: Mapped[int] = mapped_column(comment="which C-STORE of its association")
    outcome: Mapped[str] = mapped_column(sa.String(16), comment="stored, duplicate, alternate or conflict")
    calling_ae_title: Mapped[str] = mapped_column(TITLE)
    called_ae_title: Mapped[str] = mapped_column(TITLE)
    address: Mapped[str] = mapped_column(PeerText(64))
    message_id: Mapped[int]
    originator_ae_title: Mapped[str | None] = mapped_column(TITLE)
    originator_message_id: Mapped[int | None]
    at: Mapped[datetime]
    move_id: Mapped[int | None] = mapped_column(comment="the C-MOVE or C-GET that brought it, where that is known")
    surplus_of: Mapped[int | None] = mapped_column(
        comment="the retrieve that it came along with, if no item of that named it when it came"
    )


class UnindexedRow(Base):
    """A file of the archive that has no row, since it cannot be read or its row is refused; it keeps its folder on the
    journal.
    """

    __tablename__ = "unindexed"
    path: Mapped[str] = mapped_column(sa.String(255), primary_key=True, comment="below the archive's root")
    why: Mapped[str] = mapped_column(PeerText(200))
    at: Mapped[datetime]


class ArchiveRow(Base):
    """The archive that this record is about; there is one row at most."""

    __tablename__ = "archive"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    mark: Mapped[str] = mapped_column(sa.String(64), comment="what stands in the file that marks it")
    known_since: Mapped[datetime]


class LookRow(Base):
    """Files that a worker asks the storage SCP to look at, because it does not see the archive itself."""

    __tablename__ = "look"
    __table_args__ = (Index("ix_look_asked_at", "asked_at"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    asked_at: Mapped[datetime]
    files: Mapped[list[Any]] = mapped_column(sa.JSON, comment="[path, size] of each")
    answer: Mapped[list[str] | None] = mapped_column(
        sa.JSON(none_as_null=True), comment="what each was found to be; null until somebody has looked"
    )

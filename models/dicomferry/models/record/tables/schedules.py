"""The rows of schedules, of what came of their due times, and of what is to be told to whom."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dicomferry.models.record.tables.jobs import Base, BigId, index_of_some
from dicomferry.models.record.tables.text_columns import PeerWords


class ScheduleRow(Base):
    """A job to be submitted again and again, at the times of a cron expression in a time zone."""

    __tablename__ = "schedule"
    __table_args__ = (
        # A removed one stays for the runs that name it, and its name is free.
        index_of_some("uq_schedule_name", "name", "removed_at IS NULL", unique=True),
        Index("ix_schedule_next_due", "next_due"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    cron: Mapped[str] = mapped_column(sa.String(200))
    zone: Mapped[str] = mapped_column(sa.String(64), comment="IANA time zone")
    command: Mapped[str] = mapped_column(sa.Text, comment="JSON: the words of the submit command, and its folder")
    catch_up: Mapped[str] = mapped_column(sa.String(8))
    grace: Mapped[float | None] = mapped_column(comment="seconds")
    cap: Mapped[int]
    overlap: Mapped[str] = mapped_column(sa.String(8))
    counted_from: Mapped[datetime] = mapped_column(comment="the due times after this one are to be settled")
    next_due: Mapped[datetime | None] = mapped_column(comment="the first of them; whoever changes it settles them")
    created_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]


class RunRow(Base):
    """What came of a due time of a schedule, or of several that were missed for one reason."""

    __tablename__ = "schedule_run"
    __table_args__ = (
        index_of_some("uq_schedule_run_due", "schedule_id due_at", "NOT by_hand", unique=True),
        Index("ix_schedule_run_schedule_id", "schedule_id", "id"),
        Index("ix_schedule_run_state", "state"),
        Index("ix_schedule_run_job_id", "job_id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id"))
    due_at: Mapped[datetime]
    last_due_at: Mapped[datetime] = mapped_column(comment="of several that were missed, the last")
    number: Mapped[int] = mapped_column(comment="how many due times this is about")
    by_hand: Mapped[bool]
    state: Mapped[str] = mapped_column(sa.String(16), comment="submitted, waiting, skipped, missed or refused")
    reason: Mapped[str | None] = mapped_column(sa.String(80))
    detail: Mapped[str | None] = mapped_column(PeerWords)
    at: Mapped[datetime] = mapped_column(comment="when it became so")
    job_id: Mapped[int | None] = mapped_column(comment="may be pruned before the run is")


class NotificationRow(Base):
    """A notification to be sent by one channel: a job ended or was held, or a schedule's run came to no job."""

    __tablename__ = "notification"
    __table_args__ = (
        UniqueConstraint("job_id", "number", "channel"),
        UniqueConstraint("run_id", "channel"),
        Index("ix_notification_outcome", "outcome"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    run_id: Mapped[int | None] = mapped_column(
        BigId, ForeignKey("schedule_run.id", ondelete="CASCADE"), comment="of a run without a job"
    )
    number: Mapped[int] = mapped_column(comment="which of the job's ends this is")
    channel: Mapped[str] = mapped_column(sa.String(8), comment="webhook or command")
    state: Mapped[str] = mapped_column(sa.String(16), comment="what the job or the run became")
    at: Mapped[datetime]
    outcome: Mapped[str] = mapped_column(sa.String(8), comment="pending, sent, failed or unwanted")
    tries: Mapped[int]
    not_before: Mapped[datetime]
    waits_from: Mapped[datetime | None] = mapped_column(comment="when that was written")
    detail: Mapped[str | None] = mapped_column(PeerWords, comment="what came of the last try")

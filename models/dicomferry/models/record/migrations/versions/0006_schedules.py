"""Schedules, their runs, and notifications."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_PRESENT = sa.text("removed_at IS NULL")
_BY_CRON = sa.text("NOT by_hand")


def upgrade() -> None:
    """One version up."""
    op.create_table(
        "schedule",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("cron", sa.String(length=200), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False, comment="IANA time zone"),
        sa.Column(
            "command", sa.Text(), nullable=False, comment="JSON: the words of the submit command, and its folder"
        ),
        sa.Column("catch_up", sa.String(length=8), nullable=False),
        sa.Column("grace", sa.Double(), nullable=True, comment="seconds"),
        sa.Column("cap", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.String(length=8), nullable=False),
        sa.Column(
            "counted_from",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="the due times after this one are to be settled",
        ),
        sa.Column(
            "next_due",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the first of them; whoever changes it settles them",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
    )
    op.create_index(
        "uq_schedule_name", "schedule", ["name"], unique=True, sqlite_where=_PRESENT, postgresql_where=_PRESENT
    )
    op.create_index("ix_schedule_next_due", "schedule", ["next_due"])
    op.create_table(
        "schedule_run",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("schedule_id", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "last_due_at", sa.DateTime(timezone=True), nullable=False, comment="of several that were missed, the last"
        ),
        sa.Column("number", sa.Integer(), nullable=False, comment="how many due times this is about"),
        sa.Column("by_hand", sa.Boolean(), nullable=False),
        sa.Column(
            "state", sa.String(length=16), nullable=False, comment="submitted, waiting, skipped, missed or refused"
        ),
        sa.Column("reason", sa.String(length=80), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, comment="when it became so"),
        sa.Column("job_id", sa.Integer(), nullable=True, comment="may be pruned before the run is"),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_schedule_run_schedule_id_schedule")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_run")),
    )
    op.create_index(
        "uq_schedule_run_due",
        "schedule_run",
        ["schedule_id", "due_at"],
        unique=True,
        sqlite_where=_BY_CRON,
        postgresql_where=_BY_CRON,
    )
    op.create_index("ix_schedule_run_schedule_id", "schedule_run", ["schedule_id", "id"])
    op.create_index("ix_schedule_run_state", "schedule_run", ["state"])
    op.create_index("ix_schedule_run_job_id", "schedule_run", ["job_id"])
    op.create_table(
        "notification",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("run_id", _BIG_ID, nullable=True, comment="of a run without a job"),
        sa.Column("number", sa.Integer(), nullable=False, comment="which of the job's ends this is"),
        sa.Column("channel", sa.String(length=8), nullable=False, comment="webhook or command"),
        sa.Column("state", sa.String(length=16), nullable=False, comment="what the job or the run became"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=8), nullable=False, comment="pending, sent, failed or unwanted"),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True, comment="what came of the last try"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_notification_job_id_job"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["schedule_run.id"], name=op.f("fk_notification_run_id_schedule_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sa.UniqueConstraint("job_id", "number", "channel", name=op.f("uq_notification_job_id_number_channel")),
        sa.UniqueConstraint("run_id", "channel", name=op.f("uq_notification_run_id_channel")),
    )
    op.create_index("ix_notification_outcome", "notification", ["outcome"])


def downgrade() -> None:
    """One version down."""
    op.drop_index("ix_notification_outcome", table_name="notification")
    op.drop_table("notification")
    for name in ("ix_schedule_run_job_id", "ix_schedule_run_state", "ix_schedule_run_schedule_id"):
        op.drop_index(name, table_name="schedule_run")
    op.drop_index("uq_schedule_run_due", table_name="schedule_run", sqlite_where=_BY_CRON, postgresql_where=_BY_CRON)
    op.drop_table("schedule_run")
    op.drop_index("ix_schedule_next_due", table_name="schedule")
    op.drop_index("uq_schedule_name", table_name="schedule", sqlite_where=_PRESENT, postgresql_where=_PRESENT)
    op.drop_table("schedule")

"""The archive: instances and arrivals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEPT = sa.text("removed_at IS NULL")


def upgrade() -> None:
    """One version up."""
    op.create_table(
        "instance",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False, comment="below the archive's root"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=128), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=128), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=128), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=128), nullable=True),
        sa.Column("series_instance_uid", sa.String(length=128), nullable=True),
        sa.Column("relation", sa.String(length=16), nullable=False, comment="first, alternate or conflict"),
        sa.Column("is_current", sa.Boolean(), nullable=False, comment="the file that counts for its SOP Instance UID"),
        sa.Column("flaw", sa.String(length=200), nullable=True, comment="what is odd about it, though it is kept"),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index("uq_instance_path", ["path"], unique=True, sqlite_where=_KEPT, postgresql_where=_KEPT)
        batch_op.create_index("ix_instance_sop_instance_uid", ["sop_instance_uid"], unique=False)
        batch_op.create_index("ix_instance_study_instance_uid", ["study_instance_uid"], unique=False)

    op.create_table(
        "arrival",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("instance_id", _BIG_ID, nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True, comment="the retrieve that asked for it; null: unsolicited"),
        sa.Column("association", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="which C-STORE of its association"),
        sa.Column("outcome", sa.String(length=16), nullable=False, comment="stored, duplicate, alternate or conflict"),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("called_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("message_id", sa.Integer(), nullable=False),
        sa.Column("originator_ae_title", sa.String(length=16), nullable=True),
        sa.Column("originator_message_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name=op.f("fk_arrival_instance_id_instance")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_arrival_job_id_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrival")),
        sa.UniqueConstraint("association", "number", name=op.f("uq_arrival_association_number")),
    )
    with op.batch_alter_table("arrival", schema=None) as batch_op:
        batch_op.create_index("ix_arrival_instance_id", ["instance_id"], unique=False)
        batch_op.create_index("ix_arrival_job_id", ["job_id"], unique=False)


def downgrade() -> None:
    """One version down."""
    with op.batch_alter_table("arrival", schema=None) as batch_op:
        batch_op.drop_index("ix_arrival_job_id")
        batch_op.drop_index("ix_arrival_instance_id")

    op.drop_table("arrival")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index("ix_instance_study_instance_uid")
        batch_op.drop_index("ix_instance_sop_instance_uid")
        batch_op.drop_index("uq_instance_path", sqlite_where=_KEPT, postgresql_where=_KEPT)

    op.drop_table("instance")

"""Answers are held against the keys: what is known of a remote's matching, and matches that say the same again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dicomferry.models.record.database import UTCDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    op.create_table(
        "key_trial",
        sa.Column("remote_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("path", sa.String(200), nullable=False, comment="of the key, as in query"),
        sa.Column("tried_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["remote_id"], ["remote.id"], name=op.f("fk_key_trial_remote_id_remote")),
        sa.PrimaryKeyConstraint("remote_id", "level", "path", name=op.f("pk_key_trial")),
    )
    op.add_column(
        "remote",
        sa.Column(
            "trust_answers",
            sa.JSON(),
            server_default="[]",
            nullable=False,
            comment="keys whose answers are taken though they do not tell",
        ),
    )
    op.add_column(
        "match",
        sa.Column(
            "repeats", sa.Boolean(), server_default=sa.false(), nullable=False, comment="its unique key came before"
        ),
    )


def downgrade() -> None:
    """One version down."""
    op.drop_column("match", "repeats")
    op.drop_column("remote", "trust_answers")
    op.drop_table("key_trial")

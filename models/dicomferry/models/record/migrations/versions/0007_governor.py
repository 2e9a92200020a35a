"""Windows and limits of remotes, and what all processes share to keep to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    op.add_column(
        "remote",
        sa.Column("window", sa.JSON(), nullable=True, comment="when it may be used"),
    )
    op.add_column("remote", sa.Column("max_requests_per_minute", sa.Double(), nullable=True))
    op.add_column("remote", sa.Column("max_instances_per_second", sa.Double(), nullable=True))
    op.add_column("remote", sa.Column("max_bytes_per_second", sa.BigInteger(), nullable=True))
    op.add_column(
        "job",
        sa.Column(
            "ignore_window",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="runs at any hour",
        ),
    )
    op.create_table(
        "governor",
        sa.Column("remote_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "requests_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="until when all places are taken, see pacing",
        ),
        sa.Column("instances_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("size_until", sa.DateTime(timezone=True), nullable=True, comment="the same for bytes"),
        sa.Column("learned_rate", sa.Double(), nullable=True, comment="instances in a second, at rate_learned_at"),
        sa.Column("rate_learned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("learned_associations", sa.Integer(), nullable=True),
        sa.Column("associations_learned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False, comment="fruitless attempts in a row"),
        sa.Column(
            "broken_since", sa.DateTime(timezone=True), nullable=True, comment="the breaker is open since; null: closed"
        ),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True, comment="when one attempt may look again"),
        sa.Column("probe_chunk_id", sa.Integer(), nullable=True, comment="the chunk whose attempt looks"),
        sa.Column("reason", sa.String(length=80), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("advice", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["remote_id"], ["remote.id"], name=op.f("fk_governor_remote_id_remote")),
        sa.PrimaryKeyConstraint("remote_id", name=op.f("pk_governor")),
    )


def downgrade() -> None:
    """One version down."""
    op.drop_table("governor")
    op.drop_column("job", "ignore_window")
    for name in ("max_bytes_per_second", "max_instances_per_second", "max_requests_per_minute", "window"):
        op.drop_column("remote", name)

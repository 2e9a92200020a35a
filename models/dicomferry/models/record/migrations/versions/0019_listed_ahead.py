"""Which chunk of a remote is listed while its moves are all in flight."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    comment = "the chunk of a move that is listed, or was, while no move was free"
    with op.batch_alter_table("governor") as table:
        table.add_column(sa.Column("ahead_chunk_id", sa.Integer(), nullable=True, comment=comment))


def downgrade() -> None:
    """One version down."""
    with op.batch_alter_table("governor") as table:
        table.drop_column("ahead_chunk_id")

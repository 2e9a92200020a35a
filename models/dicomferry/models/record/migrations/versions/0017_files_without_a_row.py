"""Files of the archive that could not be given a row are told by `status`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dicomferry.models.record.database import UTCDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    op.create_table(
        "unindexed",
        sa.Column("path", sa.String(255), nullable=False, comment="below the archive's root"),
        sa.Column("why", sa.String(200), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_unindexed")),
    )


def downgrade() -> None:
    """One version down."""
    op.drop_table("unindexed")

"""Files of a store that have another one's SOP Instance UID are found by it, since they may have to take its place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TWINS = sa.text("reason IN ('duplicate', 'conflict') AND request_id IS NULL")


def upgrade() -> None:
    """One version up."""
    op.create_index(
        "ix_item_twins", "item", ["job_id", "sop_instance_uid"], sqlite_where=_TWINS, postgresql_where=_TWINS
    )


def downgrade() -> None:
    """One version down."""
    op.drop_index("ix_item_twins", "item")

"""An instance may lie here under another study or series than its archive lists it under: then its item says so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_UID = sa.String(128)


def upgrade() -> None:
    """One version up."""
    op.add_column(
        "item",
        sa.Column("filed_study_uid", _UID, nullable=True, comment="under which it lies here, if not as listed"),
    )
    op.add_column("item", sa.Column("filed_series_uid", _UID, nullable=True))


def downgrade() -> None:
    """One version down."""
    op.drop_column("item", "filed_series_uid")
    op.drop_column("item", "filed_study_uid")

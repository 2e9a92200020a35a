"""What a remote's answers mean otherwise than the table of answers has it.

The column is added plainly: a table with rows that others refer to must not be made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    op.add_column(
        "remote",
        sa.Column(
            "quirks",
            sa.JSON(),
            server_default="[]",
            nullable=False,
            comment="answers that mean something else",
        ),
    )


def downgrade() -> None:
    """One version down."""
    op.drop_column("remote", "quirks")

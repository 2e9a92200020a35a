"""A role writes down its settings and its disks, a call and a request what our storage SCP refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("worker", "facts", "version and settings that it began with"),
    ("worker", "disks", "free space of what it writes to, at its last sign of life"),
    ("call", "refusals", "what our storage SCP refused on it"),
    ("move", "refused_here", "what our side refused of what it brought"),
)


def upgrade() -> None:
    """One version up."""
    for table, name, comment in _COLUMNS:
        op.add_column(table, sa.Column(name, sa.JSON(none_as_null=True), nullable=True, comment=comment))


def downgrade() -> None:
    """One version down."""
    for table, name, _ in reversed(_COLUMNS):
        with op.batch_alter_table(table) as batch:
            batch.drop_column(name)

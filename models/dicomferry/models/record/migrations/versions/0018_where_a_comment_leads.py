"""The comment of a column says what is in it, without the path of a module, which may move.

SQLite keeps no comments.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_BEFORE = "of a request: what its identifier came to, see models/target.py"
_AFTER = "of a request: the targets that its identifier came to"


def _say(text: str) -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("item", "targets", existing_type=sa.JSON(), comment=text)


def upgrade() -> None:
    """One version up."""
    _say(_AFTER)


def downgrade() -> None:
    """One version down."""
    _say(_BEFORE)

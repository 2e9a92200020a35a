"""What grows with the rows is found by an index: why items of a job are as they are, how much the archive holds, and
which chunk of a job comes next.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    _make("ix_item_answer", "item", ["job_id", "reason", "state", "status", "id"], "reason IS NOT NULL")
    _make("ix_instance_size", "instance", ["size"], "removed_at IS NULL")
    op.create_index("ix_chunk_job_id_state_id", "chunk", ["job_id", "state", "id"])
    op.drop_index("ix_chunk_job_id_state", "chunk")


def _make(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """One version down."""
    op.create_index("ix_chunk_job_id_state", "chunk", ["job_id", "state"])
    op.drop_index("ix_chunk_job_id_state_id", "chunk")
    op.drop_index("ix_instance_size", "instance")
    op.drop_index("ix_item_answer", "item")

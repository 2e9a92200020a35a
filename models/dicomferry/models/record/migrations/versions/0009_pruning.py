"""Old jobs are removed in steps: one that is being removed says so, and each step finds its rows by an index.

What arrived stays, with the number of the job that asked for it. Nothing refers to arrivals, so their table may be
made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KIND = sa.text("kind = 'request'")
_ASKED = "the retrieve that asked for it; null: unsolicited"


def upgrade() -> None:
    """One version up."""
    since = "since when it is being removed"
    op.add_column("job", sa.Column("pruned_at", sa.DateTime(timezone=True), nullable=True, comment=since))
    op.drop_index("ix_item_request", table_name="item", sqlite_where=_KIND, postgresql_where=_KIND)
    op.create_index("ix_item_job_id_kind", "item", ["job_id", "kind"])
    op.create_index("ix_move_item_id", "move", ["item_id"])
    op.create_index("ix_match_job_id", "match", ["job_id"])
    with op.batch_alter_table("arrival") as arrival:
        arrival.drop_constraint("fk_arrival_job_id_job", type_="foreignkey")
        arrival.alter_column(
            "job_id", existing_type=sa.Integer(), comment="the retrieve that asked for it, or null; it may be pruned"
        )


def downgrade() -> None:
    """One version down."""
    op.execute("UPDATE arrival SET job_id = NULL WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.id = arrival.job_id)")
    with op.batch_alter_table("arrival") as arrival:
        arrival.alter_column("job_id", existing_type=sa.Integer(), comment=_ASKED)
        arrival.create_foreign_key("fk_arrival_job_id_job", "job", ["job_id"], ["id"])
    op.drop_index("ix_match_job_id", table_name="match")
    op.drop_index("ix_move_item_id", table_name="move")
    op.drop_index("ix_item_job_id_kind", table_name="item")
    op.create_index("ix_item_request", "item", ["job_id"], sqlite_where=_KIND, postgresql_where=_KIND)
    op.drop_column("job", "pruned_at")

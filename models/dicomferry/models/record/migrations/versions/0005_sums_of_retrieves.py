"""What a list of jobs shows of each is kept with the job, or found by an index of few rows.

Columns are added plainly: a table with rows that others refer to must not be made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_item_request", "item", "job_id", "kind = 'request'"),
    ("ix_arrival_surplus_of", "arrival", "surplus_of", "surplus_of IS NOT NULL"),
    ("ix_arrival_conflict", "arrival", "job_id", "outcome = 'conflict'"),
)
_RECEIVED = """
UPDATE job SET received_bytes = (
    SELECT coalesce(sum(instance.size), 0) FROM arrival JOIN instance ON instance.id = arrival.instance_id
    WHERE arrival.job_id = job.id
) WHERE kind IN ('move', 'get')
"""
_SURPLUS = """
UPDATE arrival SET surplus_of = (SELECT move.job_id FROM move WHERE move.id = arrival.move_id)
WHERE move_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM move JOIN item ON item.job_id = move.job_id
    JOIN instance ON instance.sop_instance_uid = item.sop_instance_uid
    WHERE move.id = arrival.move_id AND instance.id = arrival.instance_id
)
"""


def upgrade() -> None:
    """One version up."""
    op.add_column(
        "job",
        sa.Column(
            "busy_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="since when something of it runs, if it does",
        ),
    )
    op.add_column(
        "job",
        sa.Column(
            "busy_seconds",
            sa.Double(),
            nullable=True,
            comment="how long something of it ran before; null: that was not counted yet",
        ),
    )
    op.add_column(
        "job",
        sa.Column(
            "received_bytes",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="of what came for a retrieve, each arrival counted",
        ),
    )
    op.add_column(
        "arrival",
        sa.Column(
            "surplus_of",
            sa.Integer(),
            nullable=True,
            comment="the retrieve that it came along with, if no item of that named it when it came",
        ),
    )
    for name, table, column, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
    op.execute(_RECEIVED)
    op.execute(_SURPLUS)


def downgrade() -> None:
    """One version down."""
    for name, table, _, condition in _INDEXES:
        where = sa.text(condition)
        op.drop_index(name, table_name=table, sqlite_where=where, postgresql_where=where)
    op.drop_column("arrival", "surplus_of")
    for name in ("received_bytes", "busy_seconds", "busy_since"):
        op.drop_column("job", name)

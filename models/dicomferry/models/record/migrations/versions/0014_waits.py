"""Each wait that we computed says when it was written; deaths on a path; what a person asked for is done once.

Waits that are on record already have no such moment: they end when they were to end.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_WRITTEN = {
    "chunk": ("leased_at", "waits_from"),
    "governor": ("requests_taken_at", "instances_taken_at", "size_taken_at", "probe_set_at"),
    "notification": ("waits_from",),
    "turn": ("taken_at",),
}
_COMMENTS = {
    "leased_at": "when the lease was written",
    "waits_from": "when not_before was written, if we computed it; null: a person, a window or a schedule gave it",
    "requests_taken_at": "when requests_until was written",
    "instances_taken_at": "when instances_until was written",
    "size_taken_at": "when size_until was written",
    "probe_set_at": "when probe_at was written",
    "taken_at": "when the turn was taken",
}


def upgrade() -> None:
    """One version up."""
    for table, names in _WRITTEN.items():
        for name in names:
            comment = _COMMENTS[name] if (table, name) != ("notification", "waits_from") else "when that was written"
            op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True, comment=comment))
    op.add_column(
        "chunk",
        sa.Column("in_flight_path", sa.LargeBinary(), nullable=True, comment="what a careful plan is about to open"),
    )
    op.add_column(
        "chunk",
        sa.Column(
            "in_flight_losses",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="times that a worker died on that path",
        ),
    )
    op.add_column("worker", sa.Column("remark", sa.Text(), nullable=True, comment="what is to be known of it"))
    op.create_table(
        "deed",
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_deed"),
    )


def downgrade() -> None:
    """One version down."""
    op.drop_table("deed")
    op.drop_column("worker", "remark")
    op.drop_column("chunk", "in_flight_losses")
    op.drop_column("chunk", "in_flight_path")
    for table, names in _WRITTEN.items():
        for name in names:
            op.drop_column(table, name)

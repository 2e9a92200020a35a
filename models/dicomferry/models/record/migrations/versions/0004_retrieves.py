"""Retrieves: what they expect and what they asked for, and the calls that the storage SCP had.

Columns are added plainly: a table with rows that others refer to must not be made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_EXPECTED = sa.text("request_id IS NOT NULL")


def upgrade() -> None:
    """One version up."""
    op.add_column(
        "job",
        sa.Column(
            "destination",
            sa.String(length=16),
            nullable=True,
            comment="AE title that a move goes to; null: it comes to us",
        ),
    )
    op.add_column(
        "chunk",
        sa.Column(
            "round",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="rounds of a retrieve that counted: 0 none, 1 first, 2 lists, 3 singly",
        ),
    )
    op.add_column(
        "item",
        sa.Column("request_id", _BIG_ID, nullable=True, comment="of an instance: the request item that it belongs to"),
    )
    op.add_column(
        "item",
        sa.Column("identifier", sa.JSON(), nullable=True, comment="of a request: its keys as [path, value]"),
    )
    op.add_column(
        "item",
        sa.Column(
            "targets",
            sa.JSON(),
            nullable=True,
            comment="of a request: what its identifier came to, see models/target.py",
        ),
    )
    op.add_column(
        "item",
        sa.Column("expectation", sa.String(length=8), nullable=True, comment="of a request: images, counts or unknown"),
    )
    op.add_column(
        "item",
        sa.Column(
            "expected", sa.Integer(), nullable=True, comment="of a request: instances, those that others have included"
        ),
    )
    op.create_index(
        "ix_item_expected", "item", ["sop_instance_uid"], sqlite_where=_EXPECTED, postgresql_where=_EXPECTED
    )
    op.add_column(
        "arrival",
        sa.Column(
            "move_id", sa.Integer(), nullable=True, comment="the C-MOVE or C-GET that brought it, where that is known"
        ),
    )
    op.create_index("ix_arrival_move_id", "arrival", ["move_id"])
    op.create_table(
        "move",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("chunk_id", sa.Integer(), nullable=False),
        sa.Column("item_id", _BIG_ID, nullable=False, comment="the request"),
        sa.Column("fence", sa.Integer(), nullable=False, comment="which attempt of the chunk"),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(length=4), nullable=False, comment="move or get"),
        sa.Column(
            "message_id",
            sa.Integer(),
            nullable=False,
            comment="not used again for 65,535 moves of this installation",
        ),
        sa.Column(
            "ae_title", sa.String(length=16), nullable=False, comment="ours on that association: the move originator"
        ),
        sa.Column("destination", sa.String(length=16), nullable=True),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=128), nullable=True),
        sa.Column("series_instance_uid", sa.String(length=128), nullable=True),
        sa.Column(
            "asked", sa.Integer(), nullable=True, comment="SOP Instance UIDs in its list; null above IMAGE level"
        ),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True, comment="the final one"),
        sa.Column("remaining", sa.Integer(), nullable=True),
        sa.Column("completed", sa.Integer(), nullable=True),
        sa.Column("failed", sa.Integer(), nullable=True),
        sa.Column("warning", sa.Integer(), nullable=True),
        sa.Column("failed_uids", sa.JSON(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("reason", sa.String(length=80), nullable=True, comment="why it has no final answer"),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunk.id"], name=op.f("fk_move_chunk_id_chunk")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_move_item_id_item")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_move_job_id_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_move")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_move_chunk_id", "move", ["chunk_id"])
    op.create_index("ix_move_job_id", "move", ["job_id"])
    op.create_index("ix_move_message_id", "move", ["message_id"])
    op.create_table(
        "call",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("association", sa.String(length=32), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("called_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True, comment="why it was rejected"),
        sa.Column("refused", sa.JSON(), nullable=False, comment="SOP classes of the contexts that were refused"),
        sa.Column(
            "moved_at", sa.DateTime(timezone=True), nullable=True, comment="when it carried data last, to a few seconds"
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call")),
        sa.UniqueConstraint("association", name=op.f("uq_call_association")),
    )
    op.create_index("ix_call_at", "call", ["at"])


def downgrade() -> None:
    """One version down."""
    op.drop_index("ix_call_at", table_name="call")
    op.drop_table("call")
    for name in ("ix_move_message_id", "ix_move_job_id", "ix_move_chunk_id"):
        op.drop_index(name, table_name="move")
    op.drop_table("move")
    op.drop_index("ix_item_expected", table_name="item", sqlite_where=_EXPECTED, postgresql_where=_EXPECTED)
    op.drop_index("ix_arrival_move_id", table_name="arrival")
    op.drop_column("arrival", "move_id")
    for name in ("expected", "expectation", "targets", "identifier", "request_id"):
        op.drop_column("item", name)
    op.drop_column("chunk", "round")
    op.drop_column("job", "destination")

"""The answers to C-FIND, and what is known of how a remote answers.

Columns are added plainly: a table with rows that others refer to must not be made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """One version up."""
    op.add_column(
        "remote",
        sa.Column(
            "find_cap", sa.Integer(), nullable=True, comment="how many matches it lists at most, where that is known"
        ),
    )
    op.add_column(
        "remote",
        sa.Column(
            "relational",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="takes one query over several levels (PS3.4 C.4.1.2.2.2)",
        ),
    )
    op.add_column(
        "chunk",
        sa.Column(
            "matches",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="answers to a C-FIND, those of the last attempt",
        ),
    )
    op.create_table(
        "match",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("item_id", _BIG_ID, nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False, comment="which attempt of the item's chunk"),
        sa.Column("number", sa.Integer(), nullable=False, comment="in the order of arrival, from 1"),
        sa.Column("patient_id", sa.String(length=128), nullable=True),
        sa.Column("study_instance_uid", sa.String(length=128), nullable=True),
        sa.Column("series_instance_uid", sa.String(length=128), nullable=True),
        sa.Column("sop_instance_uid", sa.String(length=128), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False, comment="DICOM JSON model (PS3.18 F.2), ASCII"),
        sa.Column("character_set", sa.String(length=128), nullable=False, comment="in which its text was read"),
        sa.Column("flaw", sa.String(length=200), nullable=True, comment="what of it could not be read"),
        sa.Column("transfer_syntax_uid", sa.String(length=128), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="the identifier as received"),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_match_item_id_item")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_match_job_id_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_match")),
        sa.UniqueConstraint("item_id", "number", name=op.f("uq_match_item_id_number")),
    )


def downgrade() -> None:
    """One version down."""
    op.drop_table("match")
    op.drop_column("chunk", "matches")
    op.drop_column("remote", "relational")
    op.drop_column("remote", "find_cap")

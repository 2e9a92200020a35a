"""What a retrieve expects is an instance of a series of a study; the archive has a mark, and is looked at for others.

One SOP Instance UID may stand in several series or studies: each file counts for its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_UNIQUE = "uq_item_job_id_sop_instance_uid"
_OWN = "uq_item_expected"
_FIRST = sa.text("is_first")
_SENT = sa.text("is_first AND request_id IS NULL")
_EXPECTED = sa.text("is_first AND request_id IS NOT NULL")
_KEY = ["job_id", "sop_instance_uid", "series_instance_uid", "study_instance_uid"]
_CURRENT = """
UPDATE instance SET is_current = TRUE
WHERE removed_at IS NULL AND NOT is_current AND relation <> 'alternate' AND NOT EXISTS (
    SELECT 1 FROM instance AS other
    WHERE other.sop_instance_uid = instance.sop_instance_uid AND other.removed_at IS NULL
      AND coalesce(other.study_instance_uid, '') = coalesce(instance.study_instance_uid, '')
      AND coalesce(other.series_instance_uid, '') = coalesce(instance.series_instance_uid, '')
      AND (other.is_current OR (other.id > instance.id AND other.relation <> 'alternate')))
"""


def upgrade() -> None:
    """One version up."""
    op.drop_index(_UNIQUE, table_name="item", sqlite_where=_FIRST, postgresql_where=_FIRST)
    op.create_index(
        _UNIQUE, "item", ["job_id", "sop_instance_uid"], unique=True, sqlite_where=_SENT, postgresql_where=_SENT
    )
    op.create_index(_OWN, "item", _KEY, unique=True, sqlite_where=_EXPECTED, postgresql_where=_EXPECTED)
    op.add_column(
        "remote",
        sa.Column("coerces", sa.String(16), nullable=True, comment="UIDs that its files may carry otherwise"),
    )
    op.create_table(
        "archive",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mark", sa.String(64), nullable=False, comment="what stands in the file that marks it"),
        sa.Column("known_since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive")),
    )
    op.create_table(
        "look",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False, comment="[path, size] of each"),
        sa.Column(
            "answer",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="what each was found to be; null until somebody has looked",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_look")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_look_asked_at", "look", ["asked_at"])
    op.execute(_CURRENT)


def downgrade() -> None:
    """One version down."""
    op.drop_table("look")
    op.drop_table("archive")
    op.drop_column("remote", "coerces")
    op.drop_index(_OWN, table_name="item", sqlite_where=_EXPECTED, postgresql_where=_EXPECTED)
    op.drop_index(_UNIQUE, table_name="item", sqlite_where=_SENT, postgresql_where=_SENT)
    op.execute(
        "UPDATE item SET is_first = FALSE WHERE is_first AND request_id IS NOT NULL AND EXISTS ("
        "SELECT 1 FROM item AS o WHERE o.job_id = item.job_id AND o.sop_instance_uid = item.sop_instance_uid "
        "AND o.is_first AND o.id < item.id)"
    )
    op.create_index(
        _UNIQUE, "item", ["job_id", "sop_instance_uid"], unique=True, sqlite_where=_FIRST, postgresql_where=_FIRST
    )

"""A retrieve knows when its list was made and what its proof rests on; a remote whether its numbers are to be believed;
a job that a person closed as it is says so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One version up."""
    moment = sa.DateTime(timezone=True)
    relisted = "of a request whose list is not whole: 1 waits to be listed again, 2 was, 3 was asked for whole"
    noted = "of a request: what was odd about the matches of its identifier"
    listed = "of a request: when the list was made that it rests on"
    op.add_column("item", sa.Column("listed_at", moment, nullable=True, comment=listed))
    op.add_column("item", sa.Column("relisted", sa.Integer(), nullable=True, comment=relisted))
    how_sure = sa.Column("verified", sa.String(8), nullable=True, comment="of a request: uids, counts or none")
    op.add_column("item", how_sure)
    basis = sa.Column("basis", sa.String(16), nullable=True, comment="of a request: what its proof rests on")
    op.add_column("item", basis)
    op.add_column("item", sa.Column("noted", sa.JSON(none_as_null=True), nullable=True, comment=noted))
    closed = "when a person closed it though it is not whole"
    op.add_column("job", sa.Column("accepted_at", moment, nullable=True, comment=closed))
    op.add_column("job", sa.Column("accepted_reason", sa.Text(), nullable=True))
    numbers = "ignored: what it says of how many there are is wrong for good"
    op.add_column("remote", sa.Column("numbers", sa.String(8), nullable=False, server_default="used", comment=numbers))
    # What was judged by the depth of its list stays as it was called.
    op.execute(
        "UPDATE item SET verified = CASE expectation WHEN 'images' THEN 'uids' WHEN 'counts' THEN 'counts' ELSE 'none' "
        "END WHERE kind = 'request' AND expectation IS NOT NULL"
    )


def downgrade() -> None:
    """One version down."""
    op.drop_column("remote", "numbers")
    for name in ("accepted_reason", "accepted_at"):
        op.drop_column("job", name)
    for name in ("noted", "basis", "verified", "relisted", "listed_at"):
        op.drop_column("item", name)

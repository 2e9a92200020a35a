"""The rows about how an archive matches; what their words mean is in docs/design.md, section 3."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from dicomferry.models.record.tables.jobs import Base

LONGEST_PATH = 200


class KeyTrialRow(Base):
    """A remote was asked for a value that nobody has and listed nothing: it matches on that key of that level."""

    __tablename__ = "key_trial"
    remote_id: Mapped[int] = mapped_column(ForeignKey("remote.id"), primary_key=True, autoincrement=False)
    level: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    path: Mapped[str] = mapped_column(sa.String(LONGEST_PATH), primary_key=True, comment="of the key, as in query")
    tried_at: Mapped[datetime]

"""The row of the governor; what their words mean is in docs/design.md, section 3."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from dicomferry.models.record.tables.jobs import Base
from dicomferry.models.record.tables.text_columns import PeerWords


class GovernorRow(Base):
    """What all processes share to treat a remote with care: places taken, what it was found to bear, its breaker."""

    __tablename__ = "governor"
    remote_id: Mapped[int] = mapped_column(ForeignKey("remote.id"), primary_key=True, autoincrement=False)
    requests_until: Mapped[datetime | None] = mapped_column(comment="until when all places are taken, see pacing")
    requests_taken_at: Mapped[datetime | None] = mapped_column(comment="when requests_until was written")
    instances_until: Mapped[datetime | None]
    instances_taken_at: Mapped[datetime | None] = mapped_column(comment="when instances_until was written")
    size_until: Mapped[datetime | None] = mapped_column(comment="the same for bytes")
    size_taken_at: Mapped[datetime | None] = mapped_column(comment="when size_until was written")
    learned_rate: Mapped[float | None] = mapped_column(comment="instances in a second, at rate_learned_at")
    rate_learned_at: Mapped[datetime | None]
    learned_associations: Mapped[int | None]
    associations_learned_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0, comment="fruitless attempts in a row")
    broken_since: Mapped[datetime | None] = mapped_column(comment="the breaker is open since; null: closed")
    probe_at: Mapped[datetime | None] = mapped_column(comment="when one attempt may look again")
    probe_set_at: Mapped[datetime | None] = mapped_column(comment="when probe_at was written")
    probe_chunk_id: Mapped[int | None] = mapped_column(comment="the chunk whose attempt looks")
    ahead_chunk_id: Mapped[int | None] = mapped_column(
        comment="the chunk of a move that is listed, or was, while no move was free"
    )
    reason: Mapped[str | None] = mapped_column(sa.String(80))
    detail: Mapped[str | None] = mapped_column(PeerWords)
    advice: Mapped[str | None] = mapped_column(sa.Text)

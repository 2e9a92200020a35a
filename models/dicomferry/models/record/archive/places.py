"""Under which study a study lies here that its archive lists under another UID than its files carry.

All of one listed study counts under one study: that under which the first of it counted for the job. What of it comes
under another one later, be it the one that was listed, is kept, and proves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.state import GOOD_ITEM_STATES


def settled(connection: Connection, job_id: int) -> dict[str, str]:
    """The study of the files that count for a job, by the study that was listed; without those of which none does."""
    under = sa.func.coalesce(ItemRow.filed_study_uid, ItemRow.study_instance_uid)
    query = (
        sa.select(ItemRow.study_instance_uid, under)
        .where(
            ItemRow.job_id == job_id,
            ItemRow.request_id.is_not(None),
            ItemRow.study_instance_uid.is_not(None),
            ItemRow.state.in_(list(GOOD_ITEM_STATES)),
        )
        .group_by(ItemRow.study_instance_uid, under)
        # Of rows that name several, which none should, the study that most of it lies under.
        .order_by(sa.func.count(), under)
    )
    return {listed: own for listed, own in connection.execute(query) if listed}


def fits(settled: Mapping[str, str], listed: str | None, own: str | None) -> bool:
    """Whether a file of this study lies where the rest of the study does that was listed."""
    return listed is None or settled.get(listed, own) == own


def rest(settled: Mapping[str, str], listed: str | None, own: str | None) -> str:
    """The end of a sentence about a file that lies apart from the rest of its listed study."""
    return "" if fits(settled, listed, own) else f", and the rest of that study under {settled[listed or '']}"


def is_lost(row: AnyRow, coerces: Collection[str], settled: Mapping[str, str]) -> bool:
    """Whether a file came for an item and does not lie where it would count.

    `row` has the file's `own_study`, `own_series`, `listed` (some item of the job is listed as what the file carries)
    and `truncated`, and the item's `study` and `series`.
    """
    together = fits(settled, row.study, row.own_study)
    same_study, same_series = row.study in (None, row.own_study), row.series in (None, row.own_series)
    if row.listed:
        return same_study and same_series and not together
    counts = together and (same_study or "study" in coerces) and (same_series or "series" in coerces)
    # Cut off, and else it would count: it is asked for again.
    return not (counts and row.truncated)

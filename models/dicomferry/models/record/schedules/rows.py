"""Rows of schedules as values."""

from __future__ import annotations

import json

from dicomferry.models.record.database import AnyRow
from dicomferry.models.rules.schedule import Schedule
from dicomferry.models.rules.timetable import CatchUp, CatchUpPolicy, Overlap


def of_row(row: AnyRow) -> Schedule:
    """The value of a row."""
    command = json.loads(row.command)
    return Schedule(
        id=row.id,
        name=row.name,
        cron=row.cron,
        zone=row.zone,
        words=tuple(command["words"]),
        folder=command["folder"],
        policy=CatchUpPolicy(catch_up=CatchUp(row.catch_up), grace=row.grace, cap=row.cap),
        overlap=Overlap(row.overlap),
        counted_from=row.counted_from,
        next_due=row.next_due,
        paused_at=row.paused_at,
        created_at=row.created_at,
    )

"""Schedules as a person writes them down, pauses and removes them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from dicomferry.models.record.database import AnyRow, Database, locking
from dicomferry.models.record.schedules import runs
from dicomferry.models.record.schedules.rows import of_row
from dicomferry.models.record.tables.schedules import RunRow, ScheduleRow
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.schedule import Schedule
from dicomferry.models.rules.timetable import CatchUpPolicy, Missed, Overlap, Timetable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def check_name(name: str) -> str:
    """The name unchanged; raises UsageError for one that could not stand in a table or a command line."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a schedule: letters, digits, '.', '_' and '-', 80 at most")
    return name


def add(
    database: Database,
    name: str,
    when: Timetable,
    *,
    words: Sequence[str],
    folder: str,
    policy: CatchUpPolicy,
    overlap: Overlap,
) -> Schedule:
    """Write a schedule down; its first due time is the next one. Raises UsageError when the name is taken."""

    def work(connection: Connection) -> Schedule:
        now = database.now(connection)
        row = connection.execute(
            sa.insert(ScheduleRow)
            .values(
                name=check_name(name),
                cron=when.cron,
                zone=when.zone.key,
                # ASCII: bytes of a path that are no UTF-8 survive as escaped surrogates.
                command=json.dumps({"words": list(words), "folder": folder}),
                catch_up=policy.catch_up.value,
                grace=policy.grace,
                cap=policy.cap,
                overlap=overlap.value,
                counted_from=now,
                next_due=when.next(now),
                created_at=now,
            )
            .returning(ScheduleRow.__table__)
        ).one()
        return of_row(row)

    try:
        return database.write_once(work)
    except IntegrityError:
        raise UsageError(
            f"there is a schedule {name} already: `dicomferry schedule remove {name}` first, or choose another name"
        ) from None


def by_name(database: Database, name: str) -> Schedule:
    """A schedule; raises NotFound with the nearest name."""
    return database.read(lambda connection: of_row(_find(connection, name)))


def names(database: Database) -> list[str]:
    """The names of all schedules."""
    query = sa.select(ScheduleRow.name).where(ScheduleRow.removed_at.is_(None)).order_by(ScheduleRow.name)
    return list(database.read(lambda connection: connection.execute(query).scalars().all()))


def listing(database: Database) -> list[Schedule]:
    """All schedules, by name."""
    query = sa.select(ScheduleRow.__table__).where(ScheduleRow.removed_at.is_(None)).order_by(ScheduleRow.name)
    return [of_row(row) for row in database.read(lambda connection: connection.execute(query).all())]


def pause(database: Database, name: str) -> None:
    """Nothing of it fires until `resume`. Raises NotFound, UsageError."""

    def work(connection: Connection) -> None:
        row = _find(connection, name, lock=True)
        if row.paused_at is not None:
            raise UsageError(f"schedule {name} is paused already")
        _change(connection, row.id, paused_at=database.now(connection))

    database.write_once(work)


def resume(database: Database, name: str) -> int:
    """Let it fire again, from its next due time on; how many went by meanwhile. Raises NotFound, UsageError."""
    found = by_name(database, name)
    if found.paused_at is None:
        raise UsageError(f"schedule {name} is not paused")
    now = database.read(database.now)
    first, last, number = None, found.counted_from, 0
    for slot in found.timetable.after(found.counted_from):
        if slot > now:
            break
        first, last, number = first or slot, slot, number + 1

    def work(connection: Connection) -> None:
        following = found.timetable.next(last)
        if not runs.take(connection, found, paused_at=None, counted_from=last, next_due=following):
            raise UsageError(f"schedule {name} was changed by somebody else meanwhile")
        if first and found.paused_at:
            # What was due before the pause and had not fired is as past as the rest: a person wanted quiet.
            missed = Missed(first, last, number, runs.PAUSED)
            runs.miss(connection, found.id, missed, now, f"paused from {found.minute(found.paused_at)}")

    database.write_once(work)
    return number


def remove(database: Database, name: str) -> None:
    """Nothing of it fires any more; its jobs stay. Raises NotFound."""

    def work(connection: Connection) -> None:
        row = _find(connection, name, lock=True)
        now = database.now(connection)
        _change(connection, row.id, removed_at=now, next_due=None)
        connection.execute(
            sa.update(RunRow)
            .where(RunRow.schedule_id == row.id, RunRow.state == runs.WAITING)
            .values(state=runs.SKIPPED, reason=runs.REMOVED, detail=None, at=now)
        )

    database.write_once(work)


def recompute(database: Database) -> list[str]:
    """Bring every next due time in line with the expression and this machine's time zones; the names of those changed.

    Raises OutOfReach.
    """
    changed = []
    for found in listing(database):
        try:
            following = found.timetable.next(found.counted_from)
        except UsageError:
            continue  # told when it is due
        if following != found.next_due and _compare_and_set(database, found, following):
            changed.append(found.name)
    return changed


def _compare_and_set(database: Database, found: Schedule, following: datetime | None) -> bool:
    def work(connection: Connection) -> bool:
        return runs.take(connection, found, next_due=following)

    return database.write(work)


def _change(connection: Connection, schedule_id: int, **values: Any) -> None:
    connection.execute(sa.update(ScheduleRow).where(ScheduleRow.id == schedule_id).values(**values))


def _find(connection: Connection, name: str, *, lock: bool = False) -> AnyRow:
    query = sa.select(ScheduleRow.__table__).where(ScheduleRow.name == name, ScheduleRow.removed_at.is_(None))
    row = connection.execute(locking(query) if lock else query).one_or_none()
    if row is not None:
        return row
    known = connection.execute(sa.select(ScheduleRow.name).where(ScheduleRow.removed_at.is_(None))).scalars().all()
    near = difflib.get_close_matches(name, known, n=1)
    raise NotFound(f"no schedule {name!r}; {f'did you mean {near[0]}?' if near else 'see `dicomferry schedule list`'}")

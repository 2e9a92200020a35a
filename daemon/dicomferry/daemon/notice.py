"""What a notification says: ids, numbers and stable words; who a patient is only where that was switched on."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.documents import jobs
from dicomferry.models.record.database import Database
from dicomferry.models.record.outbox import Notification
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.record.tables.schedules import RunRow, ScheduleRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.errors import NotFound
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.text import moment

FAILED_TOLD = 20
_JOB_KEYS = (
    "id", "kind", "remote", "destination", "priority", "state", "reason", "verified", "planned", "submitted_at",
    "started_at", "finished_at", "attempts", "items", "matches", "expected", "received", "missing", "surplus",
    "conflicts", "bytes",
)  # fmt: skip


def document(database: Database, what: Notification, *, patient_data: bool) -> dict[str, Any]:
    """The JSON object that is told. `state` is what it was that is told of; `job` is how the job is by now.

    Raises OutOfReach.
    """
    row = database.read(lambda connection: _run_of(connection, what))
    job = _job(database, what.job_id, patient_data) if what.job_id is not None else None
    reason = job["reason"] if job else row.reason if row else None
    return {
        "id": f"dicomferry-{what.id}",
        "at": moment(what.at),
        "state": what.state,
        "reason": reason,
        "job": job,
        "schedule": _schedule(row, patient_data) if row else None,
    }


class _ScheduleRun(NamedTuple):
    """What became of due times of a schedule; each field is the column of its name."""

    name: str
    due_at: datetime
    last_due_at: datetime
    number: int
    by_hand: bool
    state: str
    reason: str | None
    detail: str | None


def _run_of(connection: Connection, what: Notification) -> _ScheduleRun | None:
    own = RunRow.id == what.run_id if what.run_id is not None else RunRow.job_id == what.job_id
    columns = (getattr(RunRow, name) for name in _ScheduleRun._fields[1:])
    query = sa.select(ScheduleRow.name, *columns).join(ScheduleRow, ScheduleRow.id == RunRow.schedule_id).where(own)
    row = connection.execute(query).first()
    return _ScheduleRun(*row) if row else None


def _schedule(row: _ScheduleRun, patient_data: bool) -> dict[str, Any]:
    found = {
        "name": row.name,
        "due_at": moment(row.due_at),
        "last_due_at": moment(row.last_due_at),
        "number": row.number,
        "by_hand": row.by_hand,
        "state": row.state,
        "reason": row.reason,
    }
    return found | ({"detail": row.detail} if patient_data else {})


def _job(database: Database, job_id: int, patient_data: bool) -> dict[str, Any] | None:
    """None for a job that was pruned meanwhile."""
    try:
        shown = jobs.show(database, job_id)
    except NotFound:
        return None
    found: dict[str, Any] = {key: value for key, value in shown.items() if key in _JOB_KEYS}
    if patient_data:
        found |= {"label": shown["label"], "paths": shown["paths"], "asked": _asked(database, job_id)}
        found["failed"] = list(jobs.items(database, job_id, state=ItemState.FAILED, limit=FAILED_TOLD))
    return found


def _asked(database: Database, job_id: int) -> list[list[list[str]]]:
    """The keys of a find, or of each request of a retrieve."""
    row = database.read(
        lambda connection: connection.execute(sa.select(JobRow.kind, JobRow.spec).where(JobRow.id == job_id)).one()
    )
    what = spec.from_json(row.kind, row.spec)
    if isinstance(what, spec.FindSpec):
        return [[list(key) for key in what.keys]]
    if isinstance(what, spec.MoveSpec | spec.GetSpec):
        return [[list(key) for key in keys] for _, keys in what.identifiers]
    return []

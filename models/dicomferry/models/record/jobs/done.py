"""What was done without the queue, written down as the queue would have left it."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import ledger, plans
from dicomferry.models.record.jobs.verbs import PRIORITIES
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, ItemRow, JobRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState


@dataclass(frozen=True, kw_only=True)
class Done:
    """One run: what was asked for, when, and what came of each item.

    `items` are values of their rows, all in a final state; a request item comes first, and the others are its own.
    `interrupted`: a person broke it off; what is `cancelled`
    among the items was not tried. `detail` is what ended it before its time, if anything did.
    """

    what: spec.Spec
    remote_id: int
    label: str
    began: datetime
    ended: datetime
    items: Sequence[Mapping[str, Any]]
    interrupted: bool = False
    detail: str | None = None


def write(database: Database, done: Done) -> int:
    """Write the job, ended, in one transaction that survives a power cut; its id. No worker ever sees it waiting."""
    token = uuid.uuid4().hex

    def work(connection: Connection) -> int:
        # The token makes a second run, after a connection lost in the commit, find the first one's job.
        present = connection.execute(sa.select(JobRow.id).where(JobRow.token == token)).scalar_one_or_none()
        return _write(connection, done, token) if present is None else present

    return database.write_once(work)


def _write(connection: Connection, done: Done, token: str) -> int:
    what, priority = done.what, PRIORITIES["normal"]
    job = {
        "token": token,
        "kind": what.kind,
        "spec": spec.to_json(what),
        "remote_id": done.remote_id,
        "destination": getattr(what, "destination", None),
        "label": done.label,
        "priority": priority,
        "state": JobState.RUNNING,
        "planned": True,
        "submitted_at": done.began,
        "started_at": done.began,
        "served_at": done.began,
    }
    job_id: int = connection.execute(sa.insert(JobRow).values(**job).returning(JobRow.id)).scalar_one()
    ledger.add_event(connection, job_id, done.began, "submitted", f"{what.kind} without the queue: {done.label}")
    chunk = plans.new_chunk(
        job_id,
        kind=what.kind,
        lane=what.lane,
        priority=priority,
        remote_id=done.remote_id,
        not_before=done.began,
        fence=1,
    )
    chunk["state"] = ChunkState.CANCELLED if done.interrupted else ChunkState.DONE
    chunk_id: int = connection.execute(sa.insert(ChunkRow).values(**chunk).returning(ChunkRow.id)).scalar_one()
    _insert_items(connection, {"job_id": job_id, "chunk_id": chunk_id}, done.items)
    end = AttemptEnd.CANCELLED if done.interrupted else AttemptEnd.ERROR if done.detail else AttemptEnd.COMPLETED
    attempt = {
        "job_id": job_id,
        "chunk_id": chunk_id,
        "fence": 1,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "pid": os.getpid(),
        "started_at": done.began,
        "ended_at": done.ended,
        "end": end,
        "detail": done.detail,
        "finished_items": sum(item["state"] is not ItemState.CANCELLED for item in done.items),
    }
    connection.execute(sa.insert(AttemptRow).values(**attempt))
    ledger.recount(connection, chunk_id)
    ledger.derive(connection, job_id, done.ended)
    return job_id


def _insert_items(connection: Connection, common: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
    request_id: int | None = None
    if items and items[0]["kind"] == "request":
        values = {**common, **items[0]}
        request_id = connection.execute(sa.insert(ItemRow).values(**values).returning(ItemRow.id)).scalar_one()
        items = items[1:]
    if items:
        connection.execute(sa.insert(ItemRow), [{**common, "request_id": request_id, **item} for item in items])

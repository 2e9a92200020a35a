"""Rows first, then the bell: a job exists once it is committed, whether or not a broker can be reached."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules import spec
from dicomferry.models.settings import Settings

RING_SECONDS = 4.5
"""How long ringing may take before the submitter goes on without it."""


@dataclass(frozen=True)
class Submitted:
    """A job that is on the record; `warning` says what kept the bell from being rung, if anything did."""

    job_id: int
    warning: str | None


def submit(
    database: Database,
    settings: Settings,
    what: spec.Spec,
    remote_id: int,
    *,
    label: str | None = None,
    priority: str = "normal",
    not_before: datetime | None = None,
    ignore_window: bool = False,
) -> Submitted:
    """Record a job, then ring for it. Raises OutOfReach when the database cannot be reached."""
    job_id = verbs.submit(
        database, what, remote_id, label=label, priority=priority, not_before=not_before, ignore_window=ignore_window
    )
    return Submitted(job_id, ring(settings, what.lane))


def ring(settings: Settings, lane: str) -> str | None:
    """Ring a lane's bell within RING_SECONDS; a sentence when that failed. The sweep rings again in any case."""
    answer: list[str | None] = []

    def work() -> None:
        from dicomferry.workers.doorbell import tasks

        bell = tasks.doorbell(settings)
        answer.append(bell.ring(lane) if bell else "none is running; start one with `dicomferry up`")

    # In a thread, because looking up a host name has no time limit of its own.
    thread = threading.Thread(target=work, name="ring", daemon=True)
    thread.start()
    thread.join(RING_SECONDS)
    return answer[0] if answer else f"nothing within {RING_SECONDS:g} s"

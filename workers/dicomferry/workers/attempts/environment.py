"""What running chunks takes, and how any attempt turns a fault into the chunk's next state."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.remotes import book, breaker, governor
from dicomferry.models.rules import retry
from dicomferry.models.rules.answers.answer import Category
from dicomferry.models.rules.answers.lookup import Answer, Rule, local
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.rules.retry import Decision
from dicomferry.models.rules.text import printable
from dicomferry.models.settings import Settings
from dicomferry.workers.dimse.names import Names

STUCK = local("no progress")
"""The association was aborted from here, because nothing moved."""
INTERNAL = local("internal error")
"""Stands for a fault of this program."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What running chunks takes. `ring` wakes a worker for a lane and never raises.

    `clock` counts seconds, `sleep` lets them pass. `names` knows the addresses of hosts.
    """

    settings: Settings
    database: Database
    worker: Worker
    ring: Callable[[str], object]
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    names: Names = field(default_factory=Names)


def decide(
    environment: Environment,
    lease: Lease,
    fault: Answer | None,
    *,
    left: int,
    progressed: bool,
    now: datetime,
    well: bool = False,
) -> Decision:
    """What becomes of the chunk after an attempt that left so many items pending, and how the remote is treated.

    `well`: the remote answers, so that an association that broke in the middle of an item says nothing of it. Raises
    OutOfReach.
    """
    reason = fault.reason if fault else None
    policy = environment.settings.retry.value()
    jitter = environment.jitter()
    suspect = fault is not None and fault.rule is Rule.SUSPECT
    waited = None
    if lease.waiting_since:
        hours = book.window_of(environment.database, lease.remote_id)
        waited = hours.open_seconds(lease.waiting_since, now) if hours else None
    decision = retry.decide_chunk(
        fault,
        left=left,
        progressed=progressed,
        barren=lease.barren,
        same_before=leases.ended_alike(environment.database, lease, reason) if lease.barren else 0,
        waiting_since=lease.waiting_since,
        now=now,
        jitter=jitter,
        policy=policy,
        waited=waited,
        served=suspect and breaker.has_served(environment.database, lease.remote_id),
    )
    away = suspect or (fault is not None and fault.rule is Rule.AWAY)
    if fault is None or progressed or well or not left or not (away or fault.rule is Rule.BROKEN):
        return decision
    # What is our own fault says nothing of the remote, and one that has no place left is not away.
    if fault.category is Category.HERE or reason == governor.CROWDED:
        return decision
    # Chunks take turns in looking again, so that the pause grows with the failures of all of them.
    fruitless = max(decision.barren, lease.failures + 1)
    pause = retry.delay(fruitless, jitter=jitter, policy=policy, pace=retry.pace_of(fault))
    until = now + timedelta(seconds=pause)
    return replace(decision, leave_until=until, away=away, at=until if decision.for_all else decision.at)


def sentence(error: BaseException) -> str:
    """What to write down of an error: one line that can be printed."""
    text = str(error) if isinstance(error, DicomferryError) else f"{type(error).__name__}: {error}"
    return printable(text) or type(error).__name__

"""What running chunks takes, and how any attempt turns a fault into the chunk's next state."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dicomferry.models import lease, retry
from dicomferry.models.claim import Claim
from dicomferry.models.database import Database
from dicomferry.models.dimse_status import Answer, local
from dicomferry.models.errors import DicomferryError
from dicomferry.models.presence import Worker
from dicomferry.models.retry import Decision
from dicomferry.models.settings import Settings
from dicomferry.workers import plan

STUCK = local("no progress")
"""The association was aborted from here, because nothing moved."""
INTERNAL = local("internal error")
"""Stands for a fault of this program."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What running chunks takes. `ring` wakes a worker for a lane and never raises.

    `clock` counts seconds, `sleep` lets them pass.
    """

    settings: Settings
    database: Database
    worker: Worker
    ring: Callable[[str], object]
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


def decide(
    environment: Environment, held: Claim, fault: Answer | None, *, left: int, progressed: bool, now: datetime
) -> Decision:
    """What becomes of the chunk after an attempt that left so many items pending. Raises OutOfReach."""
    reason = fault.reason if fault else None
    return retry.decide_chunk(
        fault,
        left=left,
        progressed=progressed,
        barren=held.barren,
        same_before=lease.ended_alike(environment.database, held, reason) if held.barren else 0,
        waiting_since=held.waiting_since,
        now=now,
        jitter=environment.jitter(),
        policy=environment.settings.retry.value(),
    )


def sentence(error: BaseException) -> str:
    """What to write down of an error: one line that can be printed."""
    text = str(error) if isinstance(error, DicomferryError) else f"{type(error).__name__}: {error}"
    return plan.printable(text) or type(error).__name__

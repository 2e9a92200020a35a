"""What running chunks takes, and how any attempt ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.presence import Worker
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.situation import Account
from dicomferry.models.rules.text import printable
from dicomferry.models.settings import Settings
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.tuning import DEFAULT, Tuning
from dicomferry.workers.attempts.work import Operation
from dicomferry.workers.dimse.names import Names

STUCK = local(Reason.NO_PROGRESS)
"""The association was aborted from here, because nothing moved."""
INTERNAL = local(Reason.INTERNAL_ERROR)
"""Stands for a fault of this program."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What running chunks takes. `ring` wakes a worker for a lane and never raises.

    `clock` counts seconds, `sleep` lets them pass. `names` knows the addresses of hosts. `heartbeat` makes what runs
    beside each attempt. `operations` stand in the place of those of `workers.operations`.
    """

    settings: Settings
    database: Database
    worker: Worker
    ring: Callable[[str], object]
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    names: Names = field(default_factory=Names)
    tuning: Tuning = DEFAULT
    heartbeat: Callable[..., Heartbeat] = Heartbeat
    operations: Mapping[Kind, Operation] = field(default_factory=dict)

    def end(
        self,
        lease: Lease,
        account: Account,
        *,
        outcomes: Sequence[Outcome] = (),
        last: Callable[[Connection], object] | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        """End an attempt, whatever it was: what it says of itself goes with its last outcomes to `leases.end`, where
        `rules.ending` decides by what the record knows. Raises LeaseLost.
        """
        leases.end(
            self.database,
            lease,
            account,
            outcomes=outcomes,
            last=last,
            values=values,
            policy=self.settings.retry.value(),
            jitter=self.jitter(),
        )


def sentence(error: BaseException) -> str:
    """What to write down of an error: one line that can be printed."""
    text = str(error) if isinstance(error, DicomferryError) else f"{type(error).__name__}: {error}"
    return printable(text) or type(error).__name__

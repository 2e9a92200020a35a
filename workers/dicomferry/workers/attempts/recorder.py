"""Rows that an operation writes itself, such as matches: fenced as the runner's own writes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.engine import Connection

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.workers.attempts.heartbeat import Heartbeat

_T = TypeVar("_T")


@dataclass(frozen=True)
class Recorder:
    """The record as an attempt may write to it: as long as its chunk is its own."""

    database: Database
    lease: Lease
    heart: Heartbeat

    def write(self, work: Callable[[Connection], _T], **values: object) -> _T:
        """One transaction that begins with the fenced update of the chunk, which sets `values` on its row.

        `work` may run twice, as in `Database.write`. Blocks while the database is away; raises LeaseLost.
        """
        self.heart.require_lease()
        self.heart.progress(0)
        result = leases.fenced(self.database, self.lease, work, **values)
        self.heart.progress(0)
        return result

"""Whether the pool of a worker claims what it could: processes that stand still say nothing of it themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims
from dicomferry.models.record.presence import Worker

LEASES = 3.0
"""A pool that claims nothing for so many leases, while there is something to claim, stands still."""


class PoolWatch:
    """Looks a few times a lease. `ring` wakes the pool; it says what went wrong, and then the pool is not to blame."""

    def __init__(
        self,
        database: Database,
        worker: Worker,
        ring: Callable[[str], str | None],
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._worker = worker
        self._ring = ring
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._looked = self._since = clock()
        self._mark: int | None = None

    def stands_still(self) -> bool:
        """Whether it is to be ended and made anew. Raises OutOfReach."""
        now = self._clock()
        if now - self._looked < self._lease_seconds / 3:
            return False
        self._looked = now
        try:
            idle, self._mark = claims.idle_lanes(self._database, self._worker, since=self._mark)
        except BaseException:
            self._since = now
            raise
        rung = [self._ring(lane) for lane in idle]
        if not idle or any(rung):
            self._since = now
        return now - self._since >= LEASES * self._lease_seconds

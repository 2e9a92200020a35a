"""The heartbeat of an attempt: keeps its lease, hears cancel, hold and drain, ends what has come to a standstill."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from dicomferry.models import telemetry
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.jobs.instructions import Signals
from dicomferry.models.record.presence import Worker
from dicomferry.models.rules.errors import LeaseLost
from dicomferry.workers.attempts.tuning import DEFAULT, Beats

log = telemetry.logger(__name__)


class Heartbeat:
    """Runs beside one attempt, in a thread and on a connection of its own.

    `database` should fail fast: a renewal that cannot be made is tried again at the next tick. `watchdog` is how many
    seconds the attempt may go without calling `progress`; `end_process` is called with an exit status where even an
    abort does not free the main thread.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        worker: Worker,
        *,
        lease_seconds: float,
        watchdog: float,
        beats: Beats = DEFAULT.beats,
        clock: Callable[[], float] = time.monotonic,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._database = database
        self._lease = lease
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._watchdog = watchdog
        self._beats = beats
        self._clock = clock
        self._end_process = end_process
        self._moved = self._clock()
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._abort: Callable[[], None] | None = None
        self._broken_off = False
        self._impatient = False
        self._renewed = self._moved
        self._asking = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.signals = Signals(cancel=False, hold=False, drain=False, limits=lease.limits)
        self.lost = False
        self.gave_up = False
        self.cut_short = False
        """Whether a stop was asked for and the peer stayed silent after that."""

    def __enter__(self) -> Heartbeat:
        self._renewed = self._clock()
        self._thread.start()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._watcher.join()

    @property
    def stop(self) -> bool:
        """Whether the attempt is to end between two items."""
        return self._stop.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until a stop is asked for."""
        self.progress(0)
        self._stop.wait(seconds)

    def progress(self, _bytes: int) -> None:
        """Something moved."""
        self._moved = self._clock()

    def on_abort(self, abort: Callable[[], None] | None, *, impatient: bool = False) -> None:
        """What to call, from any thread, to break a call that blocks the attempt; at once if that is due already.

        `impatient`: nobody else sees to it that a stop does not wait for a silent peer for long.
        """
        self._abort = abort
        self._impatient = impatient
        if abort and self._broken_off:
            abort()

    def require_lease(self) -> None:
        """Raise LeaseLost once the lease is known to be lost."""
        if self.lost:
            raise LeaseLost(f"chunk {self._lease.chunk_id}: the lease ran out")

    def _run(self) -> None:
        stopped: float | None = None
        renew_every = self._lease_seconds / 3
        while not self._ended.wait(min(self._beats.tick, renew_every)) and not (self.lost or self.gave_up):
            now = self._clock()
            self._asking = True
            try:
                if now - self._renewed >= renew_every:
                    self.signals = leases.renew(
                        self._database, self._lease, self._worker, lease_seconds=self._lease_seconds
                    )
                    self._renewed = now
                else:
                    self.signals = leases.signals(self._database, self._lease, self._worker)
            except LeaseLost:
                self._lose()
                return
            except Exception as error:
                # Whatever it is: without this thread nobody would notice that the lease is lost.
                log.warning("heartbeat cannot reach the record", chunk=self._lease.chunk_id, error=str(error))
                if self._clock() - self._renewed > self._lease_seconds:
                    self._lose()
                    return
            finally:
                self._asking = False
            if self.signals.stop:
                self._stop.set()
                stopped = stopped or now
                self._hurry(now - max(stopped, self._moved))

    def _watch(self) -> None:
        """Apart from the one that asks the record: it may have to wait for an answer, and nobody would watch."""
        overdue = False
        while not self._ended.wait(min(self._beats.tick, self._lease_seconds / 3)) and not self.lost:
            now = self._clock()
            if now - self._moved > self._watchdog:
                self._give_up()
                return
            # Twice in a row: a process that was stopped for a while asks first whether the lease is still its own.
            was, overdue = overdue, self._asking and now - self._renewed > self._lease_seconds
            if was and overdue:
                log.warning("the record does not answer", chunk=self._lease.chunk_id)
                self._lose()

    def _hurry(self, silent: float) -> None:
        """A stop was asked for, and nothing has moved for so many seconds since."""
        grace = self._beats.cancel_grace if self.signals.cancel else self._beats.stop_grace
        if self._impatient and not self.cut_short and silent > grace:
            log.warning("the peer is silent, and a stop was asked for: aborting", chunk=self._lease.chunk_id)
            self.cut_short = True
            self._break_off()

    def _lose(self) -> None:
        """Somebody else may have the chunk now, so nothing more may be sent."""
        self.lost = True
        self._stop.set()
        log.warning("lease lost", chunk=self._lease.chunk_id, fence=self._lease.fence)
        self._break_off()

    def _break_off(self) -> None:
        """Abort the association that is open, or the one that is being opened as soon as it is."""
        self._broken_off = True
        if self._abort:
            self._abort()

    def _give_up(self) -> None:
        """No progress: break the association, and if even that does not free the main thread, end the process."""
        log.error("no progress, aborting", chunk=self._lease.chunk_id, seconds=self._watchdog)
        stuck_since = self._moved
        self.gave_up = True
        self._stop.set()
        self._break_off()
        if not self._ended.wait(self._beats.stuck_grace) and self._moved == stuck_since:
            log.critical("the attempt does not come back, ending the process", chunk=self._lease.chunk_id)
            self._end_process(70)

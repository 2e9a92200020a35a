"""Which associations the storage SCP was asked for, on the record within a second for retrieves to see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dicomferry.models import call_store, telemetry
from dicomferry.models.call_store import Call
from dicomferry.models.database import Database
from dicomferry.models.errors import DicomferryError

log = telemetry.logger(__name__)

WRITE_SECONDS = 0.3
MOVED_SECONDS = 2.0
"""How often it is written down that an association carries data."""
MOST_WAITING = 10_000
"""Calls that wait for the database; with more of them the oldest are forgotten: they are hints, no proof."""


@dataclass
class Entry:
    """A call that goes on; `moved` is to be set whenever it has carried something."""

    call: Call
    moved: bool = False


class CallLog:
    """One writer thread; the rest is for any thread and never blocks."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Entry] = {}
        self._waiting: dict[str, Call] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="call log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def begin(self, association: str, *, calling: str, called: str, address: str, refused: tuple[str, ...]) -> Entry:
        """An association was taken; `refused` are the SOP classes of contexts that were not."""
        call = Call(
            association=association,
            calling_ae_title=calling,
            called_ae_title=called,
            address=address,
            at=self._clock(),
            accepted=True,
            refused=refused,
        )
        entry = Entry(call)
        with self._lock:
            self._open[association] = entry
            self._wait(call)
        return entry

    def rejected(self, association: str, *, calling: str, called: str, address: str, why: str) -> None:
        """An association was not."""
        now = self._clock()
        call = Call(
            association=association,
            calling_ae_title=calling,
            called_ae_title=called,
            address=address,
            at=now,
            accepted=False,
            why=why,
            ended_at=now,
        )
        with self._lock:
            self._wait(call)

    def ended(self, association: str) -> None:
        """One that was taken is over."""
        with self._lock:
            entry = self._open.pop(association, None)
            if entry is not None:
                self._wait(replace(self._latest(entry), ended_at=self._clock()))

    def close(self, seconds: float) -> None:
        """Write what waits, for at most so long."""
        self._ending.set()
        self._thread.join(seconds)

    def _wait(self, call: Call) -> None:
        self._waiting[call.association] = call
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _latest(self, entry: Entry) -> Call:
        if entry.moved:
            entry.moved = False
            entry.call = replace(entry.call, moved_at=self._clock())
        return entry.call

    def _run(self) -> None:
        since = 0.0
        while True:
            ending = self._ending.wait(WRITE_SECONDS)
            since += WRITE_SECONDS
            with self._lock:
                if since >= MOVED_SECONDS:
                    since = 0.0
                    for entry in self._open.values():
                        if entry.moved:
                            self._wait(self._latest(entry))
                batch, self._waiting = self._waiting, {}
            if batch and not self._write(list(batch.values())) and not ending:
                with self._lock:
                    self._waiting = batch | self._waiting
            if ending:
                return

    def _write(self, calls: list[Call]) -> bool:
        try:
            call_store.record(self._database, calls)
        except DicomferryError as error:
            log.warning("calls could not be written down yet", error=str(error), waiting=len(calls))
            return False
        except Exception:
            log.exception("calls were refused")
        return True

"""Which associations the storage SCP was asked for, on the record within a second for retrieves to see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dicomferry.models import telemetry
from dicomferry.models.record.archive import calls as recorded_calls
from dicomferry.models.record.archive.calls import MOST_UIDS, Call, Refusal
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply

log = telemetry.logger(__name__)

WRITE_SECONDS = 0.3
MOVED_SECONDS = 2.0
"""How often it is written down that an association carries data."""
MOST_REFUSALS = 50
"""Different refusals that are kept of one association, at most."""
MOST_WAITING = 10_000
"""Calls that wait for the database; with more of them the oldest are forgotten: they are hints, no proof."""


class Refusals:
    """What was refused, put together by status, reason and the C-MOVE that it came for. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[int, str, str | None, int | None], tuple[int, list[str]]] = {}

    def add(self, incoming: Incoming, answer: StatusReply) -> None:
        """One more."""
        key = (answer.status, answer.comment, incoming.originator_ae_title, incoming.originator_message_id)
        with self._lock:
            if key not in self._found and len(self._found) >= MOST_REFUSALS:
                # Of a move that names itself anew with each instance the rest is counted together.
                key = (answer.status, answer.comment, None, None)
            number, uids = self._found.get(key, (0, []))
            if len(uids) < MOST_UIDS:
                uids.append(incoming.sop_instance_uid[:128])
            self._found[key] = (number + 1, uids)

    def all(self) -> tuple[Refusal, ...]:
        """All so far."""
        with self._lock:
            return tuple(
                Refusal(
                    status=status, why=why, number=number, uids=tuple(uids),
                    originator_ae_title=title, originator_message_id=message_id,
                )
                for (status, why, title, message_id), (number, uids) in self._found.items()
            )  # fmt: skip


@dataclass
class OpenCall:
    """A call that goes on; `moved` is to be set whenever it has carried something, `news` when something was refused.

    One thread refuses, another one writes down.
    """

    call: Call
    moved: bool = False
    news: bool = False
    refusals: Refusals = field(default_factory=Refusals)

    def refuse(self, incoming: Incoming, answer: StatusReply) -> None:
        """An instance was not taken."""
        self.refusals.add(incoming, answer)
        self.news = True


class CallLog:
    """One writer thread; the rest is for any thread and never blocks."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        record: Callable[[Database, Sequence[Call]], None] = recorded_calls.record,
    ) -> None:
        self._database = database
        self._record = record
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, OpenCall] = {}
        self._waiting: dict[str, Call] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="call log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def begin(self, association: str, *, calling: str, called: str, address: str, refused: tuple[str, ...]) -> OpenCall:
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
        entry = OpenCall(call)
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

    def _latest(self, entry: OpenCall) -> Call:
        if entry.moved:
            entry.moved = False
            entry.call = replace(entry.call, moved_at=self._clock())
        if entry.news:
            entry.news = False
            entry.call = replace(entry.call, refusals=entry.refusals.all())
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
                for entry in self._open.values():
                    if entry.news:
                        self._wait(self._latest(entry))
                batch, self._waiting = self._waiting, {}
            if batch and not self._write(list(batch.values())) and not ending:
                with self._lock:
                    self._waiting = batch | self._waiting
            if ending:
                return

    def _write(self, calls: list[Call]) -> bool:
        """False when the database is out of reach. A call that is refused keeps no other from the record."""
        try:
            self._record(self._database, calls)
        except OutOfReach as error:
            log.warning("calls could not be written down yet", error=str(error), waiting=len(calls))
            return False
        except Exception:
            if len(calls) > 1:
                return all([self._write([call]) for call in calls])
            log.exception("a call was refused", association=calls[0].association, address=calls[0].address)
        return True

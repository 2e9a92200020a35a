"""Keeping to the limits of a remote: places are taken from the governor, a few at once, and used one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from dicomferry.models import telemetry
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book, governor
from dicomferry.models.record.remotes.governor import What
from dicomferry.models.rules.callers import Callers
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.models.rules.pacing import Grant, RateLimits
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.acceptor import Sink, StatusReply
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.receiving import callers as admission
from dicomferry.workers.receiving.callers import RELOAD_SECONDS

SLICE_SECONDS = 0.25
"""Longer waits are cut in slices of this, in each of which a stop is heard."""
SHORTEST_SECONDS = 0.001
"""Shorter waits are left out: the next one is longer then."""
MOST_ANSWER_SECONDS = 5.0
"""An answer to a C-STORE is held back for so long at most; for what is more than that the next move waits."""
LEAST_SECONDS = 0.1
"""A speed is not told from less than this."""

log = telemetry.logger(__name__)

Take = Callable[[What, float], Grant | None]


@dataclass
class _Purse:
    """Places of one limit: how many are left, and the moment of the next one."""

    left: float = 0.0
    next: float = 0.0
    rate: float = 1.0

    def put(self, grant: Grant, now: float) -> None:
        """More of them; what is owed is paid from them."""
        used = max(-self.left, 0.0)
        self.next = now + grant.starts_in + used / grant.rate
        self.left += grant.amount
        self.rate = grant.rate

    def use(self, amount: float) -> None:
        self.left -= amount
        self.next += amount / self.rate


class PlacesInHand:
    """The places that one process has in hand; for one thread. `take` gets more, None where there is no limit."""

    def __init__(self, take: Take, clock: Callable[[], float] = time.monotonic) -> None:
        self._take = take
        self._clock = clock
        self._purses: dict[What, _Purse] = {}

    def before(self, what: What) -> float:
        """How many seconds to wait before one more of it."""
        purse = self._purses.setdefault(what, _Purse())
        if purse.left < 1.0:
            grant = self._take(what, 1.0)
            if grant is None:
                return 0.0
            purse.put(grant, self._clock())
        wait = purse.next - self._clock()
        purse.use(1.0)
        return wait

    def after(self, what: What, amount: float) -> float:
        """How many seconds to wait after so much of it."""
        purse = self._purses.setdefault(what, _Purse())
        purse.use(amount)
        if purse.left < 0.0:
            grant = self._take(what, -purse.left)
            if grant is None:
                del self._purses[what]
                return 0.0
            purse.put(grant, self._clock())
        return purse.next - self._clock()


class AttemptPace:
    """The `Pace` of one attempt: what applies is what its heartbeat saw last. For the attempt's thread."""

    def __init__(self, database: Database, lease: Lease, heart: Heartbeat) -> None:
        self._database = database
        self._remote_id = lease.remote_id
        self._heart = heart
        self._places = PlacesInHand(self._take)
        self._since = time.monotonic()
        self._tried = 0

    @property
    def limits(self) -> RateLimits | None:
        """What applies now."""
        return self._heart.signals.limits

    @property
    def limits_bytes(self) -> bool:
        """Whether there is a limit of bytes: then little is sent at once."""
        return bool(self.limits and self.limits.size is not None)

    def request(self) -> None:
        """Before a C-ECHO, C-FIND, C-MOVE or C-GET."""
        if self.limits and self.limits.requests is not None:
            self._wait(self._places.before("requests"), stops=False)

    def retrieve(self) -> None:
        """Before a C-MOVE or C-GET, until what came for the last one is paid for. Shorter where a stop is asked for."""
        if self.limits:
            self._wait(governor.debt(self._database, self._remote_id), stops=True)

    def instance(self) -> None:
        """Before a C-STORE. Shorter where a stop is asked for."""
        if self.limits and self.limits.instances is not None:
            self._wait(self._places.before("instances"), stops=True)

    def sent(self, size: int) -> None:
        """After so many bytes of data set."""
        self._heart.progress(size)
        if size and self.limits_bytes:
            self._wait(self._places.after("size", size), stops=False)

    def received(self, size: int) -> None:
        """Before the answer to a C-STORE of so many bytes."""
        if self.limits:
            self._wait(min(_received(self._places, self.limits, size), MOST_ANSWER_SECONDS), stops=False)

    def short_of_resources(self, tried: int) -> None:
        """The remote said so, after so many instances that this attempt has tried: slower from now on."""
        now = time.monotonic()
        seconds, tried_since = max(now - self._since, LEAST_SECONDS), tried - self._tried
        self._since, self._tried = now, tried
        if not tried_since:
            return  # it takes nothing at all: that is no question of speed
        limits = governor.slow_down(self._database, self._remote_id, tried_since / seconds)
        self._heart.signals = replace(self._heart.signals, limits=limits)
        log.info("slowed down", instances_per_second=limits and limits.instances)

    def _take(self, what: What, least: float) -> Grant | None:
        return governor.take(self._database, self._remote_id, what, least)

    def _wait(self, seconds: float, *, stops: bool) -> None:
        if seconds < SHORTEST_SECONDS:
            return
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (stops and self._heart.stop):
            self._heart.progress(0)
            self._heart.require_lease()
            time.sleep(min(left, SLICE_SECONDS))
        self._heart.progress(0)


def _received(places: PlacesInHand, limits: RateLimits, size: int) -> float:
    waits = [places.after("instances", 1.0)] if limits.instances is not None else []
    waits += [places.after("size", size)] if limits.size is not None else []
    return max(waits, default=0.0)


class AnswerPace:
    """The pace at which our storage SCP answers one remote, over all of its associations. For any thread."""

    def __init__(
        self, database: Database, remote_id: int, limits: RateLimits, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._sleep = sleep
        self._lock = threading.Lock()
        self._places = PlacesInHand(lambda what, least: governor.take(database, remote_id, what, least))
        self.limits = limits

    def received(self, size: int) -> None:
        """Before the answer to a C-STORE of so many bytes. While the record is away nobody is held back."""
        try:
            with self._lock:
                wait = _received(self._places, self.limits, size)
        except OutOfReach as error:
            log.warning("the limits of a remote cannot be kept", error=str(error))
            return
        if wait >= SHORTEST_SECONDS:
            self._sleep(min(wait, MOST_ANSWER_SECONDS))


class Paces:
    """The remotes of which less may come than comes by itself; read again by one thread, asked by any."""

    def __init__(
        self,
        database: Database,
        names: Names,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._database = database
        self._names = names
        self._clock = clock
        self._limited: dict[int, tuple[Callers, AnswerPace]] = {}
        self._resolved = 0.0

    def of(self, ae_title: str, address: str) -> AnswerPace | None:
        """The pace of whoever calls so from there: by its AE title, else by its address."""
        if not self._limited:
            return None
        limited = list(self._limited.values())
        by_title = (pace for callers, pace in limited if ae_title in callers.ae_titles)
        by_address = (pace for callers, pace in limited if callers.knows(ae_title, address))
        return next(by_title, None) or next(by_address, None)

    def reload(self) -> None:
        """Read the limits again; the last ones stay while the record is away."""
        try:
            found = governor.limited(self._database)
            again = self._clock() - self._resolved >= RELOAD_SECONDS
            listed = {}
            for remote_id, limits in found.items():
                callers, pace = self._limited.get(remote_id, (None, None))
                if callers is None or again:
                    self._names.refresh([book.sender(self._database, remote_id).host])
                    callers = admission.of_remote(self._database, remote_id, self._names.addresses)
                pace = pace or AnswerPace(self._database, remote_id, limits, sleep=self._sleep)
                pace.limits = limits
                listed[remote_id] = (callers, pace)
        except OutOfReach as error:
            log.warning("the limits cannot be read; those known so far apply", error=str(error))
            return
        if again:
            self._resolved = self._clock()
        self._limited = listed


class Slowed:
    """A `Sink` whose answer waits for its place."""

    def __init__(self, sink: Sink, received: Callable[[int], None]) -> None:
        self._sink = sink
        self._received = received
        self._size = 0

    def take(self, spans: list[memoryview]) -> None:
        """More of the data set."""
        self._size += sum(map(len, spans))
        self._sink.take(spans)

    def finish(self) -> StatusReply:
        """All is there: the answer, in its time."""
        answer = self._sink.finish()
        self._received(self._size)
        return answer

    def discard(self) -> None:
        """The rest will not come."""
        self._sink.discard()

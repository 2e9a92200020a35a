"""Who may open an association to the storage SCP: the remotes of the address book and those that jobs run against.

Nobody at the door waits for the database or for a name server: both are asked beside, by a thread of this module's, and
the door waits for an answer for a moment at most. What was known last holds meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from dicomferry.models import telemetry
from dicomferry.models.record.database import Database
from dicomferry.models.record.remotes import book
from dicomferry.models.record.remotes.book import CallerIdentity
from dicomferry.models.rules.callers import Callers as Callers
from dicomferry.models.rules.callers import is_loopback, joined, parse_address, party
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.settings import Settings
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.dimse.wire import associate_as_acceptor

log = telemetry.logger(__name__)

RELOAD_SECONDS = 5.0
AGAIN_SECONDS = 1.0
DOOR_SECONDS = 1.0
"""Seconds that an association waits for a look-up by another thread; then what is known decides."""

What = Literal["senders", "repairs"]
Addresses = Callable[[str], Iterable[str]]
"""The addresses of a host, as far as they are known."""


def gather(senders: Iterable[CallerIdentity], look_up: Addresses, *, others: Iterable[str] = ()) -> Callers:
    """Who may call, from what the record says of the remotes; `others` are AE titles of remotes that are not meant."""
    chosen = list(senders)
    return joined(
        [(party(one.ae_title, look_up(one.host), one.also_from), one.prefer_syntax) for one in chosen],
        moves=sum(one.max_moves for one in chosen),
        others=others,
    )


def of_remote(database: Database, remote_id: int, look_up: Addresses) -> Callers:
    """Who calls for one remote: what calls under an AE title of another one is not it. Raises OutOfReach."""
    everybody = gather(book.senders(database), lambda _: ())
    return gather([book.sender(database, remote_id)], look_up, others=everybody.ae_titles)


def public_host(settings: Settings, towards: str = "") -> str:
    """What to tell others as our host: `scp.public_host`, else the address that is listened on, else the one from which
    this machine calls others, or calls `towards`, if that is an address, and if we listen there.
    """
    if settings.scp.public_host:
        return settings.scp.public_host
    if settings.scp.host not in ("0.0.0.0", "::"):
        return settings.scp.host
    dual = settings.scp.host == "::"
    theirs = parse_address(towards)
    # Documentation addresses; connecting a datagram socket sends nothing.
    probes = [(socket.AF_INET, "192.0.2.1"), *([(socket.AF_INET6, "2001:db8::1")] if dual else [])]
    if theirs is not None and (dual or theirs.version == 4):
        probes.insert(0, (socket.AF_INET if theirs.version == 4 else socket.AF_INET6, str(theirs)))
    for family, address in probes:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    return socket.gethostname()


def public_port(settings: Settings) -> int:
    """What to tell others as our port: `scp.public_port`, else the one that is listened on."""
    return settings.scp.public_port or settings.scp.port


class Admission:
    """The callers as the record has them, read again every few seconds; the last ones while it is out of reach.

    `names` knows their hosts' addresses. Between `start` and `close` a thread reads; `reload` is for before that.
    """

    def __init__(
        self,
        database: Database,
        names: Names,
        *,
        clock: Callable[[], float] = time.monotonic,
        door: float = DOOR_SECONDS,
        again: float = AGAIN_SECONDS,
        repairing: Callable[[Database], Sequence[CallerIdentity]] = book.repairing,
    ) -> None:
        self._database = database
        self._names = names
        self._clock = clock
        self._door = door
        self._again = again
        self._read_repairing = repairing
        self._changed = threading.Condition()
        self._wanted: Counter[What] = Counter()
        self._done: Counter[What] = Counter()
        self._ending = False
        self._read_at = -math.inf
        self._blind_until = -math.inf
        self._senders: Sequence[CallerIdentity] = ()
        self._repairing: Sequence[CallerIdentity] = ()
        self.callers = Callers()
        self._thread = threading.Thread(target=self._run, name="admission", daemon=True)

    def start(self) -> None:
        """Read beside from now on, and hear of host names."""
        self._names.changed = self._gather
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    # --- at the door

    def knows(self, ae_title: str, address: str, *, both: bool = False) -> bool:
        """Whether this caller may come in; looks again before it says no. `both`: AE title and address have to belong
        to one remote; else one of them is enough, and so is to call from this machine.
        """

        def known() -> bool:
            callers = self.callers
            return callers.knows_both(ae_title, address) if both else callers.knows(ae_title, address)

        if known() or (is_loopback(address) and not both):
            return True
        until = self._clock() + self._door
        if self._clock() - self._read_at >= self._again:
            self._ask("senders", until)
        with self._changed:
            # A remote that has just been entered by its name: the answer may be under way.
            self._changed.wait_for(lambda: known() or not self._names.is_looking(), max(until - self._clock(), 0))
        return known()

    def prefer(self, ae_title: str, address: str) -> str | None:
        """What to take of several transfer syntaxes in one context: what the remote's entry says, and the opposite
        while it is asked once more for what it could not send like that, or `plain` for what came ill encoded.
        """
        callers = self.callers
        usual = callers.prefer(ae_title, address)
        now = self._clock()
        if now < self._blind_until:
            return usual
        if not self._ask("repairs", now + self._door):
            log.warning("it cannot be seen in time what is under repair")
            self._blind_until = self._clock() + RELOAD_SECONDS
            return usual
        repairing = self._repairing
        if not repairing:
            return usual
        known = gather(repairing, self._names.addresses, others=callers.ae_titles)
        if not known.knows(ae_title, address):
            return usual
        if known.prefer(ae_title, address) == book.PLAIN:
            return book.PLAIN
        return associate_as_acceptor.opposite(usual)

    def _ask(self, what: What, until: float) -> bool:
        """Whether that was read, from now on, before `until`."""
        with self._changed:
            self._wanted[what] += 1
            mine = self._wanted[what]
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done[what] >= mine, max(until - self._clock(), 0))

    # --- beside

    def reload(self) -> None:
        """Read the remotes, and have their hosts looked up."""
        self._read_at = self._clock()
        try:
            self._senders = book.senders(self._database)
        except DicomferryError as error:
            log.warning("the remotes cannot be read; those known so far may call", error=str(error))
            return
        self._names.refresh(sender.host for sender in self._senders)
        self._gather()

    def _gather(self) -> None:
        """Put together anew what is known."""
        self.callers = gather(self._senders, self._names.addresses)
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._ending or self._wanted != self._done,
                    max(self._read_at + RELOAD_SECONDS - self._clock(), 0),
                )
                if self._ending:
                    return
                wanted = Counter(self._wanted)
            if wanted["senders"] > self._done["senders"] or self._clock() - self._read_at >= RELOAD_SECONDS:
                self.reload()
            if wanted["repairs"] > self._done["repairs"]:
                self._look_for_repairs()
            with self._changed:
                self._done = wanted
                self._changed.notify_all()

    def _look_for_repairs(self) -> None:
        try:
            self._repairing = self._read_repairing(self._database)
        except DicomferryError as error:
            log.warning("it cannot be seen what is under repair", error=str(error))
            self._repairing = ()

"""Who may open an association to the storage SCP: the remotes of the address book and those that jobs run against."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dicomferry.models import remote_store, telemetry
from dicomferry.models.database import Database
from dicomferry.models.errors import DicomferryError
from dicomferry.models.settings import Settings
from dicomferry.workers.dimse import acceptance

log = telemetry.logger(__name__)

RELOAD_SECONDS = 5.0
AGAIN_SECONDS = 1.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Callers:
    """AE titles and addresses that may call, each with the transfer syntax that its remote prefers."""

    ae_titles: dict[str, str | None] = field(default_factory=dict)
    addresses: dict[str, str | None] = field(default_factory=dict)
    networks: tuple[tuple[Network, str | None], ...] = ()
    moves: int = 0
    """Moves in flight at most, over all remotes."""

    def knows(self, ae_title: str, address: str) -> bool:
        """Whether one of the two belongs to a remote."""
        found = parse_address(address)
        return (
            ae_title in self.ae_titles
            or address in self.addresses
            or (found is not None and any(found in network for network, _ in self.networks))
        )

    def prefer(self, ae_title: str, address: str) -> str | None:
        """The preferred syntax of the remote that this is."""
        if ae_title in self.ae_titles:
            return self.ae_titles[ae_title]
        if address in self.addresses:
            return self.addresses[address]
        found = parse_address(address)
        return next((prefer for network, prefer in self.networks if found is not None and found in network), None)

    def near(self, ae_title: str) -> str | None:
        """The AE title that was meant, perhaps: they are case-sensitive, and long ones are easily misspelt."""
        folded = {known.casefold(): known for known in self.ae_titles}
        close = difflib.get_close_matches(ae_title.casefold(), folded, n=1, cutoff=0.75)
        return folded[close[0]] if close else None


def parse_address(text: str) -> Address | None:
    """An IP address; one of IPv4 in IPv6's clothes as the former."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_loopback(address: str) -> bool:
    """Whether a connection comes from this machine over its loopback interface."""
    found = parse_address(address)
    return found is not None and found.is_loopback


def resolve(host: str) -> list[str]:
    """The addresses of a host, none where its name is not known."""
    with contextlib.suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return sorted({str(entry[4][0]) for entry in found})
    return []


def gather(senders: Iterable[remote_store.Sender], look_up: Callable[[str], list[str]] = resolve) -> Callers:
    """Who may call, from what the record says of the remotes."""
    ae_titles: dict[str, str | None] = {}
    addresses: dict[str, str | None] = {}
    networks: list[tuple[Network, str | None]] = []
    moves = 0
    for sender in senders:
        moves += sender.max_moves
        ae_titles.setdefault(sender.ae_title, sender.prefer_syntax)
        for address in look_up(sender.host):
            addresses.setdefault(address, sender.prefer_syntax)
        for entry in sender.also_from:
            try:
                networks.append((ipaddress.ip_network(entry, strict=False), sender.prefer_syntax))
            except ValueError:
                ae_titles.setdefault(entry, sender.prefer_syntax)
    return Callers(ae_titles, addresses, tuple(networks), moves)


def public_host(settings: Settings) -> str:
    """What to tell others as our host: the address that was set, else the one that this machine calls others from."""
    if settings.scp.host not in ("0.0.0.0", "::"):
        return settings.scp.host
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a documentation address; connecting a datagram socket sends nothing
        return str(probe.getsockname()[0])
    return socket.gethostname()


class Admission:
    """The callers as the record has them, read again every few seconds; the last ones while it is out of reach."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.monotonic,
        look_up: Callable[[str], list[str]] = resolve,
    ) -> None:
        self._database = database
        self._clock = clock
        self._look_up = look_up
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._blind_until = -math.inf
        self.callers = Callers()

    def reload(self, older_than: float = RELOAD_SECONDS) -> None:
        """Read the remotes again if that was longer ago."""
        with self._lock:
            now = self._clock()
            if self._read_at is not None and now - self._read_at < older_than:
                return
            self._read_at = now
            try:
                self.callers = gather(remote_store.senders(self._database), self._look_up)
            except DicomferryError as error:
                log.warning("the remotes cannot be read; those known so far may call", error=str(error))

    def prefer(self, ae_title: str, address: str) -> str | None:
        """What to take of several transfer syntaxes in one context: what the remote's entry says, and the opposite
        while it is asked once more for what it could not send like that.
        """
        usual = self.callers.prefer(ae_title, address)
        if self._clock() < self._blind_until:
            return usual
        try:
            repairing = remote_store.repairing(self._database)
        except DicomferryError as error:
            log.warning("it cannot be seen what is under repair", error=str(error))
            self._blind_until = self._clock() + RELOAD_SECONDS
            return usual
        if repairing and gather(repairing, self._look_up).knows(ae_title, address):
            return acceptance.opposite(usual)
        return usual

    def knows(self, ae_title: str, address: str) -> bool:
        """Whether this caller may come in; looks again before it says no."""
        if is_loopback(address) or self.callers.knows(ae_title, address):
            return True
        self.reload(AGAIN_SECONDS)
        return self.callers.knows(ae_title, address)

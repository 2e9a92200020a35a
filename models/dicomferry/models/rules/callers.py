"""Who calls: AE titles and addresses of remotes, and which remote a call belongs to. Pure.

Addresses are compared as addresses, not as text: one of IPv4 that comes in IPv6's clothes (`::ffff:10.1.2.3`, as a
socket shows it that listens on both) is the IPv4 address.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """An IP address, without its zone; one of IPv4 in IPv6's clothes as the former."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def canonical(address: str) -> str:
    """The one way in which we write an address; what is none stays as it is."""
    found = parse_address(address)
    return str(found) if found is not None else address


def is_loopback(address: str) -> bool:
    """Whether a connection comes from this machine over its loopback interface."""
    found = parse_address(address)
    return found is not None and found.is_loopback


def parse_network(text: str) -> Network | None:
    """An address or a network in CIDR notation; None for what is neither, such as an AE title."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is not None and found.prefixlen >= 96:
        return ipaddress.ip_network((mapped, found.prefixlen - 96), strict=False)
    return found


@dataclass(frozen=True)
class Party:
    """One remote as it may call: under which AE titles, and from where."""

    titles: frozenset[str]
    addresses: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def calls_from(self, address: str) -> bool:
        """Whether the address is one of its own."""
        found = parse_address(address)
        return canonical(address) in self.addresses or (
            found is not None and any(found in network for network in self.networks)
        )


@dataclass(frozen=True)
class Callers:
    """AE titles and addresses of some remotes, each with the transfer syntax that its remote prefers.

    `others` are AE titles of other remotes: a call under one of these is theirs, also from the same address, as of two
    archives on one host or behind one NAT.
    """

    ae_titles: Mapping[str, str | None] = field(default_factory=dict)
    addresses: Mapping[str, str | None] = field(default_factory=dict)
    networks: tuple[tuple[Network, str | None], ...] = ()
    moves: int = 0
    """Moves in flight at most, over all remotes."""
    parties: tuple[Party, ...] = ()
    others: frozenset[str] = frozenset()

    def knows(self, ae_title: str, address: str) -> bool:
        """Whether a call is of one of these remotes: by its AE title, else by its address."""
        if ae_title in self.ae_titles:
            return True
        return ae_title not in self.others and self.is_from(address)

    def is_from(self, address: str) -> bool:
        """Whether the address is that of one of these remotes, whoever else may have it too."""
        found = parse_address(address)
        return canonical(address) in self.addresses or (
            found is not None and any(found in network for network, _ in self.networks)
        )

    def knows_both(self, ae_title: str, address: str) -> bool:
        """Whether AE title and address belong to one and the same remote."""
        return any(ae_title in party.titles and party.calls_from(address) for party in self.parties)

    def prefer(self, ae_title: str, address: str) -> str | None:
        """The preferred syntax of the remote that this is."""
        if ae_title in self.ae_titles:
            return self.ae_titles[ae_title]
        if canonical(address) in self.addresses:
            return self.addresses[canonical(address)]
        found = parse_address(address)
        return next((prefer for network, prefer in self.networks if found is not None and found in network), None)

    def near(self, ae_title: str) -> str | None:
        """The AE title that was meant, perhaps: they are case-sensitive, and long ones are easily misspelt."""
        folded = {known.casefold(): known for known in self.ae_titles}
        close = difflib.get_close_matches(ae_title.casefold(), folded, n=1, cutoff=0.75)
        return folded[close[0]] if close else None


def party(ae_title: str, addresses: Iterable[str], also_from: Iterable[str]) -> Party:
    """A remote whose host has these addresses; `also_from` are more AE titles, addresses and networks of it."""
    titles, networks = {ae_title}, []
    for entry in also_from:
        network = parse_network(entry)
        if network is None:
            titles.add(entry)
        else:
            networks.append(network)
    return Party(frozenset(titles), frozenset(map(canonical, addresses)), tuple(networks))


def joined(parties: Iterable[tuple[Party, str | None]], *, moves: int = 0, others: Iterable[str] = ()) -> Callers:
    """The callers that remotes make, each with its preferred syntax; what two share belongs to the first one.

    A title of `others` that is a remote's as well is the remote's.
    """
    ae_titles: dict[str, str | None] = {}
    addresses: dict[str, str | None] = {}
    networks: list[tuple[Network, str | None]] = []
    found = list(parties)
    for one, prefer in found:
        for title in sorted(one.titles):
            ae_titles.setdefault(title, prefer)
        for address in sorted(one.addresses):
            addresses.setdefault(address, prefer)
        networks += [(network, prefer) for network in one.networks]
    return Callers(
        ae_titles,
        addresses,
        tuple(networks),
        moves,
        tuple(one for one, _ in found),
        frozenset(others) - ae_titles.keys(),
    )

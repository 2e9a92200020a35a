"""Whose a call is: by AE title, by address, by both."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.callers import Callers, canonical, is_loopback, joined, parse_address, party

PACS = party("PACS", ["10.1.2.3"], ["MOVER", "198.51.100.0/24", "2001:db8::/64"])
MODALITY = party("MR", ["10.1.2.4", "::1"], [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("pacs.example", "pacs.example"),
    ],
)
def test_an_address_is_written_in_one_way(text: str, found: str) -> None:
    """What a socket shows that listens on IPv4 and IPv6 is the IPv4 address; zones and zeros do not count."""
    assert canonical(text) == found


def test_loopback_in_each_of_its_clothes() -> None:
    """127.0.0.0/8, ::1, and the former as IPv6 shows it."""
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1")))
    assert not is_loopback("::ffff:10.0.0.1") and parse_address("PACS") is None


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:198.51.100.7", "2001:db8::5"])
def test_a_known_address_is_known_as_ipv6_shows_it(address: str) -> None:
    """Addresses and networks are compared as addresses, not as text."""
    callers = joined([(PACS, None)])
    assert callers.knows("SOMEBODY", address)
    assert not callers.knows("SOMEBODY", "10.1.2.9")
    assert Callers(addresses={"10.1.2.3": "compressed"}).prefer("SOMEBODY", "::ffff:10.1.2.3") == "compressed"


def test_a_network_in_ipv6s_clothes() -> None:
    """`--also-from ::ffff:10.2.0.0/112` is 10.2.0.0/16."""
    callers = joined([(party("PACS", [], ["::ffff:10.2.0.0/112"]), None)])
    assert callers.knows("X", "10.2.3.4") and not callers.knows("X", "10.3.3.4")


def test_a_title_of_another_remote_is_that_remote() -> None:
    """Two archives on one host, or behind one NAT: the AE title decides where it is known, else the address does."""
    callers = joined([(PACS, None)], others=["OTHER", "PACS"])
    assert callers.knows("PACS", "10.9.9.9") and callers.knows("MOVER", "10.9.9.9")
    assert callers.knows("UNHEARD OF", "10.1.2.3")
    assert not callers.knows("OTHER", "10.1.2.3")
    assert callers.is_from("10.1.2.3") and callers.others == {"OTHER"}


def test_both_have_to_belong_to_one_remote() -> None:
    """Neither the title of one at the address of another, nor either of them alone."""
    callers = joined([(PACS, None), (MODALITY, None)])
    assert callers.knows_both("PACS", "10.1.2.3") and callers.knows_both("MOVER", "198.51.100.9")
    assert callers.knows_both("MR", "::1")
    assert not callers.knows_both("PACS", "10.1.2.4") and not callers.knows_both("PACS", "10.9.9.9")
    assert not callers.knows_both("SOMEBODY", "10.1.2.3")


def test_a_near_miss_is_named() -> None:
    """AE titles are case-sensitive, and long ones are easily misspelt."""
    assert joined([(PACS, None)]).near("pacs") == "PACS"
    assert joined([(PACS, None)]).near("XYZ") is None

"""The grammar of AE titles, names and addresses."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.remote import (
    Remote,
    Timeouts,
    check_ae_title,
    check_name,
    host_and_port,
    looks_like_address,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("PACS1@10.0.0.5:104", ("PACS1", "10.0.0.5", 104)),
        ("PACS1@pacs.example.org:11112", ("PACS1", "pacs.example.org", 11112)),
        ("  PACS1@localhost:1 ", ("PACS1", "localhost", 1)),
        ("MY PACS@host:65535", ("MY PACS", "host", 65535)),
        ("A:B@host:104", ("A:B", "host", 104)),
        ("PACS1@[::1]:104", ("PACS1", "::1", 104)),
        ("PACS1@[fe80::1%eth0]:104", ("PACS1", "fe80::1%eth0", 104)),
        ("pacs1@host:104", ("pacs1", "host", 104)),
    ],
)
def test_addresses(text: str, parts: tuple[str, str, int]) -> None:
    """AET@host:port; IPv6 in brackets; an AE title may hold blanks and colons and keeps its case."""
    assert parse_address(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "", "PACS1", "PACS1@host", "@host:104", "PACS1@:104", "PACS1@host:", "PACS1@host:dicom", "PACS1@::1:104",
        "PACS1@[::1]", "PACS1@host:104:105", "PACS1@a@b:104", "PACS1@host:-1", "PACS1@[]:104",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    """The message shows what was given and what is expected."""
    with pytest.raises(UsageError, match="AET@host:port, such as") as raised:
        parse_address(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("port", [0, 65536, 99999999])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    """1 to 65535."""
    with pytest.raises(UsageError, match="1 to 65535"):
        parse_address(f"PACS1@host:{port}")


@pytest.mark.parametrize("host", ["a b", " ", "ho\nst", "h" * 256], ids=["blank", "only a blank", "line", "too long"])
def test_a_host_that_no_resolver_takes_is_refused(host: str) -> None:
    """Nonsense is refused before anything is written: no blanks, no control characters, 255 characters at most."""
    with pytest.raises(UsageError):
        parse_address(f"PACS1@{host}:104")


@pytest.mark.parametrize(("text", "title"), [(" PACS ", "PACS"), ("A B", "A B"), ("PACS\0\0", "PACS"), ("a" * 16,) * 2])
def test_ae_titles_lose_their_padding_only(text: str, title: str) -> None:
    """NUL and blanks around are stripped, nothing else is changed; 16 characters are allowed."""
    assert check_ae_title(text) == title


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a" * 17, "17 characters"),
        ("A\\B", "not allowed"),
        ("PÄCS", "not allowed"),
        ("A\tB", "not allowed"),
        ("A\x7fB", "not allowed"),
    ],
)
def test_ae_titles_that_the_standard_forbids(text: str, words: str) -> None:
    """PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash, no control characters."""
    with pytest.raises(UsageError, match=words):
        check_ae_title(text)
    with pytest.raises(UsageError):
        parse_address(f"{text}@host:104")


def test_names_cannot_be_taken_for_addresses() -> None:
    """Letters, digits, dot, underscore, hyphen; whatever holds an @ is an address."""
    for name in ("pacs1", "PACS-1.west_2", "1", "x" * 64):
        assert check_name(name) == name
        assert not looks_like_address(name)
    for name in ("", "a@b", "a b", "a:b", "-a", ".a", "x" * 65, "ä", "a\n"):
        with pytest.raises(UsageError):
            check_name(name)
    assert looks_like_address("A@host:104")


def test_an_ipv6_host_is_written_in_brackets() -> None:
    """What is shown can be typed in again."""
    assert host_and_port("::1", 104) == "[::1]:104"
    assert host_and_port("host", 104) == "host:104"
    remote = Remote(name="x", ae_title="PACS1", host="::1", port=104, calling_ae_title="ME")
    assert parse_address(f"PACS1@{remote.address}") == ("PACS1", "::1", 104)


def test_timeouts_of_a_remote_replace_only_what_it_has() -> None:
    """A remote's own values go over the installation's; None changes nothing."""
    base = Timeouts(connect=1, acse=2)
    assert base.evolve(connect=5, acse=None) == Timeouts(connect=5, acse=2)
    assert base.evolve() == base

"""A remote AE as a value, and the grammar of AE titles and `AET@host:port`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Protocol

from dicomferry.models.rules.answers.quirks import Quirks
from dicomferry.models.rules.errors import UsageError

_ADDRESS = re.compile(r"(?P<aet>[^@]+)@(?P<host>\[[^\]]+\]|[^:@\[\]]+):(?P<port>\d{1,9})")
MOST = 2**31 - 1
"""The largest number that every database keeps in an INTEGER column: of job ids, limits and counts."""
LONGEST = 31_536_000.0
"""Seconds in a year: no wait is longer, and what takes seconds overflows nowhere."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long to wait for a remote AE, in seconds (design: nothing waits for ever, nothing dies for being slow).

    `quiet`: after the last arrival of a retrieve, before what is missing counts as missing. `settle`: between rounds.
    `announced`: for the data set that a final answer announces, since some peers announce one and send none.
    """

    connect: float = 10.0
    acse: float = 30.0
    first_answer: float = 600.0
    store_answer: float = 300.0
    progress: float = 60.0
    quiet: float = 10.0
    settle: float = 300.0
    announced: float = 2.0

    def evolve(self, **changes: float | None) -> Timeouts:
        """A copy with every change that is not None."""
        return replace(self, **{key: value for key, value in changes.items() if value is not None})


class Pace(Protocol):
    """What keeps an attempt to the limits of its remote; each call waits as long as they say."""

    @property
    def limits_bytes(self) -> bool:
        """Whether there is a limit of bytes: then little is sent at once."""

    def request(self) -> None:
        """Before a C-ECHO, C-FIND, C-MOVE or C-GET."""

    def retrieve(self) -> None:
        """Before a C-MOVE or C-GET, until what came for the last one is paid for."""

    def instance(self) -> None:
        """Before a C-STORE."""

    def sent(self, size: int) -> None:
        """After so many bytes of data set."""

    def received(self, size: int) -> None:
        """Before the answer to a C-STORE of so many bytes that came for a C-GET."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A remote AE, resolved: all that an association to it needs.

    `charset` is the Specific Character Set that it is taken to speak. `find_cap` is how many matches it lists at most,
    `relational` whether it takes a query over several levels at once (PS3.4 C.4.1.2.2.2). `pace` keeps to its limits,
    where somebody has to. `quirks` are the answers that mean something else at this remote, `coerces` the
    levels (`study`, `series`) of which its files may carry other UIDs than it lists. `numbers` is `ignored` where what
    it says of how many instances there are is wrong for good. `prefer_syntax` is what to take of several transfer
    syntaxes: explicit, implicit, compressed, or a UID.
    """

    name: str
    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_associations: int = 4
    max_moves: int = 1
    max_uids: int = 100
    charset: str | None = None
    find_cap: int | None = None
    relational: bool = False
    pace: Pace | None = field(default=None, compare=False, repr=False)
    quirks: Quirks = field(default_factory=dict, hash=False)
    trust_answers: frozenset[str] = frozenset()
    numbers: str = "used"
    coerces: frozenset[str] = frozenset()
    prefer_syntax: str | None = None

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return host_and_port(self.host, self.port)


def host_and_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_ae_title(text: str) -> str:
    """The AE title without surrounding blanks; raises UsageError where PS3.5 6.2 (VR AE) forbids it."""
    title = text.strip(" \0")
    if not title:
        raise UsageError("an AE title cannot be empty")
    if len(title) > 16:
        raise UsageError(f"AE title {title!r} has {len(title)} characters; 16 is the most")
    if "\\" in title or any(not 0x20 <= ord(char) < 0x7F for char in title):
        raise UsageError(f"AE title {title!r} has a character that is not allowed (printable ASCII, no backslash)")
    return title


def check_name(text: str) -> str:
    """A name for the address book; raises UsageError for one that could be mistaken for an address."""
    if not _NAME.fullmatch(text):
        raise UsageError(f"remote name {text!r}: use letters, digits, '.', '_' and '-', at most 64")
    return text


def looks_like_address(text: str) -> bool:
    """Whether REMOTE was given as an address and not as a name."""
    return "@" in text


def parse_coerces(text: str | None) -> frozenset[str]:
    """The levels of which a remote lists other UIDs than its files carry, from `study`, `series` or both.

    Nothing, or `none`, is no level. Raises UsageError.
    """
    found = {word.strip().lower() for word in (text or "none").split(",")} - {"", "none"}
    if not found <= {"study", "series"}:
        raise UsageError(f"--coerces {text!r}: study, series, both with a comma between, or none")
    return frozenset(found)


def parse_address(text: str) -> tuple[str, str, int]:
    """(AE title, host, port) of `AET@host:port`; raises UsageError that says what is missing."""
    found = _ADDRESS.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{text!r} is not an address: write AET@host:port, such as PACS1@10.0.0.5:104")
    port = int(found["port"])
    if not 1 <= port <= 65535:
        raise UsageError(f"port {port} in {text!r}: 1 to 65535")
    host = found["host"].strip("[]")
    if len(host) > 255 or not host.isprintable() or " " in host:
        raise UsageError(f"host {host!r}: at most 255 characters, no blanks")
    return check_ae_title(found["aet"]), host, port

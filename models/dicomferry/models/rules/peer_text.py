"""What of a peer's text goes into a row. Pure.

Peers write what they like: C strings with leftovers behind their NUL, control characters, values longer than any that
the Standard allows. PostgreSQL takes no NUL in a text and nothing that is longer than its column, and refuses the whole
statement; so what is to become a row is made fit here, for every database alike.
"""

from __future__ import annotations

import re

MOST_UID = 128
"""Characters of a UID that is kept; the Standard has 64 (PS3.5 9.1), and longer ones are in use."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")


def short(text: str, length: int) -> str:
    """A title, a UID or the like: to its first NUL, on one line, and no longer than its column."""
    if len(text) <= length and text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(_escaped, text.partition("\0")[0])[:length]


def uid(text: str) -> str:
    """A UID that is listed: itself, or, where that is nothing that can be kept, what is no UID and like no other."""
    if short(text, MOST_UID) == text:
        return text
    return _CONTROL.sub(_escaped, text)[: MOST_UID - 1] + "~"


def words(text: str) -> str:
    """Sentences that a peer's words may stand in: only what no database takes is escaped."""
    return _UNFIT.sub(_escaped, text)


def is_fit(text: str) -> bool:
    """Whether every database takes it as it is, but for its length."""
    return _UNFIT.search(text) is None


def title(raw: bytes) -> str:
    """An AE title from the wire, without its padding, and without what stands behind its NUL (PS3.5 6.2, AE)."""
    return raw.lstrip(b" \0").partition(b"\0")[0].rstrip(b" ").decode("latin-1")


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02X}" if number < 0x100 else f"\\u{number:04X}"

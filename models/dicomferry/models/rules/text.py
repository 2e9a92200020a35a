"""Times, paths and foreign text as one line of print. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def moment(value: datetime) -> str: ...
@overload
def moment(value: datetime | None) -> str | None: ...
def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds, such as 2026-11-22T02:00:00.000Z."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@overload
def path_text(path: bytes) -> str: ...


@overload
def path_text(path: None) -> None: ...


def path_text(path: bytes | None) -> str | None:
    """A path for people and JSON; bytes that are no UTF-8, and control characters, as \\xNN."""
    if path is None:
        return None
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable(text: str | None) -> str | None:
    """The text without what a database or a terminal would choke on."""
    if text is None:
        return None
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)

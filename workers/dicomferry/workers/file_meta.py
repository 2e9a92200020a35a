"""The File Meta Information (PS3.10 7.1) of the files that we write, and its like in those that we find."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from dicomferry.workers.elements import HEADER_SIZES, UNPACK_HEADER, UNPACK_LENGTH

SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX = 0x02, 0x03, 0x10
IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION, SOURCE_AE_TITLE = 0x12, 0x13, 0x16

_SHORT = struct.Struct("<HH2sH")
_UIDS = (SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX, IMPLEMENTATION_CLASS)
_BEFORE = b"\0" * 128 + b"DICM" + _SHORT.pack(2, 0, b"UL", 4)
_VERSION = struct.pack("<HH2sxxL", 2, 1, b"OB", 2) + b"\0\1"


class Meta(NamedTuple):
    """What the group says, by element number, and where the data set begins."""

    values: dict[int, str]
    data_offset: int


def encode(values: dict[int, str]) -> bytes:
    """Preamble, DICM and the meta group with these values, given in ascending order."""
    body = b"".join([_VERSION, *[_element(element, value) for element, value in values.items()]])
    return _BEFORE + struct.pack("<L", len(body)) + body


@lru_cache(maxsize=1024)
def _element(element: int, value: str) -> bytes:
    """All but one of them are the same in file after file."""
    vr, pad = (b"UI", b"\0") if element in _UIDS else (b"AE" if element == SOURCE_AE_TITLE else b"SH", b" ")
    raw = value.encode("latin-1", "replace")
    raw += pad * (len(raw) % 2)
    return _SHORT.pack(2, element, vr, len(raw)) + raw


def decode(first: bytes) -> Meta | None:
    """The meta group in a file's first bytes; None where there is none, or not all of it."""
    if first[128:132] != b"DICM":
        return None
    values: dict[int, str] = {}
    pos = 132
    end = len(first)
    while pos + 8 <= end:
        group, element, vr, length = UNPACK_HEADER[False](first, pos)
        if group != 2:
            return Meta(values, pos)
        head = HEADER_SIZES[False].get(vr, 0)
        if not head or pos + head > end:
            return None
        if head == 12:
            length = UNPACK_LENGTH[False](first, pos + 8)[0]
        start = pos + head
        pos = start + length
        if element == 0 and length == 4 and start + 4 <= end:
            # A data set may be shorter than an element's head: the group's own length tells it from the meta group.
            end = min(end, pos + UNPACK_LENGTH[False](first, start)[0])
        values[element] = first[start:pos].rstrip(b"\0 ").decode("latin-1")
    return Meta(values, pos) if pos == end else None

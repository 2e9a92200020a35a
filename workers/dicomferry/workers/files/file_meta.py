"""The File Meta Information (PS3.10 7.1) of the files that we write, and its like in those that we find."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.files import meta_group
from dicomferry.workers.files.data_set import NeedMore

SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX = 0x02, 0x03, 0x10
IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION, SOURCE_AE_TITLE = 0x12, 0x13, 0x16

_SHORT = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<L")
_UIDS = (SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX, IMPLEMENTATION_CLASS)
_BEFORE = b"\0" * 128 + b"DICM" + _SHORT.pack(2, 0, b"UL", 4)
_VERSION = struct.pack("<HH2sxxL", 2, 1, b"OB", 2) + b"\0\1"


class Meta(NamedTuple):
    """What the group says, by element number, and where the data set begins."""

    values: dict[int, str]
    data_offset: int


def encode(sop_instance: str, others: tuple[tuple[int, str], ...]) -> bytes:
    """Preamble, DICM and the meta group of an instance, with these other values in ascending order, which are the same
    in file after file.
    """
    before, after = _around(others)
    instance = _element(SOP_INSTANCE, sop_instance)
    return b"".join((_BEFORE, _LENGTH.pack(len(before) + len(instance) + len(after)), before, instance, after))


@lru_cache(maxsize=256)
def _around(others: tuple[tuple[int, str], ...]) -> tuple[bytes, bytes]:
    """What stands before and behind the SOP Instance UID."""
    before = b"".join([_element(element, value) for element, value in others if element < SOP_INSTANCE])
    after = b"".join([_element(element, value) for element, value in others if element > SOP_INSTANCE])
    return _VERSION + before, after


def _element(element: int, value: str) -> bytes:
    vr, pad = (b"UI", b"\0") if element in _UIDS else (b"AE" if element == SOURCE_AE_TITLE else b"SH", b" ")
    raw = value.encode("latin-1", "replace")
    raw += pad * (len(raw) % 2)
    return _SHORT.pack(2, element, vr, len(raw)) + raw


def decode(first: bytes) -> Meta | None:
    """The meta group in a file's first bytes; None where there is none, or not all of it."""
    if first[128:132] != b"DICM":
        return None
    try:
        group = meta_group.read(first)
    except (NeedMore, UnusableFile):
        return None
    values = {element: value.rstrip(b"\0 ").decode("latin-1") for element, value in group.values.items()}
    return Meta(values, group.end)

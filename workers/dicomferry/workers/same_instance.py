"""Are two files of one SOP Instance UID the same instance, another encoding of it, or a conflict?"""

from __future__ import annotations

import os
import struct
import warnings
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dicomferry.workers import file_meta
from dicomferry.workers.data_set import DEFLATED, EXPLICIT_BE, IMPLICIT, UNCOMPRESSED
from dicomferry.workers.elements import HEADER_SIZES, UNDEFINED, UNPACK_HEADER, UNPACK_LENGTH

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Relation(StrEnum):
    """What a file is to another one of the same SOP Instance UID."""

    SAME = "same"
    ALTERNATE = "alternate"
    CONFLICT = "conflict"


_BLOCK = 1024 * 1024
_LARGE_VALUE = 64 * 1024
_PIXEL_DATA = 0x7FE00010
# What compressing or decompressing lawfully changes beside the pixels (PS3.3 C.7.6.1, C.7.6.3), and padding.
_OF_THE_ENCODING = frozenset(
    {
        0x00080008, 0x00082111, 0x00280002, 0x00280004, 0x00280006, 0x00280034, 0x00282110, 0x00282112, 0x00282114,
        0xFFFCFFFC,
    }
)  # fmt: skip


def compare(ours: int, theirs: int, *, elements: bool = True) -> Relation:
    """What the file with descriptor `ours` is to the file with descriptor `theirs`. Raises OSError.

    Without `elements` only the same bytes in the same syntax are the same.
    """
    first, second = (file_meta.decode(os.pread(fd, 64 * 1024, 0)) for fd in (ours, theirs))
    if first is None or second is None:
        return Relation.CONFLICT
    one, other = (meta.values.get(file_meta.TRANSFER_SYNTAX, "") for meta in (first, second))
    if one == other and _equal_bytes(ours, first.data_offset, theirs, second.data_offset):
        return Relation.SAME
    if not elements:
        return Relation.CONFLICT
    try:
        return _compare_elements(ours, one, theirs, other)
    except Exception:
        # Whatever pydicom makes of a file that it cannot read: not known to be the same.
        return Relation.CONFLICT


def _equal_bytes(first: int, first_at: int, second: int, second_at: int) -> bool:
    size = os.fstat(first).st_size - first_at
    if size != os.fstat(second).st_size - second_at:
        return False
    for pos in range(0, size, _BLOCK):
        length = min(_BLOCK, size - pos)
        if os.pread(first, length, first_at + pos) != os.pread(second, length, second_at + pos):
            return False
    return True


def _compare_elements(first: int, first_syntax: str, second: int, second_syntax: str) -> Relation:
    one, one_at = _read(first)
    other, other_at = _read(second)
    native = {first_syntax, second_syntax} <= UNCOMPRESSED
    ignored = {0xFFFCFFFC} if native or first_syntax == second_syntax else _OF_THE_ENCODING
    if not _equal_elements(one, other, ignored):
        return Relation.CONFLICT
    if not native and first_syntax != second_syntax:
        return Relation.ALTERNATE
    deflated = {first_syntax, second_syntax} & DEFLATED
    if deflated or EXPLICIT_BE in (first_syntax, second_syntax):
        # Their pixels cannot be compared where they lie.
        return Relation.SAME if _decoded_pixels(first) == _decoded_pixels(second) else Relation.CONFLICT
    same = _equal_pixels(first, one_at, first_syntax in IMPLICIT, second, other_at, second_syntax in IMPLICIT)
    return Relation.SAME if same else Relation.CONFLICT


def _read(fd: int) -> tuple[Dataset, int]:
    """The elements before the pixels, and the position at which they end."""
    from pydicom import dcmread

    with os.fdopen(os.dup(fd), "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.seek(0)
        found = dcmread(file, force=True, stop_before_pixels=True)
        for element in found.iterall():
            _ = element.value
        return found, file.tell()


def _decoded_pixels(fd: int) -> bytes:
    from pydicom import dcmread

    with os.fdopen(os.dup(fd), "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.seek(0)
        found = dcmread(file, force=True)
        if "PixelData" not in found:
            return b""
        value: bytes = found.PixelData
        swapped = found.file_meta.TransferSyntaxUID == EXPLICIT_BE and found.get("BitsAllocated", 8) == 16
        if swapped:
            value = struct.pack(f"<{len(value) // 2}H", *struct.unpack(f">{len(value) // 2}H", value))
        return value.rstrip(b"\0")


def _equal_elements(one: Dataset, other: Dataset, ignored: frozenset[int] | set[int]) -> bool:
    """Whether both have the same elements but for group lengths and those `ignored`."""
    tags = [{int(tag) for tag in found.keys()} for found in (one, other)]  # noqa: SIM118 - a data set is no dict
    tags = [{tag for tag in some if tag & 0xFFFF and tag not in ignored} for some in tags]
    return tags[0] == tags[1] and all(_equal_values(one[tag], other[tag]) for tag in tags[0])


def _equal_values(one: Any, other: Any) -> bool:
    if one.VR == other.VR == "SQ":
        pairs = zip(one.value, other.value, strict=False)
        return len(one.value) == len(other.value) and all(_equal_elements(a, b, frozenset()) for a, b in pairs)
    if one.VR == other.VR:
        return bool(one.value == other.value)
    # A private element has no VR in Implicit VR: its bytes are the same all the same.
    raw = [item.value if isinstance(item.value, bytes) else str(item.value).encode() for item in (one, other)]
    return raw[0].rstrip(b"\0 ") == raw[1].rstrip(b"\0 ")


def _equal_pixels(one: int, one_at: int, one_implicit: bool, other: int, other_at: int, other_implicit: bool) -> bool:
    """Compare the elements at these positions, Pixel Data as a rule, block by block."""
    first, second = _value_at(one, one_at, one_implicit), _value_at(other, other_at, other_implicit)
    if first is None or second is None:
        return first is second
    (tag, start, length), (other_tag, other_start, other_length) = first, second
    if tag != other_tag or length != other_length:
        return False
    if length == UNDEFINED:
        return _equal_bytes(one, start, other, other_start)
    for pos in range(0, length, _BLOCK):
        size = min(_BLOCK, length - pos)
        if os.pread(one, size, start + pos) != os.pread(other, size, other_start + pos):
            return False
    return True


def _value_at(fd: int, pos: int, implicit: bool) -> tuple[int, int, int] | None:
    """(tag, position of the value, its length) of the element at `pos`; None at the end."""
    head = os.pread(fd, 12, pos)
    if len(head) < 8:
        return None
    group, element, vr, length = UNPACK_HEADER[False](head, 0)
    if implicit:
        return group << 16 | element, pos + 8, UNPACK_LENGTH[False](head, 4)[0]
    if HEADER_SIZES[False].get(vr, 12) == 12:
        return group << 16 | element, pos + 12, UNPACK_LENGTH[False](head, 8)[0]
    return group << 16 | element, pos + 8, length

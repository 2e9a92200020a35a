"""Data elements as bytes (PS3.5 7): header forms, and one forward walk over lengths that never reads a value.

The walk keeps its own stack of one byte per open sequence or item, so hostile nesting costs neither the
interpreter's stack nor noticeable memory, and every round moves at least eight bytes ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

UNDEFINED = 0xFFFFFFFF

# Indexed by "is big endian". Group, element, then VR and 16-bit length (or the 32-bit length of Implicit VR).
UNPACK_HEADER = (struct.Struct("<HHHH").unpack_from, struct.Struct(">HHHH").unpack_from)
_UNPACK_EXPLICIT = (struct.Struct("<HxxHH").unpack_from, struct.Struct(">HxxHH").unpack_from)
UNPACK_LENGTH = (struct.Struct("<I").unpack_from, struct.Struct(">I").unpack_from)

_SHORT = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_LONG = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"


def _by_number(order: Literal["little", "big"]) -> dict[int, int]:
    """VR, as the integer that UNPACK_HEADER gives, to the size of its element header (PS3.5 7.1.2)."""
    return {
        int.from_bytes(vr.encode(), order): size for names, size in ((_SHORT, 8), (_LONG, 12)) for vr in names.split()
    }


HEADER_SIZES = (_by_number("little"), _by_number("big"))
_SHORT_FORMS = tuple(frozenset(vr for vr, size in sizes.items() if size == 8) for sizes in HEADER_SIZES)
UN = (int.from_bytes(b"UN", "little"), int.from_bytes(b"UN", "big"))

Refill = Callable[[int], "bytes | None"]
"""Gives the bytes from a position on: at least 12 unless the data end there, None for a position beyond."""


class DataEnded(Exception):
    """The data end where an element, an item or a delimiter should still come."""

    def __init__(self, what: str, tag: int | None, at: int) -> None:
        self.what = what
        self.tag = tag
        self.at = at


class BadElement(Exception):
    """What stands there can be no element of this transfer syntax."""

    def __init__(self, what: str, tag: int, at: int) -> None:
        self.what = what
        self.tag = tag
        self.at = at


def no_representation(tag: int, at: int) -> BadElement:
    """What to raise where a value representation is due (PS3.5 7.1.2) and no letters stand."""
    return BadElement("no value representation", tag, at)


def describe(tag: int) -> str:
    """`(0008,0018) SOPInstanceUID`, or the numbers alone for a tag without a keyword."""
    # Only for sentences about files that failed, so the dictionary is loaded only then.
    from pydicom.datadict import keyword_for_tag

    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword_for_tag(tag)}".rstrip()


# A stack frame is one byte: whether items are due in it, and whether it lies in a UN of undefined length; the
# content of one is Implicit VR Little Endian in any transfer syntax (PS3.5 6.2.2).
_ITEMS = 1
_IN_UN = 2

# Command elements and file meta elements are no part of a data set.
NEVER = frozenset({0, 2})
_PIXEL_DATA = 0x7FE00010
# Float and Double Float Pixel Data, which no transfer syntax encapsulates.
_FLOATS = frozenset({0x7FE00008, 0x7FE00009})


def walk(
    data: bytes,
    base: int,
    refill: Refill,
    pos: int,
    *,
    size: int,
    implicit: bool,
    big: bool,
    native: bool = False,
    encapsulated: bool = False,
    inside: bool = False,
    un: bool = False,
    letters: bool = False,
) -> int:
    """Walk over element lengths from `pos` on; returns the position behind what was walked.

    `data` are the bytes from position `base` on; `refill` gives the ones after them. `size` is where the data
    end, as far as known. With `inside`, `pos` is in a sequence of undefined length (`un`: of VR UN) and the
    walk ends behind its delimiter; else it ends with the data, or before zero bytes after the last element.
    `native` says that the transfer syntax has no encapsulated pixel data, `encapsulated` that it has no other, and so
    no floating point ones (PS3.5 A.4; icons inside of sequences may have either). In an explicit transfer syntax each
    element outside of sequences has a value representation; with `letters` those inside of them as well. Raises
    DataEnded or BadElement.
    """
    unpack, sizes, un_vr = UNPACK_HEADER[big], HEADER_SIZES[big], UN[big]
    short = frozenset[int]() if implicit else _SHORT_FORMS[big]
    stack = bytearray()
    frame = 0
    depth = 0
    if inside:
        frame = _ITEMS | (_IN_UN if un else 0)
        stack.append(frame)
        depth = 1
    tag: int | None = None
    at = pos
    end = base + len(data)
    while True:
        # Most elements stand outside of sequences and have the short form: they take this way, all others the long one.
        while short and not depth and pos + 12 <= end:
            group, element, vr, length = unpack(data, pos - base)
            if vr not in short or not 2 < group < 0xFFFE:
                break
            tag = group << 16 | element
            at = pos
            pos += 8 + length
            if pos > size:
                raise DataEnded("inside", tag, at)
        if pos + 12 > end:
            more = refill(pos)
            if more is None:
                raise DataEnded("inside", tag, at)
            data, base, end = more, pos, pos + len(more)
            if end - pos < 8:
                if depth:
                    raise DataEnded("before the delimiter that is due after", tag, at)
                if data.strip(b"\0"):
                    raise DataEnded("inside an element header after", tag, at)
                return pos
        at = pos
        in_un = frame & _IN_UN
        offset = pos - base
        if in_un and big:
            group, element, vr, length = UNPACK_HEADER[0](data, offset)
        else:
            group, element, vr, length = unpack(data, offset)
        tag = group << 16 | element
        if group == 0xFFFE:
            length = UNPACK_LENGTH[big and not in_un](data, offset + 4)[0]
            pos += 8
            if element == 0xE000 and frame & _ITEMS:
                if length == UNDEFINED:
                    frame ^= _ITEMS
                    stack.append(frame)
                    depth += 1
                    continue
            elif depth and element == (0xE0DD if frame & _ITEMS else 0xE00D):
                stack.pop()
                depth -= 1
                if not depth:
                    if inside:
                        return pos
                    frame = 0
                else:
                    frame = stack[-1]
                continue
            elif depth or length == UNDEFINED:
                raise BadElement("an item or delimiter where none is due", tag, at)
            # A delimiter that some writers leave at the top level does no harm.
            pos += length
        elif frame & _ITEMS:
            raise BadElement("an element where an item or a delimiter is due", tag, at)
        else:
            # Many writers left explicit VR inside of UN; letters are no likely length.
            head = HEADER_SIZES[0].get(vr, 0) if in_un else 0 if implicit else sizes.get(vr, -1)
            if head < 0:
                # VRs not known here have the long form (PS3.5 6.2). Some writers left implicit elements in sequences.
                if data[offset + 4 : offset + 6].isalpha():
                    head = 8 if length else 12
                elif tag and (letters or not depth):
                    raise no_representation(tag, at)
                else:
                    head = 0
            if head == 8:
                pos += 8 + length
            else:
                if head == 12:
                    if offset + 12 > len(data):
                        raise DataEnded("inside the header of", tag, at)
                    offset += 4
                    pos += 4
                length = UNPACK_LENGTH[big and not in_un](data, offset + 4)[0]
                pos += 8
                if encapsulated and not depth and tag in _FLOATS and length:
                    raise BadElement("float pixel data in a compressed transfer syntax", tag, at)
                if length == UNDEFINED:
                    if native and not depth and group == 0x7FE0:
                        raise BadElement("encapsulated pixel data in an uncompressed transfer syntax", tag, at)
                    frame = _ITEMS | in_un
                    if head == 12 and not in_un and vr == un_vr:
                        frame |= _IN_UN
                    stack.append(frame)
                    depth += 1
                    continue
                if encapsulated and not depth and tag == _PIXEL_DATA and length:
                    raise BadElement("native pixel data in a compressed transfer syntax", tag, at)
                pos += length
            if not depth and group in NEVER:
                if not tag and _zeros_only(refill, at):
                    return at
                raise BadElement(f"group {group:04X} in the data set", tag, at)
        if pos > size:
            raise DataEnded("inside", tag, at)


def plain_end(data: bytes, pos: int = 0, *, implicit: bool, big: bool, encapsulated: bool) -> int:
    """Where a data set that begins with `data` ends, by the last element in them; that may lie far behind `data`.

    If its size is just this, `walk` would find it whole: the steps are the same, in half of the time. They stop before
    whatever is not plain, so that the position is that of no end: pixels where `encapsulated`, a VR that is not known,
    a group that belongs into no data set, a sequence that is not closed within `data`. Up to the element at `pos` all
    is known to be plain.
    """
    unpack, unpack_length, sizes = _UNPACK_EXPLICIT[big], UNPACK_LENGTH[big], HEADER_SIZES[big]
    short = frozenset[int]() if implicit else _SHORT_FORMS[big]
    stop = 0x7FE0 if encapsulated else 0xFFFE
    last = len(data) - 12
    while pos <= last:
        group, vr, length = unpack(data, pos)
        if not 2 < group < stop:
            break
        if vr in short:
            pos += 8 + length
            continue
        head = 8 if implicit else sizes.get(vr)
        if head is None:
            break
        start = pos + head
        length = unpack_length(data, start - 4)[0]
        if length == UNDEFINED:
            if group == 0x7FE0:
                break
            un = not implicit and vr == UN[big]
            try:
                pos = walk(data, 0, _nothing, start, size=len(data), implicit=implicit, big=big, inside=True, un=un)
            except (DataEnded, BadElement):
                break
        else:
            pos = start + length
    return pos


def _nothing(_: int) -> None:
    """Behind the bytes at hand."""


def _zeros_only(refill: Refill, pos: int) -> bool:
    """Whether nothing but zero bytes follows from `pos` on."""
    while data := refill(pos):
        if data.strip(b"\0"):
            return False
        pos += len(data)
    return True

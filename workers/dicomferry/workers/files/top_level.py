"""The elements of a data set that lie outside of sequences, one by one: for files that the quick looks cannot read.

What is found here is found slowly, by lengths from the first element to the last, and only for a file that has
something odd about it: its SOP UIDs, where the elements are not in ascending order (PS3.5 7.1), and what stands behind
the last element of a data set that cannot be walked to the end of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.files.data_set import EXPLICIT_BE, IMPLICIT, Uids, checked_uids
from dicomferry.workers.files.elements import (
    HEADER_SIZES,
    NEVER,
    UN,
    UNDEFINED,
    UNPACK_HEADER,
    UNPACK_LENGTH,
    BadElement,
    DataEnded,
    Refill,
    describe,
    no_representation,
    walk,
)

_UIDS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
_PIXELS = 0x7FE00000
# Even groups that the Standard has above Pixel Data: itself, digital signatures, padding.
_ABOVE_PIXELS = frozenset({0x7FE0, 0xFFFA, 0xFFFC})


class Element(NamedTuple):
    """One element; positions and `length` (of its value, UNDEFINED where it has none) in bytes."""

    tag: int
    vr: int
    at: int
    start: int
    length: int
    end: int


def elements(refill: Refill, pos: int, *, size: int, implicit: bool, big: bool) -> Iterator[Element]:
    """The elements from `pos` on, each once it is known to be whole; `size` is where the data end, as far as known.

    Ends where fewer than eight bytes are left. Raises Ended, Broken.
    """
    unpack, unpack_length, sizes = UNPACK_HEADER[big], UNPACK_LENGTH[big], HEADER_SIZES[big]
    tag: int | None = None
    while True:
        data = refill(pos)
        if data is None:
            raise DataEnded("inside", tag, pos)
        if len(data) < 8:
            return
        at = pos
        group, element, vr, length = unpack(data, 0)
        tag = group << 16 | element
        if group in NEVER:
            raise BadElement(f"group {group:04X} in the data set", tag, at)
        # An item or a delimiter has no value representation anywhere.
        head = 0 if implicit or group == 0xFFFE else sizes.get(vr, -1)
        if head < 0:
            if not data[4:6].isalpha():
                raise no_representation(tag, at)
            head = 8 if length else 12
        if head == 12:
            if len(data) < 12:
                raise DataEnded("inside the header of", tag, at)
            length = unpack_length(data, 8)[0]
        elif not head:
            head = 8
            length = unpack_length(data, 4)[0]
        start = at + head
        if length == UNDEFINED:
            un = not implicit and vr == UN[big]
            pos = walk(b"", start, refill, start, size=size, implicit=implicit, big=big, inside=True, un=un)
        else:
            pos = start + length
        if pos > size:
            raise DataEnded("inside", tag, at)
        yield Element(tag, vr, at, start, length, pos)


def search_uids(refill: Refill, pos: int, syntax: str, *, size: int) -> Uids:
    """SOP class, SOP instance, study and series UID of the data set from `pos` on, wherever in it they stand.

    Raises UnusableFile "no uid" where one of the first two is nowhere, "bad uid", and what the walk meets before that.
    """
    found: dict[int, bytes] = {}
    try:
        for element in elements(refill, pos, size=size, implicit=syntax in IMPLICIT, big=syntax == EXPLICIT_BE):
            if element.tag in _UIDS and element.length <= 1024:
                found[element.tag] = (refill(element.start) or b"")[: element.length]
                if len(found) == len(_UIDS):
                    break
    except (DataEnded, BadElement) as error:
        # Whether it is whole is asked of it when it is sent; without its UIDs it is nothing.
        if not all(tag in found for tag in _UIDS[:2]):
            refuse(error, "byte")
    return checked_uids(*(found.get(tag) for tag in _UIDS))


def refuse(error: DataEnded | BadElement, unit: str) -> NoReturn:
    """Say of a data set that its walk found no end; positions are counted in `unit`."""
    if isinstance(error, DataEnded):
        where = f"{describe(error.tag)} at {unit} {error.at}" if error.tag is not None else f"{unit} {error.at}"
        raise UnusableFile(Reason.TRUNCATED, f"the data set ends {error.what} {where}") from None
    raise UnusableFile(Reason.SYNTAX_MISMATCH, f"{describe(error.tag)} at {unit} {error.at}: {error.what}") from None


def refuse_rest(
    error: DataEnded | BadElement, refill: Refill, pos: int, *, size: int, implicit: bool, big: bool
) -> NoReturn:
    """Say why the data set from `pos` on cannot be walked to `size`, the file's end: is it cut off, is there something
    behind its last element that is no part of it, or is what stands in it no element at all?
    """
    last: Element | None = None
    try:
        for element in elements(refill, pos, size=size, implicit=implicit, big=big):
            last = element
    except (DataEnded, BadElement):
        pass
    if last is not None and _is_foreign(last.tag, (refill(last.end) or b"")[:8], implicit, big):
        raise UnusableFile(
            Reason.TRAILING_BYTES,
            f"{size - last.end} bytes behind the data set's last element, {describe(last.tag)}, at byte {last.end}",
        ) from None
    if isinstance(error, DataEnded):
        # Where letters were due and none stood, a length was read that is none: that is no end of the file.
        try:
            walk(b"", pos, refill, pos, size=size, implicit=implicit, big=big, letters=True)
        except DataEnded:
            pass
        except BadElement as broken:
            error = broken
    refuse(error, "byte")


def _is_foreign(last: int, rest: bytes, implicit: bool, big: bool) -> bool:
    """Whether the bytes behind the element `last` cannot be the beginning of another one of the same data set."""
    if len(rest) < 2:
        return last >= _PIXELS and len(rest) > 0
    group = int.from_bytes(rest[:2], "big" if big else "little")
    if group == 0xFFFF:  # PS3.5 7.8.1
        return True
    lettered = implicit or len(rest) < 6 or rest[4:6].isalpha()
    if last < _PIXELS:
        # It may still come: only what is too short to tell is judged here.
        return len(rest) < 8 and (group < last >> 16 or not lettered)
    if group < last >> 16 or not lettered or (group % 2 == 0 and group not in _ABOVE_PIXELS):
        return True
    return len(rest) >= 4 and group << 16 | int.from_bytes(rest[2:4], "big" if big else "little") <= last

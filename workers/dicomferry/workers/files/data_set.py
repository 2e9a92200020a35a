"""What the first bytes of a data set (PS3.5) tell: its encoding and the UIDs of the instance."""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple, NoReturn

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.files.elements import (
    HEADER_SIZES,
    UN,
    UNDEFINED,
    UNPACK_HEADER,
    UNPACK_LENGTH,
    BadElement,
    DataEnded,
    describe,
    walk,
)

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

UNCOMPRESSED = frozenset({IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE})
"""Transfer syntaxes with native pixel data (PS3.5 A.1 to A.3 and A.5): each can be re-encoded in another."""

DEFLATED = frozenset({DEFLATED_LE, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Transfer syntaxes whose whole data set is a raw deflate stream: A.5 and the two JPIP Referenced Deflate."""

# Besides the Standard's: Papyrus 3 and GE's private syntax (implicit little endian with big endian pixels).
IMPLICIT = frozenset({IMPLICIT_LE, "1.2.840.10008.1.20", "1.2.840.113619.5.2"})

# Of PS3.5 A.4, those outside of the group that nearly all have; of that group, those that refer to pixels elsewhere.
_ENCAPSULATED = frozenset({"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.98"})
_JPIP = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205))

_UID = re.compile(r"(?!\.*$)[0-9A-Za-z.-]{1,128}")
BLANKS = b"\0 "


_UNPACK_EXPLICIT = struct.Struct("<HxxHH").unpack_from
_UNPACK_IMPLICIT = struct.Struct("<HxxI").unpack_from
_UNPACK_LENGTH = UNPACK_LENGTH[False]
_SIZES = HEADER_SIZES[False]
_SHORT = frozenset(vr for vr, size in _SIZES.items() if size == 8)

Uids = tuple[str, str, str | None, str | None]
"""SOP class, SOP instance, study and series UID."""


class NoUid(UnusableFile):
    """A data set has no SOP class or no SOP instance UID, as far as it was looked at."""

    def __init__(self, name: str) -> None:
        super().__init__(Reason.NO_UID, f"the data set has no {name}")


class NeedMore(Exception):
    """The bytes at hand end too early; `upto` is the position that has to be readable."""

    def __init__(self, upto: int) -> None:
        self.upto = upto


def want(upto: int, whole: bool) -> NoReturn:
    """More bytes are needed: ask for them, or say that there are none."""
    if whole:
        raise UnusableFile(Reason.TRUNCATED, f"the file ends inside its header, before byte {upto}")
    raise NeedMore(upto)


def is_encapsulated(syntax: str) -> bool:
    """Whether Pixel Data can only be encapsulated in this transfer syntax (PS3.5 A.4), as far as it is known."""
    return syntax in _ENCAPSULATED or (syntax.startswith("1.2.840.10008.1.2.4.") and syntax not in _JPIP)


def guess_syntax(data: bytes, pos: int) -> str | None:
    """The uncompressed transfer syntax in which the bytes at `pos` look like a data set's first element."""
    if len(data) < pos + 8:
        return None
    group, element, vr, _ = UNPACK_HEADER[False](data, pos)
    if group in (4, 8) and vr in HEADER_SIZES[False]:
        return EXPLICIT_LE
    if group in (0x400, 0x800) and vr in HEADER_SIZES[False]:
        return EXPLICIT_BE
    # The first elements of group 0008 are short; text that begins with a backspace is not.
    if group == 8 and element <= 0x18 and UNPACK_LENGTH[False](data, pos + 4)[0] <= 1024:
        return IMPLICIT_LE
    return None


def instance_uids(data: bytes, offset: int, syntax: str, whole: bool) -> Uids:
    """The UIDs of the data set that begins at `offset` of `data`, the first bytes of a file.

    `whole` says that these bytes are all there are. Raises NeedMore, or UnusableFile with the reason
    "truncated", "no uid" (NoUid, where they may stand out of order), "bad uid", "syntax mismatch" or "DICOMDIR".
    """
    return head_of(data, offset, syntax, whole).uids


class Head(NamedTuple):
    """The UIDs of a data set, and a position up to which its elements are plain: `elements.plain_end` may go on there.

    Positions in a deflated data set are those in the inflated one.
    """

    uids: Uids
    plain_upto: int


def head_of(data: bytes, offset: int, syntax: str, whole: bool) -> Head:
    """The UIDs of the instance, as `instance_uids` has them, and how far the way to them was plain."""
    pos = offset
    if syntax in DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(data[offset:], max(65536, 4 * len(data)))
        except zlib.error as error:
            raise UnusableFile(Reason.SYNTAX_MISMATCH, f"not a deflated data set: {error}") from None
        # What is left undone can be had by reading on; a stream cut off has no more either way.
        whole = whole and not inflater.unconsumed_tail
        pos = 0
    big = syntax == EXPLICIT_BE
    implicit = syntax in IMPLICIT
    if len(data) < pos + 8:
        want(offset + 8, whole)
    _check_first(data, pos, implicit, big, syntax)
    try:
        values, plain_upto = _walk_uids(data, pos, implicit, big, whole)
    except NeedMore:
        # Inflated positions say nothing about the file's: any more of it will do.
        if syntax in DEFLATED:
            raise NeedMore(offset + 8) from None
        raise
    return Head(checked_uids(*values), plain_upto)


def checked_uids(
    sop_class: bytes | None, sop_instance: bytes | None, study: bytes | None, series: bytes | None
) -> Uids:
    """The UIDs in these values; raises UnusableFile "no uid" or "bad uid" for the first two."""
    for value, name in ((sop_class, "SOP Class UID (0008,0016)"), (sop_instance, "SOP Instance UID (0008,0018)")):
        if value is None:
            raise NoUid(name)
    return (
        uid(sop_class, "SOP Class UID (0008,0016)"),
        uid(sop_instance, "SOP Instance UID (0008,0018)"),
        _soft_uid(study),
        _soft_uid(series),
    )


class SopUids(NamedTuple):
    """SOP class and SOP instance UID as they stand in a data set; the second stands at `at`, -1: it was not met."""

    sop_class: bytes | None
    sop_instance: bytes | None
    at: int


def is_instance(data: bytes | memoryview, pos: int, syntax: str, sop_class: str, sop_instance: str) -> bool | None:
    """Whether the data set that begins at `pos` is of this SOP class and this SOP instance; None where its first
    elements, in ascending order, do not tell.
    """
    if syntax in DEFLATED:
        try:
            data, pos = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[pos:], 4096), 0
        except zlib.error:
            return None
    of_class, instance, _ = sop_uids(data, pos, syntax)
    if of_class is not None and of_class.rstrip(BLANKS) != sop_class.encode():
        return False
    if instance is None:
        return None
    return instance.rstrip(BLANKS) == sop_instance.encode() and (of_class is not None or None)


def sop_uids(data: bytes | memoryview, pos: int, syntax: str) -> SopUids:
    """What the first elements, in ascending order, of the data set that begins at `pos` tell; a deflated one has to be
    inflated.
    """
    big, implicit = syntax == EXPLICIT_BE, syntax in IMPLICIT
    unpack, unpack_length, sizes = UNPACK_HEADER[big], UNPACK_LENGTH[big], HEADER_SIZES[big]
    available = len(data) - 12
    of_class = None
    while pos <= available:
        group, element, vr, length = unpack(data, pos)
        if group > 8 or (group == 8 and element > 0x18):
            break
        head = 0 if implicit else sizes.get(vr, -1)
        if head == 8:
            start = pos + 8
        elif head == 12:
            start = pos + 12
            length = unpack_length(data, pos + 8)[0]
        elif head:
            break
        else:
            start = pos + 8
            length = unpack_length(data, pos + 4)[0]
        pos = start + length
        if pos > len(data):
            break
        if group == 8 and element == 0x16:
            of_class = bytes(data[start:pos])
        elif group == 8 and element == 0x18:
            return SopUids(of_class, bytes(data[start:pos]), start)
    return SopUids(of_class, None, -1)


def _check_first(data: bytes, pos: int, implicit: bool, big: bool, syntax: str) -> None:
    """Refuse a data set whose first element cannot be one in the declared transfer syntax."""
    group, element, vr, _ = UNPACK_HEADER[big](data, pos)
    if group in (0, 2):
        raise UnusableFile(Reason.SYNTAX_MISMATCH, f"group {group:04X} in the data set at byte {pos}")
    known = vr in HEADER_SIZES[big]
    problem = ""
    if group > 8 and group & 0xFF == 0 and group >> 8 <= 8:
        problem = "the other byte order"
    elif not implicit and not known and not data[pos + 4 : pos + 6].isalpha():
        problem = "no value representation"
    elif implicit and known and _explicit_follows(data, pos, big):
        problem = "a value representation"
    if problem:
        raise UnusableFile(
            Reason.SYNTAX_MISMATCH,
            f"the first element {describe(group << 16 | element)} shows {problem}, against {syntax}",
        )


def _explicit_follows(data: bytes, pos: int, big: bool) -> bool:
    """Whether letters where an implicit length is due are a VR: read so, the next element fits too."""
    group, element, vr, length = UNPACK_HEADER[big](data, pos)
    head = HEADER_SIZES[big][vr]
    if head == 12:
        if len(data) < pos + 12:
            return False
        length = UNPACK_LENGTH[big](data, pos + 8)[0]
        if length == UNDEFINED:
            return True
    following = pos + head + length
    if following + 8 > len(data):
        return bool(length < 0x1000)
    next_group, next_element, next_vr, _ = UNPACK_HEADER[big](data, following)
    ascends: bool = (next_group, next_element) > (group, element)
    return ascends and next_vr in HEADER_SIZES[big]


def _walk_uids(
    data: bytes, pos: int, implicit: bool, big: bool, whole: bool
) -> tuple[tuple[bytes | None, bytes | None, bytes | None, bytes | None], int]:
    """SOP class, SOP instance, study and series UID as they stand in the data set at `pos`; a position up to which all
    elements are such that `elements.plain_end` steps over them as well.
    """
    unpack = UNPACK_HEADER[big]
    unpack_length = UNPACK_LENGTH[big]
    sizes = HEADER_SIZES[big]
    available = len(data)
    sop_class = sop_instance = study = series = None
    # Elements ascend (PS3.5 7.1): while no later tag was met, the two SOP UIDs may still come.
    passed = False
    plain, begin = True, pos
    first_group = group = unpack(data, pos)[0]
    while pos + 8 <= available:
        if passed and not big and group < 0x20:
            pos = _skim(data, pos, implicit)
            if pos + 8 > available:
                break
        group, element, vr, length = unpack(data, pos)
        head = 0 if implicit else sizes.get(vr, -1)
        if head == 8:
            start = pos + 8
        elif head == 12 or (head < 0 and length == 0 and data[pos + 4 : pos + 6].isalpha()):
            # VRs that this code does not know have the long form (PS3.5 6.2).
            plain = plain and head == 12
            if pos + 12 > available:
                break
            length = unpack_length(data, pos + 8)[0]
            start = pos + 12
        else:
            plain = plain and head == 0
            if head == 0 or not data[pos + 4 : pos + 6].isalpha():
                length = unpack_length(data, pos + 4)[0]
            start = pos + 8
        if group == 8:
            if element > 0x18:
                passed = True
            elif element == 0x16 and start + length <= available:
                sop_class = data[start : start + length]
            elif element == 0x18 and start + length <= available:
                sop_instance = data[start : start + length]
                passed = True
        elif group == 0x20:
            if element == 0x0D and start + length <= available:
                study = data[start : start + length]
            elif element == 0x0E and start + length <= available:
                series = data[start : start + length]
            if element >= 0x0E:
                passed = True
                break
        elif group > 8:
            passed = True
            if group > 0x20:
                break
        elif group < 3:
            # Behind the SOP UIDs it is for a walk to the end to find.
            if group != 1 and (big or not passed):
                raise UnusableFile(Reason.SYNTAX_MISMATCH, f"group {group:04X} in the data set at byte {pos}")
            plain = False
        if length == UNDEFINED:
            try:
                pos = walk(
                    data,
                    0,
                    _nothing,
                    start,
                    size=1 << 62,
                    implicit=implicit,
                    big=big,
                    inside=True,
                    un=vr == UN[big],
                )
            except DataEnded:
                plain = False
                pos = available + 8
            except BadElement as error:
                raise UnusableFile(
                    Reason.SYNTAX_MISMATCH, f"{describe(error.tag)} at byte {error.at}: {error.what}"
                ) from None
        else:
            pos = start + length
    if sop_class is not None and sop_instance is not None:
        return (sop_class, sop_instance, study, series), pos if plain else begin
    if passed or (whole and pos == available):
        if first_group == 4:
            raise UnusableFile(Reason.DICOMDIR, "a media directory (DICOMDIR), not an instance")
        checked_uids(sop_class, sop_instance, study, series)
    want(max(pos, available) + 8, whole)


def _skim(data: bytes, pos: int, implicit: bool) -> int:
    """The position, from `pos` on, of the first element of group 0020 or later, of a group that belongs into no data
    set, or that is not plain to step over.

    Half of an inventory's time goes into the fifty elements between the SOP and the study UID.
    """
    last = len(data) - 12
    if implicit:
        unpack = _UNPACK_IMPLICIT
        while pos <= last:
            group, length = unpack(data, pos)
            if not 2 < group < 0x20 or length == UNDEFINED:
                break
            pos += 8 + length
        return pos
    unpack = _UNPACK_EXPLICIT
    while pos <= last:
        group, vr, length = unpack(data, pos)
        if not 2 < group < 0x20:
            break
        if vr in _SHORT:
            pos += 8 + length
        else:
            length = _UNPACK_LENGTH(data, pos + 8)[0]
            if vr not in _SIZES or length == UNDEFINED:
                break
            pos += 12 + length
    return pos


def _nothing(pos: int) -> None:
    """The source of further bytes where there are no more than those at hand."""
    return None


def uid(value: bytes | None, name: str) -> str:
    """The UID in `value`; raises UnusableFile "no uid" for none and "bad uid" for what no peer could take."""
    text = (value or b"").rstrip(BLANKS).decode("latin-1")
    if not text:
        raise UnusableFile(Reason.NO_UID, f"{name} is empty")
    if not _UID.fullmatch(text):
        raise UnusableFile(Reason.BAD_UID, f"{name} is {text[:200]!r}")
    return text


def is_uid(text: str) -> bool:
    """Whether a peer could take this for a UID, lawful or not."""
    return _UID.fullmatch(text) is not None


def _soft_uid(value: bytes | None) -> str | None:
    """The UID in `value` for ordering and display, None where there is none worth the name."""
    text = (value or b"").rstrip(BLANKS).decode("latin-1")
    return text if _UID.fullmatch(text) else None

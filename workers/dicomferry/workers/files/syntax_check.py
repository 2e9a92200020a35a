"""Is a data set in the transfer syntax that its file declares? Asked where the meta group is known to be stale.

Tools that edit or convert a data set and leave the meta group behind leave the Transfer Syntax UID (0002,0010) behind
with it. The first element is looked at for every file; here all of them are, and the compressed pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.files.data_set import DEFLATED, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT, IMPLICIT_LE, is_encapsulated
from dicomferry.workers.files.elements import (
    HEADER_SIZES,
    UNDEFINED,
    UNPACK_LENGTH,
    BadElement,
    DataEnded,
    Refill,
    walk,
)
from dicomferry.workers.files.top_level import Element, elements

_PIXEL_DATA = 0x7FE00010
_ITEM = b"\xfe\xff\x00\xe0"

_JPEG, _LS, _J2K, _RLE, _XL = "JPEG", "JPEG-LS", "JPEG 2000", "RLE", "JPEG XL"
# By the last number of 1.2.840.10008.1.2.4.N; of the others (video) the first bytes tell nothing that is sure.
_FAMILIES = {
    **dict.fromkeys(range(50, 71), _JPEG),
    **dict.fromkeys((80, 81), _LS),
    **dict.fromkeys((90, 91, 92, 93, 201, 202, 203), _J2K),
    **dict.fromkeys((110, 111, 112), _XL),
}
# The frame header of the JPEG process (ITU-T T.81, table B.1) that belongs to a syntax, where it is one alone.
_PROCESSES = {50: (0xC0,), 51: (0xC0, 0xC1), 57: (0xC3,), 70: (0xC3,)}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check(reader: Callable[[], Refill], start: int, syntax: str, *, size: int) -> None:
    """Raise UnusableFile "syntax mismatch" where the data set from `start` on is in another syntax than `syntax`, or
    may be; `reader` gives a new way to read the file, whose length in bytes is `size`.
    """
    if syntax in DEFLATED:
        return  # nothing else inflates and is walked to its end
    implicit, big = syntax in IMPLICIT, syntax == EXPLICIT_BE
    found: Element | None = None
    last = 0
    try:
        for element in elements(reader(), start, size=size, implicit=implicit, big=big):
            if not implicit and element.vr not in HEADER_SIZES[big] and element.tag >> 16 != 0xFFFE:
                raise _refused(syntax, "an unknown value representation", element)
            if implicit and element.tag < last:
                raise _refused(syntax, "elements out of order", element)
            last = element.tag
            found = element if element.tag == _PIXEL_DATA else found
    except BadElement:
        pass  # the check of the whole file says so
    except DataEnded as error:
        # Where a file is cut off, the element that it ends in is one that may come there.
        if error.tag is not None and _is_unlikely(error.tag, last, (reader()(error.at) or b"")[4:6], implicit, big):
            raise UnusableFile(
                Reason.SYNTAX_MISMATCH,
                f"the meta group is stale, and against {syntax} no element is at byte {error.at}",
            ) from None
    other = next((name for name in (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE) if _fits(reader(), start, name, size)), None)
    own = EXPLICIT_LE if not implicit and not big else syntax
    if other is not None and not _fits(reader(), start, own, size):
        raise UnusableFile(
            Reason.SYNTAX_MISMATCH, f"the meta group is stale: it declares {syntax}, and the data set is in {other}"
        )
    if found is not None and found.length == UNDEFINED and is_encapsulated(syntax):
        _check_frame(reader(), found, syntax)


def _refused(syntax: str, what: str, element: Element) -> UnusableFile:
    tag = f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
    return UnusableFile(
        Reason.SYNTAX_MISMATCH, f"the meta group is stale, and against {syntax} {tag} at byte {element.at} shows {what}"
    )


def _is_unlikely(tag: int, last: int, letters: bytes, implicit: bool, big: bool) -> bool:
    """Whether what reads as an element with this tag behind `last` is none of this syntax."""
    from pydicom.datadict import dictionary_has_tag

    known = int.from_bytes(letters, "big" if big else "little") in HEADER_SIZES[big]
    return tag <= last or known is implicit or ((tag >> 16) % 2 == 0 and not dictionary_has_tag(tag))


def _fits(refill: Refill, start: int, syntax: str, size: int) -> bool:
    try:
        walk(b"", start, refill, start, size=size, implicit=syntax in IMPLICIT, big=syntax == EXPLICIT_BE, letters=True)
    except (DataEnded, BadElement):
        return False
    return True


def _check_frame(refill: Refill, pixels: Element, syntax: str) -> None:
    """Compare the first fragment behind the offset table (PS3.5 A.4) with what the syntax says of it."""
    pos = pixels.start
    fragment = b""
    for _ in range(2):
        head = (refill(pos) or b"")[:8]
        if len(head) < 8 or head[:4] != _ITEM:
            return
        length = UNPACK_LENGTH[False](head, 4)[0]
        fragment = (refill(pos + 8) or b"")[: min(length, 4096)]
        pos += 8 + length
    number = int(syntax.rpartition(".")[2]) if syntax.startswith("1.2.840.10008.1.2.4.") else 0
    declared = _RLE if syntax == "1.2.840.10008.1.2.5" else _FAMILIES.get(number)
    family, process = _of(fragment)
    wrong = declared is not None and family != declared
    if wrong or (process and number in _PROCESSES and process not in _PROCESSES[number]):
        seen = (family or "something else") + (f" with frame header {process:02X}" if process else "")
        raise UnusableFile(
            Reason.SYNTAX_MISMATCH, f"the meta group is stale: it declares {syntax}, and the first fragment is {seen}"
        )


def _of(fragment: bytes) -> tuple[str | None, int]:
    """What a fragment's first bytes are, and of JPEG the frame header's marker, 0 where it is not among them."""
    if fragment.startswith(b"\xff\x4f\xff\x51") or fragment[4:8] == b"jP  ":
        return _J2K, 0
    if fragment.startswith(b"\xff\x0a") or fragment[4:8] == b"JXL ":
        return _XL, 0
    if fragment.startswith(b"\xff\xd8"):
        return _of_jpeg(fragment)
    if len(fragment) >= 64 and 1 <= int.from_bytes(fragment[:4], "little") <= 15 and fragment[4:8] == b"\x40\0\0\0":
        return _RLE, 0
    return None, 0


def _of_jpeg(fragment: bytes) -> tuple[str, int]:
    pos = 2
    while pos + 4 <= len(fragment) and fragment[pos] == 0xFF:
        marker = fragment[pos + 1]
        if marker == 0xF7:
            return _LS, 0
        if marker in _FRAMES:
            return _JPEG, marker
        pos += 1 if marker == 0xFF else 2 + int.from_bytes(fragment[pos + 2 : pos + 4], "big")
    return _JPEG, 0

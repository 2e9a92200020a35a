"""A data set in Implicit VR Little Endian as gdcmscu prints it, but for text, which is decoded. Pure.

A line is `(gggg,eeee) ?? (VR) VALUE`, then in column 66 `# LENGTH,VM NAME`. What cannot be read ends the record.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from dicomferry.models.rules.query import CHARACTER_SET
from dicomferry.workers.dimse.characters import CharacterSet, character_set, known
from dicomferry.workers.files.elements import UNDEFINED

_WIDTH = 57
_GAP = 8
_MOST_BYTES = 32
"""Bytes of a binary value that are shown."""
_MOST_KNOWN = 64
"""Bytes of a value up to which its line is kept, for the next answer that has it."""
_MOST_NESTED = 16

_HEAD = struct.Struct("<HHL")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_NUMBERS: Mapping[str, str] = {
    "US": "H",
    "SS": "h",
    "UL": "L",
    "SL": "l",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "OF": "f",
    "FD": "d",
    "OD": "d",
}
_CHOSEN: Mapping[str, str] = {"OB or OW": " => UN", "US or SS": " => US"}
"""What stands for a VR that depends on elements which no answer has."""
_BYTES = frozenset(["OB", "OW", "OL", "OV", "OB or OW", "US or OW", "US or SS or OW"])
_WORDS = frozenset(["OB", "OW", "OF", "OD", "OL", "OV", "US or OW", "US or SS or OW"])
"""The VRs whose values are not counted."""
_ONE = frozenset(["LT", "ST", "UT", "UR", "UC"])
_COUNTS = frozenset([1, 2, 3, 4, 5, 6, 8, 9, 16, 24, 32])
"""The numbers of values that gdcmscu has a name for; all others are 1-n."""


@dataclass(frozen=True)
class _DictionaryEntry:
    """What the data dictionary says of a tag. `vr` is empty for a tag that is not in it."""

    vr: str
    vm: str
    name: str


@lru_cache(maxsize=4096)
def _entry(tag: int) -> _DictionaryEntry:
    from pydicom.datadict import dictionary_description, dictionary_VM, dictionary_VR

    if not tag & 0xFFFF:
        return _DictionaryEntry("UL", "1", "Generic Group Length")
    if tag >> 16 & 1:
        if 0x10 <= tag & 0xFFFF <= 0xFF:
            return _DictionaryEntry("LO", "1", "Private Creator")
    else:
        try:
            return _DictionaryEntry(dictionary_VR(tag), dictionary_VM(tag), dictionary_description(tag))
        except KeyError:
            pass
    return _DictionaryEntry("", "?", "GDCM:UNKNOWN")


def text(data: bytes, charset: str) -> str:
    """The lines of a data set, each with its end; `charset` is the defined term where (0008,0005) is not there."""
    return "".join(f"{line}\n" for line in _lines(data, 0, len(data), known(charset), 0))


def _lines(data: bytes, at: int, end: int, charset: CharacterSet, depth: int) -> Iterator[str]:
    indent = "    " * depth
    creators: set[int] = set()
    while at + _HEAD.size <= end:
        group, element, length = _HEAD.unpack_from(data, at)
        tag, at = group << 16 | element, at + _HEAD.size
        entry = _entry(tag)
        if (entry.vr == "SQ" or length == UNDEFINED) and depth < _MOST_NESTED:
            stop = _end_of_sequence(data, at, end) if length == UNDEFINED else min(end, at + length)
            yield _sequence_line(indent, tag, entry, length)
            yield from _items(data, at, stop, charset, depth)
            if length == UNDEFINED:
                yield f"{indent}(fffe,e0dd)"
            at = stop + _HEAD.size * (length == UNDEFINED)
            continue
        raw = data[at : min(end, at + length)]
        at += length
        if tag == CHARACTER_SET:
            charset = character_set(raw.decode("latin-1").strip(" \0")) or charset
        if group & 1 and element <= 0xFF and raw.strip(b" \0"):
            creators.add(tag)
        if not entry.vr and group & 1 and group << 16 | element >> 8 not in creators:
            entry = _DictionaryEntry("", "?", "Private Element With Empty Private Creator")
        line = _known_line if length <= _MOST_KNOWN else _line
        yield line(indent, tag, entry, raw, charset)


def _items(data: bytes, at: int, end: int, charset: CharacterSet, depth: int) -> Iterator[str]:
    indent = "    " * depth + "  "
    while at + _HEAD.size <= end:
        group, element, length = _HEAD.unpack_from(data, at)
        if group << 16 | element != _ITEM:
            return
        at += _HEAD.size
        undefined = length == UNDEFINED
        stop = _end_of_item(data, at, end) if undefined else min(end, at + length)
        yield f"{indent}(fffe,e000) na (Item with {'undefined' if undefined else 'defined'} length)"
        yield from _lines(data, at, stop, charset, depth + 1)
        if undefined:
            yield f"{indent}(fffe,e00d)"
        at = stop + _HEAD.size * undefined


def _end_of_item(data: bytes, at: int, end: int) -> int:
    """Where the item delimiter stands; `end` where there is none."""
    while at + _HEAD.size <= end:
        group, element, length = _HEAD.unpack_from(data, at)
        if group << 16 | element == _ITEM_END:
            return at
        at += _HEAD.size
        at = _end_of_sequence(data, at, end) + _HEAD.size if length == UNDEFINED else at + length
    return end


def _end_of_sequence(data: bytes, at: int, end: int) -> int:
    """Where the sequence delimiter stands; `end` where there is none."""
    while at + _HEAD.size <= end:
        group, element, length = _HEAD.unpack_from(data, at)
        if group << 16 | element != _ITEM:
            return at if group << 16 | element == _SEQUENCE_END else end
        at += _HEAD.size
        at = _end_of_item(data, at, end) + _HEAD.size if length == UNDEFINED else at + length
    return end


@lru_cache(maxsize=4096)
def _start(indent: str, tag: int, vr: str) -> str:
    return f"{indent}({tag >> 16:04x},{tag & 0xFFFF:04x}) ??" + (f" ({vr})" if vr else "")


def _rest(text: str, length: str, entry: _DictionaryEntry, count: str) -> str:
    return f"{text:<{_WIDTH}}{'':{_GAP}} # {length},{entry.vm}{count} {entry.name}"


def _sequence_line(indent: str, tag: int, entry: _DictionaryEntry, length: int) -> str:
    start = _start(indent, tag, "SQ")
    if length == UNDEFINED:
        return _rest(f"{start} (Sequence with undefined length)", "u/l", entry, "")
    return _rest(start if length else f"{start} (Sequence with defined length)", str(length), entry, "")


def _line(indent: str, tag: int, entry: _DictionaryEntry, raw: bytes, charset: CharacterSet) -> str:
    length = f"{len(raw)} ({len(raw) + 1})" if len(raw) % 2 else str(len(raw))
    shown, count = _value(entry.vr, raw, charset) if raw else ("(no value)", None)
    vr = entry.vr + _CHOSEN.get(entry.vr, "")
    counted = ""
    if not entry.vr:
        counted = " (1) "
    elif count is not None and not _fits(count, entry.vm):
        counted = f" ({count if count in _COUNTS else '1-n'}) "
    return _rest(f"{_start(indent, tag, vr)} {shown}", length, entry, counted)


# The answers of an archive repeat their days, modalities, names and numbers.
_known_line = lru_cache(maxsize=16_384)(_line)


def _value(vr: str, raw: bytes, charset: CharacterSet) -> tuple[str, int | None]:
    """The value as it is shown, and the number of values where that is to be compared with the dictionary's."""
    numbers = _NUMBERS.get("US" if vr == "US or SS" else vr)
    if numbers:
        return _numbers(vr, raw, "<" + numbers)
    if vr == "AT" and len(raw) % 4 == 0:
        tags = [f"({group:04x},{element:04x})" for group, element in struct.iter_unpack("<HH", raw)]
        return "\\".join(tags), len(tags)
    if vr in _BYTES:
        return _hexadecimal(raw), len(raw) if vr == "OB or OW" else len(raw) // 4 if vr == "OL" else None
    if vr in ("", "UN"):
        return (f"[{raw.decode()}]" if raw.isascii() and raw.decode().isprintable() else _hexadecimal(raw)), None
    decoded, _ = charset.decode(raw.removesuffix(b"\0"), name=vr == "PN")
    count = 1
    if "\\" in decoded and vr not in _ONE:
        count = max(1, sum(map(bool, map(str.strip, decoded.split("\\")))))
    # Nearly all of it is; what is not is looked at character by character.
    return f"[{decoded if decoded.isprintable() else ''.join(map(_visible, decoded))}]", count


def _numbers(vr: str, raw: bytes, format: str) -> tuple[str, int | None]:
    if len(raw) % struct.calcsize(format):
        return f"(VR={vr} is incompatible with length)", None
    numbers = [number for (number,) in struct.iter_unpack(format, raw)]
    write: Callable[[float], str] = "{:.6g}".format if format[-1] in "fd" else str
    return "\\".join(map(write, numbers)), None if vr in _WORDS else len(numbers)


def _hexadecimal(raw: bytes) -> str:
    return raw[:_MOST_BYTES].hex("\\")


def _visible(char: str) -> str:
    """A dot for what moves the cursor or could not be decoded; letters and marks of any script are shown."""
    return "." if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp") else char


@lru_cache(maxsize=4096)
def _fits(count: int, vm: str) -> bool:
    """Whether this number of values is what the dictionary's VM allows, such as 1, 1-3, 2-n or 3-3n."""
    low, _, high = vm.partition("-")
    if not low.isdigit() or count < int(low):
        return not low.isdigit()
    if high.endswith("n"):
        return not high[:-1] or count % int(high[:-1]) == 0
    return count <= int(high or low)

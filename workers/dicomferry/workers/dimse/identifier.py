"""Identifiers (PS3.4 C.4.1.1.3): keys to the bytes of a data set, and answers to the DICOM JSON model (PS3.18 F.2).

A codec of its own: a general data set costs a millisecond an answer, complains of values that archives do hold, and
loses what it cannot decode.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dicomferry.models.rules import query
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import Key
from dicomferry.workers.dimse import characters
from dicomferry.workers.dimse.characters import CharacterSet
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE
from dicomferry.workers.files.elements import UNDEFINED

Attributes = dict[str, Any]
"""The DICOM JSON model: eight digits -> {"vr": ..., "Value": [...]}."""

_LONG = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_SHORT = (
    "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI",
    "UL", "US",
)  # fmt: skip
_KNOWN = _LONG.union(_SHORT)
_BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
_WHOLE = frozenset(["LT", "ST", "UT", "UR"])
"""Text in which a backslash is a backslash."""
_IN_CHARSET = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_PLAIN = _KNOWN - _BINARY - _WHOLE - _NUMBERS.keys() - {"AT", "SQ", "PN", "IS", "DS"}
"""Text whose values stand for themselves."""
_VRS = {vr.encode(): vr for vr in _KNOWN}
_MOST_NESTED = 16
_MOST_FLAW = 200

_SHORT_HEAD = struct.Struct("<HH2sH")
_IMPLICIT_HEAD = struct.Struct("<HHL")
_LENGTH = struct.Struct("<L")


@lru_cache(maxsize=4096)
def _name(tag: int) -> str:
    """A tag as the DICOM JSON model names it."""
    return f"{tag:08X}"


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """The dictionary's VR of a tag, the first one where it leaves a choice; LO for private creators, else UN."""
    from pydicom.datadict import dictionary_VR

    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    try:
        vr = dictionary_VR(tag).split(" ")[0]
    except KeyError:
        return "UN"
    return vr if vr in _KNOWN else "UN"


# --- encoding -------------------------------------------------------------------------------------------------------

_Node = dict[int, "bytes | list[_Node]"]


def encode(keys: Iterable[Key], transfer_syntax: str, *, charset: str | None = None, level: str | None = None) -> bytes:
    """The data set of these keys in Implicit or Explicit VR Little Endian, elements in ascending order.

    `level` becomes (0008,0052). Text that is not ASCII is encoded in `charset`, the remote's, with (0008,0005); a pure
    ASCII query has no such element. Raises UsageError for a value that cannot be encoded.
    """
    keys = list(keys)
    encoding = characters.known(charset)
    root: _Node = {}
    if level:
        root[query.LEVEL] = _padded(level.upper().encode(), b" ")
    if not all(value.isascii() for _, value in keys):
        root[query.CHARACTER_SET] = _padded(encoding.terms.encode(), b" ")
    for path, value in keys:
        *sequences, (tag, _) = query.steps_of(path)
        node = root
        for sequence, number in sequences:
            items = node.setdefault(sequence, [])
            if not isinstance(items, list):
                raise UsageError(f"key {path}: {sequence:08X} is asked for as a whole as well")
            if number > len(items):
                raise UsageError(f"key {path}: item {number} without item {len(items)}")
            if number == len(items):
                items.append({})
            node = items[number]
        vr = vr_of(tag)
        node[tag] = [] if vr == "SQ" else _value(tag, vr, value, encoding)
    return _data_set(root, explicit=transfer_syntax != IMPLICIT_LE)


def _value(tag: int, vr: str, text: str, encoding: CharacterSet) -> bytes:
    if vr in _IN_CHARSET or vr == "UN":
        return _padded(encoding.encode(text, name=vr == "PN"), b" ")
    if vr in _NUMBERS or vr == "AT":
        try:
            if vr == "AT":
                numbers = [int(part.replace(",", "").strip("()"), 16) for part in text.split("\\") if part]
                return b"".join(struct.pack("<HH", number >> 16, number & 0xFFFF) for number in numbers)
            kind = float if vr in ("FL", "FD") else int
            return b"".join(struct.pack("<" + _NUMBERS[vr], kind(part)) for part in text.split("\\") if part)
        except (ValueError, struct.error, OverflowError):
            raise UsageError(f"key {tag:08X}: {text!r} is no value of VR {vr}") from None
    if vr in _BINARY and text:
        raise UsageError(f"key {tag:08X}: a value of VR {vr} cannot be matched")
    if not text.isascii():
        raise UsageError(f"key {tag:08X}: a value of VR {vr} is plain ASCII, and {text!r} is not")
    return _padded(text.encode(), b"\0" if vr == "UI" else b" ")


def _padded(raw: bytes, padding: bytes) -> bytes:
    return raw + padding if len(raw) % 2 else raw


def _data_set(node: _Node, *, explicit: bool) -> bytes:
    parts: list[bytes] = []
    for tag in sorted(node):
        value = node[tag]
        vr = "SQ" if isinstance(value, list) else vr_of(tag)
        if isinstance(value, list):
            items = (_data_set(item, explicit=explicit) for item in value)
            value = b"".join(_IMPLICIT_HEAD.pack(0xFFFE, 0xE000, len(item)) + item for item in items)
        group, element = tag >> 16, tag & 0xFFFF
        if not explicit:
            parts.append(_IMPLICIT_HEAD.pack(group, element, len(value)))
        elif vr in _LONG:
            parts.append(_SHORT_HEAD.pack(group, element, vr.encode(), 0) + _LENGTH.pack(len(value)))
        elif len(value) > 0xFFFF:
            raise UsageError(f"key {tag:08X}: a value of {len(value)} bytes is too long")
        else:
            parts.append(_SHORT_HEAD.pack(group, element, vr.encode(), len(value)))
        parts.append(value)
    return b"".join(parts)


# --- decoding -------------------------------------------------------------------------------------------------------


@dataclass
class DecodedIdentifier:
    """A decoded identifier. `character_set` is the one that its text was read in, `flaw` what could not be read.

    `unreadable` are the tags whose text may not be what was meant.
    """

    attributes: Attributes
    character_set: str
    flaw: str | None = None
    unreadable: frozenset[int] = frozenset()

    def first(self, tag: int) -> str | None:
        """The first value of an element as text; None where it has none."""
        return first(self.attributes, tag)

    def values(self, tag: int) -> list[str]:
        """The values of an element as text, without empty ones."""
        found = self.attributes.get(_name(tag), {}).get("Value", ())
        return [text for value in found if value is not None and (text := str(value).strip())]


def first(attributes: Mapping[str, Any], tag: int) -> str | None:
    """The first value of an element of the DICOM JSON model as text; None where it has none."""
    element = attributes.get(_name(tag))
    values = element.get("Value") if element else None
    if not values or values[0] is None:
        return None
    value = values[0]
    if type(value) is str:
        return value
    return str(value.get("Alphabetic", "")) if isinstance(value, Mapping) else str(value)


def decode(data: bytes, transfer_syntax: str, *, charset: str | None = None) -> DecodedIdentifier:
    """The attributes of an answer, whatever it holds; never raises.

    Without (0008,0005) its text is read in `charset`, the remote's. Text that cannot be decoded has \\xNN for the bytes
    that are wrong, numbers that are none stay text, and of what ends too early the part before is kept.
    """
    reader = _ElementReader(data, explicit=transfer_syntax != IMPLICIT_LE)
    declared = characters.known(charset)
    attributes, used = reader.data_set(0, len(data), declared, 0)
    flaw = "; ".join(reader.flaws)[:_MOST_FLAW] or None
    return DecodedIdentifier(attributes, used.terms, flaw, frozenset(reader.unreadable))


@dataclass
class _ElementReader:
    data: bytes
    explicit: bool
    flaws: list[str] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    guessed: bool = False
    """Whether the answer names a character set that is not known."""
    position: int = 0

    def data_set(
        self, start: int, end: int, charset: CharacterSet, depth: int, *, explicit: bool | None = None
    ) -> tuple[Attributes, CharacterSet]:
        """The elements from `start` to `end`, or to an item delimiter; `position` is behind them then."""
        data = self.data
        explicit = self.explicit if explicit is None else explicit
        found: Attributes = {}
        at = start
        while at + 8 <= end:
            group, element, letters, length = _SHORT_HEAD.unpack_from(data, at)
            tag = group << 16 | element
            if tag == 0xFFFEE00D:
                at += 8
                break
            vr = _VRS.get(letters, "") if explicit and group != 0xFFFE else ""
            if vr:
                at += 8
                if vr in _LONG:
                    if at + 4 > end:
                        self.flaws.append("ends inside an element")
                        break
                    length = _LENGTH.unpack_from(data, at)[0]
                    at += 4
            else:
                vr = vr_of(tag)
                length = _LENGTH.unpack_from(data, at + 4)[0]
                at += 8
            if length == UNDEFINED or vr == "SQ":
                stop = end if length == UNDEFINED else min(end, at + length)
                # Inside of UN everything is Implicit VR (PS3.5 6.2.2).
                inner = explicit and vr != "UN"
                items = self.items(at, stop, charset, depth + 1, length == UNDEFINED, inner)
                at = self.position if length == UNDEFINED else stop
                found[f"{tag:08X}"] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
                continue
            if at + length > end:
                self.flaws.append(f"{tag:08X} ends too early")
                length = end - at
            raw = data[at : at + length]
            at += length
            if tag == query.CHARACTER_SET:
                charset = self.declared(raw, charset)
            elif element:  # a group's length says nothing
                if vr == "UN":
                    vr = vr_of(tag)
                found[_name(tag)] = self.value(tag, vr, raw, charset)
        else:
            if data[at:end].strip(b"\0"):
                self.flaws.append("ends inside an element")
            at = end
        self.position = at
        return found, charset

    def items(
        self, start: int, end: int, charset: CharacterSet, depth: int, delimited: bool, explicit: bool
    ) -> list[Attributes]:
        """The items of a sequence; `position` is behind it then."""
        found: list[Attributes] = []
        at = start
        while at + 8 <= end:
            group, element, length = _IMPLICIT_HEAD.unpack_from(self.data, at)
            at += 8
            if group != 0xFFFE or element != 0xE000 or depth > _MOST_NESTED:
                if element != 0xE0DD or group != 0xFFFE:
                    self.flaws.append("a sequence that cannot be read")
                    at = end
                break
            stop = end if length == UNDEFINED else min(end, at + length)
            found.append(self.data_set(at, stop, charset, depth, explicit=explicit)[0])
            at = self.position if length == UNDEFINED else stop
        self.position = at if delimited else end
        return found

    def declared(self, raw: bytes, otherwise: CharacterSet) -> CharacterSet:
        """The character set of an element (0008,0005)."""
        terms = raw.decode("latin-1").strip(" \0")
        if not terms:
            return otherwise
        found = characters.character_set(terms)
        if found is None:
            self.flaws.append(f"character set {terms!a} is not known")
            self.guessed = True
        return found or otherwise

    def value(self, tag: int, vr: str, raw: bytes, charset: CharacterSet) -> Attributes:
        """One element of the DICOM JSON model."""
        # Most of them by far: one value of plain text.
        if vr in _PLAIN and raw.isascii() and b"\\" not in raw and b"\x1b" not in raw:
            text = raw.decode().strip(" \0")
            return {"vr": vr, "Value": [text]} if text else {"vr": vr}
        if vr in _NUMBERS:
            values: list[Any] = [
                number if number == number and abs(number) != float("inf") else str(number)
                for (number,) in struct.iter_unpack("<" + _NUMBERS[vr], raw[: len(raw) - len(raw) % _size(vr)])
            ]
        elif vr == "AT":
            values = [f"{g:04X}{e:04X}" for g, e in struct.iter_unpack("<HH", raw[: len(raw) - len(raw) % 4])]
        elif vr in _BINARY:
            return {"vr": vr, "InlineBinary": base64.b64encode(raw).decode()} if raw else {"vr": vr}
        else:
            values = self.text(tag, vr, raw, charset)
        return {"vr": vr, "Value": values} if values else {"vr": vr}

    def text(self, tag: int, vr: str, raw: bytes, charset: CharacterSet) -> list[Any]:
        """The values of an element of text, padding taken off."""
        raw = raw.rstrip(b" \0")
        if not raw:
            return []
        if raw.isascii() and b"\x1b" not in raw:
            return _values(vr, raw.decode())
        text, whole = charset.decode(raw, name=vr == "PN")
        if self.guessed or not whole:
            self.unreadable.add(tag)
        if whole:
            return _values(vr, text)
        self.flaws.append(f"{tag:08X} is not in {charset.terms or 'ASCII'}")
        return [_shown(value) for value in _values(vr, text)]


def _values(vr: str, text: str) -> list[Any]:
    if vr in _WHOLE:
        return [text]
    parts = text.split("\\") if "\\" in text else [text]
    if vr == "PN":
        return [_person_name(part) for part in parts]
    stripped = [part.strip(" \0") for part in parts]
    if vr in ("IS", "DS"):
        return [_number(part, vr) if part else None for part in stripped]
    return [part or None for part in stripped]


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: characters.shown(group) for name, group in value.items()}
    return characters.shown(value) if isinstance(value, str) else value


def _size(vr: str) -> int:
    return struct.calcsize(_NUMBERS[vr])


def _person_name(text: str) -> Attributes | None:
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {name: group.rstrip(" \0") for name, group in groups if group.rstrip(" \0")} or None


def _number(text: str, vr: str) -> int | float | str:
    """A number where it is one that JSON has."""
    try:
        number = int(text) if vr == "IS" else float(text)
    except ValueError:
        return text
    return text if "_" in text or number != number or abs(number) == float("inf") else number


__all__ = ["EXPLICIT_LE", "IMPLICIT_LE", "Attributes", "DecodedIdentifier", "decode", "encode", "first", "vr_of"]

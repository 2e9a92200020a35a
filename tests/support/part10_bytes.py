"""DICOM files made element by element, so that each of their bytes can be wrong."""

from __future__ import annotations

import struct
import zlib

EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
MR = "1.2.840.10008.5.1.4.1.1.4"
UNDEFINED = 0xFFFFFFFF
LONG_FORM = ("OB", "OD", "OF", "OW", "SQ", "UN", "UT")


def element(tag: int, vr: str, value: bytes, syntax: str = EXPLICIT_LE, length: int | None = None) -> bytes:
    """One data element; `length` lies about its value where it is given."""
    order = ">" if syntax == EXPLICIT_BE else "<"
    length = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT_LE or tag >> 16 == 0xFFFE:
        head += struct.pack(order + "I", length)
    elif vr in LONG_FORM:
        head += vr.encode() + struct.pack(order + "HI", 0, length)
    else:
        head += vr.encode() + struct.pack(order + "H", length)
    return head + value


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def meta(syntax: str | None = EXPLICIT_LE, sop_class: str = MR, instance: str = "1.2.3", length: int = 0) -> bytes:
    """A meta group; `length` is added to its group length."""
    body = element(0x00020001, "OB", b"\0\1")
    body += element(0x00020002, "UI", uid(sop_class)) if sop_class else b""
    body += element(0x00020003, "UI", uid(instance)) if instance else b""
    body += element(0x00020010, "UI", uid(syntax)) if syntax else b""
    return element(0x00020000, "UL", struct.pack("<I", len(body) + length)) + body


def elements(syntax: str = EXPLICIT_LE, instance: str = "1.2.3", pixels: int = 64) -> list[bytes]:
    """The elements of a small MR object with nested sequences of either length form."""
    order = EXPLICIT_LE if syntax == DEFLATED_LE else syntax
    inner = element(0x00081155, "UI", uid("1.9"), order)
    open_item = element(0xFFFEE000, "", inner, order, UNDEFINED) + element(0xFFFEE00D, "", b"", order)
    item = element(0xFFFEE000, "", inner, order)
    nested = element(0x00081199, "SQ", open_item, order, UNDEFINED) + element(0xFFFEE0DD, "", b"", order)
    nested_item = element(0xFFFEE000, "", nested, order, UNDEFINED) + element(0xFFFEE00D, "", b"", order)
    return [
        element(0x00080016, "UI", uid(MR), order),
        element(0x00080018, "UI", uid(instance), order),
        element(0x00081115, "SQ", item, order),
        element(0x00081140, "SQ", item + nested_item, order, UNDEFINED) + element(0xFFFEE0DD, "", b"", order),
        element(0x00100010, "PN", b"TEST", order),
        element(0x0020000D, "UI", uid("1.2.3.4"), order),
        element(0x0020000E, "UI", uid("1.2.3.5"), order),
        element(0x7FE00010, "OW", b"\1" * pixels, order),
    ]


def part10(syntax: str = EXPLICIT_LE, body: bytes | None = None) -> bytes:
    body = b"".join(elements(syntax)) if body is None else body
    if syntax == DEFLATED_LE:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
    return b"\0" * 128 + b"DICM" + meta(syntax) + body


def encapsulated(*fragments: bytes, delimiter: bool = True) -> bytes:
    """Encapsulated pixel data (PS3.5 A.4) with an empty offset table."""
    items = b"".join(element(0xFFFEE000, "", fragment) for fragment in (b"", *fragments))
    end = element(0xFFFEE0DD, "", b"") if delimiter else b""
    return element(0x7FE00010, "OB", items + end, length=UNDEFINED)

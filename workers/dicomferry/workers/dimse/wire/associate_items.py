"""What the A-ASSOCIATE PDUs have in common, whoever asks: their variable items (PS3.8 9.3.2, PS3.7 D.3.3) and what we
say of ourselves in them. Pure.

The codec is our own: pynetdicom's refuses a whole PDU for one UID that breaks PS3.5 9.1, needs 20 ms for 128
contexts, and takes longer to import than an echo takes as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dicomferry.models.rules.errors import ProtocolViolation

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

# From a random UUID made once for this product (PS3.5 B.2); the version name has at most 16 characters (PS3.7
# D.3.3.2).
IMPLEMENTATION_CLASS_UID = "2.25.251161368073582324203139574406959787422"
IMPLEMENTATION_VERSION_NAME = "DICOMFERRY_1"

OUR_MAX_PDU = 128 * 1024
# What a peer that names no maximum can be trusted to take; PS3.7 D.3.3.1 makes the item mandatory.
ASSUMED_MAX_PDU = 16 * 1024

# Types of items (PS3.8 9.3.2, PS3.7 D.3.3).
APPLICATION_CONTEXT_ITEM = 0x10
PROPOSED_CONTEXT = 0x20
ANSWERED_CONTEXT = 0x21
ABSTRACT_SYNTAX = 0x30
TRANSFER_SYNTAX = 0x40
USER_INFORMATION = 0x50
MAXIMUM_LENGTH = 0x51
IMPLEMENTATION_CLASS = 0x52
ROLE_SELECTION = 0x54
IMPLEMENTATION_VERSION = 0x55

FIXED = struct.Struct(">HH16s16s32s")
"""Protocol version, reserved, called and calling AE title, reserved: what comes before the items."""
_HEAD = struct.Struct(">BxH")
_PDU = struct.Struct(">BxL")


def pdu(kind: int, body: bytes) -> bytes:
    """A whole PDU of this type."""
    return _PDU.pack(kind, len(body)) + body


def item(kind: int, value: bytes) -> bytes:
    """One variable item."""
    return _HEAD.pack(kind, len(value)) + value


def uid(kind: int, value: str) -> bytes:
    """An item that is a UID, without padding (PS3.8 annex F)."""
    return item(kind, value.encode("latin-1"))


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of the items in `data`; raises ProtocolViolation where one does not fit."""
    offset = 0
    while offset < len(data):
        if offset + 4 > len(data):
            raise ProtocolViolation("A-ASSOCIATE ends inside an item's head")
        kind, length = _HEAD.unpack_from(data, offset)
        offset += 4
        if offset + length > len(data):
            raise ProtocolViolation(f"an item of type 0x{kind:02X} and length {length} does not fit A-ASSOCIATE")
        yield kind, data[offset : offset + length]
        offset += length


def text(raw: bytes) -> str:
    """A UID, a name or an AE title without what it is padded with."""
    return raw.strip(b" \0").decode("latin-1")


def user_information(max_pdu: int, *others: bytes) -> bytes:
    """The item that says what we take and who we are; `others` are further items in it."""
    own = (
        item(MAXIMUM_LENGTH, max_pdu.to_bytes(4)),
        uid(IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID),
        item(IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
    )
    return item(USER_INFORMATION, b"".join((*own, *others)))

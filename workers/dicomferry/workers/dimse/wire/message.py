"""DIMSE messages as values: the command set's codec, and messages put together from P-DATA-TF fragments.

A command set is Implicit VR Little Endian, group 0000 only (PS3.7 6.3.1), a handful of short elements.
Reading and writing it through a general data set costs more time than sending a small image, so it has a
codec of its own here. Elements of other groups in it, which some peers write, are kept apart and change nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from dicomferry.models.rules import peer_text
from dicomferry.models.rules.errors import ProtocolViolation

# Element numbers in group 0000 (PS3.7 E.1).
GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
MOST_COMMENT = 64
"""Characters of an Error Comment, which is an LO (PS3.5 6.2)."""
AFFECTED_SOP_INSTANCE_UID = 0x1000
REMAINING_SUBOPERATIONS = 0x1020
COMPLETED_SUBOPERATIONS = 0x1021
FAILED_SUBOPERATIONS = 0x1022
WARNING_SUBOPERATIONS = 0x1023

# Command Field values (PS3.7 E.1-1).
C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_GET_RQ = 0x0010
C_GET_RSP = 0x8010
C_FIND_RQ = 0x0020
C_FIND_RSP = 0x8020
C_MOVE_RQ = 0x0021
C_MOVE_RSP = 0x8021
C_ECHO_RQ = 0x0030
C_ECHO_RSP = 0x8030
C_CANCEL_RQ = 0x0FFF
REQUESTS = frozenset({C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ})
"""What a remote's limit of requests is about."""

PRIORITY_MEDIUM = 0x0000
PRIORITY_LOW = 0x0002
NO_DATA_SET = 0x0101
DATA_SET_FOLLOWS = 0x0001

# Message control header bits (PS3.8 E.2): the rest of that byte is not to be tested.
IS_COMMAND = 0x01
IS_LAST = 0x02

# An identifier or a command beyond this is no answer but an attack on memory.
MAX_MESSAGE = 64 * 1024 * 1024

_ELEMENT = struct.Struct("<HHL")
_GROUP_LENGTH = struct.Struct("<HHLL")
_PDV = struct.Struct(">LBB")
_PDU_OF_ONE = struct.Struct(">BxLLBB")
_SHORT = struct.Struct("<H")


def text_value(text: str) -> bytes:
    """A UID as command value: padded to even length with NUL (PS3.5 9.1)."""
    raw = text.encode("ascii", "replace")
    return raw + b"\0" if len(raw) % 2 else raw


def number_value(number: int) -> bytes:
    """A US value."""
    return _SHORT.pack(number)


RESPONSE = 0x8000
"""The bit of a Command Field that makes a response of a request (PS3.7 E.1)."""


_NO_STRAYS: Mapping[int, bytes] = MappingProxyType({})


class CommandSet(NamedTuple):
    """A command set: element number in group 0000 -> the value as it is on the wire.

    `strays` are elements of other groups by their tags, which have no place in it (PS3.7 6.3.1).
    """

    values: Mapping[int, bytes]
    strays: Mapping[int, bytes] = _NO_STRAYS

    @classmethod
    def decode(cls, raw: bytes) -> CommandSet:
        """The command set in `raw`; raises ProtocolViolation for an element of group 0000 that leaves its bytes, and
        where there are none of that group.

        Elements of other groups are passed over, with all that follows one that leaves its bytes, and so is padding
        at the end.
        """
        unpack = _ELEMENT.unpack_from
        values: dict[int, bytes] = {}
        strays: dict[int, bytes] = {}
        offset, end = 0, len(raw)
        while offset + 8 <= end:
            group, element, length = unpack(raw, offset)
            start = offset + 8
            offset = start + length
            if group:
                strays[group << 16 | element] = raw[start:offset]
            elif offset > end:
                raise ProtocolViolation(f"command set holds ({group:04X},{element:04X}) with length {length}")
            else:
                values[element] = raw[start:offset]
        if not strays:
            if offset < end and any(raw[offset:]):
                raise ProtocolViolation("command set ends inside an element's head")
            return cls(values)
        if not values:
            raise ProtocolViolation("command set of another group than 0000")
        return cls(values, strays)

    def encode(self) -> bytes:
        """The command set with its group length, elements in ascending order."""
        pack = _ELEMENT.pack
        body = b"".join([pack(0, element, len(value)) + value for element, value in sorted(self.values.items())])
        return _GROUP_LENGTH.pack(0, GROUP_LENGTH, 4, len(body)) + body

    def number(self, element: int) -> int | None:
        """A US value, None where the element is absent or no US."""
        value = self.values.get(element, b"")
        return _SHORT.unpack(value)[0] if len(value) == 2 else None

    def text(self, element: int) -> str | None:
        """A text or UID value without padding, None where it is absent or empty."""
        value = self.values.get(element, b"").strip(b" \0")
        return value.decode("utf-8", "replace") if value else None

    def title(self, element: int) -> str | None:
        """An AE title, None where it is absent or empty."""
        value = self.values.get(element)
        return peer_text.title(value) or None if value else None

    def response(self, field: int, message_id: int, status: int, comment: str = "") -> CommandSet:
        """The response to this request, whose field and message id these are: no data set, the UIDs that it names
        (PS3.7 9.3), and a comment for the log of whoever asked, if there is one (PS3.7 C.5).
        """
        values = {
            COMMAND_FIELD: number_value(field | RESPONSE),
            MESSAGE_ID_BEING_RESPONDED_TO: number_value(message_id),
            COMMAND_DATA_SET_TYPE: number_value(NO_DATA_SET),
            STATUS: number_value(status),
        }
        if comment:
            text = comment[:MOST_COMMENT]
            values[ERROR_COMMENT] = (text + " " * (len(text) % 2)).encode("ascii", "replace")
        for element in (AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID):
            if element in self.values:
                values[element] = self.values[element]
        return CommandSet(values)

    @property
    def is_response(self) -> bool:
        """Whether it answers a request (PS3.7 E.1)."""
        return bool((self.number(COMMAND_FIELD) or 0) & RESPONSE)

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows (PS3.7 9.1: every value but 0101H says so)."""
        return self.number(COMMAND_DATA_SET_TYPE) != NO_DATA_SET


@dataclass(frozen=True)
class Message:
    """A whole DIMSE message; `data` is the data set as received, None where the command announced none."""

    context_id: int
    command: CommandSet
    data: bytes | None


@dataclass
class Assembler:
    """Puts messages together from the bodies of P-DATA-TF PDUs; knows neither sockets nor roles."""

    _context_id: int | None = None
    _command: CommandSet | None = None
    _fragments: list[bytes] = field(default_factory=list)
    _size: int = 0

    _late: int | None = None
    """The context of a data set that was not waited for any longer."""

    @property
    def is_busy(self) -> bool:
        """Whether a message has begun that is not whole yet."""
        return self._context_id is not None

    @property
    def awaits_data(self) -> CommandSet | None:
        """The command whose data set was announced, as long as nothing of that has come."""
        return self._command if self._command is not None and not self._fragments else None

    def without_data(self) -> Message:
        """The message of `awaits_data`: its data set is not waited for any longer, and passed over if it comes."""
        assert self._context_id is not None and self._command is not None
        self._late = self._context_id
        return self._finish(Message(self._context_id, self._command, None))

    def feed(self, body: bytes) -> list[Message]:
        """The messages that this PDU completes, in order; several PDVs, of several messages, may lie in one
        PDU.

        A response that announces a data set, and is followed by another command instead, has none. Raises
        ProtocolViolation: a PDV that leaves its PDU (PS3.8 9.3.5.1), fragments of two messages interleaved, a data set
        without a command (PS3.7 6.3), more than MAX_MESSAGE bytes.
        """
        done: list[Message] = []
        offset, end = 0, len(body)
        while offset < end:
            if offset + 6 > end:
                raise ProtocolViolation("P-DATA-TF ends inside a PDV's head")
            length, context_id, control = _PDV.unpack_from(body, offset)
            if length < 2 or offset + 4 + length > end:
                raise ProtocolViolation(f"a PDV of length {length} does not fit its P-DATA-TF")
            fragment = body[offset + 6 : offset + 4 + length]
            offset += 4 + length
            if control & IS_COMMAND and self._command is not None:
                awaiting = self.awaits_data
                if awaiting is not None and awaiting.is_response:
                    done.append(self.without_data())
            if self._late is not None and self._is_late(context_id, control):
                continue
            message = self._take(context_id, control, fragment)
            if message is not None:
                done.append(message)
        return done

    def _is_late(self, context_id: int, control: int) -> bool:
        """Whether a fragment belongs to a data set that nobody waits for any longer."""
        if control & IS_COMMAND or context_id != self._late:
            self._late = None
            return False
        if control & IS_LAST:
            self._late = None
        return True

    def _take(self, context_id: int, control: int, fragment: bytes) -> Message | None:
        if self._context_id not in (None, context_id):
            raise ProtocolViolation(f"context {context_id} interleaved with context {self._context_id}")
        if bool(control & IS_COMMAND) != (self._command is None):
            raise ProtocolViolation("a command where a data set was to come, or the other way round")
        self._context_id = context_id
        self._size += len(fragment)
        if self._size > MAX_MESSAGE:
            raise ProtocolViolation(f"a message of more than {MAX_MESSAGE} bytes")
        self._fragments.append(fragment)
        if not control & IS_LAST:
            return None
        whole = b"".join(self._fragments)
        self._fragments.clear()
        command = self._command
        if command is None:
            command = CommandSet.decode(whole)
            if command.has_data_set:
                self._command = command
                return None
            return self._finish(Message(context_id, command, None))
        return self._finish(Message(context_id, command, whole))

    def _finish(self, message: Message) -> Message:
        self._context_id = self._command = None
        self._size = 0
        return message


def fragment_size(peer_max_pdu: int, most: int) -> int:
    """Bytes of a message in one PDV: even, at most the peer's maximum minus 6 (PS3.8 D.1; 0 is unlimited), at
    most `most`.

    Raises ProtocolViolation where the peer's maximum leaves no room for two bytes.
    """
    room = most if peer_max_pdu == 0 else min(most, peer_max_pdu - 6)
    room -= room % 2
    if room < 2:
        raise ProtocolViolation(f"the peer's maximum PDU length {peer_max_pdu} leaves no room for data")
    return room


def fragments(context_id: int, raw: bytes, size: int, *, command: bool) -> bytes:
    """`raw` as P-DATA-TF PDUs of one PDV each, `size` bytes of it in each but the last."""
    pack = _PDU_OF_ONE.pack
    kind = IS_COMMAND if command else 0
    if len(raw) <= size:
        return pack(4, len(raw) + 6, len(raw) + 2, context_id, kind | IS_LAST) + raw
    parts: list[bytes] = []
    for offset in range(0, max(len(raw), 1), size):
        piece = raw[offset : offset + size]
        last = IS_LAST if offset + size >= len(raw) else 0
        parts.append(pack(4, len(piece) + 6, len(piece) + 2, context_id, kind | last))
        parts.append(piece)
    return b"".join(parts)

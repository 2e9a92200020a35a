"""DIMSE messages of a Query/Retrieve peer: whole ones read, responses written, by pynetdicom's codecs."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode

from support import caller
from support import scripted_peer as peer
from support.bench import Hung, Line

ECHO_RQ, FIND_RQ, MOVE_RQ, GET_RQ, CANCEL_RQ = 0x30, 0x20, 0x21, 0x10, 0x0FFF
PENDING = 0xFF00
DONE, WARNING, NOTHING_DONE, CANCELLED = 0x0000, 0xB000, 0xA702, 0xFE00
UNKNOWN_DESTINATION, REFUSED_IDENTIFIER = 0xA801, 0xA900


class Released(Exception):
    """The other side asks for the end of the association."""


class QrLine(Line):
    """A connection with the contexts accepted on it: context id -> (abstract syntax, transfer syntax)."""

    contexts: dict[int, tuple[str, str]]

    def data_set(self, message: Message) -> Dataset:
        """The data set of a message."""
        syntax = UID(self.contexts[message.context_id][1])
        return decode(BytesIO(message.data), syntax.is_implicit_VR, syntax.is_little_endian)


@dataclass(frozen=True)
class Message:
    """One DIMSE message as it came."""

    context_id: int
    command: Dataset
    data: bytes


def read_message(line: QrLine) -> Message:
    """The next whole message; raises Released, and Hung for an abort."""
    parts = {1: b"", 0: b""}
    done: set[int] = set()
    context_id, has_data = 0, True
    while done < ({0, 1} if has_data else {1}):
        pdu = line.read_pdu()
        if pdu[0] == peer.RELEASE_RQ and not parts[1]:
            raise Released
        if pdu[0] == peer.ABORT:
            raise Hung
        assert pdu[0] == peer.DATA, f"PDU type {pdu[0]} where a message was to come"
        at = 6
        while at < len(pdu):
            length, context_id, control = struct.unpack_from(">LBB", pdu, at)
            parts[control & 1] += pdu[at + 6 : at + 4 + length]
            at += 4 + length
            if control & 2:
                done.add(control & 1)
            if control == 3:
                command = decode(BytesIO(parts[1]), True, True)
                has_data = int(command.CommandDataSetType) != 0x0101
    return Message(context_id, decode(BytesIO(parts[1]), True, True), parts[0])


def respond(line: QrLine, request: Message, status: int, data: Dataset | None = None, **more: object) -> None:
    """A response to a request, with a data set if there is one."""
    elements: dict[str, object] = {
        "AffectedSOPClassUID": request.command.AffectedSOPClassUID,
        "CommandField": int(request.command.CommandField) | 0x8000,
        "MessageIDBeingRespondedTo": request.command.MessageID,
        "CommandDataSetType": 0x0101 if data is None else 1,
        "Status": status,
    }
    pdus = peer.p_data(peer.pdv(peer.command_set(**{**elements, **more}), 3, request.context_id))
    if data is not None:
        syntax = UID(line.contexts[request.context_id][1])
        encoded = encode(data, syntax.is_implicit_VR, syntax.is_little_endian)
        assert encoded is not None
        pdus += caller.data_pdus(encoded, 16378, request.context_id)
    line.socket.sendall(pdus)

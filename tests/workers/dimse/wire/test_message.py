"""Command sets and fragments: the codec of our own against pynetdicom's, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules.errors import ProtocolViolation
from dicomferry.workers.dimse.wire import message
from dicomferry.workers.dimse.wire.message import Assembler, CommandSet, fragment_size, fragments
from support import scripted_peer as peer

UID = "1.2.840.10008.5.1.4.1.1.4"


def test_a_command_is_encoded_as_pydicom_encodes_it() -> None:
    """Same elements, same bytes as the general encoder: order, padding and group length included (PS3.7
    6.3.1).
    """
    command = CommandSet(
        {
            message.AFFECTED_SOP_INSTANCE_UID: message.text_value("1.2.3"),
            message.MESSAGE_ID: message.number_value(513),
            message.AFFECTED_SOP_CLASS_UID: message.text_value(UID),
            message.COMMAND_FIELD: message.number_value(message.C_STORE_RQ),
            message.PRIORITY: message.number_value(0),
            message.COMMAND_DATA_SET_TYPE: message.number_value(1),
        }
    )
    assert command.encode() == peer.command_set(
        AffectedSOPClassUID=UID,
        CommandField=1,
        MessageID=513,
        Priority=0,
        CommandDataSetType=1,
        AffectedSOPInstanceUID="1.2.3",
    )


def test_a_command_is_read_without_its_padding() -> None:
    """UIDs lose trailing NUL, texts trailing blanks; an absent or empty value is None."""
    raw = peer.store_rsp_command(9, 0xA700, AffectedSOPInstanceUID="1.2.3", ErrorComment="Disk full")
    command = CommandSet.decode(raw)
    assert command.number(message.STATUS) == 0xA700
    assert command.number(message.MESSAGE_ID_BEING_RESPONDED_TO) == 9
    assert command.text(message.AFFECTED_SOP_INSTANCE_UID) == "1.2.3"
    assert command.text(message.ERROR_COMMENT) == "Disk full"
    assert command.text(message.AFFECTED_SOP_CLASS_UID) is None
    assert not command.has_data_set


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\0\x01",
        struct.pack("<HHL", 0, 0x100, 2),
        struct.pack("<HHLH", 8, 0x100, 2, 1),
        struct.pack("<HHL", 0, 0x100, 0xFFFFFFFF) + bytes(40),
    ],
)
def test_a_command_that_is_none_is_refused(raw: bytes) -> None:
    """An element that leaves its bytes, or another group than 0000, is a violation and no exception of ours
    inside.
    """
    with pytest.raises(ProtocolViolation):
        CommandSet.decode(raw)


def _body(*pdvs: bytes) -> bytes:
    return b"".join(pdvs)


def test_several_pdvs_in_one_pdu_are_taken_in_order() -> None:
    """A command in two PDVs and its data set in the same P-DATA-TF (PS3.8 9.3.5), and a second message behind
    it.
    """
    first = peer.command_set(CommandField=0x8020, MessageIDBeingRespondedTo=1, CommandDataSetType=1, Status=0xFF00)
    last = peer.store_rsp_command(2)
    done = Assembler().feed(
        _body(
            peer.pdv(first[:7], 1),
            peer.pdv(first[7:], 3),
            peer.pdv(b"ab", 0),
            peer.pdv(b"cd", 2),
            peer.pdv(last, 3),
        )
    )
    assert [one.data for one in done] == [b"abcd", None]
    assert [one.command.number(message.STATUS) for one in done] == [0xFF00, 0]


def test_reserved_bits_of_the_control_header_are_not_tested() -> None:
    """PS3.8 E.2: only the two lowest bits count."""
    (done,) = Assembler().feed(peer.pdv(peer.store_rsp_command(2), 0xFF))
    assert done.command.number(message.STATUS) == 0


@pytest.mark.parametrize(
    "body",
    [
        peer.pdv(b"", 2),
        peer.pdv(b"ab", 0),
        _body(peer.pdv(b"\0\0", 1), peer.pdv(b"ab", 0)),
        _body(peer.pdv(b"\0\0", 1, context_id=1), peer.pdv(b"ab", 3, context_id=3)),
        struct.pack(">LBB", 1, 1, 3),
        struct.pack(">LBB", 100, 1, 3) + bytes(10),
        b"\0\0\0",
    ],
)
def test_fragments_out_of_order_are_refused(body: bytes) -> None:
    """A data set without command, two contexts interleaved, a PDV that leaves its PDU: all
    ProtocolViolation.
    """
    with pytest.raises(ProtocolViolation):
        Assembler().feed(body)


@given(raw=st.binary(max_size=300), size=st.integers(1, 50).map(lambda n: 2 * n), command=st.booleans())
def test_fragments_are_whole_but_for_the_last(raw: bytes, size: int, command: bool) -> None:
    """Every fragment but the last is full, only the last is marked so, and together they are the message."""
    made = fragments(5, raw, size, command=command)
    found, flags = [], []
    while made:
        kind, length, pdv_length, context_id, control = struct.unpack_from(">BxLLBB", made)
        assert (kind, context_id, pdv_length) == (4, 5, length - 4)
        found.append(made[12 : 6 + length])
        flags.append(control)
        made = made[6 + length :]
    assert b"".join(found) == raw
    assert [len(piece) for piece in found[:-1]] == [size] * (len(found) - 1)
    assert flags == [int(command)] * (len(flags) - 1) + [command | 2]


@pytest.mark.parametrize(
    ("peer_max", "expected"),
    [(0, 1 << 20), (16384, 16378), (128, 122), (129, 122), (8, 2), (9, 2), (1 << 31, 1 << 20)],
)
def test_a_fragment_is_even_and_fits_the_peer(peer_max: int, expected: int) -> None:
    """At most the peer's maximum minus 6, even; 0 means unlimited and is bounded by our own megabyte."""
    assert fragment_size(peer_max, 1 << 20) == expected


@pytest.mark.parametrize("peer_max", [1, 6, 7])
def test_a_peer_that_leaves_no_room_is_refused(peer_max: int) -> None:
    """A maximum below 8 cannot carry two bytes of anything."""
    with pytest.raises(ProtocolViolation):
        fragment_size(peer_max, 1 << 20)

"""The C-STORE data path inwards: what is read does not depend on how it was cut, and nothing else passes for it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.models.rules.errors import ProtocolViolation
from dicomferry.workers.dimse.wire.message import IS_COMMAND, IS_LAST
from dicomferry.workers.dimse.wire.pdu_reader import Inlet
from dicomferry.workers.dimse.wire.upper_layer import Pdu, UpperLayer

COMMAND, DATA = bytes(range(90)), bytes(range(256)) * 4


def pdv(fragment: bytes, control: int, context_id: int = 1) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment


def pdu(*pdvs: bytes, kind: int = 4) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxL", kind, len(body)) + body


def cut(raw: bytes, at: Sequence[int]) -> list[bytes]:
    """`raw` in pieces, some of which may be empty."""
    places = [0, *sorted(min(place, len(raw)) for place in at), len(raw)]
    return [raw[begin:end] for begin, end in pairwise(places)]


def encoded(raw: bytes, at: Sequence[int], kind: int) -> list[bytes]:
    pieces = cut(raw, at)
    return [*(pdv(piece, kind) for piece in pieces[:-1]), pdv(pieces[-1], kind | IS_LAST)]


class Scripted:
    """A layer whose bytes come in these chunks."""

    peer = "peer"

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = list(chunks)
        self.aborts = 0

    def receive_into(self, view: memoryview, phase: str, seconds: float) -> int:
        chunk = self._chunks.pop(0)
        size = min(len(chunk), len(view))
        view[:size] = chunk[:size]
        if chunk[size:]:
            self._chunks.insert(0, chunk[size:])
        return size

    def abort(self, *_: int) -> None:
        self.aborts += 1


def read(layer: Scripted, messages: int) -> list[tuple[object, bytes]]:
    """What is read of so many messages."""
    inlet = Inlet(cast(UpperLayer, layer))
    found: list[tuple[object, bytes]] = []
    for _ in range(messages):
        command = inlet.command(10, 10)
        data = bytearray()
        if not isinstance(command, Pdu):
            inlet.data_set(1, partial(_take, data), 10)
        found.append((command, bytes(data)))
    return found


def _take(data: bytearray, spans: list[memoryview]) -> None:
    for span in spans:
        data += span


places = st.lists(st.integers(0, 1100), max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    command=places, data=places, joined=st.lists(st.booleans(), min_size=30, max_size=30), chunks=places,
    messages=st.integers(1, 3),
)  # fmt: skip
def test_however_it_was_cut(
    command: list[int], data: list[int], joined: list[bool], chunks: list[int], messages: int
) -> None:
    """Fragments of any number and size, alone or several in a PDU, in any pieces: the command and the data set."""
    pdus: list[bytes] = []
    for _ in range(messages):
        for kind, raw, at in ((IS_COMMAND, COMMAND, command), (0, DATA, data)):
            group: list[bytes] = []
            for number, one in enumerate(encoded(raw, at, kind)):
                if group and not joined[number]:
                    pdus.append(pdu(*group))
                    group = []
                group.append(one)
            pdus.append(pdu(*group))
    stream = b"".join(pdus)
    pieces = [piece for piece in cut(stream, [2 * place for place in chunks]) if piece]
    found = read(Scripted(pieces), messages)
    assert found == [((1, COMMAND), DATA)] * messages


WHOLE = pdu(pdv(COMMAND, IS_COMMAND | IS_LAST))


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (pdu(pdv(b"", IS_COMMAND | IS_LAST), kind=9), "a PDU of unknown type 0x09"),
        (pdu(pdv(DATA, IS_LAST)), "a data set where a command was to come"),
        (WHOLE + pdu(pdv(DATA, IS_LAST, 3)), "context 3 interleaved with context 1"),
        (WHOLE + WHOLE, "a command where a data set was to come"),
        (WHOLE + struct.pack(">BxLLBB", 4, 6, 3, 1, IS_LAST) + b"xxxxxx", "a fragment of length 3 does not fit"),
        (struct.pack(">BxLLBB", 4, 5, 1, 1, IS_COMMAND | IS_LAST), "ends inside a fragment's head"),
        (WHOLE + struct.pack(">BxLLBB", 4, 1 << 31, (1 << 31) - 4, 1, IS_LAST), "bytes, "),
        (pdu(pdv(bytes(66_000), IS_COMMAND | IS_LAST)), "a command of more than 65536 bytes"),
    ],
)
def test_what_is_none_ends_it(stream: bytes, why: str) -> None:
    """Whatever has heads that look nearly right."""
    layer = Scripted([stream])
    with pytest.raises(ProtocolViolation, match=why):
        read(layer, 1)
    assert layer.aborts == 1


def test_a_release_is_told() -> None:
    """A PDU of another type, instead of a command, is for whoever asks."""
    release = pdu(kind=5)[:2] + struct.pack(">L4x", 4)
    assert read(Scripted([WHOLE + pdu(pdv(DATA, IS_LAST)) + release]), 2) == [
        ((1, COMMAND), DATA),
        (Pdu(5, bytes(4)), b""),
    ]

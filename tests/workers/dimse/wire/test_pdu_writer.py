"""The data path: what is on the wire is the file, in lawful fragments."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.workers.dimse.wire.pdu_writer import RUN_BYTES, DataPath, FileSource, SourceFailed, StreamSource
from dicomferry.workers.dimse.wire.upper_layer import UpperLayer

COMMAND = bytes(range(200))


class Tap:
    """A data path and all that came out of it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            self._far, _ = listener.accept()
        self.layer = UpperLayer(near, "PEER")
        self._got = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while chunk := self._far.recv(1 << 20):
            self._got += chunk

    def close(self) -> None:
        self.layer.close()
        self._reader.join()
        self._far.close()

    def pdus(self) -> list[tuple[int, int, bytes]]:
        """(context id, control, fragment) of each P-DATA-TF, one PDV in each."""
        self.close()
        found, raw = [], bytes(self._got)
        while raw:
            kind, length, pdv_length, context_id, control = struct.unpack_from(">BxLLBB", raw)
            assert (kind, pdv_length) == (4, length - 4)
            found.append((context_id, control, raw[12 : 6 + length]))
            raw = raw[6 + length :]
        return found


@pytest.fixture
def tap() -> Iterator[Tap]:
    tap = Tap()
    yield tap
    tap.close()


def _data(length: int) -> bytes:
    return bytes(n * 7 % 251 for n in range(min(length, 5000))) * (length // 5000 + 1)


SIZES = [2, 122, 16378, 131066, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("runs", [0, 1, 2.5])
@pytest.mark.parametrize("extra", [-2, 0, 2])
def test_the_wire_carries_the_file(tap: Tap, tmp_path: Path, size: int, runs: float, extra: int) -> None:
    """Any length around the buffer's boundaries: full fragments, the last one marked, command apart and
    first.
    """
    path = DataPath(tap.layer, size)
    # Lengths in whole fragments, so that `extra` lies around the end of a fragment and of a run.
    fragments = min(int(runs * path.fragments_a_run), 3000)
    length = max(0, fragments * size + extra)
    data = _data(length)[:length]
    file = tmp_path / "file"
    file.write_bytes(b"head" + data + b"tail")
    fd = os.open(file, os.O_RDONLY)
    try:
        for context_id in (5, 7):
            sent = path.send(context_id, COMMAND, FileSource(fd, 4), length, pad=False, seconds=20)
            assert sent == length
    finally:
        os.close(fd)
    pdus = tap.pdus()
    for context_id in (5, 7):
        mine = [pdu for pdu in pdus if pdu[0] == context_id]
        commands = [pdu for pdu in mine if pdu[1] & 1]
        sets = mine[len(commands) :]
        assert b"".join(pdu[2] for pdu in commands) == COMMAND
        assert b"".join(pdu[2] for pdu in sets) == data
        assert [pdu[1] for pdu in sets] == [0] * (len(sets) - 1) + [2]
        assert all(len(pdu[2]) == size for pdu in sets[:-1])
        assert len(sets[-1][2]) <= size


@pytest.mark.parametrize("length", [1, 121, 123, 243, 245, 100_001])
def test_a_pad_is_one_nul_at_the_end(tap: Tap, length: int) -> None:
    """An odd deflated stream becomes even by one NUL (PS3.5 A.5), counted as sent."""
    data = b"\xff" * length
    sent = DataPath(tap.layer, 122).send(1, COMMAND, StreamSource(io.BytesIO(data)), length, pad=True, seconds=20)
    assert sent == length + 1
    assert b"".join(pdu[2] for pdu in tap.pdus() if not pdu[1] & 1) == data + b"\0"


@pytest.mark.parametrize(("size", "whole"), [(2, 0), (2, 1), (2, 3), (122, 3), (122, 1200), (16378, 3), (131066, 1)])
@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("run_bytes", [1, RUN_BYTES, 8 * RUN_BYTES])
def test_what_lies_in_memory_is_fragmented_as_a_file_is(
    tap: Tap, size: int, extra: int, whole: int, run_bytes: int
) -> None:
    """The same PDUs, whatever the length and however much goes out at once, with and without the NUL that makes it
    even.
    """
    length = max(0, whole * size + extra)
    data = _data(length)[:length]
    pad = length % 2 == 1
    counted: list[int] = []
    path = DataPath(tap.layer, size, counted.append)
    path.send(5, COMMAND, StreamSource(io.BytesIO(data)), length, pad=pad, seconds=20)
    by_runs = sum(counted)
    before = len(counted)
    sent = path.send_held(7, COMMAND, memoryview(data), pad=pad, seconds=20, run_bytes=run_bytes)
    assert sent == length + pad == by_runs == sum(counted[before:])
    assert max(counted[before:]) <= max(size, run_bytes)
    pdus = tap.pdus()
    assert [pdu[1:] for pdu in pdus if pdu[0] == 7] == [pdu[1:] for pdu in pdus if pdu[0] == 5]


def test_progress_counts_the_bytes_of_data_set(tap: Tap) -> None:
    """Heads and commands are not data."""
    counted: list[int] = []
    path = DataPath(tap.layer, 16378, counted.append)
    path.send(1, COMMAND, StreamSource(io.BytesIO(bytes(2_000_000))), 2_000_000, pad=False, seconds=20)
    assert sum(counted) == 2_000_000
    assert len(counted) > 1


def test_a_file_that_shrinks_is_not_padded(tap: Tap, tmp_path: Path) -> None:
    """Fewer bytes than announced: SourceFailed("truncated"), and no last fragment ever went out."""
    file = tmp_path / "file"
    file.write_bytes(bytes(3_000_000))
    fd = os.open(file, os.O_RDONLY)
    path = DataPath(tap.layer, 16378, lambda sent: os.truncate(file, 1_000_000))
    try:
        with pytest.raises(SourceFailed) as caught:
            path.send(1, COMMAND, FileSource(fd, 0), 3_000_000, pad=False, seconds=20)
    finally:
        os.close(fd)
    assert caught.value.reason == "truncated"
    assert not [pdu for pdu in tap.pdus() if pdu[1] == 2]


def test_a_file_that_cannot_be_read_any_more_is_unreadable(tap: Tap) -> None:
    """An input error in mid-file is the file's fault, not the association's."""

    class Broken:
        def fill(self, views: list[memoryview]) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(SourceFailed, match="Input/output error") as caught:
        DataPath(tap.layer, 16378).send(1, COMMAND, Broken(), 100, pad=False, seconds=20)
    assert caught.value.reason == "unreadable"

"""PDUs over a socket: split, slow, silent, aborted."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from dicomferry.models.rules.errors import AssociationAborted, DimseTimeout, ProtocolViolation
from dicomferry.workers.dimse.wire import upper_layer
from dicomferry.workers.dimse.wire.upper_layer import PeerClosed, UpperLayer
from support import scripted_peer as peer
from support.tls import secured

PATIENCE = peer.PATIENCE
SOME_PDU = peer.store_rsp(7, 0xA700)


class Wire:
    """An UpperLayer and the socket at the other end. `on_progress` runs whenever bytes moved."""

    def __init__(self, tls: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            self.far, _ = listener.accept()
        self.far.settimeout(PATIENCE)
        self.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = tls
        if tls:
            near, self.far = secured(near, self.far)
        self.near = near
        self.on_progress: Callable[[], None] = lambda: None
        self.layer = UpperLayer(near, "PEER@host:104", lambda moved: self.on_progress())

    def receive(self, seconds: float = PATIENCE) -> upper_layer.Pdu:
        return self.layer.receive("store_answer", seconds)


@pytest.fixture(params=["plain", "tls"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    wire = Wire(request.param == "tls")
    yield wire
    wire.layer.close()
    wire.far.close()


class Acknowledging(socket.socket):
    """Notes that it was told to acknowledge at once."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.told = threading.Event()

    def setsockopt(self, *arguments: object) -> None:
        super().setsockopt(*arguments)  # type: ignore[call-overload]
        if arguments[1:] == (socket.TCP_QUICKACK, 1):
            self.told.set()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux alone has it")
def test_what_has_come_is_acknowledged_before_more_is_waited_for() -> None:
    """A peer with Nagle's algorithm on sends the rest of a message only then: 40 ms later, if nobody cares."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = Acknowledging(socket.create_connection(listener.getsockname()))
        far, _ = listener.accept()
    read = threading.Event()

    def progress(_: int) -> None:
        near.told.clear()
        read.set()

    def in_two_pieces() -> None:
        far.sendall(SOME_PDU[:10])
        if read.wait(PATIENCE) and near.told.wait(PATIENCE):
            far.sendall(SOME_PDU[10:])

    layer = UpperLayer(near, "PEER@host:104", progress)
    thread = threading.Thread(target=in_two_pieces)
    thread.start()
    assert layer.receive("store_answer", 2 * PATIENCE).encode() == SOME_PDU
    thread.join()
    layer.close()
    far.close()


@pytest.mark.parametrize("wire", ["plain"], indirect=True)
def test_what_is_there_is_not_waited_for(wire: Wire) -> None:
    """A PDU that came while we had something else to do is taken without asking the system whether there is one."""
    wire.far.sendall(SOME_PDU)
    select.select([wire.near], [], [], PATIENCE)
    wire.layer._wait = lambda *_: pytest.fail("waited")  # type: ignore[method-assign]
    assert wire.layer.receive("store_answer", PATIENCE).encode() == SOME_PDU


def test_a_pdu_may_be_split_at_any_byte(wire: Wire) -> None:
    """TCP keeps no boundaries: a PDU in two pieces, cut anywhere, is one PDU."""
    for cut in range(1, len(SOME_PDU)):
        pieces = [SOME_PDU[cut:]]
        # The second piece leaves only when the first one has been read.
        wire.on_progress = lambda left=pieces: wire.far.sendall(left.pop()) if left else None  # type: ignore[misc]
        wire.far.sendall(SOME_PDU[:cut])
        assert wire.receive().encode() == SOME_PDU


def test_a_pdu_may_come_byte_by_byte(wire: Wire) -> None:
    """The smallest pieces there are."""
    pieces = [SOME_PDU[n : n + 1] for n in range(1, len(SOME_PDU))]
    wire.on_progress = lambda: wire.far.sendall(pieces.pop(0)) if pieces else None
    wire.far.sendall(SOME_PDU[:1])
    assert wire.receive().encode() == SOME_PDU


def test_several_pdus_may_come_at_once(wire: Wire) -> None:
    """What follows a PDU in the same segment is kept for the next call."""
    wire.far.sendall(SOME_PDU + peer.release_pdu(peer.RELEASE_RQ) + SOME_PDU)
    assert [wire.receive().kind for _ in range(3)] == [peer.DATA, peer.RELEASE_RQ, peer.DATA]


def test_silence_ends_with_the_phase_and_its_seconds(wire: Wire) -> None:
    """A silent peer is given up after the configured seconds, and the error says which wait it was."""
    with pytest.raises(DimseTimeout) as caught:
        wire.layer.receive("store_answer", 0.05)
    assert (caught.value.phase, caught.value.seconds) == ("store_answer", 0.05)
    assert str(caught.value).startswith("PEER@host:104: ")


def test_a_slow_peer_is_not_given_up(wire: Wire) -> None:
    """The time starts anew with every byte: a PDU may take many times as long as the time-out."""
    with peer.ScriptedPeer([peer.send_slowly(SOME_PDU[:40], pause=0.03), peer.close]) as slow:
        layer = UpperLayer(socket.create_connection(("127.0.0.1", slow.port)), "PEER")
        with pytest.raises(PeerClosed):  # and not DimseTimeout: 40 bytes take 1.2 s
            layer.receive("store_answer", 0.5)
        layer.close()


def test_a_full_socket_that_nobody_reads_ends_with_progress(wire: Wire) -> None:
    """Sending has a deadline too: no byte taken for the given seconds."""
    with pytest.raises(DimseTimeout) as caught:
        wire.layer.send([bytes(64 << 20)], seconds=0.1)
    assert caught.value.phase == "progress"


def test_sending_to_a_slow_reader_takes_its_time(wire: Wire) -> None:
    """A reader that takes a little now and then keeps the sending alive beyond the time-out."""
    for sock, option in ((wire.near, socket.SO_SNDBUF), (wire.far, socket.SO_RCVBUF)):
        sock.setsockopt(socket.SOL_SOCKET, option, 8192)
    amount = 400_000
    pause = threading.Event()
    got = bytearray()

    def read_slowly() -> None:
        while len(got) < amount:
            got.extend(wire.far.recv(16384))
            pause.wait(0.02)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    data = bytes(range(256)) * (amount // 256) + bytes(amount % 256)
    wire.layer.send([data[:1000], memoryview(data)[1000:]], seconds=0.4)
    reader.join()
    assert bytes(got) == data


def test_an_answer_that_comes_while_we_send_is_kept(wire: Wire) -> None:
    """A peer may answer before the last fragment (an early failure): the answer is read, in its order,
    afterwards.
    """
    data = bytes(16 << 20)
    reader = threading.Thread(target=lambda: _drain(wire.far, len(data)))
    wire.far.sendall(SOME_PDU)
    wire.on_progress = lambda: None if reader.ident else reader.start()
    wire.layer.send([data], seconds=PATIENCE)
    reader.join()
    assert wire.receive().encode() == SOME_PDU


def test_an_abort_that_comes_while_we_send_is_heard_at_once(wire: Wire) -> None:
    """A peer that aborts and stops reading is not waited for until the time-out."""
    wire.far.sendall(peer.abort_pdu(2, 6))
    with pytest.raises(AssociationAborted, match=r"source 2, reason 6"):
        wire.layer.send([bytes(64 << 20)], seconds=PATIENCE)


def test_an_abort_before_a_reset_is_heard(wire: Wire) -> None:
    """When a write fails, what the peer said before it hung up is the reason given."""
    wire.far.sendall(peer.abort_pdu(0, 0))
    wire.far.close()
    with pytest.raises(AssociationAborted, match=r"its application \(source 0, reason 0\)"):
        while True:
            wire.layer.send([bytes(1 << 20)], seconds=PATIENCE)


def test_a_closed_connection_tells_whether_anything_was_heard(wire: Wire) -> None:
    """TCP's end without A-ABORT is PeerClosed; `heard` tells a peer that hangs up at once from one that broke
    down.
    """
    wire.far.close()
    with pytest.raises(PeerClosed) as caught:
        wire.receive()
    assert not caught.value.heard
    other = Wire(wire.tls)
    other.far.sendall(SOME_PDU[:5])
    other.far.close()
    with pytest.raises(PeerClosed) as caught:
        other.receive()
    assert caught.value.heard
    other.layer.close()


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"\x08\0\0\0\0\x04", upper_layer.UNRECOGNISED_PDU),
        (b"\0\0\0\0\0\x04", upper_layer.UNRECOGNISED_PDU),
        (b"HTTP/1", upper_layer.UNRECOGNISED_PDU),
        (b"\x04\0\xff\xff\xff\xff", upper_layer.INVALID_PARAMETER),
        (b"\x02\0\x00\x80\x00\x01", upper_layer.INVALID_PARAMETER),
    ],
)
def test_an_unknown_type_or_an_absurd_length_is_answered_with_abort(wire: Wire, head: bytes, reason: int) -> None:
    """PS3.8 AA-8: such bytes end the association by A-ABORT of the service provider, and are not waited
    for.
    """
    wire.far.sendall(head)
    with pytest.raises(ProtocolViolation):
        wire.receive()
    assert wire.far.recv(100) == peer.abort_pdu(2, reason)


def test_abort_from_another_thread_wakes_a_blocked_receive(wire: Wire) -> None:
    """The watchdog's abort ends a wait at once, as AssociationAborted."""
    watchdog = threading.Thread(target=wire.layer.abort)
    watchdog.start()
    with pytest.raises(AssociationAborted, match="on our side"):
        wire.receive()
    watchdog.join()
    assert wire.far.recv(100) == peer.abort_pdu(0, 0)


def test_abort_from_another_thread_wakes_a_blocked_send(wire: Wire) -> None:
    """The same in the middle of sending; no A-ABORT is mixed into the data then."""
    started = threading.Event()
    wire.on_progress = started.set

    def abort() -> None:
        started.wait(PATIENCE)
        wire.layer.abort()

    watchdog = threading.Thread(target=abort)
    watchdog.start()
    with pytest.raises(AssociationAborted, match="on our side"):
        wire.layer.send([bytes(64 << 20)], seconds=PATIENCE)
    watchdog.join()


def test_sockets_neither_delay_nor_forget(wire: Wire) -> None:
    """TCP_NODELAY (40 ms an image otherwise) and SO_KEEPALIVE are on."""
    assert wire.near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert wire.near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_bytes_in_bulk_go_both_ways_unharmed(wire: Wire) -> None:
    """Many buffers of odd sizes out, as many bytes back in through a small window: nothing lost or turned around."""
    data = random.Random(5).randbytes(3_000_000)
    cuts = [0, 12, 100, 16_500, 16_501, 40_000, 700_000, len(data)]
    got = bytearray()

    def echo() -> None:
        while len(got) < len(data):
            got.extend(wire.far.recv(1 << 16))
        wire.far.sendall(got)

    other = threading.Thread(target=echo)
    other.start()
    wire.layer.send([memoryview(data)[a:b] for a, b in pairwise(cuts)], seconds=PATIENCE)
    back, window = bytearray(), memoryview(bytearray(1000))
    while len(back) < len(data):
        back += window[: wire.layer.receive_into(window, "progress", PATIENCE)]
    other.join()
    assert got == data and back == data


def test_nothing_leaves_in_the_clear_after_an_abort() -> None:
    """TLS that has ended does not turn into TCP: the other end gets no further byte, and no reset before the abort."""
    wire = Wire(tls=True)
    wire.layer.abort()
    with pytest.raises(OSError):
        wire.layer._socket.send(b"in the clear")
    assert wire.far.recv(100) == peer.abort_pdu(0, 0)
    assert wire.far.recv(100) == b""
    wire.layer.close()
    wire.far.close()


def test_close_and_abort_may_be_repeated(wire: Wire) -> None:
    """Ending twice is ending once; a call afterwards is AssociationAborted, no error of the socket's."""
    wire.layer.close()
    wire.layer.close()
    wire.layer.abort()
    with pytest.raises(AssociationAborted):
        wire.receive()
    with pytest.raises(AssociationAborted):
        wire.layer.send([b"x"], seconds=1)


def _drain(sock: socket.socket, amount: int) -> None:
    while amount > 0:
        amount -= len(sock.recv(1 << 20))

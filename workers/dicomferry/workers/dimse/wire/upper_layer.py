"""One TCP connection that carries upper-layer PDUs (PS3.8 9.3): whole PDUs in and out, deadlines, abort.

It knows no roles: association requestor and acceptor are written on top of it. One thread owns a connection
and blocks in it; only `abort` may be called from another thread.

Every deadline watches progress: its seconds start anew with each byte that moves in either direction, so a
slow peer lives and a silent one does not. The socket is non-blocking and waited for with poll, because a
socket's own time-out would cover a call, not a byte, and because a connection that is full must still be
read: the peer may be telling us why it stopped reading.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from dicomferry.models.rules.errors import (
    AssociationAborted,
    ConnectionLost,
    DimseError,
    DimseTimeout,
    ProtocolViolation,
)
from dicomferry.workers.dimse.wire.tls import TlsStream

# PDU types (PS3.8 9.3.1).
A_ASSOCIATE_RQ = 0x01
A_ASSOCIATE_AC = 0x02
A_ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04
A_RELEASE_RQ = 0x05
A_RELEASE_RP = 0x06
A_ABORT = 0x07

# No lawful PDU that we provoke comes near this; a length beyond it is another protocol or an attack on
# memory.
MAX_PDU_LENGTH = 8 * 1024 * 1024

# A-ABORT sources and provider reasons (PS3.8 table 9-26).
BY_SERVICE_USER = 0
BY_SERVICE_PROVIDER = 2
UNRECOGNISED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PARAMETER = 6

_E = TypeVar("_E", bound=Exception)

# Linux alone has it.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

_HEAD = struct.Struct(">BxL")
_CHUNK = 64 * 1024
_MOST_READ_WHILE_SENDING = 1024 * 1024


class PeerClosed(ConnectionLost):
    """The TCP connection ended without A-ABORT. `heard` tells whether the peer had said anything at all."""

    def __init__(self, message: str, *, heard: bool) -> None:
        super().__init__(message)
        self.heard = heard


class Pdu(NamedTuple):
    """A PDU as received: its type, and what follows the six bytes of type and length."""

    kind: int
    body: bytes

    def encode(self) -> bytes:
        """The whole PDU, for the codecs that want it so."""
        return _HEAD.pack(self.kind, len(self.body)) + self.body


def encode_abort(source: int, reason: int) -> bytes:
    """An A-ABORT PDU (PS3.8 9.3.8)."""
    return struct.pack(">BxLxxBB", A_ABORT, 4, source, reason)


RELEASE_RQ = struct.pack(">BxL4x", A_RELEASE_RQ, 4)
RELEASE_RP = struct.pack(">BxL4x", A_RELEASE_RP, 4)


class UpperLayer:
    """PDUs over one connected socket, plain or TLS after its handshake, which it owns from now on.

    `peer` names the other side in every error. `progress(0)` is called whenever bytes have moved. `heard_bytes` counts
    what was received by `receive`.
    """

    def __init__(self, sock: socket.socket, peer: str, progress: Callable[[int], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._aborted = False
        self._closed = False
        self._sent: list[int] = []
        self._to_send = 0
        self._peer_gone = False
        self._socket: socket.socket | TlsStream = TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else sock
        self._tcp = sock
        sock.setblocking(False)
        # Nagle's algorithm and delayed acknowledgements together cost 40 ms an image; keep-alive finds dead
        # peers behind firewalls that forget idle connections.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.peer = peer
        self.heard_bytes = 0
        self._progress = progress
        self._input = bytearray()
        self._heard = False
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        self._either = select.poll()
        self._either.register(sock, select.POLLIN | select.POLLOUT)

    def send(self, buffers: Sequence[bytes | memoryview], *, seconds: float) -> None:
        """Write all of `buffers`, in order, in as few system calls as the socket allows.

        Returns when the last byte is in the socket's buffer. Raises DimseTimeout("progress", seconds) when no
        byte moved for `seconds`, AssociationAborted when the peer aborted, hung up, or `abort` was called.
        """
        self._check_open()
        views = [memoryview(buffer) for buffer in buffers]
        self._sent, self._to_send = [], sum(map(len, views))
        while views:
            try:
                with self._lock:
                    # Sent and counted by C code: neither a signal's exception nor `abort` comes in between.
                    self._sent.extend(map(self._socket.sendmsg, (views,)))
            except (BlockingIOError, InterruptedError):
                self._wait_for_room(seconds)
                continue
            except OSError as error:
                raise self._broken(error) from error
            self._moved()
            sent = self._sent[-1]
            if sent == self._to_send:
                return
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    @property
    def is_between_pdus(self) -> bool:
        """Whether nothing of the next PDU has been read yet."""
        return not self._input

    def receive(self, phase: str, seconds: float, most: int = MAX_PDU_LENGTH) -> Pdu:
        """The next PDU, of any lawful type but A-ABORT.

        Raises DimseTimeout(phase, seconds) when nothing moved for `seconds`, AssociationAborted for A-ABORT
        and when `abort` was called, PeerClosed when TCP ended, ProtocolViolation (after an A-ABORT of ours)
        for an unknown PDU type (PS3.8 9.2, AA-8) or a length beyond `most`.
        """
        self._check_open()
        self._fill(6, phase, seconds)
        kind, length = _HEAD.unpack_from(self._input)
        if not A_ASSOCIATE_RQ <= kind <= A_ABORT:
            self.abort(BY_SERVICE_PROVIDER, UNRECOGNISED_PDU)
            raise ProtocolViolation(f"{self.peer}: a PDU of unknown type 0x{kind:02X}", pdu_type=kind)
        if length > most:
            self.abort(BY_SERVICE_PROVIDER, INVALID_PARAMETER)
            raise ProtocolViolation(f"{self.peer}: a PDU of {length} bytes, {most} is the most")
        self._fill(6 + length, phase, seconds)
        body = bytes(self._input[6 : 6 + length])
        del self._input[: 6 + length]
        if kind == A_ABORT:
            raise self.aborted_by_peer(body)
        return Pdu(kind, body)

    def receive_into(self, view: memoryview, phase: str, seconds: float) -> int:
        """Whatever bytes are there, at least one, into `view`; returns how many.

        For who takes PDUs apart in a buffer of its own. Raises DimseTimeout(phase, seconds), AssociationAborted,
        PeerClosed.
        """
        self._check_open()
        if self._input:
            size = min(len(view), len(self._input))
            view[:size] = self._input[:size]
            del self._input[:size]
            return size
        while True:
            try:
                size = self._socket.recv_into(view)
            except (BlockingIOError, InterruptedError):
                self._wait(self._readable, phase, seconds)
                continue
            except OSError as error:
                raise self._broken(error) from error
            if not size:
                raise self._broken(None)
            self._heard = True
            self._moved()
            return size

    def abort(self, source: int = BY_SERVICE_USER, reason: int = 0) -> None:
        """Send A-ABORT if it can be sent at once, and shut the connection down. Never blocks, may be
        repeated.

        From any thread: a call blocked in the owner's thread raises AssociationAborted promptly. The
        descriptor stays open until the owner calls `close`, so its number cannot be given to another file
        meanwhile.
        """
        with self._lock:
            if self._aborted or self._closed:
                return
            try:
                # In the middle of a PDU the peer would take it for data; after its own A-ABORT, or its
                # connection's end, it hears nothing.
                if not (0 < sum(self._sent) < self._to_send or self._peer_gone):
                    with contextlib.suppress(OSError):
                        self._socket.send(encode_abort(source, reason))
            finally:
                self._aborted = True
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def part(self, seconds: float) -> None:
        """End our direction of a released connection, and let the peer end its own within so much silence.

        A peer counts an association until it has seen the end of its connection: whoever opens the next one
        before that may be one too many there. Never raises for what the peer does.
        """
        with self._lock:
            if self._aborted or self._closed:
                return
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(DimseError):
            for _ in range(64):
                self._wait(self._readable, "release", seconds)
                self._read()

    def close(self) -> None:
        """Close the connection; may be repeated. For the owner's thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # Closing with unread input resets the connection, and a reset may overtake the A-ABORT or
            # A-RELEASE-RP.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                for _ in range(64):
                    if not self._socket.recv(_CHUNK):
                        break
            self._socket.close()

    def __del__(self) -> None:
        """A signal's exception may come after the opening and before there is an owner: the peer is told then, too."""
        self.abort()
        self.close()

    def _moved(self) -> None:
        if self._progress is not None:
            self._progress(0)

    def _check_open(self) -> None:
        if self._aborted or self._closed:
            raise AssociationAborted(f"{self.peer}: the association was aborted on our side")

    def _fill(self, size: int, phase: str, seconds: float) -> None:
        while len(self._input) < size:
            # Who had something else to do meanwhile need not wait: what is there is taken first.
            if not self._read():
                self._wait(self._readable, phase, seconds)

    def _wait(self, until: select.poll, phase: str, seconds: float) -> int:
        """Until the socket is ready; returns the events. Raises DimseTimeout after `seconds` without a byte
        moved.

        Bytes that leave the kernel's send buffer count: it takes megabytes at once, and reports room only
        when a third of it is free, which over a slow line takes longer than any time-out that would notice a
        dead peer.
        """
        if until is not self._writable:
            self._acknowledge()
        # Most waits end here, before it is worth asking how much is on its way.
        first = min(seconds, 0.05)
        events = until.poll(first * 1000)
        waiting = 0 if events else _unacknowledged(self._socket)
        left = seconds - first
        while not events and not (events := until.poll(left * 1000)):
            before, waiting = waiting, _unacknowledged(self._socket)
            if waiting >= before:
                raise named(self.peer, DimseTimeout(phase, seconds))
            self._moved()
            left = seconds
        return events[0][1]

    def _acknowledge(self) -> None:
        """Acknowledge at once what has come. A peer with Nagle's algorithm on, as DCMTK and Orthanc have it by default,
        holds the rest of a message back until then, and the system takes its time (40 ms) unless it is told.
        """
        if _QUICKACK is not None:
            with contextlib.suppress(OSError):
                self._tcp.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _read(self) -> bool:
        """Keep what has come; whether there was anything."""
        try:
            chunk = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise self._broken(error) from error
        if not chunk:
            raise self._broken(None)
        self._heard = True
        self.heard_bytes += len(chunk)
        self._input += chunk
        self._moved()
        return True

    def _wait_for_room(self, seconds: float) -> None:
        """Until the socket takes bytes again; what the peer says meanwhile is kept, its A-ABORT is heard at
        once.
        """
        listen = len(self._input) < _MOST_READ_WHILE_SENDING
        events = self._wait(self._either if listen else self._writable, "progress", seconds)
        if listen and events & select.POLLIN:
            self._read()
            self._raise_kept_abort()

    def _raise_kept_abort(self) -> None:
        """Raise AssociationAborted if a whole A-ABORT lies among the input that is kept."""
        offset = 0
        while offset + 6 <= len(self._input):
            kind, length = _HEAD.unpack_from(self._input, offset)
            end = offset + 6 + length
            if kind == A_ABORT and end <= len(self._input):
                raise self.aborted_by_peer(bytes(self._input[offset + 6 : end]))
            offset = end

    def _broken(self, error: OSError | None) -> AssociationAborted:
        """What a dead connection means: our abort, the A-ABORT that came before its end, or no word at
        all.
        """
        if self._aborted or self._closed:
            return AssociationAborted(f"{self.peer}: the association was aborted on our side")
        if error is not None:
            # A failed write says nothing of what the peer wrote before it hung up.
            with contextlib.suppress(OSError):
                while chunk := self._socket.recv(_CHUNK):
                    self._heard = True
                    self._input += chunk
            try:
                self._raise_kept_abort()
            except AssociationAborted as abort:
                return abort
        self._peer_gone = True
        text = f"the connection broke ({error.strerror or error})" if error else "the connection was closed"
        return PeerClosed(f"{self.peer}: {text}", heard=self._heard)

    def aborted_by_peer(self, body: bytes) -> AssociationAborted:
        """The error to raise for the body of an A-ABORT of the peer, to which nothing is answered."""
        self._peer_gone = True
        source, reason = (body[2], body[3]) if len(body) >= 4 else (0, 0)
        who = "its service provider" if source == BY_SERVICE_PROVIDER else "its application"
        return AssociationAborted(f"{self.peer}: aborted by {who} (source {source}, reason {reason})", source, reason)


def _unacknowledged(sock: socket.socket | TlsStream) -> int:
    """How many bytes lie in the kernel's send buffer or on the way; 0 where the system does not tell."""
    try:
        # SIOCOUTQ, which Linux numbers as TIOCOUTQ (tcp(7)).
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def named(peer: str, error: _E) -> _E:
    """`error` with the peer's name in front of its message."""
    error.args = (f"{peer}: {error}",)
    return error

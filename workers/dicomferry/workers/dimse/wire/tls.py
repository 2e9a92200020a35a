"""A TLS connection that behaves as the plain non-blocking socket does which the upper layer is written for.

TLS has no scatter-gather, says "not yet" with errors of its own, and its state takes one thread at a time, while an
abort may come from any. The handshake is done before; nothing is negotiated anew afterwards.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence

RECORD = 16 * 1024
"""The most that one TLS record holds (RFC 8446, 5.1)."""


class TlsStream:
    """The part of a non-blocking socket's methods that the upper layer uses, over `sock` after its handshake.

    Whatever has to wait raises BlockingIOError. Reads of at least RECORD bytes leave nothing decrypted behind, so
    that polling the descriptor tells whether there is more.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._ended = False

    def fileno(self) -> int:
        """The descriptor of the socket, for poll."""
        return self._socket.fileno()

    def sendmsg(self, views: Sequence[memoryview]) -> int:
        """Send the beginning of `views`: a record full of short ones, or of the first one; how many bytes went.

        After BlockingIOError the same bytes have to come first again.
        """
        first = views[0]
        if len(first) >= RECORD or len(views) == 1:
            return self.send(first)
        parts: list[memoryview] = []
        room = RECORD
        for view in views:
            parts.append(view[:room])
            room -= len(parts[-1])
            if not room:
                break
        return self.send(b"".join(parts))

    def send(self, data: bytes | memoryview) -> int:
        """Send some of `data`; how many bytes went."""
        with self._lock, _blocking():
            if self._ended:
                raise BrokenPipeError("TLS has ended")
            return self._socket.send(data)

    def recv(self, size: int) -> bytes:
        """What there is, b"" at the end; with or without the peer's close_notify, which DICOM does not need."""
        with self._lock, _blocking():
            return b"" if self._ended else self._socket.recv(size)

    def recv_into(self, view: memoryview) -> int:
        """Receive into `view`; how many bytes came, 0 at the end. Raises as `recv` does."""
        with self._lock, _blocking():
            return 0 if self._ended else self._socket.recv_into(view)

    def shutdown(self, how: int) -> None:
        """Say close_notify if that can be said at once, then shut TCP down; nothing is read or sent any more."""
        with self._lock:
            if not self._ended:
                self._ended = True
                with contextlib.suppress(OSError, ValueError):
                    self._socket.unwrap()
            # SSLSocket's own methods would forget TLS and let the next bytes pass in the clear.
            socket.socket.shutdown(self._socket, how)
            # What is left unread would reset the connection at its close.
            with contextlib.suppress(OSError):
                for _ in range(64):
                    if not socket.socket.recv(self._socket, RECORD):
                        break

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            self._socket.close()


@contextlib.contextmanager
def _blocking() -> Iterator[None]:
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
        raise BlockingIOError("not yet") from error

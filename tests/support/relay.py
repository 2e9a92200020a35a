"""A TCP relay in front of a real peer: as slow as a test wants it, so that what it does lands in mid-batch."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from support.process import LOOPBACK

PIECE = 16384


class Relay:
    """Passes bytes on to `port`, at most `rate` of them a second towards it over all connections (None: no limit).

    `back` limits what comes back instead. With `delay` each byte is that many seconds on its way, in either direction:
    a line of twice that round trip.
    """

    def __init__(self, port: int, rate: float | None = None, delay: float = 0.0, *, back: bool = False) -> None:
        self.target = port
        self.rate = rate
        self.delay = delay
        self.back = back
        self.most_open = 0
        self._open = 0
        self._due = time.monotonic()
        self._lock = threading.Lock()
        self._closing = False
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((LOOPBACK, self.target), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Small buffers: what a killed sender left in them still arrives.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
            with self._lock:
                self._sockets |= {near, far}
                self._open += 1
                self.most_open = max(self.most_open, self._open)
            for source, sink, forth in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._pump, args=(source, sink, forth), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pump(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        try:
            for piece in self._late(source) if self.delay else iter(lambda: source.recv(PIECE), b""):
                if forth is not self.back:
                    self._wait_for(len(piece))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        if forth:
            with self._lock:
                self._open -= 1

    def _late(self, source: socket.socket) -> Iterator[bytes]:
        """What `source` says, each piece `delay` after it was said; any number may be on its way."""
        line: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

        def read() -> None:
            piece = b"at least once"
            while piece:
                try:
                    piece = source.recv(PIECE)
                except OSError:
                    piece = b""
                line.put((time.monotonic() + self.delay, piece))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while True:
            due, piece = line.get()
            left = due - time.monotonic()
            if left > 0:
                time.sleep(left)
            if not piece:
                return
            yield piece

    def _wait_for(self, number: int) -> None:
        """Take this many bytes' time from the shared budget."""
        with self._lock:
            rate = self.rate
            if rate is None:
                return
            self._due = max(self._due, time.monotonic()) + number / rate
            due = self._due
        while not self._closing and self.rate is not None:
            left = due - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._sockets:
            end.close()

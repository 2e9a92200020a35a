"""The TCP connections of a storage SCP: a thread for each, and an end for all of them."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from dicomferry.models import telemetry
from dicomferry.models.rules.callers import canonical
from dicomferry.workers.dimse.acceptor import Acceptor

MOST_STRANGERS = 64
"""TCP connections that have not associated yet, in all processes that receive; with one more the oldest has to go."""
RELEASE_SECONDS = 5.0
"""When it stops, associations between two messages have so long to end by themselves."""

log = telemetry.logger(__name__)


class Stop(Protocol):
    """Something that asks for an end, such as a signal."""

    def is_set(self) -> bool:
        """Whether it is asked for."""

    def is_urgent(self) -> bool:
        """Whether it is to be at once."""

    def fileno(self) -> int:
        """Readable once it is asked for."""

    def wait(self, seconds: float) -> bool:
        """Wait until it is asked for, at most so long; whether it was."""


class Connection(Protocol):
    """One connection, and what is served on it."""

    @property
    def acceptor(self) -> Acceptor:
        """The acceptor that speaks DICOM's protocol on the connection."""

    def run(self) -> None:
        """Serve the connection from its beginning to its end, in a thread of its own. Raises nothing."""


class Source(Protocol):
    """Where connections come from, as from a listening socket."""

    def setblocking(self, flag: bool, /) -> None:
        """Whether `accept` waits."""

    def fileno(self) -> int:
        """Readable when there is a connection."""

    def accept(self) -> tuple[socket.socket, Any]:
        """A connection, and the address that it came from, whose first part is the host's. Raises OSError."""

    def close(self) -> None:
        """Take no more."""


class Connections:
    """A source of connections, which it owns, and those that came from it; `make` says what each is to be.

    `ended` is called when one of them is over. With more than `most_strangers` that have not associated the oldest of
    these has to go.
    """

    def __init__(
        self,
        listener: Source,
        make: Callable[[socket.socket, str], Connection],
        *,
        ended: Callable[[], object] = lambda: None,
        most_strangers: int = MOST_STRANGERS,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._make = make
        self._ended = ended
        self._most_strangers = most_strangers
        self._lock = threading.Lock()
        self._open: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, stop: Stop, seconds: float) -> None:
        """Take connections for so long, or until a stop is asked for."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not stop.is_set():
            readable, _, _ = select.select([self._listener.fileno(), stop.fileno()], [], [], left)
            if self._listener.fileno() not in readable:
                continue
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # Out of descriptors, as a rule: those in use come back.
                log.error("a connection could not be accepted", error=str(error))
                stop.wait(0.1)
                continue
            self._begin(sock, canonical(str(address[0])))

    def _begin(self, sock: socket.socket, address: str) -> None:
        with self._lock:
            strangers = [connection for connection in self._open if connection.acceptor.request is None]
        if len(strangers) >= self._most_strangers:
            strangers[0].acceptor.end("too many connections do not associate", at_once=True)
        try:
            connection = self._make(sock, address)
        except OSError:
            sock.close()  # gone already
            self._ended()
            return
        with self._lock:
            self._open[connection] = None
        try:
            threading.Thread(target=self._run, args=(connection,), name=f"association {address}", daemon=True).start()
        except RuntimeError as error:
            log.error("no thread for a connection", error=str(error))
            self._forget(connection)
            sock.close()

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._open.pop(connection, None)
        self._ended()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def are_busy(self) -> bool:
        """Whether a message is being received or answered on any of them."""
        with self._lock:
            return any(connection.acceptor.busy for connection in self._open)

    def drain(self, stop: Stop, progress: float, *, goodbye: float = RELEASE_SECONDS) -> None:
        """Let associations end: between two messages after `goodbye` seconds, within one after its answer; at once if
        that is urgent. `progress` bounds the wait for messages that are under way, in seconds.
        """
        self.close()
        self._wait_for_end(stop, goodbye)
        self.end_all(at_once=False)
        self._wait_for_end(stop, progress)
        self.end_all(at_once=True)
        self._wait_for_end(None, RELEASE_SECONDS)

    def _wait_for_end(self, stop: Stop | None, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._open and time.monotonic() < deadline and not (stop and stop.is_urgent()):
            time.sleep(0.02)

    def end_all(self, *, at_once: bool) -> None:
        """Abort every association, now or after the answer to the message that is coming in."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.acceptor.end("this storage SCP is stopping", at_once=at_once)

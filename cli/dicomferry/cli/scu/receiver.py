"""The storage SCP that listens in this process while a C-MOVE runs: it takes whatever comes and makes files of it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from types import TracebackType
from typing import Self

from dicomferry.cli.scu.messages import CommandRefused
from dicomferry.cli.scu.output_files import OutputFolder, ReceivedFile
from dicomferry.daemon.connections import Connections
from dicomferry.models.rules.errors import DimseError
from dicomferry.workers.dimse.acceptor import Acceptor, Incoming, Waits
from dicomferry.workers.dimse.wire.associate_as_acceptor import AssociateRequest, Rejection
from dicomferry.workers.dimse.wire.upper_layer import UpperLayer

GOODBYE_SECONDS = 1.0
"""When all has come, associations have so long to be released by who opened them."""
FOR_EVER = 7 * 86400.0
"""Longer than any retrieve, in seconds."""


class Receiver:
    """Listens on all interfaces from the moment it is entered; any number of associations, any AE titles.

    `moved` counts what came on them, in reads; it grows as long as something comes.
    """

    def __init__(self, port: int, output: OutputFolder, seconds: float) -> None:
        self._port = port
        self._output = output
        self.waits = Waits(acse=seconds, idle=FOR_EVER, progress=seconds)
        self._stop = _StopRequest()
        self._connections: Connections | None = None
        self._accepting = threading.Thread(target=self._accept, name="receiver", daemon=True)
        self.moved = 0
        self.associations = 0

    def __enter__(self) -> Self:
        """Raises Refused where the port cannot be had."""
        try:
            listener = _listen(self._port)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise CommandRefused(f"port {self._port} cannot be listened on (--port-scp): {why}") from None
        self._connections = Connections(listener, lambda sock, _address: _ReceiverConnection(self, sock))
        self._accepting.start()
        return self

    def _accept(self) -> None:
        assert self._connections is not None
        self._connections.accept(self._stop, FOR_EVER)

    @property
    def is_busy(self) -> bool:
        """Whether an instance is coming in right now."""
        return self._connections is not None and self._connections.are_busy()

    def end(self) -> None:
        """Take no more associations, and let those that there are come to their end."""
        self._stop.set()
        if self._connections is not None:
            self._accepting.join()
            self._connections.drain(self._stop, self.waits.progress, goodbye=GOODBYE_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, DimseError):
            self._stop.set_urgent()
        self.end()
        self._stop.close()

    def receive(self, incoming: Incoming) -> ReceivedFile:
        """The place for an instance."""
        return self._output.receive(incoming)


def _listen(port: int) -> socket.socket:
    """Every address of this machine, over IPv6 as well where there is one. Raises OSError."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=256, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port), backlog=256)


class _ReceiverConnection:
    """One connection, and the `Service` of its acceptor."""

    def __init__(self, receiver: Receiver, sock: socket.socket) -> None:
        self._receiver = receiver
        host, port = sock.getpeername()[:2]
        self.acceptor = Acceptor(UpperLayer(sock, f"{host}:{port}", self._moved), self, receiver.waits)

    def run(self) -> None:
        """The whole life of the connection. How it ends is the mover's affair, who tells by its counters."""
        with contextlib.suppress(DimseError):
            self.acceptor.serve()

    def admit(self, _request: AssociateRequest) -> Rejection | None:
        """Whoever comes."""
        self._receiver.associations += 1
        return None

    def _moved(self, _bytes: int) -> None:
        self._receiver.moved += 1

    def prefer(self, _request: AssociateRequest) -> str | None:
        """Implicit VR Little Endian where it is offered among others, as gdcmscu does."""
        return "implicit"

    def store(self, incoming: Incoming) -> ReceivedFile:
        """A file of its own."""
        return self._receiver.receive(incoming)

    def look_ahead(self) -> None:
        """Nothing is worth it."""

    def leave(self, _request: AssociateRequest) -> None:
        """Nothing is counted."""


class _StopRequest:
    """A request to stop that another thread waits for."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._is_set = self._is_urgent = False

    def set(self) -> None:
        """Ask for it."""
        if not self._is_set:
            self._is_set = True
            os.write(self._writing, b"!")

    def set_urgent(self) -> None:
        """Ask for it at once."""
        self._is_urgent = True
        self.set()

    def is_set(self) -> bool:
        """Whether it is asked for."""
        return self._is_set

    def is_urgent(self) -> bool:
        """Whether it is to be at once."""
        return self._is_urgent

    def fileno(self) -> int:
        """Readable once it is asked for."""
        return self._reading

    def wait(self, seconds: float) -> bool:
        """Wait until it is asked for, at most so long."""
        if not self._is_set:
            select.select([self._reading], [], [], seconds)
        return self._is_set

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._reading)
        os.close(self._writing)

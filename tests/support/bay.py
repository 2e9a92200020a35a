"""An acceptor on a loopback port with a service that only remembers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

from dicomferry.workers.dimse.acceptor import Acceptor, Incoming, StatusReply, Waits
from dicomferry.workers.dimse.wire.associate_as_acceptor import AssociateRequest, Rejection
from dicomferry.workers.dimse.wire.upper_layer import UpperLayer
from support import scripted_peer as peer
from support.installation import until

WAITS = Waits(acse=peer.PATIENCE, idle=peer.PATIENCE, progress=peer.PATIENCE)


class Memory:
    """A sink that keeps everything."""

    def __init__(self, bay: Bay, incoming: Incoming) -> None:
        self.incoming = incoming
        self.data = bytearray()
        self.spans: list[int] = []
        self.ended = ""
        self._bay = bay

    def take(self, spans: list[memoryview]) -> None:
        for span in spans:
            self.spans.append(len(span))
            self.data += span

    def finish(self) -> StatusReply:
        self.ended = "finished"
        return self._bay.answer

    def discard(self) -> None:
        self.ended = self.ended or "discarded"


class Bay:
    """Takes connections one after the other, each in a thread; `error` is how the last one ended."""

    def __init__(self, waits: Waits = WAITS, tls: ssl.SSLContext | None = None) -> None:
        self.answer = StatusReply(0)
        self.rejection: Rejection | None = None
        self.preferred: str | None = None
        self.sinks: list[Memory] = []
        self.error: BaseException | None = None
        self.admitted = 0
        self.looks = 0
        self.acceptor: Acceptor | None = None
        self._waits = waits
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                if self._tls:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                self.acceptor = Acceptor(UpperLayer(sock, "caller"), self, self._waits)
                thread = threading.Thread(target=self._serve, args=(self.acceptor,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, acceptor: Acceptor) -> None:
        try:
            acceptor.serve()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        """Until every connection, one at least, has come to its end."""
        until(lambda: self._threads, "a connection came", pause=0.001)
        for thread in self._threads:
            thread.join(peer.PATIENCE)
            assert not thread.is_alive()

    def close(self) -> None:
        self._listener.close()

    # --- the service ---

    def admit(self, request: AssociateRequest) -> Rejection | None:
        if self.rejection is None:
            self.admitted += 1
        return self.rejection

    def prefer(self, request: AssociateRequest) -> str | None:
        return self.preferred

    def store(self, incoming: Incoming) -> Memory:
        self.sinks.append(Memory(self, incoming))
        return self.sinks[-1]

    def look_ahead(self) -> None:
        self.looks += 1

    def leave(self, request: AssociateRequest) -> None:
        self.admitted -= 1


@contextlib.contextmanager
def open_bay(waits: Waits = WAITS, tls: ssl.SSLContext | None = None) -> Iterator[Bay]:
    bay = Bay(waits, tls)
    try:
        yield bay
    finally:
        bay.close()

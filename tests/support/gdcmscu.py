"""The real gdcmscu, behind a relay that hides the answer to its release request: 3.0.21 aborts when it sees one."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import suppress

from support.process import LOOPBACK, require

RELEASE_RP = 0x06


def run(port: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What gdcmscu says to the peer at `port`; `arguments` are without host and port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        relay = threading.Thread(target=_relay, args=(listener, port), daemon=True)
        relay.start()
        command = [require("gdcmscu"), *arguments, LOOPBACK, str(listener.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        relay.join(10)
        return done


def _relay(listener: socket.socket, port: int) -> None:
    near, _ = listener.accept()
    with near, socket.create_connection((LOOPBACK, port)) as far:
        forth = threading.Thread(target=_pass_on, args=(near, far), daemon=True)
        forth.start()
        _pass_on(far, near, hide=RELEASE_RP)
        forth.join(10)


def _pass_on(source: socket.socket, sink: socket.socket, hide: int | None = None) -> None:
    """PDU by PDU, until the stream ends or one of the type to hide comes."""
    with suppress(OSError, EOFError):
        while (head := _read(source, 6))[0] != hide:
            sink.sendall(head + _read(source, int.from_bytes(head[2:])))
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = source.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data

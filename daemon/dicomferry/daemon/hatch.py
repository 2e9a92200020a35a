"""What passes between the storage SCP's role and each process that receives for it, over two pairs of sockets.

One carries connections that were accepted, the other words: lines of JSON. Both pairs outlive a process that dies, so
that the next one under its number takes up what is left of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

_ADDRESS = 64
"""Bytes in which the address goes along with each connection: always as many, so that none is read with another's."""
_CHUNK = 64 * 1024

Word = dict[str, Any]


class Talk:
    """One end of the socket for words. `say` is for any thread, `heard` for one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._rest = b""

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return self._socket.fileno()

    def say(self, what: str, **more: object) -> None:
        """Say one word. Raises OSError, also where the other side does not listen and the end does not block."""
        line = json.dumps({"say": what, **more}).encode() + b"\n"
        with self._lock:
            self._socket.sendall(line)

    def heard(self) -> Iterator[Word]:
        """What was said by now, at least one word where the end blocks. Raises EOFError when the other end is gone."""
        with contextlib.suppress(BlockingIOError):
            found = self._socket.recv(_CHUNK)
            if not found:
                raise EOFError
            *lines, self._rest = (self._rest + found).split(b"\n")
            yield from map(json.loads, lines)

    def forget(self) -> None:
        """Leave unheard what was said until now; for an end that does not block."""
        self._rest = b""
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(_CHUNK):
                pass


def give(hatch: socket.socket, sock: socket.socket, address: str) -> None:
    """Pass on a connection that came from there. Raises OSError, BlockingIOError where too many wait already."""
    socket.send_fds(hatch, [address.encode("ascii").ljust(_ADDRESS, b"\0")], [sock.fileno()])


class Handed:
    """The connections that are passed to us, for who takes them as from a port. `lost`: one came, and could not."""

    def __init__(self, hatch: socket.socket, *, lost: Callable[[], object] = lambda: None) -> None:
        self._hatch = hatch
        self._lost = lost

    def setblocking(self, flag: bool, /) -> None:
        """Whether `accept` waits for one."""
        self._hatch.setblocking(flag)

    def fileno(self) -> int:
        """Readable when there is one."""
        return self._hatch.fileno()

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """A connection, and the address that it came from. Raises BlockingIOError, OSError."""
        told, found, _, _ = socket.recv_fds(self._hatch, _ADDRESS, 1)
        if not told:
            raise BlockingIOError
        if not found:
            self._lost()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return socket.socket(fileno=found[0]), (told.rstrip(b"\0").decode("ascii"), 0)

    def close(self) -> None:
        """Take no more."""
        self._hatch.close()

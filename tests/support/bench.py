"""A storage and verification SCP at PDU level that takes any number of associations and misbehaves on demand.

    with Bench(answer=lambda store: 0xA700 if store.number == 3 else 0) as bench: ...

It counts what it sees: connections, association requests, and every C-STORE that it read to the end.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode

from support import scripted_peer as peer
from support.scripted_peer import Choose, Conversation, Step, take_first

ECHO_RQ = 0x0030


class Hung(ConnectionError):
    """The other side has ended the connection."""


class Line(Conversation):
    """A conversation whose end is nothing wrong."""

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise Hung
            data += chunk
        return data


@dataclass(frozen=True, kw_only=True)
class Store:
    """One C-STORE: the `number`-th of all, the `nth` of its instance, on the association of this number."""

    uid: str
    number: int
    nth: int
    association: int
    place: int
    message_id: int


Reply = int | Sequence[Step]
"""A status for a plain answer, or steps to be played instead of one."""


def never(_: object) -> None:
    """No steps."""


class Bench:
    """Listens on loopback, a thread for each connection.

    `greet(n)` gives the steps to be played for the n-th association request, None to accept it. `early(store)` is
    asked when only the command of a C-STORE is in; the steps that it gives are played then, and stand for the answer.
    """

    def __init__(
        self,
        *,
        answer: Callable[[Store], Reply] = lambda _: 0,
        greet: Callable[[int], Sequence[Step] | None] = never,
        early: Callable[[Store], Sequence[Step] | None] = never,
        choose: Choose = take_first,
        port: int = 0,
        max_pdu: int = 16384,
    ) -> None:
        self.answer, self.greet, self.early, self.choose = answer, greet, early, choose
        self._max_pdu = max_pdu
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.stores: list[str] = []
        """SOP Instance UID of each C-STORE in order, those that broke off in the data set included."""
        self.data: dict[int, tuple[str, bytes]] = {}
        """SOP class in the command, and data set, of each C-STORE that was read to its end, by its number."""
        self.echoes = 0
        """C-ECHOs that were answered; each of ours comes on an association of its own."""
        self.failure: BaseException | None = None
        self._lock = threading.Lock()
        self._nth: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._lines: list[Line] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """What a job names as its remote."""
        return f"BENCH@127.0.0.1:{self.port}"

    @property
    def associations(self) -> int:
        """How often an association was asked for."""
        return len(self.requests)

    @property
    def transfers(self) -> int:
        """How often one was asked for that was not for a C-ECHO."""
        return len(self.requests) - self.echoes

    @property
    def most(self) -> int:
        """How often the instance that came most often came."""
        return max(self._nth.values(), default=0)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line = Line(self._listener.accept()[0])
                self._lines.append(line)
                thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, line: Line) -> None:
        try:
            with line.socket, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._converse(line)
        except OSError:
            pass
        except BaseException as error:
            self.failure = error

    def _converse(self, line: Line) -> None:
        request = line.expect(peer.RQ)
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        steps = self.greet(number)
        if steps is not None:
            play(line, steps)
            return
        peer.accept(self.choose, self._max_pdu)(line)
        place = 0
        while (pdu := line.read_pdu())[0] == peer.DATA:
            place += 1
            self._message(line, pdu, number, place)
        if pdu[0] == peer.RELEASE_RQ:
            line.socket.sendall(peer.release_pdu(peer.RELEASE_RP))

    def _message(self, line: Line, pdu: bytes, association: int, place: int) -> None:
        command = b""
        while True:
            control = struct.unpack_from(">LBB", pdu, 6)[2]
            command += pdu[12:]
            if control & 2:
                break
            pdu = data_pdu(line)
        values: Dataset = decode(BytesIO(command), True, True)
        if values.CommandField == ECHO_RQ:
            with self._lock:
                self.echoes += 1
            line.socket.sendall(peer.p_data(peer.pdv(peer.echo_rsp_command(values.MessageID), 3)))
            return
        uid = str(values.AffectedSOPInstanceUID)
        with self._lock:
            self.stores.append(uid)
            self._nth[uid] += 1
            store = Store(
                uid=uid,
                number=len(self.stores),
                nth=self._nth[uid],
                association=association,
                place=place,
                message_id=int(values.MessageID),
            )
        early = self.early(store)
        if early is not None:
            play(line, early)
        parts = [data_pdu(line)]
        while not parts[-1][11] & 2:
            parts.append(data_pdu(line))
        self.data[store.number] = str(values.AffectedSOPClassUID), b"".join(part[12:] for part in parts)
        if early is None:
            reply = self.answer(store)
            play(line, [peer.send(peer.store_rsp(store.message_id, reply))] if isinstance(reply, int) else reply)

    def cut(self) -> None:
        """End every connection that is open, as a process does that dies."""
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(peer.PATIENCE)
        self.cut()
        for thread in self._threads:
            thread.join(peer.PATIENCE)
        if kind is None and self.failure is not None:
            raise AssertionError(f"the bench failed: {self.failure!r}") from self.failure


def data_pdu(line: Line) -> bytes:
    """The next P-DATA-TF, unless the other side gives the message up."""
    pdu = line.read_pdu()
    if pdu[0] == peer.ABORT:
        raise Hung
    assert pdu[0] == peer.DATA, f"PDU type {pdu[0]} in the middle of a message"
    return pdu


def play(line: Conversation, steps: Sequence[Step]) -> None:
    """One step after the other."""
    for step in steps:
        step(line)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

"""A C-FIND SCP that answers what it is told to, from identifiers that were encoded beforehand: for misuse and speed.

    with FindScp(lambda asked: [pending(one) for one in identifiers] + [final()]) as scp: ...

An answer is bytes, put on the line as they are, or a step to be played. Everything is encoded with pynetdicom.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicomferry.models.rules.remote import Remote, Timeouts
from support import scripted_peer as peer
from support.bench import Hung
from support.qr_messages import CANCEL_RQ, ECHO_RQ, FIND_RQ, Message, QrLine, Released, read_message, respond
from support.scripted_peer import Answer, Choose, Step

MARK = 0x7BCD
"""Stands for the message id in answers that are encoded before the query is known."""
_MARKED = struct.pack("<HHLH", 0, 0x0120, 2, MARK)
_AT_ONCE = 64


def identifier(syntax: str = ImplicitVRLittleEndian, **elements: object) -> bytes:
    """A data set by keyword."""
    values = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in elements.items():
            setattr(values, keyword, value)
        return encode(values, syntax == ImplicitVRLittleEndian, True) or b""


def pending(data: bytes, status: int = 0xFF00, context_id: int = 1) -> bytes:
    """A match in two P-DATA-TF."""
    command = _response(status, data_set=True)
    return peer.p_data(peer.pdv(command, 3, context_id)) + peer.p_data(peer.pdv(data, 2, context_id))


def final(status: int = 0, **more: object) -> bytes:
    """The last answer."""
    return peer.p_data(peer.pdv(_response(status, data_set=False, **more), 3))


def _response(status: int, *, data_set: bool, **more: object) -> bytes:
    kind = 0x0001 if data_set else 0x0101
    values = {"AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.2.2.1", "CommandField": 0x8020}
    return peer.store_rsp_command(MARK, status, **{**values, "CommandDataSetType": kind, **more})


def implicit(_abstract: str, _syntaxes: list[str]) -> Answer:
    """Accept every context in Implicit VR Little Endian."""
    return 0, str(ImplicitVRLittleEndian)


@dataclass(frozen=True)
class Asked:
    """One query: its identifier, and which one of all it is, from 1."""

    query: Dataset
    number: int


Reply = Iterable["bytes | Step"]


class FindScp:
    """Listens on loopback, a thread for each connection. `reply` gives the answers to a query, one after the other.

    A C-CANCEL between two of them ends them with 0xFE00, unless the SCP is `deaf`.
    """

    def __init__(self, reply: Callable[[Asked], Reply], *, choose: Choose = implicit, deaf: bool = False) -> None:
        self.reply, self.choose, self.deaf = reply, choose, deaf
        self.queries: list[Dataset] = []
        self.raw: list[bytes] = []
        self.cancels = 0
        self.associations = 0
        self.endings: list[str] = []
        """How each association ended: released, aborted or hung up."""
        self.failure: BaseException | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lines: list[QrLine] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """What a job names as its remote."""
        return f"FINDSCP@127.0.0.1:{self.port}"

    def remote(self, **timeouts: float) -> Remote:
        """This peer as a remote; it is patient unless told otherwise."""
        patient = {"acse": peer.PATIENCE, "first_answer": peer.PATIENCE, "progress": peer.PATIENCE}
        return Remote(
            name="scripted",
            ae_title="FINDSCP",
            host="127.0.0.1",
            port=self.port,
            calling_ae_title="TESTER",
            timeouts=Timeouts(**{**patient, **timeouts}),
        )

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line = QrLine(self._listener.accept()[0])
                self._lines.append(line)
                thread = threading.Thread(target=self._converse, args=(line,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _converse(self, line: QrLine) -> None:
        with line.socket, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._open(line)
                while True:
                    self._serve(line, read_message(line))
            except Released:
                self.endings.append("released")
                with contextlib.suppress(OSError):
                    line.socket.sendall(peer.release_pdu(peer.RELEASE_RP))
            except Hung:
                self.endings.append("aborted")
            except (OSError, AssertionError):
                self.endings.append("hung up")
            except BaseException as error:
                self.failure = error

    def _open(self, line: QrLine) -> None:
        line.expect(peer.RQ)
        self.associations += 1
        line.socket.sendall(peer.acceptance(line, self.choose))
        asked = line.request.presentation_context_definition_list
        chosen = [self.choose(str(one.abstract_syntax), [str(s) for s in one.transfer_syntax]) for one in asked]
        line.contexts = {
            int(one.context_id or 0): (str(one.abstract_syntax), answer[1] if answer else "")
            for one, answer in zip(asked, chosen, strict=True)
        }

    def _serve(self, line: QrLine, message: Message) -> None:
        kind = int(message.command.CommandField)
        if kind == CANCEL_RQ:
            self.cancels += 1  # too late
            return
        if kind == ECHO_RQ:
            respond(line, message, 0)
            return
        assert kind == FIND_RQ
        asked = line.data_set(message)
        self.queries.append(asked)
        self.raw.append(message.data)
        number = struct.pack("<HHLH", 0, 0x0120, 2, int(message.command.MessageID))
        waiting: list[bytes] = []
        for answer in self.reply(Asked(asked, len(self.queries))):
            if isinstance(answer, bytes):
                waiting.append(answer.replace(_MARKED, number, 1))
            else:
                line.socket.sendall(b"".join(waiting))
                waiting.clear()
                answer(line)
            if len(waiting) >= _AT_ONCE:
                line.socket.sendall(b"".join(waiting))
                waiting.clear()
                if not self.deaf and self._is_cancelled(line):
                    line.socket.sendall(final(0xFE00).replace(_MARKED, number, 1))
                    return
        line.socket.sendall(b"".join(waiting))

    def _is_cancelled(self, line: QrLine) -> bool:
        if not select.select([line.socket], [], [], 0)[0]:
            return False
        assert int(read_message(line).command.CommandField) == CANCEL_RQ
        self.cancels += 1
        return True

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
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(peer.PATIENCE)
        if kind is None and self.failure is not None:
            raise AssertionError(f"the peer failed: {self.failure!r}") from self.failure

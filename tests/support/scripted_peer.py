"""A DICOM peer that does as it is told, one PDU after the other: everything that a good peer never does.

    with ScriptedPeer([expect(RQ), accept(), expect_message(), send(store_rsp(1)), expect(RELEASE_RQ), ...])
    as peer: ...

One script a connection, played in order by one thread; a step is a function of the conversation. A step that
is disappointed fails the test when the `with` block ends. It encodes with pynetdicom, not with the code under
test.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from dicomferry.models.rules.remote import Remote, Timeouts

RQ, AC, RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

# Nothing waits longer than this for the code under test, so that a failure ends instead of hanging.
PATIENCE = 20.0

IMPLEMENTATION = "2.25.77"

Step = Callable[["Conversation"], None]


class Conversation:
    """One connection as the peer sees it: `received` are the PDUs so far, `messages` what they carried."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.received: list[bytes] = []
        self.messages: list[tuple[int, Dataset, bytes]] = []

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise AssertionError(f"the connection ended after {self.kinds}")
            data += chunk
        return data

    def read_pdu(self) -> bytes:
        head = self.read(6)
        pdu = head + self.read(int.from_bytes(head[2:]))
        self.received.append(pdu)
        return pdu

    def expect(self, kind: int) -> bytes:
        pdu = self.read_pdu()
        assert pdu[0] == kind, f"PDU type {pdu[0]} where {kind} was to come, after {self.kinds}"
        return pdu

    @property
    def kinds(self) -> list[int]:
        """The types of all PDUs received."""
        return [pdu[0] for pdu in self.received]

    @property
    def data_pdus(self) -> list[bytes]:
        return [pdu for pdu in self.received if pdu[0] == DATA]

    @property
    def request(self) -> A_ASSOCIATE:
        """The A-ASSOCIATE-RQ as pynetdicom reads it."""
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(next(pdu for pdu in self.received if pdu[0] == RQ))
        return pdu.to_primitive()


class ScriptedPeer:
    """Listens on loopback and plays `scripts`, one for each connection in turn."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._play, name="scripted peer", daemon=True)
        self._failure: BaseException | None = None
        self._ended = False
        self.port: int = self._listener.getsockname()[1]
        self.conversations: list[Conversation] = []

    def remote(self, **timeouts: float) -> Remote:
        """This peer as a remote; it is patient unless told otherwise."""
        return Remote(
            name="scripted",
            ae_title="SCRIPTED",
            host="127.0.0.1",
            port=self.port,
            calling_ae_title="TESTER",
            timeouts=Timeouts(**{"acse": PATIENCE, "store_answer": PATIENCE, "progress": PATIENCE, **timeouts}),
        )

    @property
    def only(self) -> Conversation:
        """The one conversation there was."""
        (conversation,) = self.conversations
        return conversation

    def _play(self) -> None:
        try:
            for script in self._scripts:
                sock, _ = self._listener.accept()
                with sock:
                    conversation = Conversation(sock)
                    self.conversations.append(conversation)
                    # pydicom warns of UIDs that tests send on purpose.
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        for step in script:
                            step(conversation)
        except BaseException as error:
            if not self._ended:
                self._failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # The test failed already: say why, do not wait for a script that nobody will finish.
            self._ended = True
            self._listener.close()
            return
        self._thread.join(2 * PATIENCE)
        self._listener.close()
        if self._failure is not None:
            raise AssertionError(f"the peer's script failed: {self._failure!r}") from self._failure
        assert not self._thread.is_alive(), "the peer's script did not come to its end"


# --- steps --------------------------------------------------------------------------------------------------


def expect(kind: int) -> Step:
    """Read one PDU, which must be of this type."""

    def step(conversation: Conversation) -> None:
        conversation.expect(kind)

    return step


def expect_message(data_set: bool = True) -> Step:
    """Read P-DATA-TF until a command, and a data set after it, are whole; one PDV in each PDU is required."""

    def step(conversation: Conversation) -> None:
        command = data = b""
        while True:
            pdu = conversation.expect(DATA)
            length, context_id, control = struct.unpack_from(">LBB", pdu, 6)
            assert length == len(pdu) - 10
            if control & 1:
                command += pdu[12:]
            else:
                data += pdu[12:]
            if control == 2 or (control == 3 and not data_set):
                break
        values = decode(BytesIO(command), True, True)
        conversation.messages.append((context_id, values, data))

    return step


def expect_end(conversation: Conversation) -> None:
    """The connection must end without another PDU."""
    with contextlib.suppress(ConnectionResetError):
        rest = conversation.socket.recv(1)
        assert not rest, "a byte where the connection was to end"


def until_end(conversation: Conversation) -> None:
    """Say nothing, and read until the other side is gone: a peer that fell silent."""
    with contextlib.suppress(ConnectionResetError):
        while conversation.socket.recv(65536):
            pass


def deaf_until(event: threading.Event) -> Step:
    """Neither read nor write until `event`."""

    def step(conversation: Conversation) -> None:
        assert event.wait(PATIENCE)

    return step


def send(data: bytes) -> Step:
    def step(conversation: Conversation) -> None:
        conversation.socket.sendall(data)

    return step


def send_slowly(data: bytes, pause: float) -> Step:
    """One byte every `pause` seconds."""

    def step(conversation: Conversation) -> None:
        for n in range(len(data)):
            conversation.socket.sendall(data[n : n + 1])
            threading.Event().wait(pause)

    return step


def close(conversation: Conversation) -> None:
    conversation.socket.close()


def reset(conversation: Conversation) -> None:
    """Close with RST instead of FIN."""
    conversation.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conversation.socket.close()


Answer = tuple[int, str]
Choose = Callable[[str, list[str]], Answer | None]


def take_first(abstract_syntax: str, transfer_syntaxes: list[str]) -> Answer:
    """Accept each context in the first syntax proposed."""
    return 0, transfer_syntaxes[0]


def acceptance(
    conversation: Conversation, choose: Choose = take_first, max_pdu: int = 16384, roles: bool = False
) -> bytes:
    """A-ASSOCIATE-AC to the request that came; `choose` gives (result, syntax) of each context, None to leave
    it out; `roles` grants the roles that were proposed.
    """
    request = conversation.request
    answer = A_ASSOCIATE()
    answer.application_context_name = UID("1.2.840.10008.3.1.1.1")
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0, 1
    contexts = []
    for asked in request.presentation_context_definition_list:
        chosen = choose(str(asked.abstract_syntax), [str(syntax) for syntax in asked.transfer_syntax])
        if chosen is not None:
            context = PresentationContext()
            context.context_id = asked.context_id
            context.result = chosen[0]
            context.transfer_syntax = [chosen[1]]
            contexts.append(context)
    answer.presentation_context_definition_results_list = contexts
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION)
    granted = [item for item in request.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    answer.user_information = [longest, implementation, *(granted if roles else [])]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return pdu.encode()


def accept(choose: Choose = take_first, max_pdu: int = 16384) -> Step:
    def step(conversation: Conversation) -> None:
        conversation.socket.sendall(acceptance(conversation, choose, max_pdu))

    return step


def accept_slowly(pause: float) -> Step:
    """The acceptance, one byte every `pause` seconds."""

    def step(conversation: Conversation) -> None:
        send_slowly(acceptance(conversation), pause)(conversation)

    return step


def opening(choose: Choose = take_first, max_pdu: int = 16384) -> list[Step]:
    """The steps of a peer that takes the association."""
    return [expect(RQ), accept(choose, max_pdu)]


# --- bytes --------------------------------------------------------------------------------------------------


def rejection(result: int, source: int, reason: int) -> bytes:
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = result, source, reason
    return pdu.encode()


def abort_pdu(source: int = 2, reason: int = 0) -> bytes:
    return struct.pack(">BxLxxBB", ABORT, 4, source, reason)


def release_pdu(kind: int) -> bytes:
    return struct.pack(">BxL4x", kind, 4)


def pdv(data: bytes, control: int, context_id: int = 1) -> bytes:
    """One presentation data value; `control`: 1 command, 2 last (PS3.8 E.2)."""
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxL", DATA, len(body)) + body


def command_set(**elements: object) -> bytes:
    """A command set by keyword, as pydicom encodes it, with its group length."""
    values = Dataset()
    for keyword, value in elements.items():
        setattr(values, keyword, value)
    body = encode(values, True, True) or b""
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_rsp(message_id: int, status: int = 0, **more: object) -> bytes:
    """C-STORE-RSP in one P-DATA-TF."""
    return p_data(pdv(store_rsp_command(message_id, status, **more), 3))


def store_rsp_command(message_id: int, status: int = 0, **more: object) -> bytes:
    return command_set(
        **{
            "CommandField": 0x8001,
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": 0x0101,
            "Status": status,
            **more,
        }
    )


def echo_rsp_command(message_id: int, status: int = 0) -> bytes:
    return store_rsp_command(message_id, status, CommandField=0x8030)

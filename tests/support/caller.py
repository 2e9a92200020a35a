"""The scripted peer turned client: calls a storage SCP and sends it whatever a test likes, PDU by PDU.

It encodes with pynetdicom, not with the code under test, and by hand what pynetdicom would not encode.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import warnings
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import NamedTuple, Self

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from support import scripted_peer as peer
from support.scripted_peer import Conversation

MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

Proposals = Sequence[tuple[str, Sequence[str]]]
USUAL: Proposals = ((MR, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,)))


class Accepted(NamedTuple):
    """One context of A-ASSOCIATE-AC."""

    context_id: int
    result: int
    transfer_syntax: str


def request(
    proposals: Proposals = USUAL, *, calling: str = "TESTER", called: str = "FERRY", max_pdu: int = 16384
) -> bytes:
    """A-ASSOCIATE-RQ, context ids 1, 3, 5 ..."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    contexts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (abstract, syntaxes) in enumerate(proposals):
            context = build_context(abstract, list(syntaxes))
            context.context_id = 2 * number + 1
            contexts.append(context)
        primitive.presentation_context_definition_list = contexts
        longest = MaximumLengthNotification()
        longest.maximum_length_received = max_pdu
        implementation = ImplementationClassUIDNotification()
        implementation.implementation_class_uid = UID("2.25.78")
        primitive.user_information = [longest, implementation]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(primitive)
        return pdu.encode()


def item(kind: int, value: bytes) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(value)) + value


def raw_request(*items: bytes, version: int = 1, calling: bytes = b"TESTER", called: bytes = b"FERRY") -> bytes:
    """A-ASSOCIATE-RQ of these items, lawful or not."""
    body = struct.pack(">HH16s16s32s", version, 0, called.ljust(16), calling.ljust(16), b"") + b"".join(items)
    return struct.pack(">BxL", peer.RQ, len(body)) + body


def store_command(uid: str, message_id: int = 1, sop_class: str = MR, **more: object) -> bytes:
    """The command set of a C-STORE-RQ."""
    values: dict[str, object] = {
        "AffectedSOPClassUID": sop_class,
        "CommandField": 1,
        "MessageID": message_id,
        "Priority": 0,
        "CommandDataSetType": 1,
        "AffectedSOPInstanceUID": uid,
    }
    return peer.command_set(**{**values, **more})


def echo_command(message_id: int = 1, **more: object) -> bytes:
    """The command set of a C-ECHO-RQ."""
    values: dict[str, object] = {
        "AffectedSOPClassUID": VERIFICATION,
        "CommandField": 0x30,
        "MessageID": message_id,
        "CommandDataSetType": 0x0101,
    }
    return peer.command_set(**{**values, **more})


def data_pdus(data: bytes, size: int = 16378, context_id: int = 1) -> bytes:
    """A data set in P-DATA-TF PDUs of one fragment each."""
    pieces = [data[at : at + size] for at in range(0, max(len(data), 1), size)]
    return b"".join(
        peer.p_data(peer.pdv(piece, 2 if number == len(pieces) - 1 else 0, context_id))
        for number, piece in enumerate(pieces)
    )


class Caller(Conversation):
    """A connection to a storage SCP; a context manager that hangs up."""

    def __init__(self, port: int, host: str = "127.0.0.1", source: str = "") -> None:
        super().__init__(
            socket.create_connection((host, port), peer.PATIENCE, source_address=(source, 0) if source else None)
        )

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def associate(self, proposals: Proposals = USUAL, **options: object) -> list[Accepted]:
        """Open an association; what became of the contexts."""
        self.send(request(proposals, **options))  # type: ignore[arg-type]
        return self.acceptance()

    def acceptance(self) -> list[Accepted]:
        """Read A-ASSOCIATE-AC."""
        answer = A_ASSOCIATE_AC()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer.decode(self.expect(peer.AC))
            return [
                Accepted(
                    int(context.presentation_context_id or 0), int(context.result or 0), str(context.transfer_syntax)
                )
                for context in answer.presentation_context
            ]

    def response(self) -> Dataset:
        """Read one response, whatever fragments it comes in."""
        command = b""
        while True:
            pdu = self.expect(peer.DATA)
            command += pdu[12:]
            if pdu[11] & 2:
                return decode(BytesIO(command), True, True)

    def store(self, uid: str, data: bytes, *, context_id: int = 1, size: int = 16378, **command: object) -> Dataset:
        """One C-STORE, and its answer."""
        head = peer.p_data(peer.pdv(store_command(uid, **command), 3, context_id))  # type: ignore[arg-type]
        self.send(head + data_pdus(data, size, context_id))
        return self.response()

    def echo(self, context_id: int = 3) -> int:
        """One C-ECHO; its status."""
        self.send(peer.p_data(peer.pdv(echo_command(), 3, context_id)))
        return int(self.response().Status)

    def release(self) -> None:
        self.send(peer.release_pdu(peer.RELEASE_RQ))
        self.expect(peer.RELEASE_RP)

    def ended(self) -> bool:
        """Whether the other side hangs up without another word."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True

    def abort_heard(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that comes next."""
        pdu = self.expect(peer.ABORT)
        return pdu[8], pdu[9]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextlib.contextmanager
def association(port: int, proposals: Proposals = USUAL, **options: object) -> Iterator[Caller]:
    """An open association, hung up at the end."""
    with Caller(port) as caller:
        caller.associate(proposals, **options)
        yield caller

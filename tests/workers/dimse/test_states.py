"""The upper layer's states against all events (PS3.8 9.2, table 9-10): what is answered, and where it leads.

The rows are the states in which something can come from outside. Sta1, 3, 4 and 8 last no time here: one thread
connects, decides and answers within a call. Sta9 to 12 are the release collision, which only a
requestor that releases can meet.
"""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from dicomferry.models.rules.errors import (
    AssociationAborted,
    AssociationRejected,
    DimseError,
    DimseTimeout,
    ProtocolViolation,
    RemoteUnreachable,
)
from dicomferry.models.rules.remote import Remote, Timeouts
from dicomferry.workers.dimse.acceptor import Waits
from dicomferry.workers.dimse.echo import VERIFICATION, echo
from dicomferry.workers.dimse.requestor import open_association
from dicomferry.workers.dimse.wire.contexts import IMPLICIT_LE, Proposal
from support import caller as calls
from support import scripted_peer as peer
from support.bay import open_bay
from support.caller import Caller
from support.scripted_peer import Conversation, ScriptedPeer, Step

ACCEPTANCE = struct.pack(">BxL", peer.AC, 68) + b"\0\1" + bytes(66)
STORE = peer.p_data(peer.pdv(calls.store_command("1.2.3"), 3))

EVENTS = {
    "A-ASSOCIATE-RQ": calls.request(),
    "A-ASSOCIATE-AC": ACCEPTANCE,
    "A-ASSOCIATE-RJ": peer.rejection(1, 1, 7),
    "P-DATA-TF": peer.p_data(peer.pdv(calls.echo_command(), 3, 3)),
    "A-RELEASE-RQ": peer.release_pdu(peer.RELEASE_RQ),
    "A-RELEASE-RP": peer.release_pdu(peer.RELEASE_RP),
    "A-ABORT": peer.abort_pdu(0),
    "unknown PDU": b"\x09\0\0\0\0\4abcd",
    "closed": b"",
    "silence": b"",
}
ABORTED = "A-ABORT"
NOTHING = "nothing"

# State -> (what leads there, answer to each event in the order of EVENTS).
ACCEPTOR = {
    "Sta2, awaiting A-ASSOCIATE-RQ": (
        b"",
        ["A-ASSOCIATE-AC", ABORTED, ABORTED, ABORTED, ABORTED, ABORTED, NOTHING, ABORTED, NOTHING, ABORTED],
    ),
    "Sta6, established": (
        calls.request(),
        [ABORTED, ABORTED, ABORTED, "P-DATA-TF", "A-RELEASE-RP", ABORTED, NOTHING, ABORTED, NOTHING, ABORTED],
    ),
    "Sta6, inside a message": (
        calls.request() + STORE,
        [ABORTED, ABORTED, ABORTED, ABORTED, ABORTED, ABORTED, NOTHING, ABORTED, NOTHING, ABORTED],
    ),
    "Sta13, after A-RELEASE-RP": (
        calls.request() + peer.release_pdu(peer.RELEASE_RQ),
        [NOTHING] * len(EVENTS),
    ),
}
KINDS = {
    peer.AC: "A-ASSOCIATE-AC", peer.RJ: "A-ASSOCIATE-RJ", peer.DATA: "P-DATA-TF", peer.RELEASE_RP: "A-RELEASE-RP",
    peer.ABORT: ABORTED,
}  # fmt: skip


def told(caller: Caller) -> str:
    """The next PDU by name, or nothing but the connection's end."""
    try:
        head = caller.socket.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        head = b""
    return KINDS[caller.read_pdu()[0]] if head else NOTHING


@pytest.mark.parametrize(
    ("state", "event", "answer"),
    [(state, event, answer) for state, (_, row) in ACCEPTOR.items() for event, answer in zip(EVENTS, row, strict=True)],
)
def test_the_acceptor(state: str, event: str, answer: str) -> None:
    """Each event in each state of an acceptor has the answer that the table gives; all but two end the association."""
    patience = 0.3 if event == "silence" else peer.PATIENCE
    with open_bay(Waits(acse=patience, idle=patience, progress=patience)) as bay, Caller(bay.port) as caller:
        lead = ACCEPTOR[state][0]
        caller.send(lead)
        if lead:
            caller.expect(peer.AC)
        if "RELEASE" in state:
            caller.expect(peer.RELEASE_RP)
        # After a release the other side may have hung up before we are done.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            caller.send(EVENTS[event])
            if event == "closed":
                caller.socket.shutdown(socket.SHUT_WR)
        assert told(caller) == answer
        goes_on = answer in ("A-ASSOCIATE-AC", "P-DATA-TF")
        if goes_on:
            assert caller.echo() == 0
            caller.release()
        bay.join()
        assert bay.admitted == 0


AWAITING_AC = "Sta5, awaiting A-ASSOCIATE-AC"
AWAITING_ANSWER = "Sta6, awaiting an answer"
AWAITING_RP = "Sta7, awaiting A-RELEASE-RP"
GOOD: type[Exception] | None = None

# Error raised, and whether we abort; None: it goes on. Releasing never raises.
REQUESTOR: dict[str, list[tuple[type[Exception] | None, str]]] = {
    AWAITING_AC: [
        (ProtocolViolation, ABORTED), (GOOD, NOTHING), (AssociationRejected, NOTHING), (ProtocolViolation, ABORTED),
        (ProtocolViolation, ABORTED), (ProtocolViolation, ABORTED), (AssociationAborted, NOTHING),
        (ProtocolViolation, ABORTED), (RemoteUnreachable, NOTHING), (DimseTimeout, ABORTED),
    ],
    AWAITING_ANSWER: [
        (ProtocolViolation, ABORTED), (ProtocolViolation, ABORTED), (ProtocolViolation, ABORTED),
        (ProtocolViolation, ABORTED),  # a request of theirs is no answer
        (AssociationAborted, "A-RELEASE-RP"), (ProtocolViolation, ABORTED), (AssociationAborted, NOTHING),
        (ProtocolViolation, ABORTED), (AssociationAborted, NOTHING), (DimseTimeout, ABORTED),
    ],
    AWAITING_RP: [
        (GOOD, ABORTED), (GOOD, ABORTED), (GOOD, ABORTED), (GOOD, NOTHING), (GOOD, "A-RELEASE-RP"), (GOOD, NOTHING),
        (GOOD, NOTHING), (GOOD, ABORTED), (GOOD, NOTHING), (GOOD, ABORTED),
    ],
}  # fmt: skip


def _play(state: str, event: str, heard: list[str]) -> list[Step]:
    """The peer's part: into the state, the event, and then to the end."""

    def act(conversation: Conversation) -> None:
        if event == "closed":
            conversation.socket.shutdown(socket.SHUT_WR)
        else:
            conversation.socket.sendall(EVENTS[event])

    def listen(conversation: Conversation) -> None:
        with contextlib.suppress(ConnectionResetError, AssertionError):
            while True:
                heard.append(KINDS.get(conversation.read_pdu()[0], "another"))
                if heard[-1] == "A-RELEASE-RP" and state == AWAITING_RP:
                    # The collision's second half (Sta11): our own release is answered now.
                    conversation.socket.sendall(peer.release_pdu(peer.RELEASE_RP))

    def accepted_release(conversation: Conversation) -> None:
        # Data that were on their way when we released (AR-6): the release is answered after them.
        if state == AWAITING_RP and event == "P-DATA-TF":
            conversation.socket.sendall(peer.release_pdu(peer.RELEASE_RP))

    steps: list[Step] = [peer.expect(peer.RQ)]
    if state != AWAITING_AC:
        steps.append(peer.accept())
    if state == AWAITING_ANSWER:
        steps.append(peer.expect(peer.DATA))
    if state == AWAITING_RP:
        steps.append(peer.expect(peer.RELEASE_RQ))
    return [*steps, act, accepted_release, listen]


@pytest.mark.parametrize(
    ("state", "event", "error", "answer"),
    [
        (state, event, *expected)
        for state, row in REQUESTOR.items()
        for event, expected in zip(EVENTS, row, strict=True)
    ],
)
def test_the_requestor(state: str, event: str, error: type[DimseError] | None, answer: str) -> None:
    """Each event in each state of a requestor: the error that is raised, and what the peer hears."""
    heard: list[str] = []
    with ScriptedPeer(_play(state, event, heard)) as scripted:
        patience = 0.3 if event == "silence" else peer.PATIENCE
        remote = _remote(scripted.port, patience)
        call = _release if state == AWAITING_RP else _open if state == AWAITING_AC else echo
        if error is None:
            call(remote)
        else:
            with pytest.raises(error):
                call(remote)
    assert (heard[0] if heard else NOTHING) == answer or (state, event) == (AWAITING_AC, "A-ASSOCIATE-AC")


def _remote(port: int, patience: float) -> Remote:
    return Remote(
        name="peer",
        ae_title="PEER",
        host="127.0.0.1",
        port=port,
        calling_ae_title="US",
        timeouts=Timeouts(acse=patience, progress=patience),
    )


def _open(remote: Remote) -> None:
    open_association(remote, [Proposal(VERIFICATION, (IMPLICIT_LE,))]).close()


def _release(remote: Remote) -> None:
    open_association(remote, [Proposal(VERIFICATION, (IMPLICIT_LE,))]).release()

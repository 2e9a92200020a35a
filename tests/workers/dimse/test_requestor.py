"""Opening, talking and ending, against a peer that does what it is told."""

# A peer, and what happens while it is there, are two blocks.
# ruff: noqa: SIM117

from __future__ import annotations

import socket
import threading

import pytest

from dicomferry.models.rules.errors import (
    AssociationAborted,
    AssociationRejected,
    ContextNotAccepted,
    DimseError,
    DimseTimeout,
    ProtocolViolation,
    RemoteUnreachable,
)
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.requestor import Association, open_association
from dicomferry.workers.dimse.wire import associate_items, message
from dicomferry.workers.dimse.wire.contexts import Proposal
from dicomferry.workers.dimse.wire.message import CommandSet, number_value
from support import scripted_peer as peer
from support.scripted_peer import ScriptedPeer, expect, opening, send

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
PROPOSALS = [Proposal(VERIFICATION, (IMPLICIT_LE, EXPLICIT_LE))]
ENDING = [expect(peer.RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]


def _ask(association: Association, field: int = message.C_ECHO_RSP, seconds: float = peer.PATIENCE) -> int:
    """Send a C-ECHO-RQ by hand and read its answer."""
    message_id = association.next_message_id()
    command = CommandSet(
        {
            message.AFFECTED_SOP_CLASS_UID: message.text_value(VERIFICATION),
            message.COMMAND_FIELD: number_value(message.C_ECHO_RQ),
            message.MESSAGE_ID: number_value(message_id),
            message.COMMAND_DATA_SET_TYPE: number_value(message.NO_DATA_SET),
        }
    )
    association.send(association.context_for(VERIFICATION).context_id, command)
    _, status = association.receive_response(message_id, field, "store_answer", seconds)
    return status


# --- opening ------------------------------------------------------------------------------------------------


def test_the_request_names_us_and_numbers_contexts_oddly() -> None:
    """AE titles, application context, our own implementation UID under 2.25, ids 1, 3, 5 (PS3.8 9.3.2)."""
    proposals = [Proposal(f"1.2.3.{n}", (EXPLICIT_LE,)) for n in range(3)]
    with ScriptedPeer([*opening(), *ENDING]) as scripted, open_association(scripted.remote(), proposals):
        pass
    request = scripted.only.request
    assert (request.calling_ae_title, request.called_ae_title) == ("TESTER", "SCRIPTED")
    assert request.application_context_name == "1.2.840.10008.3.1.1.1"
    assert [cx.context_id for cx in request.presentation_context_definition_list] == [1, 3, 5]
    assert request.implementation_class_uid == associate_items.IMPLEMENTATION_CLASS_UID
    assert associate_items.IMPLEMENTATION_CLASS_UID.startswith("2.25.")
    assert len(associate_items.IMPLEMENTATION_VERSION_NAME) <= 16


def test_what_the_peer_said_is_kept() -> None:
    """Each context's result (None where it was left out), the chosen syntax, the peer's maximum and name."""
    answers: dict[str, tuple[int, str] | None] = {
        "1.2.3.0": (0, EXPLICIT_LE),
        "1.2.3.1": (3, IMPLICIT_LE),
        "1.2.3.2": (4, IMPLICIT_LE),
        "1.2.3.3": None,
        "1.2.3.4": (0, "1.2.840.10008.1.2.4.50"),
    }
    proposals = [Proposal(uid, (IMPLICIT_LE, EXPLICIT_LE)) for uid in answers]
    script = [*opening(lambda abstract, _: answers[abstract], max_pdu=4321), *ENDING]
    with ScriptedPeer(script) as scripted, open_association(scripted.remote(), proposals) as association:
        pass
    # The last one was accepted in a syntax that nobody proposed: of no use, so not accepted.
    assert [(cx.result, cx.transfer_syntax) for cx in association.contexts] == [
        (0, EXPLICIT_LE),
        (3, ""),
        (4, ""),
        (None, ""),
        (4, ""),
    ]
    assert association.peer_max_pdu == 4321
    assert association.peer_implementation_class_uid == peer.IMPLEMENTATION


def test_uids_that_break_the_rules_are_passed_on() -> None:
    """A private SOP class with leading zeros is in use somewhere: proposed as it is, without a warning."""
    with ScriptedPeer([*opening(), *ENDING]) as scripted:
        with open_association(scripted.remote(), [Proposal("1.2.03", (IMPLICIT_LE,))]) as association:
            assert association.context_for("1.2.03").accepted


def test_nothing_is_sent_after_a_rejection_or_an_abort() -> None:
    """A peer that ended the association gets no A-ABORT for it."""
    for end in (peer.rejection(1, 1, 1), peer.abort_pdu()):
        with ScriptedPeer([expect(peer.RQ), send(end), peer.expect_end]) as scripted, pytest.raises(DimseError):
            open_association(scripted.remote(), PROPOSALS)


@pytest.mark.parametrize("count", [0, 129])
def test_no_more_than_128_contexts_fit(count: int) -> None:
    """None at all or more than 128 is the caller's mistake (PS3.8 9.3.2.2 leaves 128 odd numbers)."""
    remote = Remote(name="x", ae_title="X", host="127.0.0.1", port=1, calling_ae_title="Y")
    with pytest.raises(ValueError, match="presentation contexts"):
        open_association(remote, PROPOSALS * count)


@pytest.mark.parametrize("triple", [(1, 1, 1), (1, 1, 7), (2, 3, 2), (1, 2, 2), (2, 1, 9), (7, 0, 255)])
def test_a_rejection_keeps_its_three_numbers(triple: tuple[int, int, int]) -> None:
    """Result, source and reason as they came, those outside PS3.8 table 9-21 included; the message names the
    peer.
    """
    script = [expect(peer.RQ), send(peer.rejection(*triple)), peer.expect_end]
    with ScriptedPeer(script) as scripted, pytest.raises(AssociationRejected) as caught:
        open_association(scripted.remote(), PROPOSALS)
    error = caught.value
    assert (error.result, error.source, error.reason) == triple
    assert str(error).startswith(f"SCRIPTED@127.0.0.1:{scripted.port}: ")


def test_nobody_listening_is_unreachable() -> None:
    """Connection refused: RemoteUnreachable, not `closed`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    remote = Remote(name="x", ae_title="GONE", host="127.0.0.1", port=port, calling_ae_title="Y")
    with pytest.raises(RemoteUnreachable, match=rf"GONE@127\.0\.0\.1:{port}: connection refused") as caught:
        open_association(remote, PROPOSALS)
    assert not caught.value.closed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "host name not found"),
        (TimeoutError(), "no connection within 10 s"),
        (OSError(113, "No route to host"), "No route to host"),
        (UnicodeError("label too long"), "label too long"),
    ],
)
def test_every_way_not_to_connect_is_unreachable(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    """Resolver, time-out and routing errors are one thing to the caller: RemoteUnreachable, in words."""

    def fail(*_: object, **__: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    remote = Remote(name="x", ae_title="X", host="192.0.2.1", port=104, calling_ae_title="Y")
    with pytest.raises(RemoteUnreachable, match=words) as caught:
        open_association(remote, PROPOSALS)
    assert not caught.value.closed


@pytest.mark.parametrize("end", [peer.close, peer.reset])
def test_hanging_up_before_any_answer_is_unreachable_and_closed(end: peer.Step) -> None:
    """The host is there and hangs up, as access lists do: `closed` tells it from a refused connection."""
    with ScriptedPeer([expect(peer.RQ), end]) as scripted, pytest.raises(RemoteUnreachable) as caught:
        open_association(scripted.remote(), PROPOSALS)
    assert caught.value.closed


def test_an_abort_in_answer_to_the_request_is_an_abort() -> None:
    """A-ABORT is an answer: not `unreachable`."""
    with ScriptedPeer([expect(peer.RQ), send(peer.abort_pdu(2, 1)), peer.expect_end]) as scripted:
        with pytest.raises(AssociationAborted, match="source 2, reason 1"):
            open_association(scripted.remote(), PROPOSALS)


def test_a_silent_peer_ends_in_acse_time_out() -> None:
    """TCP is up, nobody answers: DimseTimeout("acse") after its seconds, and A-ABORT on the wire."""
    with ScriptedPeer([expect(peer.RQ), expect(peer.ABORT), peer.expect_end]) as scripted:
        with pytest.raises(DimseTimeout) as caught:
            open_association(scripted.remote(acse=0.05), PROPOSALS)
    assert (caught.value.phase, caught.value.seconds) == ("acse", 0.05)


def test_a_slow_acceptance_is_waited_for() -> None:
    """An answer of one byte every 10 ms takes longer than the time-out in all, and is taken."""
    script = [expect(peer.RQ), peer.accept_slowly(0.01), *ENDING]
    with ScriptedPeer(script) as scripted, open_association(scripted.remote(acse=0.5), PROPOSALS) as association:
        assert association.context_for(VERIFICATION).accepted


@pytest.mark.parametrize(
    "answer",
    [
        peer.store_rsp(1),
        peer.release_pdu(peer.RELEASE_RP),
        b"\x02\0\0\0\0\x02\0\1",
        b"\x02\0\0\0\0\x4e\0\1" + bytes(66) + b"\x99\0\0\x04abcdefgh",
        b"\x03\0\0\0\0\x01\0",
    ],
)
def test_an_answer_that_is_none_is_a_violation(answer: bytes) -> None:
    """Another PDU, or an acceptance that cannot be decoded: A-ABORT and ProtocolViolation, no foreign
    exception.
    """
    with ScriptedPeer([expect(peer.RQ), send(answer), expect(peer.ABORT), peer.expect_end]) as scripted:
        with pytest.raises(ProtocolViolation):
            open_association(scripted.remote(), PROPOSALS)


# --- talking ------------------------------------------------------------------------------------------------


def _talk(*answer: peer.Step) -> list[peer.Step]:
    return [*opening(), peer.expect_message(data_set=False), *answer]


def test_an_answer_is_matched_by_message_id_and_command() -> None:
    """The right answer's status comes back."""
    script = _talk(send(peer.p_data(peer.pdv(peer.echo_rsp_command(1, 0x0122), 3))), *ENDING)
    with ScriptedPeer(script) as scripted, open_association(scripted.remote(), PROPOSALS) as association:
        assert _ask(association) == 0x0122


def test_an_answer_in_several_pdvs_and_pdus_is_one_answer() -> None:
    """Fragments of the command in two PDVs of one PDU and a third in the next."""
    raw = peer.echo_rsp_command(1)
    pieces = send(peer.p_data(peer.pdv(raw[:10], 1), peer.pdv(raw[10:20], 1)) + peer.p_data(peer.pdv(raw[20:], 3)))
    with ScriptedPeer(_talk(pieces, *ENDING)) as scripted:
        with open_association(scripted.remote(), PROPOSALS) as association:
            assert _ask(association) == 0


@pytest.mark.parametrize(
    "raw",
    [
        peer.echo_rsp_command(2),
        peer.store_rsp_command(1),
        peer.command_set(CommandField=0x8030, MessageIDBeingRespondedTo=1, CommandDataSetType=0x0101),
        peer.command_set(CommandField=0x0030, MessageID=1, CommandDataSetType=0x0101),
        b"\x08\0\0\0\x02\0\0\0ab",
    ],
)
def test_a_wrong_answer_is_a_violation(raw: bytes) -> None:
    """Wrong message id, wrong command, no status, a request, no command set: A-ABORT and
    ProtocolViolation.
    """
    script = _talk(send(peer.p_data(peer.pdv(raw, 3))), expect(peer.ABORT), peer.expect_end)
    with ScriptedPeer(script) as scripted, pytest.raises(ProtocolViolation, match=r"SCRIPTED@127"):
        with open_association(scripted.remote(), PROPOSALS) as association:
            _ask(association)


def test_another_pdu_where_an_answer_was_to_come_is_a_violation() -> None:
    """An A-ASSOCIATE-AC in mid-association is unexpected (PS3.8 AA-8)."""
    script = _talk(peer.accept(), expect(peer.ABORT), peer.expect_end)
    with ScriptedPeer(script) as scripted, pytest.raises(ProtocolViolation, match="type 2"):
        with open_association(scripted.remote(), PROPOSALS) as association:
            _ask(association)


@pytest.mark.parametrize("end", [send(peer.abort_pdu()), peer.close, peer.reset])
def test_every_violent_end_is_an_abort(end: peer.Step) -> None:
    """A-ABORT, FIN and RST in place of an answer are AssociationAborted."""
    with ScriptedPeer(_talk(end)) as scripted, pytest.raises(AssociationAborted):
        with open_association(scripted.remote(), PROPOSALS) as association:
            _ask(association)


def test_a_release_in_place_of_an_answer_is_answered_and_told() -> None:
    """The peer may release; we owe it A-RELEASE-RP, and the caller an error."""
    script = _talk(send(peer.release_pdu(peer.RELEASE_RQ)), expect(peer.RELEASE_RP), peer.expect_end)
    with ScriptedPeer(script) as scripted, pytest.raises(AssociationAborted, match="released"):
        with open_association(scripted.remote(), PROPOSALS) as association:
            _ask(association)


def test_a_missing_answer_ends_in_its_phase() -> None:
    """Silence after a request: DimseTimeout with the phase asked for, and A-ABORT on the wire."""
    with ScriptedPeer(_talk(expect(peer.ABORT), peer.expect_end)) as scripted:
        with pytest.raises(DimseTimeout) as caught:
            with open_association(scripted.remote(), PROPOSALS) as association:
                _ask(association, seconds=0.05)
    assert caught.value.phase == "store_answer"


def test_no_accepted_context_names_the_result() -> None:
    """An association without a usable context opens; asking for the context tells why there is none."""
    script = [*opening(lambda *_: (3, IMPLICIT_LE)), expect(peer.ABORT)]
    with ScriptedPeer(script) as scripted, pytest.raises(ContextNotAccepted, match=r"SCRIPTED@127") as caught:
        with open_association(scripted.remote(), PROPOSALS) as association:
            association.context_for(VERIFICATION)
    assert caught.value.result == 3


def test_message_ids_run_from_1_to_65535_and_wrap() -> None:
    """0 is left out: some peers take it for absent."""
    with ScriptedPeer([*opening(), *ENDING]) as scripted:
        with open_association(scripted.remote(), PROPOSALS) as association:
            ids = [association.next_message_id() for _ in range(65536)]
    assert (ids[0], ids[65534], ids[65535]) == (1, 65535, 1)


def test_a_watchdog_may_abort_while_the_owner_waits() -> None:
    """`abort` from another thread ends a wait without time-out as AssociationAborted."""
    asked = threading.Event()
    script = _talk(lambda _: asked.set(), peer.until_end)
    with ScriptedPeer(script) as scripted:
        with pytest.raises(AssociationAborted, match="on our side"):
            with open_association(scripted.remote(), PROPOSALS) as association:

                def watchdog() -> None:
                    asked.wait(peer.PATIENCE)
                    association.abort()

                thread = threading.Thread(target=watchdog)
                thread.start()
                _ask(association)
        thread.join()


# --- ending -------------------------------------------------------------------------------------------------


def test_a_normal_exit_releases_and_an_exception_aborts() -> None:
    """The context manager ends the association as its block ended."""
    with ScriptedPeer([*opening(), *ENDING]) as scripted, open_association(scripted.remote(), PROPOSALS):
        pass
    with ScriptedPeer([*opening(), expect(peer.ABORT), peer.expect_end]) as scripted, pytest.raises(KeyError):
        with open_association(scripted.remote(), PROPOSALS):
            raise KeyError


def test_a_release_is_over_when_the_peer_has_seen_the_end() -> None:
    """The next association, opened at once, is not one more than before for a peer that counts them."""
    seen: list[str] = []
    script = [*opening(), *ENDING, lambda _: seen.append("the end")]
    with ScriptedPeer(script) as scripted:
        open_association(scripted.remote(), PROPOSALS).release()
        assert seen == ["the end"]


def test_a_peer_that_keeps_the_connection_is_left_alone() -> None:
    """It has released; that it does not end its half of the connection holds nobody up."""
    released = threading.Event()

    def stay(_: peer.Conversation) -> None:
        released.wait(peer.PATIENCE)

    script = [*opening(), *ENDING, stay]
    with ScriptedPeer(script) as scripted:
        open_association(scripted.remote(), PROPOSALS).release()
        released.set()


def test_a_release_collision_is_answered() -> None:
    """Both sides ask at once: the requestor answers, then waits for its own answer (PS3.8 9.2.2, Sta9 and
    Sta11).
    """
    script = [
        *opening(),
        expect(peer.RELEASE_RQ),
        send(peer.release_pdu(peer.RELEASE_RQ)),
        expect(peer.RELEASE_RP),
        send(peer.release_pdu(peer.RELEASE_RP)),
        peer.expect_end,
    ]
    with ScriptedPeer(script) as scripted, open_association(scripted.remote(), PROPOSALS):
        pass


def test_data_before_the_release_reply_is_ignored() -> None:
    """P-DATA may still be on its way when we ask (PS3.8 AR-6)."""
    script = [
        *opening(),
        expect(peer.RELEASE_RQ),
        send(peer.store_rsp(1)),
        send(peer.release_pdu(peer.RELEASE_RP)),
        peer.expect_end,
    ]
    with ScriptedPeer(script) as scripted, open_association(scripted.remote(), PROPOSALS):
        pass


@pytest.mark.parametrize(
    "end",
    [
        [expect(peer.ABORT), peer.expect_end],
        [peer.close],
        [peer.reset],
        [send(peer.abort_pdu())],
        [send(b"\x77garbage"), peer.until_end],
    ],
)
def test_a_peer_that_cannot_say_goodbye_costs_nothing(end: list[peer.Step]) -> None:
    """Silence, FIN, RST, A-ABORT or garbage in place of A-RELEASE-RP: no error, no long wait, all answers are
    in.
    """
    script = [*opening(), expect(peer.RELEASE_RQ), *end]
    with ScriptedPeer(script) as scripted, open_association(scripted.remote(acse=0.2), PROPOSALS):
        pass

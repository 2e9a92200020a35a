"""Associations as acceptor: what is negotiated, what is answered, and how every misbehaviour ends."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator

import pytest

from dicomferry.models.rules.errors import AssociationAborted, DimseTimeout, ProtocolViolation
from dicomferry.workers.dimse.acceptor import StatusReply, Waits
from dicomferry.workers.dimse.wire.associate_as_acceptor import Rejection
from support import caller as calls
from support import scripted_peer as peer
from support.bay import Bay, open_bay
from support.caller import EXPLICIT, IMPLICIT, MR, VERIFICATION, Caller, association
from support.installation import until

JPEG = "1.2.840.10008.1.2.4.50"
JPIP = "1.2.840.10008.1.2.4.94"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DATA = bytes(range(256)) * 300
UNEXPECTED = (2, 2)
UNRECOGNISED = (2, 1)
INVALID = (2, 6)


@pytest.fixture
def bay() -> Iterator[Bay]:
    with open_bay() as bay:
        yield bay


# --- negotiation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abstract", "result"),
    [
        (MR, 0),
        (VERIFICATION, 0),
        ("1.2.840.10008.5.1.4.1.1.6", 0),  # retired Ultrasound Image Storage
        ("1.2.840.10008.5.1.4.38.1", 0),  # Hanging Protocol Storage
        ("1.2.840.10008.5.1.4.1.1.66.7", 0),  # newer than some dictionaries
        ("1.3.6.1.4.1.9590.100.1.0.100.4.0", 0),  # private
        ("1.2.840.10008.5.1.4.1.1.9999.1", 0),  # of an edition to come
        ("2.25.00.007", 0),  # odd, and in use
        ("1.2.840.10008.5.1.4.1.2.2.1", 3),  # Study Root FIND
        ("1.2.840.10008.5.1.4.1.2.2.2", 3),  # Study Root MOVE
        ("1.2.840.10008.5.1.4.31", 3),  # Modality Worklist
        ("1.2.840.10008.1.20.1", 3),  # Storage Commitment
        ("1.2.840.10008.3.1.2.3.3", 3),  # MPPS
        ("1.2.840.10008.1.3.10", 3),  # Media Storage Directory
        ("1.2.840.10008.1.2", 3),  # no class at all
    ],
)
def test_everything_but_known_other_services_is_storage(bay: Bay, abstract: str, result: int) -> None:
    """Result 3 for every class that is known to be no storage; private and unknown ones are taken."""
    with Caller(bay.port) as caller:
        (context,) = caller.associate([(abstract, [EXPLICIT])])
        assert (context.result, context.context_id) == (result, 1)


@pytest.mark.parametrize(
    ("proposed", "prefer", "expected"),
    [
        ([IMPLICIT, EXPLICIT], None, EXPLICIT),
        ([JPEG, BIG_ENDIAN, IMPLICIT], None, IMPLICIT),
        ([JPEG, BIG_ENDIAN], None, JPEG),
        ([BIG_ENDIAN, JPEG], None, BIG_ENDIAN),
        ([JPIP, JPEG], None, JPEG),
        (["1.2.3.4.5"], None, "1.2.3.4.5"),
        ([EXPLICIT, IMPLICIT, JPEG], "compressed", JPEG),
        ([EXPLICIT, IMPLICIT], "compressed", EXPLICIT),
        ([EXPLICIT, IMPLICIT, JPEG], "implicit", IMPLICIT),
        ([IMPLICIT, EXPLICIT], "explicit", EXPLICIT),
        ([EXPLICIT, BIG_ENDIAN], BIG_ENDIAN, BIG_ENDIAN),
        ([EXPLICIT, IMPLICIT], JPEG, EXPLICIT),
    ],
)
def test_of_several_syntaxes_one_is_taken(bay: Bay, proposed: list[str], prefer: str | None, expected: str) -> None:
    """Explicit LE, else Implicit, else the first proposed; or what the remote is said to prefer."""
    bay.preferred = prefer
    with Caller(bay.port) as caller:
        (context,) = caller.associate([(MR, proposed)])
        assert (context.result, context.transfer_syntax) == (0, expected)


@pytest.mark.parametrize("last", [94, 95, 204, 205])
def test_jpip_referenced_is_refused(bay: Bay, last: int) -> None:
    """Result 4: the pixels would not be in what is received."""
    with Caller(bay.port) as caller:
        (context,) = caller.associate([(MR, [f"1.2.840.10008.1.2.4.{last}"])])
        assert context.result == 4


def test_128_contexts(bay: Bay) -> None:
    """As many as fit one association, each answered under its own id."""
    proposals = [(f"1.2.3.{number}", [EXPLICIT, IMPLICIT, JPEG]) for number in range(128)]
    with Caller(bay.port) as caller:
        answered = caller.associate(proposals)
        assert [(context.context_id, context.result) for context in answered] == [(n, 0) for n in range(1, 256, 2)]


def test_one_odd_context_spoils_no_other(bay: Bay) -> None:
    """A UID that is no text at all, a context without syntaxes: the good context beside them is taken."""
    odd = calls.item(0x20, b"\1\0\0\0" + calls.item(0x30, b"1.2.\xff%") + calls.item(0x40, b"1.\xfe"))
    bare = calls.item(0x20, b"\3\0\0\0" + calls.item(0x30, MR.encode()))
    good = calls.item(
        0x20, b"\5\0\0\0" + calls.item(0x30, MR.encode() + b"\0") + calls.item(0x40, EXPLICIT.encode() + b"\0")
    )
    unknown = calls.item(0x77, b"whatever")
    application = calls.item(0x10, b"1.2.840.10008.3.1.1.1")
    with Caller(bay.port) as caller:
        caller.send(calls.raw_request(application, odd, bare, unknown, good))
        caller.expect(peer.AC)
        assert caller.store("1.2.3", DATA, context_id=5).Status == 0
    assert bay.sinks[0].data == DATA


def test_no_context_at_all(bay: Bay) -> None:
    """An association without contexts is of no use, but no violation."""
    with Caller(bay.port) as caller:
        caller.send(calls.raw_request(calls.item(0x10, b"1.2.840.10008.3.1.1.1")))
        caller.expect(peer.AC)
        caller.release()


@pytest.mark.parametrize(
    ("request_", "numbers"),
    [
        (calls.raw_request(calls.item(0x10, b"1.2.840.10008.3.1.1.1"), version=2), (1, 2, 2)),
        (calls.raw_request(calls.item(0x10, b"1.2.3")), (1, 1, 2)),
        (calls.raw_request(), (1, 1, 2)),
    ],
)
def test_what_no_acceptor_takes(bay: Bay, request_: bytes, numbers: tuple[int, int, int]) -> None:
    """Another protocol version, or an application context that is not DICOM's (PS3.8 9.3.4)."""
    with Caller(bay.port) as caller:
        caller.send(request_)
        assert tuple(caller.expect(peer.RJ)[7:10]) == numbers
        assert caller.ended()
    assert bay.admitted == 0


def test_a_rejection_of_the_service(bay: Bay) -> None:
    """Its three numbers go out, the connection ends, and no place is taken."""
    bay.rejection = Rejection(2, 3, 2, "full")
    with Caller(bay.port) as caller:
        caller.send(calls.request())
        assert tuple(caller.expect(peer.RJ)[7:10]) == (2, 3, 2)
        assert caller.ended()
    assert bay.admitted == 0


def test_ae_titles_are_stripped_and_echoed(bay: Bay) -> None:
    """NUL and blanks around an AE title do not count; the answer echoes the octets (PS3.8 9.3.3)."""
    request = calls.raw_request(
        calls.item(0x10, b"1.2.840.10008.3.1.1.1"),
        calls.item(0x20, b"\1\0\0\0" + calls.item(0x30, MR.encode()) + calls.item(0x40, EXPLICIT.encode())),
        calling=b"  Me\0\0",
        called=b" You ",
    )
    with Caller(bay.port) as caller:
        caller.send(request)
        answer = caller.expect(peer.AC)
        assert answer[10:42] == request[10:42]
        caller.store("1.2.3", DATA)
    asked = bay.sinks[0].incoming.request
    assert (asked.calling_ae_title, asked.called_ae_title) == ("Me", "You")


def test_an_ae_title_ends_at_its_first_nul(bay: Bay) -> None:
    """What a C program left behind it is no part of it, in the request and in a move originator (PS3.5 6.2: AE)."""
    request = calls.raw_request(
        calls.item(0x10, b"1.2.840.10008.3.1.1.1"),
        calls.item(0x20, b"\1\0\0\0" + calls.item(0x30, MR.encode()) + calls.item(0x40, EXPLICIT.encode())),
        calling=b"ARCHIVE\0ABPACS\0\0",
        called=b"FERRY\0\1",
    )
    with Caller(bay.port) as caller:
        caller.send(request)
        assert caller.expect(peer.AC)[10:42] == request[10:42]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            caller.store("1.2.3", DATA, MoveOriginatorApplicationEntityTitle="MOVER\0X")
    incoming = bay.sinks[0].incoming
    assert (incoming.request.calling_ae_title, incoming.request.called_ae_title) == ("ARCHIVE", "FERRY")
    assert incoming.originator_ae_title == "MOVER"


# --- messages -----------------------------------------------------------------------------------------------


def test_an_echo(bay: Bay) -> None:
    """C-ECHO is answered with success, as often as it is asked."""
    with association(bay.port) as caller:
        assert [caller.echo(), caller.echo()] == [0, 0]
        caller.release()
        assert caller.ended()
    bay.join()
    assert bay.error is None and bay.admitted == 0 and bay.looks == 2


@pytest.mark.parametrize("size", [1, 2, 7, 254, 4089, 16378, 131066, 400_000])
def test_fragments_of_any_size(bay: Bay, size: int) -> None:
    """Down to one byte in a PDU, odd ones too, and beyond our maximum: the bytes are those that were sent."""
    data = DATA[:3001] if size < 7 else DATA
    with association(bay.port) as caller:
        answer = caller.store("1.2.3.4", data, size=size, message_id=777)
        assert (answer.Status, answer.MessageIDBeingRespondedTo, answer.CommandField) == (0, 777, 0x8001)
        assert (answer.AffectedSOPInstanceUID, answer.AffectedSOPClassUID) == ("1.2.3.4", MR)
        caller.release()
    assert bay.sinks[0].data == data and bay.sinks[0].ended == "finished"


def test_a_data_set_larger_than_any_buffer(bay: Bay) -> None:
    """Ten megabytes in fragments that fit no buffer evenly."""
    data = bytes(range(251)) * 41_000
    with association(bay.port) as caller:
        assert caller.store("1.2.3.4", data, size=99_991).Status == 0
    assert bay.sinks[0].data == data


def test_an_empty_data_set(bay: Bay) -> None:
    """One fragment without a byte, the last."""
    with association(bay.port) as caller:
        assert caller.store("1.2.3.4", b"").Status == 0
    assert bay.sinks[0].data == b"" and bay.sinks[0].ended == "finished"


def test_a_message_cut_at_every_byte(bay: Bay) -> None:
    """TCP keeps no boundaries: two pieces, cut anywhere, are one message."""
    whole = peer.p_data(peer.pdv(calls.store_command("1.2.3"), 3)) + calls.data_pdus(DATA[:60], 17)
    with association(bay.port) as caller:
        for cut in range(1, len(whole)):
            caller.send(whole[:cut])
            caller.send(whole[cut:])
            assert caller.response().Status == 0
        caller.release()
    assert {bytes(sink.data) for sink in bay.sinks} == {DATA[:60]}


def test_command_and_data_set_in_one_pdu(bay: Bay) -> None:
    """Several fragments in one P-DATA-TF, of both kinds (PS3.8 9.3.5)."""
    command = calls.store_command("1.2.3")
    pdu = peer.p_data(
        peer.pdv(command[:20], 1), peer.pdv(command[20:], 3), peer.pdv(DATA[:100], 0), peer.pdv(DATA[100:], 2)
    )
    with association(bay.port) as caller:
        caller.send(pdu)
        assert caller.response().Status == 0
    assert bay.sinks[0].data == DATA


def test_two_messages_sent_ahead(bay: Bay) -> None:
    """A peer that does not wait for answers gets them all, in order."""
    both = b"".join(
        peer.p_data(peer.pdv(calls.store_command(f"1.2.{n}", n), 3)) + calls.data_pdus(DATA[: n * 1000], 999)
        for n in (1, 2)
    )
    with association(bay.port) as caller:
        caller.send(both)
        assert [caller.response().MessageIDBeingRespondedTo for _ in (1, 2)] == [1, 2]
    assert [len(sink.data) for sink in bay.sinks] == [1000, 2000]


def test_a_failure_is_answered_after_the_last_fragment(bay: Bay) -> None:
    """Status, comment and UIDs are in the answer, and the association goes on."""
    bay.answer = StatusReply(0xA700, "disk is full")
    with association(bay.port) as caller:
        answer = caller.store("1.2.3", DATA)
        assert (answer.Status, answer.ErrorComment) == (0xA700, "disk is full")
        bay.answer = StatusReply(0)
        assert caller.store("1.2.4", DATA).Status == 0


def test_answers_fit_a_small_peer(bay: Bay) -> None:
    """A peer that takes no more than 30 bytes in a PDU gets its answer in several."""
    with association(bay.port, max_pdu=30) as caller:
        assert caller.store("1.2.3", DATA).Status == 0
        assert max(len(pdu) - 6 for pdu in caller.data_pdus) <= 30


@pytest.mark.parametrize(
    ("context_id", "command", "data"),
    [
        (1, calls.store_command("1.2.3", CommandField=0x0020), DATA),  # C-FIND
        (1, calls.store_command("1.2.3", CommandDataSetType=0x0101), b""),  # C-STORE without a data set
        (1, calls.echo_command(), b""),  # C-ECHO in a storage context
        (3, calls.store_command("1.2.3"), DATA),  # C-STORE in Verification's
    ],
)
def test_what_we_do_not_serve(bay: Bay, context_id: int, command: bytes, data: bytes) -> None:
    """0211 after the data set was drained; the association goes on."""
    with association(bay.port) as caller:
        caller.send(peer.p_data(peer.pdv(command, 3, context_id)))
        if data:
            caller.send(calls.data_pdus(data, context_id=context_id))
        assert caller.response().Status == 0x0211
        assert caller.echo() == 0
    assert not bay.sinks


def test_a_cancel_is_passed_over(bay: Bay) -> None:
    """C-CANCEL has no answer (PS3.7 9.3.2.3)."""
    cancel = peer.command_set(CommandField=0x0FFF, MessageIDBeingRespondedTo=1, CommandDataSetType=0x0101)
    with association(bay.port) as caller:
        caller.send(peer.p_data(peer.pdv(cancel, 3)))
        assert caller.echo() == 0


def test_what_the_command_says_is_passed_on(bay: Bay) -> None:
    """Context, message id and move originator reach who stores."""
    with association(bay.port) as caller:
        caller.store(
            "1.2.3", DATA, message_id=9, MoveOriginatorApplicationEntityTitle="MOVER", MoveOriginatorMessageID=4711
        )
    incoming = bay.sinks[0].incoming
    assert (incoming.originator_ae_title, incoming.originator_message_id) == ("MOVER", 4711)
    assert (incoming.message_id, incoming.number) == (9, 1)
    assert (incoming.context.abstract_syntax, incoming.context.transfer_syntax) == (MR, EXPLICIT)


# --- violations ---------------------------------------------------------------------------------------------

COMMAND = calls.store_command("1.2.3")
STORE = peer.p_data(peer.pdv(COMMAND, 3))

VIOLATIONS = {
    "data before command": (peer.p_data(peer.pdv(DATA, 2)), UNEXPECTED),
    "unknown context": (peer.p_data(peer.pdv(COMMAND, 3, 7)), UNEXPECTED),
    "data in another context": (STORE + calls.data_pdus(DATA, context_id=3), UNEXPECTED),
    "command in another context": (peer.p_data(peer.pdv(COMMAND[:9], 1), peer.pdv(COMMAND[9:], 3, 3)), UNEXPECTED),
    "command inside data": (STORE + peer.p_data(peer.pdv(DATA, 0)) + STORE, UNEXPECTED),
    "release inside data": (STORE + peer.p_data(peer.pdv(DATA, 0)) + peer.release_pdu(peer.RELEASE_RQ), UNEXPECTED),
    "release inside command": (peer.p_data(peer.pdv(COMMAND[:9], 1)) + peer.release_pdu(peer.RELEASE_RQ), UNEXPECTED),
    "second request": (calls.request(), UNEXPECTED),
    "acceptance": (struct.pack(">BxL", peer.AC, 100) + bytes(100), UNEXPECTED),
    "rejection": (peer.rejection(1, 1, 1), UNEXPECTED),
    "release reply": (peer.release_pdu(peer.RELEASE_RP), UNEXPECTED),
    "type 0": (b"\0\0\0\0\0\4abcd", UNRECOGNISED),
    "type 8": (b"\x08\0\0\0\0\4abcd", UNRECOGNISED),
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", UNRECOGNISED),
    "endless PDU": (b"\x04\0\xff\xff\xff\xff", INVALID),
    "endless release": (b"\x05\0\xff\xff\xff\xff", INVALID),
    "PDU without room for a fragment's head": (peer.p_data(b"abc"), INVALID),
    "fragment longer than its PDU": (peer.p_data(struct.pack(">LBB", 5000, 1, 3) + COMMAND), INVALID),
    "endless fragment": (peer.p_data(struct.pack(">LBB", 0xFFFFFFFF, 1, 3) + COMMAND), INVALID),
    "fragment of length 0": (peer.p_data(struct.pack(">LBB", 0, 1, 3)), INVALID),
    "fragment of length 1": (peer.p_data(struct.pack(">LBB", 1, 1, 3)), INVALID),
    "endless command": (b"".join(peer.p_data(peer.pdv(bytes(16000), 1)) for _ in range(6)), INVALID),
    "command of another group": (peer.p_data(peer.pdv(struct.pack("<HHL", 8, 0, 0), 3)), INVALID),
    "command cut short": (peer.p_data(peer.pdv(COMMAND[:-3], 3)), INVALID),
    "command without message id": (
        peer.p_data(peer.pdv(peer.command_set(CommandField=1, CommandDataSetType=1), 3)), INVALID,
    ),
    "empty command": (peer.p_data(peer.pdv(b"", 3)), UNEXPECTED),
    "response": (peer.store_rsp(1), UNEXPECTED),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_aborted(bay: Bay, name: str) -> None:
    """A-ABORT by the service provider with a reason that fits (PS3.8 9.2, AA-8), and nothing is kept."""
    sent, expected = VIOLATIONS[name]
    with association(bay.port) as caller:
        caller.send(sent)
        source, reason = caller.abort_heard()
        assert source == 2
        assert (source, reason) == expected or name == "endless release"
        assert caller.ended()
    bay.join()
    assert isinstance(bay.error, ProtocolViolation)
    assert [sink.ended for sink in bay.sinks] in ([], ["discarded"])
    assert bay.admitted == 0


@pytest.mark.parametrize("first", [STORE, peer.release_pdu(peer.RELEASE_RQ), b"\x04\0\xff\xff\xff\xff", b"GET / HTTP"])
def test_what_comes_in_place_of_a_request(bay: Bay, first: bytes) -> None:
    """AA-1: A-ABORT, and no association."""
    with Caller(bay.port) as caller:
        caller.send(first)
        caller.abort_heard()
        assert caller.ended()
    bay.join()
    assert isinstance(bay.error, ProtocolViolation) and bay.admitted == 0


@pytest.mark.parametrize(
    "body", [b"", bytes(67), bytes(68) + b"\x10\0\xff\xffabc", bytes(68) + b"\x20\0\0\2\1\0", bytes(68) + b"\x10\0"]
)
def test_a_request_that_cannot_be_read(bay: Bay, body: bytes) -> None:
    """A-ABORT for an A-ASSOCIATE-RQ that ends too soon or whose items do not fit."""
    with Caller(bay.port) as caller:
        caller.send(struct.pack(">BxL", peer.RQ, len(body)) + body)
        assert caller.abort_heard() == INVALID
    bay.join()
    assert isinstance(bay.error, ProtocolViolation)


def test_an_endless_request(bay: Bay) -> None:
    """A length beyond reason is refused before any memory is given for it."""
    with Caller(bay.port) as caller:
        caller.send(struct.pack(">BxL", peer.RQ, 5_000_000))
        assert caller.abort_heard() == INVALID


# --- ends ---------------------------------------------------------------------------------------------------

STATES = {
    "before the request": b"",
    "in the request": calls.request()[:50],
    "idle": calls.request(),
    "in a command": calls.request() + STORE[:40],
    "before the data set": calls.request() + STORE,
    "in the data set": calls.request() + STORE + calls.data_pdus(DATA, 999)[:5000],
    "between two fragments": calls.request() + STORE + peer.p_data(peer.pdv(DATA, 0)),
}


def bring_to(caller: Caller, state: str) -> None:
    """Send what leads into a state, and read the acceptance if there is one."""
    caller.send(STATES[state])
    if STATES[state].startswith(calls.request()):
        caller.acceptance()


@pytest.mark.parametrize("state", STATES)
def test_the_peer_hangs_up(bay: Bay, state: str) -> None:
    """In every state: the association ends, its place is free, nothing half received is kept."""
    with Caller(bay.port) as caller:
        bring_to(caller, state)
        caller.socket.shutdown(1)
        bay_ended(bay)
    assert isinstance(bay.error, AssociationAborted)


@pytest.mark.parametrize("state", ["before the request", "idle", "before the data set", "between two fragments"])
def test_the_peer_aborts(bay: Bay, state: str) -> None:
    """In every state: no answer, the connection ends."""
    with Caller(bay.port) as caller:
        bring_to(caller, state)
        caller.send(peer.abort_pdu(0))
        assert caller.ended()
        bay_ended(bay)
    assert isinstance(bay.error, AssociationAborted) and "aborted by its application" in str(bay.error)


@pytest.mark.parametrize("state", STATES)
def test_the_peer_falls_silent(state: str) -> None:
    """No wait is without bound: A-ABORT, and the association ends."""
    with open_bay(Waits(acse=0.3, idle=0.3, progress=0.3)) as bay, Caller(bay.port) as caller:
        bring_to(caller, state)
        caller.abort_heard()
        assert caller.ended()
        bay_ended(bay)
        assert isinstance(bay.error, DimseTimeout)


@pytest.mark.parametrize("state", ["before the request", "idle", "between two fragments"])
def test_we_end_it(bay: Bay, state: str) -> None:
    """An end asked for from another thread wakes the association, whatever it waits for."""
    with Caller(bay.port) as caller:
        bring_to(caller, state)
        until(lambda: bay.acceptor, "it is there", pause=0.001)
        assert bay.acceptor is not None
        bay.acceptor.end("it is enough", at_once=True)
        caller.abort_heard()
        bay_ended(bay)
    assert isinstance(bay.error, AssociationAborted)


def test_we_end_it_after_the_answer(bay: Bay) -> None:
    """A message that is coming in is taken to its end and answered before the abort."""
    with association(bay.port) as caller:
        caller.send(STORE + peer.p_data(peer.pdv(DATA, 0)))
        until(lambda: bay.sinks and bay.sinks[0].data, "the data came", pause=0.001)
        assert bay.acceptor is not None
        bay.acceptor.end("it is enough")
        caller.send(peer.p_data(peer.pdv(DATA, 2)))
        assert caller.response().Status == 0
        caller.abort_heard()
        bay_ended(bay)
    assert bay.sinks[0].ended == "finished"


def bay_ended(bay: Bay) -> None:
    """Every connection has ended, and given back what it had."""
    bay.join()
    assert bay.admitted == 0
    assert all(sink.ended == "discarded" for sink in bay.sinks) or bay.sinks[0].ended == "finished"

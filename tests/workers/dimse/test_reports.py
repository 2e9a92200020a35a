"""C-MOVE and C-GET as SCU: what is put on the wire, and what of the answers is believed."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from dicomferry.models.rules.errors import AssociationAborted, ContextNotAccepted, ProtocolViolation
from dicomferry.models.rules.query import get_model
from dicomferry.models.rules.target import Target
from dicomferry.workers.dimse import get, move, storage_classes
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply
from dicomferry.workers.dimse.get import Gets
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.dimse.storage_classes import SYNTAXES
from dicomferry.workers.dimse.wire.associate_as_acceptor import ProposedContext, negotiate
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE, MOST_PROPOSALS, UNCOMPRESSED
from support import scripted_peer as peer
from support.find_scp import identifier
from support.scripted_peer import ScriptedPeer, Step, command_set, expect, opening, p_data, pdv, send

ONE = Target(patient_id="P", study="1.2", series="1.3", images=("1.4", "1.5"))
MR = "1.2.840.10008.5.1.4.1.1.4"
END: list[Step] = [expect(peer.RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP))]


def answer(status: int, *, field: int = 0x8021, message_id: int = 9, data: bytes = b"", **counters: int) -> bytes:
    """C-MOVE-RSP or C-GET-RSP with the counters that are given."""
    names = {f"NumberOf{name.capitalize()}Suboperations": number for name, number in counters.items()}
    command = command_set(
        CommandField=field,
        MessageIDBeingRespondedTo=message_id,
        CommandDataSetType=1 if data else 0x0101,
        Status=status,
        **names,
    )
    return p_data(pdv(command, 3), *([pdv(data, 2)] if data else []))


def implicit(_abstract: str, _syntaxes: list[str]) -> peer.Answer:
    return 0, str(ImplicitVRLittleEndian)


def moved(*answers: bytes, root: str = "study") -> tuple[ScriptedPeer, list[Report]]:
    """A peer that answers a C-MOVE so, and what was read up to the final answer."""
    script = [*opening(implicit), peer.expect_message(), *map(send, answers), *END]
    with ScriptedPeer(script) as scp, move.open_for(scp.remote(), root) as association:
        asked = move.ask(association, root, ONE, destination="FERRY", message_id=9)
        reports: list[Report] = []
        while not reports or not reports[-1].is_final:
            report = asked.poll(5.0)
            assert report is not None
            reports.append(report)
    return scp, reports


@pytest.mark.parametrize(("root", "patient"), [("study", False), ("patient", True)])
def test_the_request(root: str, patient: bool) -> None:
    """The unique keys, the level, nothing else; the patient in Patient Root alone (PS3.4 C.4.2.1.4.1)."""
    scp, _ = moved(answer(0), root=root)
    ((_, command, data),) = scp.only.messages
    assert (command.CommandField, command.MessageID, command.MoveDestination, command.Priority) == (
        0x21, 9, "FERRY", 2,
    )  # fmt: skip
    keys = dcmread(BytesIO(data), force=True)
    wanted = {"QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
    assert {element.keyword for element in keys} == wanted | ({"PatientID"} if patient else set())
    assert (keys.QueryRetrieveLevel, list(keys.SOPInstanceUID)) == ("IMAGE", ["1.4", "1.5"])


def test_counters_and_what_failed() -> None:
    """Counters of each answer, None where there is none; the list of the final one."""
    failed = identifier(FailedSOPInstanceUIDList=["1.4"])
    _, reports = moved(
        answer(0xFF00, remaining=2, completed=0, failed=0, warning=0),
        answer(0xFF00),
        answer(0xB000, completed=1, failed=1, warning=0, data=failed),
    )
    first, bare, last = reports
    assert (first.remaining, first.done, first.is_final) == (2, 0, False)
    assert (bare.remaining, bare.completed, bare.is_final) == (None, None, False)
    assert (last.status, last.done, last.failed_uids, last.remaining) == (0xB000, 2, ("1.4",), None)


def test_nothing_within_the_time_is_no_answer() -> None:
    """Polling waits for as long as it is told, and what came in part is not lost."""
    whole = answer(0)
    script = [*opening(implicit), peer.expect_message(), send(whole[:20]), *_after_cancel(send(whole[20:])), *END]
    with ScriptedPeer(script) as scp, move.open_for(scp.remote(), "study") as association:
        asked = move.ask(association, "study", ONE, destination="FERRY", message_id=9)
        assert asked.poll(0.1) is None
        asked.cancel()
        report = asked.poll(5.0)
        assert report is not None and report.status == 0
    assert [int(command.CommandField) for _, command, _ in scp.only.messages] == [0x21, 0xFFF]


def _after_cancel(step: Step) -> list[Step]:
    return [peer.expect_message(data_set=False), step]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(answer(0, message_id=8), id="another message id"),
        pytest.param(answer(0, field=0x8020), id="another command"),
    ],
)
def test_an_answer_to_something_else_ends_the_association(wrong: bytes) -> None:
    """PS3.7 9.1.4: nothing of it is believed."""
    script = [*opening(implicit), peer.expect_message(), send(wrong), expect(peer.ABORT)]
    with (
        ScriptedPeer(script) as scp,
        pytest.raises(ProtocolViolation),
        move.open_for(scp.remote(), "study") as association,
    ):
        move.ask(association, "study", ONE, destination="FERRY", message_id=9).poll(5.0)


def test_a_model_that_is_refused() -> None:
    """The association is of no use, and given back."""
    script: list[Step] = [*opening(lambda _, syntaxes: (3, syntaxes[0])), expect(peer.ABORT)]
    with ScriptedPeer(script) as scp, pytest.raises(ContextNotAccepted):
        move.open_for(scp.remote(), "study")


# --- C-GET ----------------------------------------------------------------------------------------------------------


class Kept:
    """A place for an instance, in memory."""

    def __init__(self, status: int = 0, comment: str = "") -> None:
        self.answer = StatusReply(status, comment)
        self.data = b""
        self.incoming: list[Incoming] = []

    def __call__(self, incoming: Incoming) -> Kept:
        self.incoming.append(incoming)
        self.data = b""
        return self

    def take(self, spans: list[memoryview]) -> None:
        self.data += b"".join(spans)

    def finish(self) -> StatusReply:
        return self.answer

    def discard(self) -> None:
        pass


def store(message_id: int, data: bytes, context_id: int = 3) -> bytes:
    """C-STORE-RQ as a sub-operation."""
    command = command_set(
        CommandField=1,
        AffectedSOPClassUID=MR,
        AffectedSOPInstanceUID="1.4",
        MessageID=message_id,
        Priority=0,
        CommandDataSetType=1,
    )
    half = len(data) // 2
    return p_data(pdv(command, 3, context_id), pdv(data[:half], 0, context_id)) + p_data(
        pdv(data[half:], 2, context_id)
    )


def test_instances_come_on_the_association() -> None:
    """Each is taken whole and answered before the next; the final answer comes after them."""
    kept = Kept()
    script: list[Step] = [
        expect(peer.RQ),
        lambda conversation: conversation.socket.sendall(peer.acceptance(conversation, roles=True)),
        peer.expect_message(),
        send(store(7, b"abcdefgh")),
        peer.expect_message(data_set=False),
        send(answer(0, field=0x8010, completed=1)),
        *END,
    ]
    with ScriptedPeer(script) as scp, get.open_for(scp.remote(), "study", [MR]) as association:
        assert association.scp_roles == {MR}
        asked = Gets(association, "study").ask(ONE, 9, kept)
        assert asked.poll(5.0) is None and asked.stores == 1
        report = asked.poll(5.0)
        assert report is not None and (report.status, report.completed) == (0, 1)
    assert kept.data == b"abcdefgh"
    (incoming,) = kept.incoming
    assert (incoming.request.calling_ae_title, incoming.sop_instance_uid, incoming.number) == ("SCRIPTED", "1.4", 1)
    assert incoming.context.transfer_syntax == EXPLICIT_LE
    _, (context_id, stored, _) = scp.only.messages
    assert (context_id, stored.CommandField, stored.MessageIDBeingRespondedTo, stored.Status) == (3, 0x8001, 7, 0)


def test_a_refused_instance_is_told_why() -> None:
    """With an Error Comment (0000,0902) for their log, as the storage SCP gives one; the get goes on."""
    script: list[Step] = [
        *opening(), peer.expect_message(), send(store(7, b"abcdefgh")), peer.expect_message(data_set=False),
        send(answer(0xB000, field=0x8010, failed=1)), *END,
    ]  # fmt: skip
    with ScriptedPeer(script) as scp, get.open_for(scp.remote(), "study", [MR]) as association:
        asked = Gets(association, "study").ask(ONE, 9, Kept(0xA700, "disk is full"))
        assert asked.poll(5.0) is None
        report = asked.poll(5.0)
        assert report is not None and report.failed == 1
    _, (_, stored, _) = scp.only.messages
    assert (stored.Status, stored.ErrorComment) == (0xA700, "disk is full")


def test_the_end_in_the_middle_of_an_instance() -> None:
    """What came of it is given up."""
    script: list[Step] = [
        *opening(), peer.expect_message(), send(store(7, b"abcdefgh")[:-8]), send(peer.abort_pdu()),
    ]  # fmt: skip
    with (
        ScriptedPeer(script) as scp,
        pytest.raises((AssociationAborted, ProtocolViolation)),
        get.open_for(scp.remote(), "study", [MR]) as association,
    ):
        Gets(association, "study").ask(ONE, 9, Kept()).poll(5.0)


@pytest.mark.parametrize("number", [1, 3, 9, 60, 200])
def test_the_contexts_fit_one_association(number: int) -> None:
    """One for each class and syntax, the common syntaxes for all before the rare ones for any (PS3.8 9.3.2.2)."""
    model = get_model("study")
    proposals = get.proposals_for(model, [f"1.2.{n}" for n in range(number)])
    assert proposals[0].abstract_syntax == model and not proposals[0].as_scp
    assert len(proposals) <= MOST_PROPOSALS
    assert len(set(proposals)) == len(proposals)
    classes = {one.abstract_syntax for one in proposals[1:]}
    assert len(classes) == min(number, (MOST_PROPOSALS - 1) // 2)
    assert all(len(one.transfer_syntaxes) == 1 and one.as_scp for one in proposals[1:])
    assert len([one for one in proposals if one.abstract_syntax == "1.2.0"]) >= 2


def test_without_a_list_the_usual_classes_are_proposed() -> None:
    """Nobody knows what there is."""
    proposals = get.proposals_for(get_model("study"), [])
    assert {one.abstract_syntax for one in proposals[1:]} == set(storage_classes.CLASSES)
    assert len(proposals) <= MOST_PROPOSALS


def test_what_there_is_no_room_for_is_proposed_in_the_next_round() -> None:
    """Three rounds propose the ten most common syntaxes of every class that has pixels, and each class uncompressed
    each time; rarer classes are proposed from the second one on.
    """
    rounds = [get.proposals_for(get_model("study"), [], part) for part in range(3)]
    pairs = [{(one.abstract_syntax, one.transfer_syntaxes[0]) for one in proposals[1:]} for proposals in rounds]
    assert all(len(proposals) <= 128 for proposals in rounds)
    pixels = {one for one in storage_classes.CLASSES if one not in storage_classes.WITHOUT_PIXELS}
    assert set().union(*pairs) >= {(one, syntax) for one in pixels for syntax in storage_classes.SYNTAXES[:10]}
    assert all(found >= {(one, storage_classes.SYNTAXES[0]) for one in storage_classes.CLASSES} for found in pairs)
    assert all(found >= {(one, storage_classes.SYNTAXES[0]) for one in storage_classes.RARER} for found in pairs[1:])
    known = [get.proposals_for(get_model("study"), [MR], part) for part in range(3)]
    assert known[0] == known[1] == known[2]


@pytest.mark.parametrize(
    ("prefer", "proposed"),
    [
        ("explicit", {EXPLICIT_LE}),
        ("implicit", {IMPLICIT_LE}),
        ("plain", {EXPLICIT_LE, IMPLICIT_LE}),
        ("1.2.840.10008.1.2.5", {"1.2.840.10008.1.2.5"}),
        ("compressed", set(SYNTAXES) - set(UNCOMPRESSED)),
        (None, set(SYNTAXES)),
    ],
)
def test_what_is_preferred_of_a_remote_narrows_what_a_get_proposes(prefer: str | None, proposed: set[str]) -> None:
    """Of each SOP class: an archive chooses among the contexts of a C-GET, so what is not wanted is not offered."""
    model, ct, mr = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
    found = get.proposals_for(model, [ct, mr], only=get.narrowed(prefer))
    assert found[0].abstract_syntax == model and len(found) <= 128
    for one in (ct, mr):
        assert {
            syntax for item in found if item.abstract_syntax == one for syntax in item.transfer_syntaxes
        } == proposed


def test_only_plain_syntaxes_are_accepted_of_what_came_ill_encoded() -> None:
    """A context that has none of them is refused for its transfer syntaxes (PS3.8 9.3.3.2, result 4)."""
    rle, mr = "1.2.840.10008.1.2.5", "1.2.840.10008.5.1.4.1.1.4"
    asked = (
        ProposedContext(1, mr, (rle,)),
        ProposedContext(3, mr, (rle, IMPLICIT_LE)),
        ProposedContext(5, mr, (EXPLICIT_LE,)),
    )
    answers = negotiate(asked, "plain")
    assert [(one.result, one.transfer_syntax) for one in answers if one.accepted] == [
        (0, IMPLICIT_LE),
        (0, EXPLICIT_LE),
    ]
    assert answers[0].result == 4

"""Answers that break a rule and change nothing: what they say is taken, and what they announce is not waited for."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import pytest

from dicomferry.models.rules.errors import DimseFailure, DimseTimeout, ProtocolViolation, ReleasedEarly
from dicomferry.models.rules.query import find_model
from dicomferry.workers.dimse import find as c_find
from dicomferry.workers.dimse import get, identifier, move, store
from dicomferry.workers.dimse.echo import echo
from dicomferry.workers.dimse.get import Gets
from dicomferry.workers.dimse.reports import FAILED_SOP_INSTANCE_UID_LIST, Report, read_report
from dicomferry.workers.dimse.requestor import Association, open_association
from dicomferry.workers.dimse.wire.message import Assembler, CommandSet
from support import samples
from support import scripted_peer as peer
from support.find_scp import identifier as encoded
from support.scripted_peer import ScriptedPeer, Step, command_set, expect, opening, p_data, pdv, send

from .test_reports import END, MR, ONE, Kept, answer, implicit
from .test_reports import store as c_store
from .test_store import local

ECHO_RSP, FIND_RSP, MOVE_RSP, GET_RSP = 0x8030, 0x8020, 0x8021, 0x8010
MODEL = find_model("study")
PENDING = 0xFF00


def announcing(field: int, message_id: int, status: int = 0, **more: object) -> bytes:
    """A response that announces a data set, without one."""
    elements = {
        "CommandField": field, "MessageIDBeingRespondedTo": message_id, "CommandDataSetType": 1, "Status": status,
    }  # fmt: skip
    return p_data(pdv(command_set(**{**elements, **more}), 3))


def stray(command: bytes, *, before: bool = False) -> bytes:
    """A command set with (0008,0058) and the length of its group in it, as some archives answer C-GET."""
    value = b"1.4\\1.5\0"
    alien = struct.pack("<HHLL", 8, 0, 4, 8 + len(value)) + struct.pack("<HHL", 8, 0x58, len(value)) + value
    return alien + command if before else command + alien


# --- a data set that is announced and does not come -----------------------------------------------------------------


def test_an_echo_is_answered_by_its_status() -> None:
    """The status of a final answer is the answer, whatever it announces (PS3.7 9.1.5)."""
    script = [*opening(), peer.expect_message(data_set=False), send(announcing(ECHO_RSP, 1, 0x0122)), *END]
    with ScriptedPeer(script) as scripted:
        assert echo(scripted.remote(announced=0.2)).status == 0x0122


@pytest.mark.parametrize("end", ["release", "abort", "close"])
def test_an_association_that_ends_behind_its_answer(end: str) -> None:
    """A peer that announces a data set and ends the association instead has answered."""
    steps: list[Step] = {
        "release": [send(peer.release_pdu(peer.RELEASE_RQ)), expect(peer.RELEASE_RP)],
        "abort": [send(peer.abort_pdu())],
        "close": [lambda conversation: conversation.socket.close()],
    }[end]
    script = [*opening(), peer.expect_message(data_set=False), send(announcing(ECHO_RSP, 1)), *steps]
    with ScriptedPeer(script) as scripted:
        assert echo(scripted.remote(announced=0.2)).status == 0


def test_a_store_is_answered_by_its_status(tmp_path: Path) -> None:
    """And the next file is sent over the same association, after a shorter wait."""
    made = [samples.mr_instance(tmp_path / f"{number}.dcm", number=number) for number in (1, 2)]
    files = [local(one, number) for number, one in enumerate(made, 1)]
    script = [
        *opening(),
        peer.expect_message(), send(announcing(0x8001, 1, 0xB000)),
        peer.expect_message(), send(announcing(0x8001, 2)),
        *END,
    ]  # fmt: skip
    pairs = [(one.sop_class_uid, one.transfer_syntax_uid) for one in files]
    with ScriptedPeer(script) as scripted:
        answers = list(store.send(scripted.remote(announced=0.2), iter(files), pairs))
    assert [one.status for one in answers] == [0xB000, 0]


def queried(*steps: Step) -> ScriptedPeer:
    return ScriptedPeer([*opening(implicit), peer.expect_message(), *steps])


def opened(scripted: ScriptedPeer, **timeouts: float) -> Association:
    return open_association(scripted.remote(**{"announced": 0.2, **timeouts}), [c_find.proposal(MODEL)])


def find(association: Association) -> list[c_find.Match]:
    syntax = association.context_for(MODEL).transfer_syntax
    return list(c_find.find(association, MODEL, identifier.encode((("0020000D", ""),), syntax, level="study")))


def test_a_query_ends_with_its_status() -> None:
    """The matches that came are the matches."""
    one = encoded(StudyInstanceUID="1.2.3")
    match = announcing(FIND_RSP, 1, PENDING) + p_data(pdv(one, 2))
    with queried(send(match), send(announcing(FIND_RSP, 1)), *END) as scripted, opened(scripted) as association:
        assert [found.data for found in find(association)] == [one]


def test_a_data_set_that_comes_late_is_passed_over() -> None:
    """Whoever asks next gets the next answer."""
    late = [peer.expect_message(), send(p_data(pdv(b"ab", 0))), send(p_data(pdv(b"cd", 2)))]
    script = [send(announcing(FIND_RSP, 1)), *late, send(announcing(FIND_RSP, 2, 0xA700)), *END]
    with queried(*script) as scripted, opened(scripted) as association:
        assert find(association) == []
        with pytest.raises(DimseFailure, match="A700"):
            find(association)


def test_a_match_that_is_announced_and_not_sent() -> None:
    """A pending answer is no final one: its identifier is waited for like any other."""
    with (
        queried(send(announcing(FIND_RSP, 1, PENDING)), expect(peer.ABORT)) as scripted,
        pytest.raises(DimseTimeout, match="first_answer"),
        opened(scripted, first_answer=0.1) as association,
    ):
        find(association)


def test_a_released_association_is_not_asked_again() -> None:
    """What followed the answer is heard by whoever asks next."""
    last = announcing(FIND_RSP, 1) + peer.release_pdu(peer.RELEASE_RQ)
    with queried(send(last), expect(peer.RELEASE_RP)) as scripted, opened(scripted) as association:
        find(association)
        with pytest.raises(ReleasedEarly):
            association.receive("progress", 5.0)


def reports_of_a_move(*answers: bytes) -> list[Report]:
    """The answers to a C-MOVE, polled for as an attempt does."""
    script = [*opening(implicit), peer.expect_message(), *map(send, answers), *END]
    with ScriptedPeer(script) as scripted, move.open_for(scripted.remote(announced=0.2), "study") as association:
        asked = move.ask(association, "study", ONE, destination="FERRY", message_id=9)
        reports: list[Report] = []
        while not reports or not reports[-1].is_final:
            if (report := asked.poll(0.02)) is not None:
                reports.append(report)
        return reports


def test_a_move_ends_with_its_status() -> None:
    """However short the turns are in which it is listened to."""
    counters = {"NumberOfCompletedSuboperations": 2, "NumberOfFailedSuboperations": 1}
    (report,) = reports_of_a_move(announcing(MOVE_RSP, 9, 0xB000, **counters))
    assert (report.status, report.completed, report.failed, report.failed_uids) == (0xB000, 2, 1, ())


def test_pending_answers_of_a_move_that_announce_in_vain() -> None:
    """The next answer tells that nothing came between."""
    pending = announcing(MOVE_RSP, 9, PENDING, NumberOfCompletedSuboperations=1)
    reports = reports_of_a_move(pending, pending, answer(0, completed=2))
    assert [report.completed for report in reports] == [1, 1, 2]


def reports_of_a_get(*steps: Step) -> tuple[list[Report], Kept]:
    kept = Kept()
    script: list[Step] = [
        expect(peer.RQ),
        lambda conversation: conversation.socket.sendall(peer.acceptance(conversation, roles=True)),
        peer.expect_message(),
        *steps,
        *END,
    ]
    with ScriptedPeer(script) as scripted, get.open_for(scripted.remote(announced=0.2), "study", [MR]) as association:
        asked = Gets(association, "study").ask(ONE, 9, kept)
        reports: list[Report] = []
        while not reports or not reports[-1].is_final:
            if (report := asked.poll(5.0)) is not None:
                reports.append(report)
        return reports, kept


def test_a_get_ends_with_its_status() -> None:
    """A pending answer that announces in vain before an instance, and a final one."""
    reports, kept = reports_of_a_get(
        send(announcing(GET_RSP, 9, PENDING, NumberOfRemainingSuboperations=1) + c_store(7, b"abcdefgh")),
        peer.expect_message(data_set=False),
        send(announcing(GET_RSP, 9, NumberOfCompletedSuboperations=1)),
    )
    assert [(report.status, report.completed) for report in reports] == [(PENDING, None), (0, 1)]
    assert kept.data == b"abcdefgh"


# --- elements of other groups in a command set ----------------------------------------------------------------------


@pytest.mark.parametrize("before", [False, True])
def test_elements_of_other_groups_are_passed_over(before: bool) -> None:
    """PS3.7 6.3.1 allows group 0000 alone; other implementations read on as well."""
    command = CommandSet.decode(stray(peer.store_rsp_command(9, 0xB000), before=before))
    assert (command.number(0x0900), command.number(0x0120)) == (0xB000, 9)
    assert set(command.strays) == {0x00080000, FAILED_SOP_INSTANCE_UID_LIST}


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + b"\xfe\xff\0\xe0\0\0\0\0", id="undefined length"),
        pytest.param(struct.pack("<HHL", 8, 0x58, 40) + b"1.4", id="leaves the command set"),
        pytest.param(bytes(4), id="padding"),
        pytest.param(bytes(10), id="more padding"),
    ],
)
def test_what_follows_the_command_and_cannot_be_read_is_passed_over(tail: bytes) -> None:
    """Group 0000 comes first, so that all that matters has been read by then."""
    assert CommandSet.decode(peer.store_rsp_command(9) + tail).number(0x0120) == 9


def test_a_get_with_the_failed_list_in_its_command_set(caplog: pytest.LogCaptureFixture) -> None:
    """(0008,0058) belongs into the data set (PS3.4 C.4.3.1.4.2); where it stands in the command it is read there, and
    the log says so once.
    """
    caplog.set_level(logging.INFO)
    command = stray(command_set(CommandField=GET_RSP, MessageIDBeingRespondedTo=9, CommandDataSetType=0x0101,
                                Status=0xB000, NumberOfFailedSuboperations=2))  # fmt: skip
    reports, _ = reports_of_a_get(send(p_data(pdv(command, 3))))
    (report,) = reports
    assert (report.status, report.failed, report.failed_uids) == (0xB000, 2, ("1.4", "1.5"))
    assert [one for one in caplog.messages if "(0008,0058)" in one and "passed over" in one]


def test_the_list_in_the_data_set_counts() -> None:
    """Where both are there, the lawful one is believed."""
    command = CommandSet.decode(stray(peer.store_rsp_command(9, 0xB000)))
    data = encoded(FailedSOPInstanceUIDList=["1.7"])
    assert read_report(command, 0xB000, data, "1.2.840.10008.1.2").failed_uids == ("1.7",)


def test_a_request_that_announces_in_vain_is_still_a_violation() -> None:
    """Only responses are whole without what they announce: a request without its data set is none."""
    request = peer.pdv(command_set(CommandField=1, MessageID=1, CommandDataSetType=1), 3)
    with pytest.raises(ProtocolViolation):
        Assembler().feed(request + request)

"""`scu --move` and `--get`: judged by what came, whatever the archive says."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicomferry.cli.scu import echo, grammar, recording
from dicomferry.cli.scu import move as move_mode
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import RemoteUnreachable
from support import caller, samples
from support import scripted_peer as peer
from support.compare import assert_same_object, body
from support.process import free_port
from support.samples import Sample
from support.scripted_peer import RELEASE_RQ, ScriptedPeer, Step, expect, expect_message, opening, send
from support.scu import Ran, scu

ENDING: list[Step] = [expect(RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"


@pytest.fixture
def port() -> int:
    """Where we are to listen."""
    return free_port()


@pytest.fixture
def images(tmp_path: Path) -> list[Sample]:
    return [samples.mr_instance(tmp_path / "in" / f"{n}.dcm", number=n) for n in (1, 2, 3)]


def answer(status: int, completed: int | None = None, failed: int | None = None, **more: object) -> Step:
    """A C-MOVE response in context 3."""
    counters = {"NumberOfCompletedSuboperations": completed, "NumberOfFailedSuboperations": failed, **more}
    command = {
        "AffectedSOPClassUID": MOVE,
        "CommandField": 0x8021,
        "MessageIDBeingRespondedTo": 1,
        "CommandDataSetType": 0x0101,
        "Status": status,
    } | {name: value for name, value in counters.items() if value is not None}
    return send(peer.p_data(peer.pdv(peer.command_set(**command), 3, 3)))


def delivers(port: int, *sent: Sample, statuses: list[int] | None = None, uid: str | None = None) -> Step:
    """One association to the destination that brings these."""

    def step(_conversation: peer.Conversation) -> None:
        kinds = list(dict.fromkeys((one.sop_class_uid, one.transfer_syntax_uid) for one in sent))
        with caller.association(port, [(one, (syntax,)) for one, syntax in kinds]) as line:
            for one in sent:
                context = 2 * kinds.index((one.sop_class_uid, one.transfer_syntax_uid)) + 1
                told = line.store(
                    uid or one.sop_instance_uid, body(one.path), context_id=context, sop_class=one.sop_class_uid
                )
                if statuses is not None:
                    statuses.append(int(told.Status))
            line.release()

    return step


def moved(scp: ScriptedPeer, port: int, output: Path, *more: object) -> list[str]:
    words = ("--studyroot", "--study", "--call", "ARCHIVE", "--key", "20,d=1.2.3", "--port-scp", port, "-o", output)
    return list(map(str, ("--move", "127.0.0.1", scp.port, *words, *more)))


def move(capsys: pytest.CaptureFixture[str], scp: ScriptedPeer, port: int, output: Path, *more: object) -> Ran:
    return scu(capsys, *moved(scp, port, output, *more))


def move_within(quiet: float, capsys: pytest.CaptureFixture[str], scp: ScriptedPeer, port: int, output: Path) -> Ran:
    """The same, with other seconds for what does not come."""
    invocation = grammar.invocation(grammar.read(moved(scp, port, output)))
    capsys.readouterr()
    say = Messages(invocation)
    code = move_mode.run(replace(invocation, quiet_seconds=quiet), say)
    say.close()
    printed = capsys.readouterr()
    return Ran(code, printed.out.splitlines(), printed.err.splitlines())


def moving(*steps: Step) -> list[Step]:
    return [*opening(), expect_message(), *steps]


def check(output: Path, came: list[Sample]) -> None:
    assert {path.name for path in output.iterdir()} == {f"{one.sop_instance_uid}.dcm" for one in came}
    for one in came:
        assert_same_object(one.path, output / f"{one.sop_instance_uid}.dcm")


def test_everything_that_comes_is_a_file(
    tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """Over any number of associations, in any syntax as it was received, with the called AE title as source; silent."""
    rle = samples.rle(tmp_path / "in" / "rle.dcm")
    script = moving(delivers(port, *images[:2]), delivers(port, images[2], rle), answer(0, 4, 0), *ENDING)
    output = tmp_path / "new" / "out"
    with ScriptedPeer(script) as scp:
        ran = move(capsys, scp, port, output)
    assert (ran.code, ran.out, ran.err) == (0, [], [])
    check(output, [*images, rle])
    meta = dcmread(output / f"{rle.sop_instance_uid}.dcm").file_meta
    assert (str(meta.TransferSyntaxUID), meta.SourceApplicationEntityTitle) == (rle.transfer_syntax_uid, "ARCHIVE")
    (_, request, _) = scp.only.messages[0]
    assert (request.MessageID, request.Priority, request.MoveDestination) == (1, 0, "GDCMSCU")


def test_a_file_that_is_there_is_replaced(
    tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a warning, as gdcmscu does; -V names it, and the totals."""
    output = tmp_path / "out"
    output.mkdir()
    (output / f"{images[0].sop_instance_uid}.dcm").write_text("old")
    with ScriptedPeer(moving(delivers(port, images[0]), answer(0, 1, 0), *ENDING)) as scp:
        ran = move(capsys, scp, port, output, "-V")
    check(output, images[:1])
    assert (
        ran.code == 0
        and ran.err[0].startswith(f"received {output}/")
        and ran.err[1].startswith("1 of 1 received, 0 failed")
    )


@pytest.mark.parametrize(
    ("status", "completed", "failed"),
    [(0xA801, None, None), (0xA702, 0, 3), (0xB000, 1, 2), (0xC001, 1, 0), (0xFE00, 1, 0), (0x0000, 1, 2), (1, 1, 0)],
)
def test_the_last_answer_is_looked_at(
    status: int,
    completed: int | None,
    failed: int | None,
    tmp_path: Path,
    port: int,
    images: list[Sample],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is not success without a failed sub-operation is named on one line; what came stays."""
    with ScriptedPeer(moving(delivers(port, images[0]), answer(status, completed, failed), *ENDING)) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    (line,) = ran.err
    assert ran.code == 1 and f"status {status:04X}" in line and f"127.0.0.1:{scp.port}" in line
    check(tmp_path / "out", images[:1])


def test_success_with_nothing_matched(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, at once, whether the counters are there or not."""
    for counters in ((0, 0), (None, None)):
        with ScriptedPeer(moving(answer(0, *counters), *ENDING)) as scp:
            ran = move(capsys, scp, port, tmp_path / "out")
        assert (ran.code, ran.err) == (0, [])


def test_success_with_less_than_was_sent(
    tmp_path: Path,
    port: int,
    images: list[Sample],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An archive that says three and sends one is not believed; what comes after its answer counts."""
    with ScriptedPeer(moving(delivers(port, images[0]), answer(0, 3, 0), *ENDING)) as scp:
        lied = move_within(0.3, capsys, scp, port, tmp_path / "out")
    late = [*moving(answer(0, 3, 0)), delivers(port, *images), *ENDING]
    with ScriptedPeer(late) as scp:
        came = move_within(20.0, capsys, scp, port, tmp_path / "late")
    (line,) = lied.err
    assert lied.code == 1 and "it says that it sent 3, and 1 came" in line
    assert (came.code, came.err) == (0, [])
    check(tmp_path / "late", images)


def test_an_archive_that_aborts(
    tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names it; what came before stays."""
    with ScriptedPeer(moving(delivers(port, images[0]), send(peer.abort_pdu()), peer.close)) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    (line,) = ran.err
    assert ran.code == 1 and f"127.0.0.1:{scp.port}" in line
    check(tmp_path / "out", images[:1])


def test_an_archive_that_falls_silent(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The wait is bounded by --dimse-timeout."""
    with ScriptedPeer([*moving(), peer.until_end]) as scp:
        ran = move(capsys, scp, port, tmp_path / "out", "--dimse-timeout", "1")
    (line,) = ran.err
    assert ran.code == 1 and "no answer within 1 s" in line and f"127.0.0.1:{scp.port}" in line


@pytest.mark.parametrize("uid", ["../evil", "1.2/3", "..", "1.2 3", "1.2\\3"])
def test_a_uid_that_is_none_is_refused(
    uid: str, tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """0117, a line, and no file anywhere."""
    told: list[int] = []
    before = set(tmp_path.rglob("*"))
    script = moving(delivers(port, images[0], statuses=told, uid=uid), answer(0xA702, 0, 1), *ENDING)
    with ScriptedPeer(script) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    assert (ran.code, told) == (1, [0x0117]) and "0117" in ran.err[0] and "A702" in ran.err[1]
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "out"}


def test_a_uid_that_is_too_long_has_a_hash_for_a_name(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one line that says so, and exit 0."""
    # pydicom minds such a UID, which is the point of it here.
    monkeypatch.setattr("pydicom.config.settings.reading_validation_mode", 0)
    monkeypatch.setattr("pydicom.config.settings.writing_validation_mode", 0)
    uid = "1.2." + "3" * 80
    ds = samples.dataset(size=2)
    ds.SOPInstanceUID = uid
    long = samples.write(tmp_path / "long.dcm", ds)
    with ScriptedPeer(moving(delivers(port, long), answer(0, 1, 0), *ENDING)) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    (line,) = ran.err
    assert ran.code == 0 and path.name in line and uid in line and len(path.name) < 60
    assert dcmread(path).SOPInstanceUID == uid


def test_a_file_that_cannot_be_written(
    tmp_path: Path,
    port: int,
    images: list[Sample],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The archive is answered A700 for that one, and nothing half-written is left."""
    told: list[int] = []
    write = os.writev
    full = body(images[1].path)

    def writev(fd: int, views: list[bytes]) -> int:
        if any(images[1].sop_instance_uid.encode() in bytes(view) for view in views):
            raise OSError(28, "No space left on device")
        return write(fd, views)

    monkeypatch.setattr(os, "writev", writev)
    assert full
    script = moving(delivers(port, *images, statuses=told), answer(0xB000, 2, 1), *ENDING)
    with ScriptedPeer(script) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    assert (ran.code, told) == (1, [0, 0xA700, 0])
    assert "refused with status A700: disk is full" in ran.err[0]
    check(tmp_path / "out", [images[0], images[2]])


def test_the_port_and_the_folder_are_tried_first(
    tmp_path: Path, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that is taken and a folder that is a file: one line, and nobody is asked."""
    with ScriptedPeer() as other:
        ran = scu(capsys, "--move", "127.0.0.1", "1", "--studyroot", "--port-scp", other.port, "-o", tmp_path)
        assert ran.code == 1 and f"port {other.port}" in ran.err[0] and len(ran.err) == 1
    ran = scu(capsys, "--move", "127.0.0.1", "1", "--studyroot", "--port-scp", free_port(), "-o", images[0].path)
    assert ran.code == 1 and str(images[0].path) in ran.err[0] and len(ran.err) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_echo_on_that_port_is_answered(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """Archives test the destination; over IPv6 as well, where this machine has it."""
    told: list[int] = []
    with socket.socket(socket.AF_INET6) as probe:
        if ":" in address and probe.connect_ex((address, port)) == errno.EADDRNOTAVAIL:
            pytest.skip("this machine has no IPv6")

    def echoes(_conversation: peer.Conversation) -> None:
        with caller.Caller(port, address) as line:
            line.associate([(caller.VERIFICATION, (caller.IMPLICIT,))])
            told.append(line.echo(1))
            line.release()

    with ScriptedPeer(moving(echoes, answer(0, 0, 0), *ENDING)) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    assert (ran.code, told) == (0, [0])


def test_implicit_is_taken_where_it_is_offered_among_others(
    tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """As gdcmscu does."""
    chosen: list[str] = []

    def offers(_conversation: peer.Conversation) -> None:
        with caller.Caller(port) as line:
            (accepted,) = line.associate([(images[0].sop_class_uid, (caller.EXPLICIT, caller.IMPLICIT))])
            chosen.append(accepted.transfer_syntax)
            line.release()

    with ScriptedPeer(moving(offers, answer(0, 0, 0), *ENDING)) as scp:
        move(capsys, scp, port, tmp_path / "out")
    assert chosen == [caller.IMPLICIT]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cancels_and_leaves_nothing_half(
    signal_number: int, tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of an instance: the archive gets a C-CANCEL and an A-ABORT, whole files stay; exit 130."""
    half = threading.Event()

    def stuck(_conversation: peer.Conversation) -> None:
        one = images[1]
        with caller.association(port, [(one.sop_class_uid, (one.transfer_syntax_uid,))]) as line:
            line.send(peer.p_data(peer.pdv(caller.store_command(one.sop_instance_uid), 3)))
            line.send(peer.p_data(peer.pdv(body(one.path)[:9000], 0)))
            os.kill(os.getpid(), signal_number)
            with pytest.raises((AssertionError, ConnectionResetError)):
                while line.read_pdu()[0] != peer.ABORT:
                    pass
                raise AssertionError
        half.set()

    script = moving(delivers(port, images[0]), stuck, expect_message(data_set=False), expect(peer.ABORT))
    with ScriptedPeer(script) as scp:
        ran = move(capsys, scp, port, tmp_path / "out")
    assert ran.code == 130 and half.is_set() and len(ran.err) == 1
    assert scp.only.messages[-1][1].CommandField == 0x0FFF
    check(tmp_path / "out", images[:1])


# --- C-GET ----------------------------------------------------------------------------------------------------------


def returning(*sent: Sample, status: int = 0, **counters: int) -> Callable[[peer.Conversation], None]:
    """Brings these on the association of the C-GET, then the last answer."""

    def step(conversation: peer.Conversation) -> None:
        contexts = {
            (str(one.abstract_syntax), str(one.transfer_syntax[0])): int(one.context_id or 0)
            for one in conversation.request.presentation_context_definition_list
        }
        for number, one in enumerate(sent, 1):
            context = contexts[one.sop_class_uid, one.transfer_syntax_uid]
            head = caller.store_command(one.sop_instance_uid, number, one.sop_class_uid)
            conversation.socket.sendall(peer.p_data(peer.pdv(head, 3, context)))
            conversation.socket.sendall(caller.data_pdus(body(one.path), 16378, context))
            expect_message(data_set=False)(conversation)
        command = {
            "AffectedSOPClassUID": GET,
            "CommandField": 0x8010,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": status,
            **counters,
        }
        conversation.socket.sendall(peer.p_data(peer.pdv(peer.command_set(**command), 3)))

    return step


def accept_roles(conversation: peer.Conversation) -> None:
    conversation.socket.sendall(peer.acceptance(conversation, roles=True))


def getting(*steps: Step) -> list[Step]:
    return [expect(peer.RQ), accept_roles, expect_message(), *steps]


def get(capsys: pytest.CaptureFixture[str], scp: ScriptedPeer, output: Path, *more: object) -> Ran:
    words = ("--studyroot", "--study", "--call", "ARCHIVE", "--key", "20,d=1.2.3", "-o", output)
    return scu(capsys, "--get", "127.0.0.1", scp.port, *words, *more)


def test_get_brings_files(tmp_path: Path, images: list[Sample], capsys: pytest.CaptureFixture[str]) -> None:
    """On its own association, without a port of ours."""
    script = getting(returning(*images, NumberOfCompletedSuboperations=3), *ENDING)
    with ScriptedPeer(script) as scp:
        ran = get(capsys, scp, tmp_path / "out")
    assert (ran.code, ran.out, ran.err) == (0, [], [])
    check(tmp_path / "out", images)


def test_get_asks_again_with_other_contexts(
    tmp_path: Path, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed because its class was not proposed comes the next time; nobody tells the classes beforehand."""
    some = returning(*images[:2], status=0xB000, NumberOfCompletedSuboperations=2, NumberOfFailedSuboperations=1)
    rest = returning(images[2], status=0xB000, NumberOfCompletedSuboperations=1, NumberOfFailedSuboperations=2)
    with ScriptedPeer(getting(some, *ENDING), getting(rest, *ENDING)) as scp:
        ran = get(capsys, scp, tmp_path / "out")
    assert (ran.code, ran.err) == (0, [])
    check(tmp_path / "out", images)


def test_get_that_brings_no_more_is_given_up(
    tmp_path: Path, images: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with what is missing."""
    some = returning(*images[:2], status=0xB000, NumberOfCompletedSuboperations=2, NumberOfFailedSuboperations=1)
    with ScriptedPeer(getting(some, *ENDING), getting(some, *ENDING)) as scp:
        ran = get(capsys, scp, tmp_path / "out")
    (line,) = ran.err
    assert ran.code == 1 and "status B000" in line and "1 of 3 instances failed" in line


# --- --record -------------------------------------------------------------------------------------------------------


def jobs(home: Path) -> list[tuple[Any, list[Any]]]:
    """Every job with its items, the oldest first."""
    database = Database(f"sqlite:///{home}/dicomferry.db")
    try:
        return [(job, list(job_documents.items(database, job["id"]))) for job in job_documents.listing(database)[::-1]]
    finally:
        database.close()


def test_record_keeps_a_retrieve(
    tmp_path: Path, port: int, images: list[Sample], capsys: pytest.CaptureFixture[str], isolated_home: Path
) -> None:
    """The request with its answer and the files that came, of one that succeeds, one that fails, one that breaks."""
    for ending in (
        [answer(0, 1, 0), *ENDING],
        [answer(0xB000, 1, 2), *ENDING],
        [send(peer.abort_pdu()), peer.close],
    ):
        with ScriptedPeer(moving(delivers(port, images[0]), *ending)) as scp:
            move(capsys, scp, port, tmp_path / "out", "--record")
    good, bad, broken = jobs(isolated_home)
    assert [job["state"] for job, _ in (good, bad, broken)] == ["succeeded", "incomplete", "incomplete"]
    assert (good[0]["kind"], good[0]["expected"], good[0]["received"], good[0]["verified"]) == ("move", 1, 1, "counts")
    requests = [items[0] for _, items in (good, bad, broken)]
    assert [(one["kind"], one["state"], one["status"], one["reason"]) for one in requests] == [
        ("request", "succeeded", "0x0000", None),
        ("request", "failed", "0xB000", "sub-operations failed"),
        ("request", "failed", None, "aborted"),
    ]
    assert requests[0]["identifier"] == [["0020000D", "1.2.3"]]
    for _, (_, came) in (good, bad, broken):
        assert came["path"] == str(tmp_path / "out" / f"{images[0].sop_instance_uid}.dcm")


def test_record_keeps_an_echo(capsys: pytest.CaptureFixture[str], isolated_home: Path) -> None:
    """One request item, with what the peer said."""
    script = [*opening(), expect_message(data_set=False), send(peer.p_data(peer.pdv(peer.echo_rsp_command(1), 3)))]
    with ScriptedPeer([*script, *ENDING]) as scp:
        invocation = Invocation(mode="echo", host="127.0.0.1", port=scp.port, record=True)
        assert recording.single(invocation, Messages(invocation), echo.run) == 0
    invocation = Invocation(mode="echo", host="127.0.0.1", port=free_port(), record=True)
    with pytest.raises(RemoteUnreachable):
        recording.single(invocation, Messages(invocation), echo.run)
    good, bad = jobs(isolated_home)
    assert (good[0]["state"], good[1][0]["status"]) == ("succeeded", "0x0000")
    assert (bad[0]["state"], bad[0]["reason"]) == ("failed", "unreachable")


def test_what_was_never_asked_is_not_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], isolated_home: Path
) -> None:
    """A port that is taken, and nothing to send."""
    with ScriptedPeer() as other:
        words = ("--studyroot", "--port-scp", other.port, "-o", tmp_path, "--record")
        assert scu(capsys, "--move", "127.0.0.1", "1", *words).code == 1
    assert scu(capsys, "--store", "127.0.0.1", "1", tmp_path, "--record").code == 1
    assert jobs(isolated_home) == []


def test_a_record_that_cannot_be_kept(
    tmp_path: Path, images: list[Sample], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is said before anybody is asked, with exit 1."""
    monkeypatch.setenv("DICOMFERRY_HOME", "/dev/null/home")
    ran = scu(capsys, "--store", "127.0.0.1", "1", images[0].path, "--record")
    assert ran.code == 1 and len(ran.err) == 1 and "/dev/null/home" in ran.err[0]

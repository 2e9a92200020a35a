"""`scu --store`: each file once, in order, and each that was not stored by name."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from support import samples
from support import scripted_peer as peer
from support.bench import Bench
from support.part10_bytes import elements, meta
from support.samples import Sample
from support.scripted_peer import (
    ABORT,
    RELEASE_RQ,
    ScriptedPeer,
    Step,
    expect,
    expect_message,
    opening,
    send,
    store_rsp,
)
from support.scu import scu

ENDING: list[Step] = [expect(RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]
CT = "1.2.840.10008.5.1.4.1.1.2"


def taking(*statuses: int) -> list[Step]:
    """A peer that takes one association and answers so."""
    answers = [[expect_message(), send(store_rsp(number, status))] for number, status in enumerate(statuses, 1)]
    return [*opening(), *(step for steps in answers for step in steps), *ENDING]


def breaking() -> list[Step]:
    """A peer that takes a file and aborts."""
    return [*opening(), expect_message(), send(peer.abort_pdu()), peer.close]


def sent(conversation: peer.Conversation) -> list[str]:
    return [str(command.AffectedSOPInstanceUID) for _, command, _ in conversation.messages]


def images(folder: Path, number: int) -> list[Sample]:
    return [samples.mr_instance(folder / f"{n}.dcm", number=n) for n in range(1, number + 1)]


def uids(made: Sequence[Sample]) -> list[str]:
    return [sample.sop_instance_uid for sample in made]


def test_files_go_as_they_were_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the command line, twice where they are named twice, on one association whose contexts are the
    files' own pairs alone; low priority, ids from 1. Nothing is printed.
    """
    one, two = images(tmp_path, 2)
    other = samples.implicit(tmp_path / "implicit.dcm")
    names = (two.path, one.path, other.path, two.path)
    with ScriptedPeer(taking(0, 0, 0, 0)) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, *names)
    assert (ran.code, ran.out, ran.err) == (0, [], [])
    conversation = scp.only
    assert sent(conversation) == uids([two, one, other, two])
    commands = [command for _, command, _ in conversation.messages]
    assert [(command.MessageID, command.Priority) for command in commands] == [(n, 2) for n in (1, 2, 3, 4)]
    asked = conversation.request.presentation_context_definition_list
    assert [(c.context_id, str(c.abstract_syntax), list(map(str, c.transfer_syntax))) for c in asked] == [
        (1, two.sop_class_uid, [two.transfer_syntax_uid]),
        (3, other.sop_class_uid, [other.transfer_syntax_uid]),
    ]


def test_a_folder_is_sent_sorted_and_without_what_is_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden names are skipped, a link that leads nowhere is reported, and paths are shown as they were typed."""
    made = images(tmp_path / "in", 2)
    below = samples.mr_instance(tmp_path / "in" / "sub" / "3.dcm", number=3)
    samples.mr_instance(tmp_path / "in" / ".hidden" / "4.dcm", number=4)
    samples.mr_instance(tmp_path / "in" / ".5.dcm", number=5)
    (tmp_path / "in" / "1.link").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    with ScriptedPeer(taking(0, 0), taking(0, 0, 0)) as scp:
        flat = scu(capsys, "--store", "127.0.0.1", scp.port, "-i", "in/")
        deep = scu(capsys, "-V", "--store", "127.0.0.1", scp.port, "-r", "in")
    assert [sent(conversation) for conversation in scp.conversations] == [uids(made), uids([*made, below])]
    assert (flat.code, deep.code) == (1, 1)
    assert flat.err[0].startswith("in/1.link: not sent: dangling link") and len(flat.err) == 1
    assert deep.err[1:4] == [f"sent in/{name}: status 0000" for name in ("1.dcm", "2.dcm", "sub/3.dcm")]
    assert deep.err[4].startswith("3 of 4 sent, 1 failed")


def test_what_cannot_be_sent_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing, an empty, a foreign and a truncated file have a line each, and the others arrive."""
    one, two = images(tmp_path, 2)
    (tmp_path / "empty.dcm").touch()
    text = samples.text_file(tmp_path / "text.txt")
    cut = samples.truncated(tmp_path / "cut.dcm")
    names = (one.path, tmp_path / "missing.dcm", tmp_path / "empty.dcm", text, cut.path, two.path)
    with ScriptedPeer(taking(0, 0)) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, *names)
    assert ran.code == 1 and sent(scp.only) == uids([one, two])
    for name, why in (("missing.dcm", "vanished"), ("empty.dcm", "empty"), ("text.txt", "not DICOM"), ("cut", "trunc")):
        assert len([line for line in ran.err if name in line and why in line]) == 1
    assert len(ran.err) == 4


@pytest.mark.parametrize("status", [0x0107, 0x0110, 0x0111, 0x0117, 0x0122, 0xA700, 0xA900, 0xC001, 0xFE00, 0xFF00])
def test_any_status_but_success_and_warnings_is_a_failure(
    status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named with the file, nothing is tried twice, and what follows is sent."""
    made = images(tmp_path, 2)
    with ScriptedPeer(taking(status, 0)) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert ran.code == 1 and sent(scp.only) == uids(made)
    (line,) = ran.err
    assert str(made[0].path) in line and f"status {status:04X}" in line


@pytest.mark.parametrize("status", [0x0000, 0x0001, 0xB000, 0xB007, 0xBFFF])
def test_success_and_warnings_are_success(status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And silent."""
    images(tmp_path, 1)
    with ScriptedPeer(taking(status)) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert (ran.code, ran.out, ran.err) == (0, [], [])


def test_a_file_that_breaks_the_association_is_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not sent again; those behind it are, on another association."""
    made = images(tmp_path, 4)
    script = [*opening(), expect_message(), send(store_rsp(1)), expect_message(), send(peer.abort_pdu()), peer.close]
    with ScriptedPeer(script, taking(0, 0)) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert [sent(conversation) for conversation in scp.conversations] == [uids(made[:2]), uids(made[2:])]
    (line,) = ran.err
    assert ran.code == 1 and str(made[1].path) in line and "aborted" in line


def test_a_peer_that_always_aborts_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After three associations in a row without an answer, and a C-ECHO in vain; every file has its line."""
    made = images(tmp_path, 6)
    deaf = [expect(peer.RQ), send(peer.rejection(2, 1, 1)), peer.expect_end]
    with ScriptedPeer(breaking(), breaking(), breaking(), deaf) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert ran.code == 1 and len(scp.conversations) == 4
    assert [line.partition(":")[0] for line in ran.err] == [str(sample.path) for sample in made]


@pytest.mark.parametrize("poisonous", [3, 12])
def test_files_that_break_the_association_hold_nobody_up(
    poisonous: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many there are in a row: as long as the peer answers a C-ECHO, the files behind them have their turn, and
    each file is sent once.
    """
    made = sorted(images(tmp_path, poisonous + 10), key=lambda sample: str(sample.path))
    poison = set(uids(made[:poisonous]))
    with Bench(answer=lambda store: [send(peer.abort_pdu())] if store.uid in poison else 0) as bench:
        ran = scu(capsys, "--store", "127.0.0.1", bench.port, tmp_path)
    assert ran.code == 1
    assert bench.stores == uids(made)
    assert [line.partition(":")[0] for line in ran.err] == [str(sample.path) for sample in made[:poisonous]]
    assert bench.echoes == poisonous // 3


def test_a_long_uid_at_which_the_association_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is sent as it is, and where the peer breaks off at it, the line says what the Standard allows (PS3.5 9.1)."""
    text = "1.2.826.".ljust(66, "4")
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + meta(instance=text) + b"".join(elements(instance=text)))
    with Bench(answer=lambda _: [send(peer.abort_pdu())]) as bench:
        ran = scu(capsys, "--store", "127.0.0.1", bench.port, tmp_path)
    assert (ran.code, bench.stores) == (1, [text])
    assert ran.err[0].endswith(f"; its SOP Instance UID has 66 characters, 64 are allowed: {text}")


def test_a_rejection_is_four_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And not one for each file."""
    images(tmp_path, 3)
    with ScriptedPeer([expect(peer.RQ), send(peer.rejection(1, 1, 7)), peer.expect_end]) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert ran.code == 1 and len(ran.err) == 4 and "Reason: 7 - called-AE-title-not-recognized" in ran.err[3]


def test_nobody_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the peer."""
    images(tmp_path, 3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ran = scu(capsys, "--store", "127.0.0.1", port, tmp_path)
    (line,) = ran.err
    assert ran.code == 1 and f"127.0.0.1:{port}" in line


@pytest.mark.parametrize("words", [[], ["{0}"], ["-r", "{0}"]])
def test_nothing_to_send_is_no_success(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file, an empty folder, and nobody is asked."""
    (tmp_path / "sub").mkdir()
    ran = scu(capsys, "--store", "127.0.0.1", "1", *(word.format(tmp_path) for word in words))
    assert (ran.code, ran.out) == (1, []) and len(ran.err) == 1 and "nothing to send" in ran.err[0]


def test_what_the_peer_refuses_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A compressed file goes as it is or not at all; with --transcode a peer that takes it uncompressed gets that."""
    rle = samples.rle(tmp_path / "rle.dcm")

    def uncompressed_only(_abstract: str, syntaxes: list[str]) -> peer.Answer:
        return (0, syntaxes[0]) if rle.transfer_syntax_uid not in syntaxes else (4, syntaxes[0])

    refusing = [*opening(uncompressed_only), *ENDING]
    converting = [*opening(uncompressed_only), expect_message(), send(store_rsp(1)), *ENDING]
    with ScriptedPeer(refusing, converting) as scp:
        refused = scu(capsys, "--store", "127.0.0.1", scp.port, rle.path)
        converted = scu(capsys, "--store", "127.0.0.1", scp.port, rle.path, "--transcode")
    (line,) = refused.err
    assert refused.code == 1 and str(rle.path) in line and "`--transcode` sends a decompressed copy" in line
    assert (converted.code, converted.err) == (0, [])


def test_an_empty_word_is_not_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a script's empty variable leaves behind is a file that is not there."""
    images(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    for words in (["h", "104", ""], ["h", "-i", ""]):
        ran = scu(capsys, "--store", *words)
        assert (ran.code, ran.out, ran.err) == (1, [], ["'': not sent: vanished: an empty name"])


def test_a_log_file_that_takes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line says so once; the trace goes to standard error, and the exit status is what it would have been. A name
    with a line's end in it is one line.
    """
    made = samples.mr_instance(tmp_path / "a\nb.dcm")
    with ScriptedPeer(taking(0, 0)) as scp:
        words = (made.path, made.path, "-V", "-L", "/dev/full")
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, *words)
    assert (ran.code, ran.out) == (0, [])
    assert ran.err[0] == "log file /dev/full cannot be written (no space left on device): not used any more"
    assert ran.err[1:3] == [f"sent {tmp_path}/a\\nb.dcm: status 0000"] * 2 and ran.err[3].startswith("2 of 2 sent")


def test_more_contexts_than_one_association_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Further associations, and every file arrives."""
    for number in range(130):
        ds = samples.dataset(size=2, SOPInstanceUID=samples.uid(number))
        ds.SOPClassUID = f"1.2.826.0.1.3680043.10.999.{number + 1}"
        samples.write(tmp_path / f"{number:03d}.dcm", ds)
    with ScriptedPeer(taking(*[0] * 128), taking(0, 0)) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert (ran.code, ran.err) == (0, [])


def test_an_interruption_aborts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C while the answer is waited for: the association ends, nothing more is sent, and the status is 130."""
    images(tmp_path, 2)

    def interrupt(_conversation: peer.Conversation) -> None:
        os.kill(os.getpid(), 2)

    def silent(conversation: peer.Conversation) -> None:
        # It may come while the last fragment is being written, where an A-ABORT would be taken for data.
        with contextlib.suppress(AssertionError, ConnectionResetError):
            conversation.expect(ABORT)
        peer.expect_end(conversation)

    with ScriptedPeer([*opening(), expect_message(), interrupt, silent]) as scp:
        ran = scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path)
    assert (ran.code, len(ran.err)) == (130, 1)


def test_record_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], isolated_home: Path) -> None:
    """As a job that has ended, with an item for each file; without --record the home is not even made."""
    from dicomferry.models.documents import jobs
    from dicomferry.models.record.database import Database

    images(tmp_path / "in", 2)
    samples.text_file(tmp_path / "in" / "text.txt")
    with ScriptedPeer(taking(0, 0xA700), taking(0, 0)) as scp:
        scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path / "in", "--record")
        there = (isolated_home / "dicomferry.db").exists()
        before = (isolated_home / "dicomferry.db").read_bytes()
        scu(capsys, "--store", "127.0.0.1", scp.port, tmp_path / "in")
    assert there and (isolated_home / "dicomferry.db").read_bytes() == before
    database = Database(f"sqlite:///{isolated_home}/dicomferry.db")
    try:
        (job,) = jobs.listing(database)
        items = list(jobs.items(database, job["id"]))
    finally:
        database.close()
    assert (job["kind"], job["state"], job["items"]["succeeded"], job["items"]["failed"]) == (
        "store",
        "incomplete",
        1,
        2,
    )
    assert {(item["state"], item["status"]) for item in items} == {
        ("succeeded", "0x0000"),
        ("failed", "0xA700"),
        ("failed", None),
    }

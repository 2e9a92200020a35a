"""`scu --store` reads a folder while it sends it: so far ahead as it takes, and no further."""

# A peer, and what happens while it is there, are two blocks.
# ruff: noqa: SIM117

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomferry.cli.scu import store
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.lookahead import Lookahead, Reach
from dicomferry.cli.scu.messages import Messages
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.recording import Recording
from dicomferry.models.rules.errors import AssociationRejected
from dicomferry.workers.sending.inventory import AHEAD
from support import samples
from support import scripted_peer as peer
from support.bench import Bench
from support.samples import Sample
from support.scripted_peer import ScriptedPeer, Step, expect, expect_message, opening, send
from support.scu import Ran

ENDING: list[Step] = [expect(peer.RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]


THREE = Reach(first=3, ahead=3)


def images(folder: Path, number: int) -> list[Sample]:
    return [samples.mr_instance(folder / f"{n:02}.dcm", number=n) for n in range(1, number + 1)]


def taking(number: int) -> list[Step]:
    """A peer that takes one association and so many files."""
    answers = [step for n in range(1, number + 1) for step in (expect_message(), send(peer.store_rsp(n)))]
    return [*opening(), *answers, *ENDING]


def look(*paths: Path, reach: Reach = THREE, journal: Recording | None = None) -> Lookahead:
    invocation, say = asked(1, *paths)
    return Lookahead(invocation, Progress(say, doing="", quiet=True), journal or Recording(keeps=False), reach)


def asked(port: int, *paths: Path) -> tuple[Invocation, Messages]:
    names = tuple(map(str, paths))
    invocation = Invocation(mode="store", host="127.0.0.1", port=port, files=names, recursive=True, verbose=True)
    return invocation, Messages(invocation)


def run(capsys: pytest.CaptureFixture[str], port: int, path: Path, reach: Reach = THREE) -> Ran:
    """A store of this folder: on standard error what went wrong, on standard output the other lines of -V."""
    capsys.readouterr()
    code = store.run(*asked(port, path), reach)
    lines = capsys.readouterr().err.splitlines()
    usual = [line for line in lines if line.startswith("sent ") or " sent, " in line]
    return Ran(code, usual, [line for line in lines if line not in usual])


def test_the_first_goes_out_before_the_last_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that comes into the folder while the first ones are sent is sent as well, in its place; the total is told
    once the end of the folder was met.
    """
    folder = tmp_path / "in"
    held = images(folder, 14)
    (folder / "sub").mkdir()

    def more(_: peer.Conversation) -> None:
        samples.mr_instance(folder / "sub" / "9.dcm", number=9)

    rest = [step for n in range(2, 16) for step in (expect_message(), send(peer.store_rsp(n)))]
    with ScriptedPeer([*opening(), expect_message(), more, send(peer.store_rsp(1)), *rest, *ENDING]) as scp:
        ran = run(capsys, scp.port, folder)
    assert ran.code == 0 and len(scp.only.messages) == len(held) + 1
    assert ran.out[-1].startswith("15 of 15 sent")


def test_a_class_that_is_met_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is read before the first file goes out shares its association; what comes behind has one more."""
    images(tmp_path, 4)
    for n in (5, 6):
        samples.instance(tmp_path / f"{n:02}.dcm", "CT", size=16, number=n)
    with ScriptedPeer(taking(4), taking(2)) as scp:
        ran = run(capsys, scp.port, tmp_path)
    assert (ran.code, ran.err) == (0, [])


def test_every_file_that_is_given_up_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that were not read by then included, and those that nobody could have sent."""
    made = images(tmp_path, 8)
    text = samples.text_file(tmp_path / "99.txt")
    breaking = [*opening(), expect_message(), send(peer.abort_pdu()), peer.close]
    deaf = [expect(peer.RQ), send(peer.rejection(2, 1, 1)), peer.expect_end]
    with ScriptedPeer(breaking, breaking, breaking, deaf) as scp:
        ran = run(capsys, scp.port, tmp_path)
    named = [line.partition(":")[0] for line in ran.err]
    assert ran.code == 1 and sorted(named) == sorted(map(str, [*(sample.path for sample in made), text]))


def test_who_cannot_be_reached_is_told_of_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the whole folder is read: nothing is said of the file at its end that cannot be sent."""
    images(tmp_path, 8)
    samples.text_file(tmp_path / "99.txt")
    with ScriptedPeer([expect(peer.RQ), send(peer.rejection(1, 1, 7)), peer.expect_end]) as scp:
        with pytest.raises(AssociationRejected):
            run(capsys, scp.port, tmp_path)
    assert "99.txt" not in capsys.readouterr().err


def test_a_peer_does_not_wait_for_what_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Among many other files the next image is looked for without an association, and sent over another one."""
    first, *_ = images(tmp_path, 1)
    for n in range(10, 20):
        samples.text_file(tmp_path / f"{n}.txt")
    last = samples.mr_instance(tmp_path / "99.dcm", number=99)
    with ScriptedPeer(taking(1), taking(1)) as scp:
        ran = run(capsys, scp.port, tmp_path, Reach(first=1, ahead=1))
    assert ran.code == 1 and len(ran.err) == 10
    assert [str(command.AffectedSOPInstanceUID) for c in scp.conversations for _, command, _ in c.messages] == [
        first.sop_instance_uid,
        last.sop_instance_uid,
    ]


def test_what_is_refused_does_not_end_the_association(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However many in a row: the next ones are read all the same."""
    images(tmp_path, 9)
    with ScriptedPeer([*opening(lambda _, offered: (4, offered[0])), *ENDING]) as scp:
        ran = run(capsys, scp.port, tmp_path)
    assert ran.code == 1 and len(ran.err) == 9 and all("context refused" in line for line in ran.err)


def _rewritten(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes())


def _removed(path: Path, _: Path) -> None:
    path.unlink()


def _another(path: Path, other: Path) -> None:
    other.rename(path)


@pytest.mark.parametrize(("change", "said"), [(_rewritten, None), (_removed, "vanished"), (_another, "changed")])
def test_a_file_that_changes_between_its_reading_and_its_turn(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, Path], None],
    said: str | None,
) -> None:
    """Is seen, though it lies in memory: sent as it is now, or not at all."""
    folder = tmp_path / "in"
    _, second, _ = images(folder, 3)
    other = samples.mr_instance(tmp_path / "other.dcm", number=77)
    # None of them was written just now, so that they are kept.
    monkeypatch.setattr("time.time", lambda: os.stat(tmp_path).st_ctime + 60)
    numbers = (1, 2, 3) if said is None else (1, 2)
    rest = [step for n in numbers[1:] for step in (expect_message(), send(peer.store_rsp(n)))]

    def now(_: peer.Conversation) -> None:
        change(second.path, other.path)

    with ScriptedPeer([*opening(), expect_message(), now, send(peer.store_rsp(1)), *rest, *ENDING]) as scp:
        ran = run(capsys, scp.port, folder)
    if said is None:
        assert (ran.code, ran.err) == (0, [])
    else:
        (line,) = ran.err
        assert ran.code == 1 and line.startswith(f"{second.path}: not sent: {said}")


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small ones among the next files are kept, and of those behind them nothing but what they are."""
    size = images(tmp_path, 50)[0].path.stat().st_size
    monkeypatch.setattr("time.time", lambda: os.stat(tmp_path).st_ctime + 60)
    ahead = look(tmp_path, reach=Reach(first=25, ahead=5))
    assert ahead.fill()
    # Some are open by then already.
    kept = [file.content is not None for file in ahead.waiting()]
    assert kept == [True] * kept.count(True) + [False] * kept.count(False) and 5 <= kept.count(True) <= 5 + AHEAD
    for left in range(25, 4, -1):
        assert len(list(ahead.waiting())) == left
        ahead.read_on()
        ahead.take()
    for _ in range(AHEAD + 1):
        ahead.read_on()
        ahead.take()
    ahead.read_on()
    assert list(ahead.waiting())[-1].content is not None
    assert [file.content for file in look(tmp_path, reach=Reach(kept_file=size - 1)).rest()] == [None] * 50


def test_a_record_misses_nothing(tmp_path: Path) -> None:
    """With --record all files are read first, with study and series, so that an interruption leaves none out."""
    images(tmp_path, 9)
    ahead = look(tmp_path, journal=Recording(keeps=True))
    assert ahead.fill()
    waiting = list(ahead.waiting())
    assert len(waiting) == 9
    assert all(file.header is not None and file.header.series_instance_uid for file in waiting)
    assert all(file.content is None for file in waiting)


def test_many_files_over_one_association(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, in order, far more than are read ahead."""
    made = images(tmp_path, 40)
    with Bench() as bench:
        ran = run(capsys, bench.port, tmp_path)
    assert (ran.code, ran.err) == (0, [])
    assert bench.stores == [sample.sop_instance_uid for sample in made]

"""C-STORE of files that are written while they are sent, that name themselves otherwise, or that nobody can convert."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomferry.workers.dimse import store
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.dimse.store import StoreAnswer
from dicomferry.workers.dimse.wire.contexts import IMPLICIT_LE, Convert
from dicomferry.workers.files import part10, transcode
from support import samples
from support import scripted_peer as peer
from support.samples import Sample
from support.scripted_peer import Conversation, ScriptedPeer, Step, expect, expect_message, opening, send

ENDING: list[Step] = [expect(peer.RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]


def local(sample: Sample) -> LocalInstance:
    """What a plan would know of the file."""
    status = sample.path.stat()
    return LocalInstance(
        item_id=1,
        path=os.fsencode(sample.path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sop_class_uid=sample.sop_class_uid,
        sop_instance_uid=sample.sop_instance_uid,
        transfer_syntax_uid=sample.transfer_syntax_uid,
    )


def data_set(path: Path) -> bytes:
    """The file's data set as it lies there."""
    return path.read_bytes()[part10.read_header(os.fsencode(path)).data_offset :]


def until_abort(conversation: Conversation) -> None:
    """Nothing that is whole comes before the A-ABORT."""
    while conversation.read_pdu()[0] != peer.ABORT:
        assert conversation.received[-1][11] != 2, "a last fragment of a file that was not sent whole"


def run(scripted: ScriptedPeer, item: LocalInstance, **options: object) -> StoreAnswer:
    pairs = [(item.sop_class_uid, item.transfer_syntax_uid)]
    (answer,) = store.send(scripted.remote(), iter([item]), pairs, **options)  # type: ignore[arg-type]
    return answer


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], list[int]]:
    """Something that happens once before the n-th read of a file: a run of fragments is one preadv(2)."""
    real, reads = os.preadv, [0]

    def prepare(number: int, happens: Callable[[], object]) -> list[int]:
        def watched(fd: int, views: list[memoryview], at: int) -> int:
            reads[0] += 1
            if reads[0] == number:
                happens()
            return real(fd, views, at)

        monkeypatch.setattr(os, "preadv", watched)
        return reads

    return prepare


def rewrite(sample: Sample, other: bytes) -> None:
    """Write over the file's bytes in place, its times kept as they were."""
    status = sample.path.stat()
    with sample.path.open("r+b") as file:
        file.write(other)
    os.utime(sample.path, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(sample: Sample) -> None:
    """One more element, as a writer does that is not done yet."""
    with sample.path.open("ab") as file:
        file.write(b"\xfc\xff\xfc\xffOB\0\0\2\0\0\0\0\0")


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("change", ["in place", "times kept", "grown"])
def test_a_file_that_is_changed_while_it_is_sent(
    tmp_path: Path, beside: Callable[..., list[int]], number: int, change: str
) -> None:
    """Bytes of two versions are no instance that ever was: before the last fragment leaves the file is looked at once
    more; where it changed, A-ABORT, and it is sent again as it is now.
    """
    sample = samples.instance(tmp_path / "ct.dcm", "CT", size=512)
    other = bytearray(sample.path.read_bytes())
    other[-300_000:] = b"\7" * 300_000
    changes: dict[str, Callable[[], object]] = {
        "in place": lambda: sample.path.write_bytes(other),
        "times kept": lambda: rewrite(sample, bytes(other)),
        "grown": lambda: append(sample),
    }
    beside(number, changes[change])
    again = [*opening(), expect_message(), send(peer.store_rsp(1)), *ENDING]
    with ScriptedPeer([*opening(), until_abort], again) as scripted:
        answer = run(scripted, local(sample))
    assert answer.status == 0
    assert scripted.conversations[1].messages[0][2] == data_set(sample.path)


def test_a_file_that_is_replaced_or_goes_is_sent_as_it_was(tmp_path: Path, beside: Callable[..., list[int]]) -> None:
    """Another file under its name, or none, changes no byte of what is being sent."""
    sample = samples.instance(tmp_path / "ct.dcm", "CT", size=512)
    before = data_set(sample.path)
    beside(2, sample.path.unlink)
    with ScriptedPeer([*opening(), expect_message(), send(peer.store_rsp(1)), *ENDING]) as scripted:
        assert run(scripted, local(sample)).status == 0
    assert scripted.only.messages[0][2] == before


def test_a_file_that_is_replaced_before_it_is_converted_is_sent_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file that takes the path, with another meta group, once the first was looked into: that one is converted,
    from where its data set begins.
    """
    sample = samples.instance(tmp_path / "ct.dcm", "CT", size=64)
    content, other = sample.path.read_bytes(), tmp_path / "other.dcm"
    inner = content[144 : len(content) - len(data_set(sample.path))]
    more = b"\x02\0\x16\0AE\x0c\0SOMEBODYELSE"
    meta_length = (len(inner) + len(more)).to_bytes(4, "little")
    other.write_bytes(content[:140] + meta_length + inner + more + data_set(sample.path))
    with transcode.decompress(
        os.fsencode(sample.path), part10.read_header(os.fsencode(sample.path)), IMPLICIT_LE
    ) as it:
        expected = it.read()

    real = open

    def replaced(file: Any, *arguments: Any, **named: Any) -> Any:
        # What is to be re-encoded is opened by its descriptor.
        if isinstance(file, int) and other.exists():
            os.replace(other, sample.path)
        return real(file, *arguments, **named)

    monkeypatch.setattr("builtins.open", replaced)
    implicit = opening(lambda _, offered: (0, IMPLICIT_LE) if IMPLICIT_LE in offered else (4, offered[0]))
    with ScriptedPeer([*implicit, expect_message(), send(peer.store_rsp(1)), *ENDING]) as scripted:
        answer = run(scripted, local(sample), convert=Convert.UNCOMPRESSED)
    assert (answer.status, answer.sent_as) == (0, IMPLICIT_LE)
    assert not other.exists()
    assert scripted.only.messages[0][2] == expected


def test_a_file_that_changes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not sent for ever: `changing`, and not one whole message of it went out."""
    sample = samples.instance(tmp_path / "ct.dcm", "CT", size=512)
    real = os.preadv

    def growing(fd: int, views: list[memoryview], at: int) -> int:
        append(sample)
        return real(fd, views, at)

    monkeypatch.setattr(os, "preadv", growing)
    with ScriptedPeer(*[[*opening(), until_abort]] * store.MOST_TRIES) as scripted:
        answer = run(scripted, local(sample))
    assert (answer.status, answer.reason) == (None, "changing")


def test_what_goes_out_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bytes on their way have to hold the command's class and instance, whatever is said of times."""
    sample, other = (samples.instance(tmp_path / f"{n}.dcm", "CT", size=512, number=n) for n in (1, 2))
    foreign = os.open(other.path, os.O_RDONLY)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda _fd, views, at: real(foreign, views, at))
    try:
        with ScriptedPeer(*[[*opening(), expect(peer.ABORT)]] * store.MOST_TRIES) as scripted:
            answer = run(scripted, local(sample))
    finally:
        os.close(foreign)
    assert (answer.status, answer.reason) == (None, "changing")


def test_a_file_of_another_class_is_not_sent_for_the_planned_one(tmp_path: Path) -> None:
    """The same instance UID in another SOP class is another object: `changed`."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    item = local(sample)
    samples.write(
        sample.path, samples.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SOPInstanceUID=sample.sop_instance_uid)
    )
    with ScriptedPeer([*opening(), *ENDING]) as scripted:
        answer = run(scripted, item)
    assert (answer.status, answer.reason) == (None, "changed")


def test_stale_meta(tmp_path: Path) -> None:
    """The command names the data set's instance; that the meta group named another is the remark. Forbidden, it is
    `meta mismatch`, and nothing goes out.
    """
    sample = samples.meta_mismatch(tmp_path / "stale.dcm")
    with ScriptedPeer([*opening(), expect_message(), send(peer.store_rsp(1)), *ENDING]) as scripted:
        answer = run(scripted, local(sample))
    ((_, command, data),) = scripted.only.messages
    assert command.AffectedSOPInstanceUID == sample.sop_instance_uid
    assert data == data_set(sample.path)
    assert (answer.status, answer.reason) == (0, "meta differs")
    assert answer.detail is not None
    assert sample.sop_instance_uid in answer.detail
    with ScriptedPeer([*opening(), *ENDING]) as scripted:
        answer = run(scripted, local(sample), strict_meta=True)
    assert (answer.status, answer.reason) == (None, "meta mismatch")


@pytest.mark.parametrize(
    ("syntax", "said", "unsaid"),
    [
        ("1.2.840.10008.1.2.5", "`--transcode` sends a decompressed copy", "nothing here"),
        ("1.2.3.4.5.99", "nothing here decompresses that syntax", "--transcode"),
        ("1.2.840.113619.5.2", "nothing here decompresses that syntax", "--transcode"),
        ("1.2.840.10008.1.2.4.100", "nothing here decompresses that syntax", "--transcode"),
    ],
)
def test_advice_goes_where_there_is_a_decoder(tmp_path: Path, syntax: str, said: str, unsaid: str) -> None:
    """`--transcode` is recommended for a refused syntax where something is installed that decompresses it."""
    sample = samples.rle(tmp_path / "rle.dcm")
    content = sample.path.read_bytes()
    if syntax == "1.2.840.113619.5.2":
        ds = samples.dataset(SOPInstanceUID=sample.sop_instance_uid)
        content = samples.write(sample.path, ds, syntax, samples.encoded(ds, IMPLICIT_LE)).path.read_bytes()
    elif syntax != "1.2.840.10008.1.2.5":
        old, new = (uid.encode() + b"\0" * (len(uid) % 2) for uid in ("1.2.840.10008.1.2.5", syntax))
        content = content.replace(len(old).to_bytes(2, "little") + old, len(new).to_bytes(2, "little") + new)
    sample.path.write_bytes(content)
    header = part10.read_header(os.fsencode(sample.path))
    assert header.transfer_syntax_uid == syntax
    item = local(sample)._replace(transfer_syntax_uid=syntax, sop_class_uid=header.sop_class_uid)
    with ScriptedPeer([*opening(lambda _, offered: (4, offered[0])), *ENDING]) as scripted:
        answer = run(scripted, item, convert=Convert.UNCOMPRESSED)
    assert answer.reason == "context refused"
    assert answer.detail is not None
    assert said in answer.detail
    assert unsaid not in answer.detail


def test_a_fresh_file_is_looked_at_when_its_time_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two changes within one tick of a file system's clock the second leaves no trace: a file that was changed just
    now is looked at a tick later, so that the next change of it shows.
    """
    from dicomferry.workers.dimse import local_instance

    sample = samples.mr_instance(tmp_path / "mr.dcm")
    item = local(sample)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "time", lambda: sample.path.stat().st_ctime + 0.001)
    local_instance.open_instance(item).close()
    assert len(waits) == 1
    monkeypatch.setattr(time, "time", lambda: sample.path.stat().st_ctime + 10)
    local_instance.open_instance(item).close()
    assert len(waits) == 1

"""C-STORE as SCU: every file gets its answer, and every answer is read."""

# A peer, and what happens while it is there, are two blocks.
# ruff: noqa: SIM117

from __future__ import annotations

import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from dicomferry.models.rules.errors import AssociationAborted, DimseTimeout, ProtocolViolation, RemoteUnreachable
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse import store
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.dimse.requestor import Association
from dicomferry.workers.dimse.store import StoreAnswer
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Convert, Pair
from dicomferry.workers.dimse.wire.pdu_writer import RUN_BYTES
from dicomferry.workers.files import part10
from dicomferry.workers.sending.inventory import inventory
from support import samples
from support import scripted_peer as peer
from support.part10_bytes import element, meta, uid
from support.peers import StoreScp
from support.samples import Sample
from support.scripted_peer import ScriptedPeer, Step, expect, expect_message, opening, send

ENDING: list[Step] = [expect(peer.RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]
JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"
PRIVATE_SYNTAX = "1.2.3.9"


def local(sample: Sample, item_id: int = 1) -> LocalInstance:
    """What a plan would know of the file."""
    status = sample.path.stat()
    return LocalInstance(
        item_id=item_id,
        path=os.fsencode(sample.path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sop_class_uid=sample.sop_class_uid,
        sop_instance_uid=sample.sop_instance_uid,
        transfer_syntax_uid=sample.transfer_syntax_uid,
    )


def pairs_of(items: Sequence[LocalInstance]) -> list[Pair]:
    return [(item.sop_class_uid, item.transfer_syntax_uid) for item in items]


def run(remote: Remote, items: Sequence[LocalInstance]) -> list[StoreAnswer]:
    return list(store.send(remote, iter(items), pairs_of(items)))


def data_set(path: Path) -> bytes:
    """The file's data set as it lies there."""
    return path.read_bytes()[part10.read_header(os.fsencode(path)).data_offset :]


def answered(*statuses: int) -> list[Step]:
    """Take a message and answer it, once for each status."""
    steps: list[Step] = []
    for n, status in enumerate(statuses, 1):
        steps += [expect_message(), send(peer.store_rsp(n, status))]
    return steps


def mr(folder: Path, count: int = 1) -> list[Sample]:
    return [samples.mr_instance(folder / f"{n}.dcm", number=n) for n in range(1, count + 1)]


# --- answers ------------------------------------------------------------------------------------------------


def test_a_request_says_what_the_standard_asks(tmp_path: Path) -> None:
    """C-STORE-RQ (PS3.7 9.3.1.1): class, message id, medium priority, data set present, instance; then the
    file's bytes.
    """
    (sample,) = mr(tmp_path)
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    ((context_id, command, data),) = scripted.only.messages
    assert (context_id, command.CommandField, command.MessageID, command.Priority) == (1, 1, 1, 0)
    assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (
        sample.sop_class_uid,
        sample.sop_instance_uid,
    )
    assert command.CommandDataSetType != 0x0101
    assert data == data_set(sample.path)
    assert answer == StoreAnswer(local(sample), 0, None, None, len(data), None)


def test_every_answer_carries_status_and_comment(tmp_path: Path) -> None:
    """Warning, failure and success are the peer's numbers; its Error Comment is the detail; the batch goes
    on.
    """
    files = mr(tmp_path, 3)
    script = [
        *opening(),
        expect_message(),
        send(peer.store_rsp(1, 0xA700, ErrorComment="Disk full", OffendingElement=[0x00080018])),
        expect_message(),
        send(peer.store_rsp(2, 0xB000, ErrorComment="red \x1b[31malert")),
        expect_message(),
        send(peer.store_rsp(3, 0)),
        *ENDING,
    ]
    with ScriptedPeer(script) as scripted:
        answers = run(scripted.remote(), [local(sample) for sample in files])
    assert [(answer.status, answer.reason, answer.detail) for answer in answers] == [
        (0xA700, None, "Disk full"),
        (0xB000, None, "red ?[31malert"),
        (0, None, None),
    ]


def test_an_item_is_pulled_only_after_the_answer_was_taken(tmp_path: Path) -> None:
    """The caller may append to what it feeds, and knows which item was in flight: one at a time."""
    first, second = mr(tmp_path, 2)
    queue = [local(first)]
    pulled: list[LocalInstance] = []

    def feed() -> Iterator[LocalInstance]:
        while queue:
            pulled.append(queue.pop(0))
            yield pulled[-1]

    with ScriptedPeer([*opening(), *answered(0, 0), *ENDING]) as scripted:
        answers = store.send(scripted.remote(), feed(), pairs_of([local(first)]))
        assert next(answers).instance == local(first)
        assert len(pulled) == 1
        queue.append(local(second))
        assert next(answers).instance == local(second)
        assert next(answers, None) is None


def test_the_next_file_is_opened_while_the_peer_is_at_work(tmp_path: Path) -> None:
    """Before the answer to the one before it comes; and all that was opened is closed in the end."""
    files = mr(tmp_path, 3)
    waiting = deque(local(sample) for sample in files)
    items = list(waiting)
    asked: list[int] = []
    ready = threading.Event()

    def coming() -> LocalInstance | None:
        asked.append(len(waiting))
        ready.set()
        return waiting[0] if waiting else None

    def wait(_: peer.Conversation) -> None:
        assert ready.wait(peer.PATIENCE)
        ready.clear()

    script = [step for n in (1, 2, 3) for step in (expect_message(), wait, send(peer.store_rsp(n, 0)))]
    before = os.listdir("/dev/fd")
    with ScriptedPeer([*opening(), *script, *ENDING]) as scripted:
        feed = (waiting.popleft() for _ in items)
        answers = list(store.send(scripted.remote(), feed, pairs_of(items), coming=coming))
    assert [answer.status for answer in answers] == [0, 0, 0] and asked == [2, 1, 0]
    assert len(os.listdir("/dev/fd")) == len(before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path, _: path.unlink(), "vanished"),
        (lambda path, _: path.write_bytes(path.read_bytes()[:-100]), "truncated"),
        (lambda path, other: other.rename(path), "changed"),
    ],
)
def test_what_happened_to_a_file_since_it_was_opened_is_seen(
    tmp_path: Path, change: Callable[[Path, Path], object], reason: str
) -> None:
    """It was opened for its turn, and somebody was at it before that."""
    first, second, other = mr(tmp_path, 3)
    items = [local(first), local(second)]
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        answers = store.send(scripted.remote(), iter(items), pairs_of(items), coming=lambda: items[1])
        assert next(answers).status == 0
        change(second.path, other.path)
        assert (next(answers).reason, next(answers, None)) == (reason, None)


def test_another_item_than_was_told(tmp_path: Path) -> None:
    """What comes next is a guess: what is pulled is sent."""
    first, second, other = mr(tmp_path, 3)
    items = [local(first), local(second)]
    with ScriptedPeer([*opening(), *answered(0), expect_message(), send(peer.store_rsp(2, 0)), *ENDING]) as scripted:
        answers = store.send(scripted.remote(), iter(items), pairs_of(items), coming=lambda: local(other))
        assert [answer.instance for answer in answers] == items


def test_progress_counts_data_and_on_open_hears_of_the_association(tmp_path: Path) -> None:
    """The sum of progress is the bytes of data set; every association opened is announced."""
    files = mr(tmp_path, 2)
    moved: list[int] = []
    opened: list[Association] = []
    items = [local(sample) for sample in files]
    with ScriptedPeer([*opening(), *answered(0, 0), *ENDING]) as scripted:
        for _ in store.send(
            scripted.remote(), iter(items), pairs_of(items), progress=moved.append, on_open=opened.append
        ):
            pass
    assert sum(moved) == sum(len(data_set(sample.path)) for sample in files)
    assert len(opened) == 1


@pytest.mark.parametrize(
    "answer",
    [
        peer.store_rsp(2),
        peer.store_rsp(1, AffectedSOPInstanceUID="1.2.3"),
        peer.p_data(peer.pdv(peer.echo_rsp_command(1), 3)),
    ],
)
def test_an_answer_to_something_else_is_a_violation(tmp_path: Path, answer: bytes) -> None:
    """Wrong message id, wrong instance, wrong command: never taken for this file's answer."""
    (sample,) = mr(tmp_path)
    script = [*opening(), expect_message(), send(answer), expect(peer.ABORT), peer.expect_end]
    with ScriptedPeer(script) as scripted:
        with pytest.raises(ProtocolViolation):
            run(scripted.remote(), [local(sample)])


def test_padding_of_the_answered_uid_is_no_difference(tmp_path: Path) -> None:
    """Trailing NUL and blanks are stripped before UIDs are compared."""
    (sample,) = mr(tmp_path)
    uid = sample.sop_instance_uid.encode() + b" \0"
    raw = peer.store_rsp_command(1) + struct.pack("<HHL", 0, 0x1000, len(uid)) + uid
    script = [*opening(), expect_message(), send(peer.p_data(peer.pdv(raw, 3))), *ENDING]
    with ScriptedPeer(script) as scripted:
        assert run(scripted.remote(), [local(sample)])[0].status == 0


def test_an_answer_before_the_last_fragment_is_read(tmp_path: Path) -> None:
    """An early failure: the message is sent to its end all the same, and the answer belongs to it."""
    sample = samples.instance(tmp_path / "ct.dcm", "CT", size=2048)
    script = [*opening(), expect(peer.DATA), send(peer.store_rsp(1, 0xA700)), expect_data(sample), *ENDING]
    with ScriptedPeer(script) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    assert (answer.status, answer.sent_bytes) == (0xA700, len(data_set(sample.path)))


def expect_data(sample: Sample) -> Step:
    """Read P-DATA-TF up to the data set's last fragment."""

    def step(conversation: peer.Conversation) -> None:
        while conversation.expect(peer.DATA)[11] != 2:
            pass

    return step


def test_silence_after_the_last_fragment_is_a_store_answer_time_out(tmp_path: Path) -> None:
    """DimseTimeout("store_answer"), after its own seconds, with A-ABORT; what was answered before is kept."""
    files = mr(tmp_path, 2)
    items = [local(sample) for sample in files]
    script = [*opening(), *answered(0), expect_message(), expect(peer.ABORT), peer.expect_end]
    got: list[StoreAnswer] = []
    with ScriptedPeer(script) as scripted:
        with pytest.raises(DimseTimeout) as caught:
            got.extend(iter_into(got, store.send(scripted.remote(store_answer=0.05), iter(items), pairs_of(items))))
    assert (caught.value.phase, caught.value.seconds) == ("store_answer", 0.05)
    assert [answer.status for answer in got] == [0]


def iter_into(got: list[StoreAnswer], answers: Iterator[StoreAnswer]) -> list[StoreAnswer]:
    """Append each answer as it comes, so that an exception leaves those before it."""
    for answer in answers:
        got.append(answer)
    return []


def test_a_slow_answer_is_waited_for(tmp_path: Path) -> None:
    """One byte every 10 ms: longer than the time-out in all, and taken."""
    (sample,) = mr(tmp_path)
    script = [*opening(), expect_message(), peer.send_slowly(peer.store_rsp(1, 0xB000), 0.01), *ENDING]
    with ScriptedPeer(script) as scripted:
        assert run(scripted.remote(store_answer=0.4), [local(sample)])[0].status == 0xB000


@pytest.mark.parametrize("end", [send(peer.abort_pdu()), peer.close])
def test_an_abort_leaves_the_answers_before_it(tmp_path: Path, end: Step) -> None:
    """AssociationAborted escapes for the item in flight; those before it have their answers, those after are
    not pulled.
    """
    items = [local(sample) for sample in mr(tmp_path, 3)]
    feed = iter(items)
    got: list[StoreAnswer] = []
    with ScriptedPeer([*opening(), *answered(0), expect_message(), end]) as scripted:
        with pytest.raises(AssociationAborted):
            iter_into(got, store.send(scripted.remote(), feed, pairs_of(items)))
    assert [answer.instance for answer in got] == items[:1]
    assert list(feed) == items[2:]


def test_no_item_is_pulled_before_the_association_is_open(tmp_path: Path) -> None:
    """An unreachable remote is nobody's fault among the items."""
    items = [local(sample) for sample in mr(tmp_path)]
    feed = iter(items)
    with ScriptedPeer([expect(peer.RQ), peer.close]) as scripted:
        with pytest.raises(RemoteUnreachable):
            list(store.send(scripted.remote(), feed, pairs_of(items)))
    assert list(feed) == items


def test_closing_the_iterator_releases(tmp_path: Path) -> None:
    """Between two files nothing is in flight: a drain or a cancel is a release, no abort."""
    items = [local(sample) for sample in mr(tmp_path, 2)]
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        answers = store.send(scripted.remote(), iter(items), pairs_of(items))
        next(answers)
        answers.close()  # type: ignore[attr-defined]


# --- fragments and contexts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("maximum", "size"), [(0, 1 << 20), (128, 122), (129, 122), (16383, 16376)])
def test_fragments_keep_the_peers_maximum(tmp_path: Path, maximum: int, size: int) -> None:
    """Even, at most the peer's maximum minus 6; 0 is unlimited; command and data set in PDUs of their own."""
    (sample,) = mr(tmp_path)
    with ScriptedPeer([*opening(max_pdu=maximum), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    assert answer.status == 0
    assert scripted.only.messages[0][2] == data_set(sample.path)
    lengths = [len(pdu) - 12 for pdu in scripted.only.data_pdus]
    assert max(lengths) <= size
    assert all(length % 2 == 0 for length in lengths)


def test_a_maximum_that_leaves_no_room_is_a_violation(tmp_path: Path) -> None:
    """A peer that allows 6 bytes a PDU cannot be sent anything."""
    (sample,) = mr(tmp_path)
    script = [*opening(max_pdu=6), expect(peer.ABORT), peer.expect_end]
    with ScriptedPeer(script) as scripted:
        with pytest.raises(ProtocolViolation, match="leaves no room"):
            run(scripted.remote(), [local(sample)])


def test_300_contexts_take_three_associations(tmp_path: Path) -> None:
    """More than 128 contexts: one association after the other, each released, every file sent in its own
    class.
    """
    items = []
    for n in range(300):
        ds = samples.dataset(size=4, SOPClassUID=f"1.2.3.{n}", SOPInstanceUID=f"1.2.4.{n}")
        items.append(local(samples.write(tmp_path / f"{n}.dcm", ds, PRIVATE_SYNTAX)))
    scripts = [[*opening(), *answered(*[0] * count), *ENDING] for count in (128, 128, 44)]
    with ScriptedPeer(*scripts) as scripted:
        answers = run(scripted.remote(), items)
    assert [answer.status for answer in answers] == [0] * 300
    assert [len(c.request.presentation_context_definition_list) for c in scripted.conversations] == [128, 128, 44]


def only(*syntaxes: str) -> peer.Choose:
    """A peer that takes these syntaxes."""

    def choose(abstract: str, proposed: list[str]) -> peer.Answer:
        return next(((0, syntax) for syntax in syntaxes if syntax in proposed), (4, proposed[0]))

    return choose


def test_the_own_syntax_is_sent_though_the_peer_prefers_another(tmp_path: Path) -> None:
    """Big endian stays big endian where it is accepted, whatever the other context was answered."""
    sample = samples.big_endian(tmp_path / "be.dcm")
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    assert answer.sent_as is None
    assert scripted.only.messages[0][2] == data_set(sample.path)


def test_an_uncompressed_file_is_reencoded_where_its_syntax_is_refused(tmp_path: Path) -> None:
    """A peer that takes only Implicit VR gets a copy in it, and `sent_as` says so."""
    (sample,) = mr(tmp_path)
    with ScriptedPeer([*opening(only(IMPLICIT_LE)), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    ((context_id, _, data),) = scripted.only.messages
    assert (context_id, answer.status, answer.sent_as) == (3, 0, IMPLICIT_LE)
    assert answer.sent_bytes == len(data)
    assert data[4:6] != b"UL" and data[-100:] == data_set(sample.path)[-100:]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((4, JPEG), "transfer syntaxes not supported (result 4)"),
        ((3, JPEG), "abstract syntax not supported (result 3)"),
        (None, "the peer did not answer this context"),
    ],
)
def test_a_refused_context_is_the_files_answer(tmp_path: Path, answer: peer.Answer | None, words: str) -> None:
    """`context refused` names class, syntax and result, advises --transcode for a compressed file; the rest
    goes on.
    """
    jpeg = samples.jpeg_baseline(tmp_path / "jpeg.dcm")
    (good,) = mr(tmp_path)

    def choose(abstract: str, proposed: list[str]) -> peer.Answer | None:
        return answer if proposed == [JPEG] else (0, proposed[0])

    with ScriptedPeer([*opening(choose), *answered(0), *ENDING]) as scripted:
        refused, sent = run(scripted.remote(), [local(jpeg), local(good)])
    assert (refused.status, refused.reason, sent.status) == (None, "context refused", 0)
    assert refused.detail is not None
    assert refused.detail.startswith(f"Secondary Capture Image Storage in JPEG Baseline (Process 1): {words}")
    assert "--transcode" in refused.detail


def test_a_compressed_file_is_decompressed_where_that_was_asked_for(tmp_path: Path) -> None:
    """With `transcode`, a peer that refuses the file's syntax gets an uncompressed copy, `sent_as` says so, and what
    cannot be decompressed fails alone; a peer that takes the file as it is gets it as it is.
    """
    rle, (good,) = samples.rle(tmp_path / "rle.dcm"), mr(tmp_path)
    ds = samples.dataset(SOPInstanceUID=samples.uid("no rle"), PixelData=encapsulate([b"no RLE at all"]))
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    broken = samples.write(tmp_path / "broken.dcm", ds, RLE)
    items = [local(sample) for sample in (rle, good, broken)]
    with ScriptedPeer([*opening(only(EXPLICIT_LE)), *answered(0, 0), *ENDING]) as scripted:
        first, second, third = store.send(scripted.remote(), iter(items), pairs_of(items), convert=Convert.ALL)
    assert (first.status, first.sent_as, second.status, second.sent_as) == (0, EXPLICIT_LE, 0, None)
    assert (third.status, third.reason, third.sent_bytes) == (None, "not transcodable", 0)
    assert dcmread(str(get_testdata_file("MR_small.dcm"))).PixelData in scripted.only.messages[0][2]
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        (answer,) = store.send(scripted.remote(), iter(items[:1]), pairs_of(items[:1]), convert=Convert.ALL)
    assert answer.sent_as is None
    assert scripted.only.messages[0][2] == data_set(rle.path)


def test_a_refused_uncompressed_file_is_not_advised_to_decompress(tmp_path: Path) -> None:
    """--transcode would change nothing there."""
    (sample,) = mr(tmp_path)
    with ScriptedPeer([*opening(lambda *_: (3, IMPLICIT_LE)), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    assert answer.reason == "context refused"
    assert answer.detail == "MR Image Storage in Explicit VR Little Endian: abstract syntax not supported (result 3)"


def test_pairs_that_are_met_on_the_way_are_asked_for_together(tmp_path: Path) -> None:
    """Once an item needs what was not proposed, all pairs that are known by then are: not one association for each."""
    files = [*mr(tmp_path), samples.implicit(tmp_path / "implicit.dcm"), samples.big_endian(tmp_path / "big.dcm")]
    items = [local(sample) for sample in files]
    pairs = dict.fromkeys(pairs_of(items[:1]))

    def feed() -> Iterator[LocalInstance]:
        yield items[0]
        pairs.update(dict.fromkeys(pairs_of(items)))
        yield from items[1:]

    scripts = [[*opening(), *answered(0), *ENDING], [*opening(), *answered(0, 0), *ENDING]]
    with ScriptedPeer(*scripts) as scripted:
        answers = list(store.send(scripted.remote(), feed(), pairs.keys(), convert=Convert.NOTHING))
    assert [answer.status for answer in answers] == [0, 0, 0]
    asked = scripted.conversations[1].request.presentation_context_definition_list
    assert [str(context.transfer_syntax[0]) for context in asked] == [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE]


class BytePace:
    """A pace with a limit of bytes, or without one, at which nothing ever waits."""

    def __init__(self, limits_bytes: bool) -> None:
        self.limits_bytes = limits_bytes

    def request(self) -> None: ...

    def retrieve(self) -> None: ...

    def instance(self) -> None: ...

    def sent(self, size: int) -> None: ...

    def received(self, size: int) -> None: ...


@pytest.mark.parametrize(("limited", "at_once"), [(True, RUN_BYTES), (False, 600_000)])
def test_a_limit_of_bytes_is_kept_evenly(tmp_path: Path, limited: bool, at_once: int) -> None:
    """A file that was read whole before its turn goes out at once where nobody counts bytes, and by runs where somebody
    does.
    """
    items = [local(sample) for sample in samples.ct_series(tmp_path, 2)]
    waiting = deque(items)
    moved: list[int] = []
    with ScriptedPeer([*opening(), *answered(0, 0), *ENDING]) as scripted:
        remote = replace(scripted.remote(), pace=BytePace(limited))
        feed = (waiting.popleft() for _ in items)
        coming = lambda: waiting[0] if waiting else None  # noqa: E731
        answers = list(store.send(remote, feed, pairs_of(items), coming=coming, progress=moved.append))
    assert [answer.status for answer in answers] == [0, 0]
    assert sum(moved) == sum(answer.sent_bytes for answer in answers)
    assert at_once // 2 < max(moved) <= at_once


def test_what_was_kept_in_memory_is_reencoded_from_the_file(tmp_path: Path) -> None:
    """Where the peer does not take its own syntax."""
    (sample,) = mr(tmp_path)
    (found,) = inventory([os.fsencode(sample.path)], recursive=False, keeps=lambda _: True)
    item = local(sample)._replace(content=found.content)
    with ScriptedPeer([*opening(only(IMPLICIT_LE)), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [item])
    assert (answer.status, answer.sent_as) == (0, IMPLICIT_LE)


def test_a_file_in_an_unplanned_context_gets_another_association(tmp_path: Path) -> None:
    """A file written anew in another syntax since the plan: one more association, with what it needs as
    well.
    """
    first, second = mr(tmp_path, 2)
    item = local(second)
    ds = samples.dataset(SOPInstanceUID=second.sop_instance_uid)
    samples.write(second.path, ds, IMPLICIT_LE)
    scripts = [[*opening(only(EXPLICIT_LE)), *answered(0), *ENDING], [*opening(), *answered(0), *ENDING]]
    with ScriptedPeer(*scripts) as scripted:
        answers = run(scripted.remote(), [local(first), item])
    assert [(answer.status, answer.sent_as) for answer in answers] == [(0, None), (0, None)]
    assert scripted.conversations[1].messages[0][2] == data_set(second.path)


# --- local faults -------------------------------------------------------------------------------------------


def _vanish(sample: Sample) -> None:
    sample.path.unlink()


def _folder(sample: Sample) -> None:
    sample.path.unlink()
    sample.path.mkdir()


def _fifo(sample: Sample) -> None:
    sample.path.unlink()
    os.mkfifo(sample.path)


def _truncate(sample: Sample) -> None:
    os.truncate(sample.path, sample.path.stat().st_size - 1000)


def _another(sample: Sample) -> None:
    samples.write(sample.path, samples.dataset(SOPInstanceUID="1.2.3.4"))


def _text(sample: Sample) -> None:
    samples.text_file(sample.path)


def _liar(sample: Sample) -> None:
    samples.syntax_mismatch(sample.path)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_vanish, "vanished"),
        (_folder, "unreadable"),
        (_fifo, "unreadable"),
        (_truncate, "truncated"),
        (_another, "changed"),
        (_text, "not DICOM"),
        (_liar, "syntax mismatch"),
    ],
)
def test_a_fault_of_the_file_is_its_answer_and_no_more(
    tmp_path: Path, harm: Callable[[Sample], None], reason: str
) -> None:
    """Found before the first fragment, so nothing of it reaches the peer; the association lives and the rest
    goes on.
    """
    bad, good = mr(tmp_path, 2)
    items = [local(bad), local(good)]
    harm(bad)
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        failed, sent = run(scripted.remote(), items)
    assert (failed.status, failed.reason, failed.sent_bytes, sent.status) == (None, reason, 0, 0)
    assert failed.detail
    assert len(scripted.only.messages) == 1


def test_a_changed_file_with_the_same_instance_is_sent_as_it_is_now(tmp_path: Path) -> None:
    """Only another SOP Instance UID makes it another file."""
    (sample,) = mr(tmp_path)
    item = local(sample)
    samples.write(sample.path, samples.dataset(size=64, SOPInstanceUID=sample.sop_instance_uid))
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [item])
    assert answer.status == 0
    assert scripted.only.messages[0][2] == data_set(sample.path)


def test_an_odd_deflated_stream_gets_one_nul(tmp_path: Path) -> None:
    """PS3.5 A.5; the file itself is left alone."""
    sample = samples.deflated(tmp_path / "odd.dcm", odd=True)
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    data = data_set(sample.path)
    assert len(data) % 2 == 1
    assert scripted.only.messages[0][2] == data + b"\0"
    assert answer.sent_bytes == len(data) + 1


def test_any_other_odd_data_set_is_not_sent(tmp_path: Path) -> None:
    """`odd length`: padding would guess at what the file was to say."""
    sample = samples.mr_instance(tmp_path / "odd.dcm")
    # A private last element of three bytes in Explicit VR: whole by its lengths, and odd.
    with sample.path.open("ab") as file:
        file.write(b"\xf1\x7f\x01\x10LO\x03\x00abc")
    with ScriptedPeer([*opening(), *ENDING]) as scripted:
        (answer,) = run(scripted.remote(), [local(sample)])
    assert (answer.status, answer.reason) == (None, "odd length")


def test_a_uid_that_no_request_can_hold_fails_alone(tmp_path: Path) -> None:
    """An impossible SOP class UID is that file's `bad uid`, and keeps nobody else from going."""
    bad, good = mr(tmp_path, 2)
    odd = element(0x00080016, "UI", uid("1." * 40)) + element(0x00080018, "UI", uid(bad.sop_instance_uid))
    bad.path.write_bytes(b"\0" * 128 + b"DICM" + meta(sop_class="1." * 40, instance=bad.sop_instance_uid) + odd)
    item = local(bad)
    impossible = LocalInstance(1, item.path, item.size, item.mtime_ns, "1." * 40, item.sop_instance_uid, EXPLICIT_LE)
    with ScriptedPeer([*opening(), *answered(0), *ENDING]) as scripted:
        failed, sent = run(scripted.remote(), [impossible, local(good)])
    assert (failed.reason, sent.status) == ("bad uid", 0)


def test_a_file_that_shrinks_costs_the_association_but_not_the_batch(tmp_path: Path) -> None:
    """Never padded: A-ABORT, the file is `truncated`, and the rest goes over a new association."""
    bad = samples.instance(tmp_path / "ct.dcm", "CT", size=1024, number=1)
    good = samples.instance(tmp_path / "good.dcm", "CT", size=64, number=2)
    items = [local(bad), local(good)]

    def cut(sent: int) -> None:
        if sent and bad.path.stat().st_size > 100_000:
            os.truncate(bad.path, 100_000)

    def read_until_abort(conversation: peer.Conversation) -> None:
        while conversation.read_pdu()[0] != peer.ABORT:
            assert conversation.received[-1][11] != 2, "a last fragment of a file that was not sent whole"

    scripts = [[*opening(), read_until_abort], [*opening(), *answered(0), *ENDING]]
    with ScriptedPeer(*scripts) as scripted:
        failed, sent = list(store.send(scripted.remote(), iter(items), pairs_of(items), progress=cut))
    assert (failed.status, failed.reason, sent.status) == (None, "truncated", 0)


# --- real peers ---------------------------------------------------------------------------------------------


def test_dcmtk_receives_what_the_files_hold(storescp: StoreScp, tmp_path: Path) -> None:
    """Uncompressed, compressed, deflated, big endian, private class: the data set received equals the file's,
    byte by byte.
    """
    files = [
        *mr(tmp_path, 3),
        samples.big_endian(tmp_path / "be.dcm"),
        samples.implicit(tmp_path / "implicit.dcm"),
        samples.deflated(tmp_path / "deflated.dcm"),
        samples.rle(tmp_path / "rle.dcm"),
        samples.jpeg_baseline(tmp_path / "jpeg.dcm"),
        samples.jpeg2000(tmp_path / "j2k.dcm"),
        samples.private_sop_class(tmp_path / "private.dcm"),
        samples.instance(tmp_path / "ct.dcm", "CT", size=1024),
    ]
    items = [local(sample, n) for n, sample in enumerate(files)]
    remote = Remote(
        name="dcmtk", ae_title="STORESCP", host=storescp.host, port=storescp.port, calling_ae_title="TESTER"
    )
    answers = run(remote, items)
    assert [(answer.status, answer.sent_as) for answer in answers] == [(0, None)] * len(files)
    received = storescp.received()
    assert set(received) == samples.uids(files)
    for sample in files:
        assert data_set(received[sample.sop_instance_uid]) == data_set(sample.path), sample.path.name


def test_dcmtk_with_small_pdus_receives_all(tmp_path: Path) -> None:
    """The smallest PDU that DCMTK takes."""
    files = [samples.instance(tmp_path / f"{n}.dcm", "CT", size=300, number=n) for n in range(1, 4)]
    with StoreScp("SMALL", "-pdu", "4096") as server:
        remote = Remote(name="x", ae_title="SMALL", host=server.host, port=server.port, calling_ae_title="TESTER")
        opened: list[Association] = []
        items = [local(sample) for sample in files]
        answers = list(store.send(remote, iter(items), pairs_of(items), on_open=opened.append))
        assert [answer.status for answer in answers] == [0, 0, 0]
        assert opened[0].peer_max_pdu == 4096
        received = server.received()
        assert all(data_set(received[one.sop_instance_uid]) == data_set(one.path) for one in files)


def test_dcmtk_that_takes_implicit_only_gets_implicit(tmp_path: Path) -> None:
    """A real peer that forces a re-encoding: same instance, same pixels, `sent_as` Implicit VR."""
    (sample,) = mr(tmp_path)
    with StoreScp("IMPLICIT", "+xi", accept_all=False) as server:
        remote = Remote(name="x", ae_title="IMPLICIT", host=server.host, port=server.port, calling_ae_title="TESTER")
        (answer,) = run(remote, [local(sample)])
        assert (answer.status, answer.sent_as) == (0, IMPLICIT_LE)
        (path,) = server.received().values()
        header = part10.read_header(os.fsencode(path))
        assert (header.sop_instance_uid, header.transfer_syntax_uid) == (sample.sop_instance_uid, IMPLICIT_LE)


def test_a_peer_that_dies_in_mid_store_is_an_abort(tmp_path: Path) -> None:
    """DCMTK told to abort while it receives."""
    files = mr(tmp_path, 2)
    with StoreScp("ABORTING", "--abort-during") as server:
        remote = Remote(name="x", ae_title="ABORTING", host=server.host, port=server.port, calling_ae_title="TESTER")
        with pytest.raises(AssociationAborted):
            run(remote, [local(sample) for sample in files])

"""What becomes of a store job for each thing that a peer may do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules.state import JobState, Tally
from support import samples
from support import scripted_peer as peer
from support.bench import Bench, Reply, Store, free_port
from support.inline import Inline, hasty
from support.scripted_peer import Step, send

Make = Callable[..., Inline]
ABORT: Sequence[Step] = [send(peer.abort_pdu())]
HOUR = 3600.0


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the installation of this test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Inline(tmp_path, monkeypatch, **settings))


@pytest.fixture
def site(make: Make) -> Inline:
    """An installation with short patience for remotes that cannot be used."""
    return make(retry={"give_up_after": 60.0})


def uncharged(site: Inline, job_id: int) -> bool:
    """Whether nobody was charged and everybody still waits."""
    return all((row.state, row.charges) == ("pending", 0) for row in site.items(job_id))


# --- no association -----------------------------------------------------------------------------------------


def test_a_remote_that_is_down_is_waited_for_then_held(site: Inline) -> None:
    """Refused: pending with the reason and a later try, charging nobody; held after give_up_after; then released."""
    files = site.mr(3)
    port = free_port()
    job_id = site.store(f"BENCH@127.0.0.1:{port}")
    site.run_due()
    (chunk,) = site.chunks(job_id)
    assert (chunk.state, chunk.reason) == ("pending", "unreachable")
    assert (chunk.not_before - site.clock.time).total_seconds() == 10
    assert site.drain(job_id) is JobState.HELD
    (chunk,) = site.chunks(job_id)
    assert (chunk.reason, bool(chunk.advice)) == ("unreachable", True)
    # Tries at 0, 10, 30 and 70 seconds.
    assert site.ends(job_id) == ["error"] * 4
    assert "connection refused" in site.attempts(job_id)[0].detail
    assert uncharged(site, job_id)
    with Bench(port=port) as bench:
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))
    assert bench.associations == 1
    assert site.tally(job_id) == Tally(total=3, succeeded=3)


@pytest.mark.parametrize(
    "numbers", [(2, 3, 1), (2, 3, 2), (1, 3, 1), (1, 3, 2), (2, 1, 1)], ids=lambda n: "/".join(map(str, n))
)
def test_a_transient_rejection_is_waited_out(site: Inline, numbers: tuple[int, int, int]) -> None:
    """Congestion and local limit, also as permanent rejections, charge nobody; the next try gets through."""
    site.mr(3)
    reject = [send(peer.rejection(*numbers))]
    with Bench(greet=lambda n: reject if n < 3 else None) as bench:
        job_id = site.store(bench.address)
        site.run_due()
        (chunk,) = site.chunks(job_id)
        assert (chunk.state, chunk.reason) == ("pending", "rejected for now")
        assert uncharged(site, job_id)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (bench.associations, len(bench.stores)) == (3, 3)
    assert site.ends(job_id) == ["error", "error", "completed"]


def test_a_transient_rejection_for_ever_is_held(site: Inline) -> None:
    """A peer that is always at its limit is given up after give_up_after; nobody failed."""
    site.mr(1)
    with Bench(greet=lambda _: [send(peer.rejection(2, 3, 2))]) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.HELD
    assert (bench.associations, bench.stores) == (4, [])
    assert site.chunks(job_id)[0].reason == "rejected for now"
    assert uncharged(site, job_id)


def test_no_answer_to_the_association_request(make: Make) -> None:
    """A peer that reads the request and stays silent: no answer, waited for, then held."""
    site = make(retry={"give_up_after": 20.0}, timeouts={"acse": 0.2})
    site.mr(1)
    with Bench(greet=lambda _: [peer.until_end]) as bench:
        job_id = site.store(bench.address)
        site.run_due()
        assert (site.chunks(job_id)[0].state, site.chunks(job_id)[0].reason) == ("pending", "no answer")
        assert site.drain(job_id) is JobState.HELD
    # Tries at 0, 10 and 30 seconds.
    assert bench.associations == 3
    assert uncharged(site, job_id)


def test_a_port_that_accepts_tcp_and_nothing_else(make: Make) -> None:
    """Connections that nobody even reads: no answer, charging nobody, held in the end."""
    site = make(retry={"give_up_after": 20.0}, timeouts={"acse": 0.2})
    site.mr(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job_id = site.store(f"MUTE@127.0.0.1:{listener.getsockname()[1]}")
        assert site.drain(job_id) is JobState.HELD
    assert site.chunks(job_id)[0].reason == "no answer"
    assert site.ends(job_id) == ["error"] * 3
    assert uncharged(site, job_id)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([peer.close], "connection closed"),
        ([peer.reset], "connection closed"),
        ([send(peer.rejection(1, 1, 1))], "rejected without a reason"),
    ],
    ids=["closed", "reset", "1/1/1"],
)
def test_three_tries_then_held(site: Inline, steps: list[Step], reason: str) -> None:
    """Hanging up before an answer, and a rejection without a reason, are tried three times, then a person is asked."""
    site.mr(2)
    with Bench(greet=lambda n: steps if n <= 3 else None) as bench:
        job_id = site.store(bench.address)
        site.run_due()
        assert (site.chunks(job_id)[0].state, site.chunks(job_id)[0].reason) == ("pending", reason)
        assert site.drain(job_id) is JobState.HELD
        assert bench.associations == 3
        (chunk,) = site.chunks(job_id)
        assert chunk.reason == reason
        assert "is our address allowed there?" in chunk.advice
        assert uncharged(site, job_id)
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (bench.associations, len(bench.stores)) == (4, 2)


@pytest.mark.parametrize(
    ("numbers", "reason", "side"),
    [
        ((1, 1, 3), "calling AE title not recognized", "their side"),
        ((1, 1, 7), "called AE title not recognized", "our side"),
    ],
)
def test_an_unknown_ae_title_is_held_at_once(
    site: Inline, numbers: tuple[int, int, int], reason: str, side: str
) -> None:
    """The first such rejection holds every chunk of the job and says which side must change; release goes on."""
    site.cut_at(2)
    site.mr(6)
    with Bench(greet=lambda n: [send(peer.rejection(*numbers))] if n == 1 else None) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.HELD
        assert bench.associations == 1
        chunks = site.chunks(job_id)
        assert [(chunk.state, chunk.reason) for chunk in chunks] == [("held", reason)] * 3
        assert all(side in chunk.advice for chunk in chunks)
        assert uncharged(site, job_id)
        assert [event.kind for event in site.events(job_id)].count("held") == 1
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (bench.associations, len(bench.stores)) == (4, 6)


# --- answers ------------------------------------------------------------------------------------------------


WARNINGS = (0x0111, 0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xB123)


def test_a_warning_is_an_arrival(site: Inline) -> None:
    """A warning status is kept with its item, which is never sent again; the job succeeded."""
    files = site.mr(1 + len(WARNINGS))
    with Bench(answer=lambda store: (0, *WARNINGS)[store.number - 1]) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=len(files), succeeded=1, warning=len(WARNINGS))
    for status, row in zip(WARNINGS, site.items(job_id)[1:], strict=True):
        assert (row.state, row.status, bool(row.reason)) == ("warning", status, True)
    assert site.item(job_id, files[1].sop_instance_uid).reason == "already there"
    assert (bench.associations, len(bench.stores), site.ends(job_id)) == (1, len(files), ["completed"])


def test_c000_for_one_instance(site: Inline) -> None:
    """One object that the archive cannot understand: that item failed, the rest arrived, the job is incomplete."""
    files = site.mr(4)
    target = files[1].sop_instance_uid
    with Bench(answer=lambda store: 0xC000 if store.uid == target else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=4, succeeded=3, failed=1)
    row = site.item(job_id, target)
    assert (row.state, row.status, row.reason, row.tries) == ("failed", 0xC000, "cannot understand", 1)
    assert site.job(job_id).reason == "cannot understand"
    assert (bench.associations, len(bench.stores), site.ends(job_id)) == (1, 4, ["completed"])


FINAL = {
    0xC123: "cannot understand",
    0xA900: "data set does not match SOP class",
    0x0105: "no such attribute",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0122: "SOP class not supported",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
}


def test_a_final_failure_concerns_one_item(site: Inline) -> None:
    """A refusal of one object fails that item with status and reason, is not repeated, and the rest goes on."""
    files = site.mr(len(FINAL) + 1)
    with Bench(answer=lambda store: (*FINAL, 0)[store.number - 1]) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=len(files), succeeded=1, failed=len(FINAL))
    for (status, reason), row in zip(FINAL.items(), site.items(job_id), strict=False):
        assert (row.state, row.status, row.reason, row.tries) == ("failed", status, reason, 1)
    assert (bench.associations, len(bench.stores), site.ends(job_id)) == (1, len(files), ["completed"])


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0x0110, "processing failure"),
        (0x0210, "duplicate invocation"),
        (0xFE00, "cancelled by the peer"),
        (0x1234, "status 0x1234"),
        (0xFF00, "status 0xFF00"),
    ],
)
def test_a_doubtful_failure_has_one_retry(site: Inline, status: int, reason: str) -> None:
    """Such an item is sent once more, at the end of the chunk; once is forgiven, twice is a failure."""
    files = site.mr(3)
    once, always = files[0].sop_instance_uid, files[1].sop_instance_uid

    def answer(store: Store) -> Reply:
        return status if store.uid == always or (store.uid == once and store.nth == 1) else 0

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=3, succeeded=2, failed=1)
    row = site.item(job_id, always)
    assert (row.state, row.status, row.reason, row.tries) == ("failed", status, reason, 2)
    row = site.item(job_id, once)
    assert (row.state, row.status, row.reason, row.tries) == ("succeeded", 0, None, 2)
    assert bench.stores == [file.sop_instance_uid for file in [*files, *files[:2]]]
    assert (bench.associations, site.ends(job_id)) == (1, ["completed"])


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0213])
def test_out_of_resources_now_and_then_slows_down(site: Inline, status: int) -> None:
    """A refusal for want of resources pauses, then that item is sent again later; nothing fails."""
    site.tune(congestion_pauses=(0.25, 0.5, 1.0))
    pauses = hasty(site)
    site.mr(10)
    with Bench(answer=lambda store: status if store.number in (1, 5, 6) else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert pauses == [0.25, 0.25, 0.5]
    assert (bench.associations, len(bench.stores), bench.most) == (1, 13, 2)
    assert site.tally(job_id) == Tally(total=10, succeeded=10)


def test_out_of_resources_for_ever_is_held(site: Inline) -> None:
    """A full archive charges nobody: three refusals give the association up, waits grow, then the job is held."""
    site.mr(5)
    full = threading.Event()
    full.set()
    with Bench(answer=lambda _: 0xA700 if full.is_set() else 0) as bench:
        job_id = site.store(bench.address)
        site.run_due()
        (chunk,) = site.chunks(job_id)
        assert (chunk.state, chunk.reason) == ("pending", "out of resources")
        assert len(bench.stores) == 3
        assert site.drain(job_id) is JobState.HELD
        assert (bench.associations, len(bench.stores)) == (4, 12)
        assert site.chunks(job_id)[0].reason == "out of resources"
        assert uncharged(site, job_id)
        full.clear()
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=5, succeeded=5)


@pytest.mark.parametrize("refused", [{1}, {3}, {10}, {2, 3, 4, 5, 6, 7, 8, 9}, {1, 4, 10}])
def test_objects_that_are_refused_for_want_of_resources_for_ever(site: Inline, refused: set[int]) -> None:
    """Some archives refuse a malformed object so: it has three tries, where the others are taken."""
    files = site.mr(10)
    never = {files[number - 1].sop_instance_uid for number in refused}
    with Bench(answer=lambda store: 0xA700 if store.uid in never else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=10, succeeded=10 - len(never), failed=len(never))
    failed = [row for row in site.items(job_id) if row.state == "failed"]
    assert {row.sop_instance_uid for row in failed} == never
    assert {(row.status, row.reason, row.charges) for row in failed} == {(0xA700, "out of resources", 3)}
    assert len(bench.stores) <= 10 + 3 * len(never) + 6


def test_an_archive_that_fills_up_in_the_middle(site: Inline) -> None:
    """What was taken stays taken; the rest waits for room and fails nobody."""
    site.mr(9)
    with Bench(answer=lambda store: 0xA700 if store.number > 4 else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.HELD
    assert site.tally(job_id) == Tally(total=9, succeeded=4)
    assert [row.state for row in site.items(job_id)].count("failed") == 0
    assert (bench.associations, len(bench.stores)) == (5, 4 + 5 * 3)


def test_not_authorized_is_held(site: Inline) -> None:
    """0124 holds the whole job at once: what waits is not asked for again chunk by chunk."""
    site.cut_at(2)
    files = site.mr(4)
    with Bench(answer=lambda store: 0x0124 if store.number == 2 else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.HELD
        assert {chunk.reason for chunk in site.chunks(job_id)} == {"not authorized"}
        assert [row.state for row in site.items(job_id)] == ["succeeded", "pending", "pending", "pending"]
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.stores == [files[n].sop_instance_uid for n in (0, 1, 1, 2, 3)]
    assert bench.associations == 3


# --- contexts -----------------------------------------------------------------------------------------------


def test_a_refused_context_fails_its_files_and_names_the_syntax(site: Inline) -> None:
    """A SOP class that is not taken: these items failed with class and syntax by name, the rest succeeded."""
    files = site.mr(2)
    private = samples.private_sop_class(site.files / "private.dcm")
    jpeg = samples.jpeg_baseline(site.files / "jpeg.dcm")

    def choose(sop_class: str, syntaxes: list[str]) -> peer.Answer:
        if sop_class == private.sop_class_uid:
            return 3, syntaxes[0]
        return (4 if syntaxes[0] == jpeg.transfer_syntax_uid else 0), syntaxes[0]

    with Bench(choose=choose) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=4, succeeded=2, failed=2)
    for sample, words in (
        (private, ["Explicit VR Little Endian", "abstract syntax not supported"]),
        (jpeg, ["JPEG Baseline", "transfer syntaxes not supported"]),
    ):
        row = site.item(job_id, sample.sop_instance_uid)
        assert (row.state, row.reason, row.status) == ("failed", "context refused", None)
        assert all(word in row.detail for word in words)
    assert sorted(bench.stores) == sorted(samples.uids(files))
    assert bench.associations == 1


def test_all_contexts_refused(site: Inline) -> None:
    """An association without any accepted context: every item failed, nothing was sent, nothing is tried again."""
    site.mr(3)
    with Bench(choose=lambda _, syntaxes: (3, syntaxes[0])) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.FAILED
    assert site.tally(job_id) == Tally(total=3, failed=3)
    assert site.job(job_id).reason == "context refused"
    assert (bench.associations, bench.stores) == (1, [])


def test_another_uncompressed_syntax_is_served(site: Inline) -> None:
    """A peer that takes Implicit VR only gets a copy in it, and the item says so."""
    files = site.mr(2)
    implicit = "1.2.840.10008.1.2"
    with Bench(choose=lambda _, syntaxes: (0 if implicit in syntaxes else 4, implicit)) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert {row.sent_as for row in site.items(job_id)} == {implicit}
    assert sorted(bench.stores) == sorted(samples.uids(files))

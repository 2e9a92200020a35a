"""Files at which a peer breaks the association off: they are found out one by one, and keep nothing else back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicomferry.models.record.remotes import breaker
from dicomferry.models.rules.spec import StoreSpec
from dicomferry.models.rules.state import JobState, Tally
from support import samples
from support import scripted_peer as peer
from support.bench import Bench, Store, free_port
from support.inline import Inline
from support.part10_bytes import EXPLICIT_LE, MR, element, elements, meta, uid
from support.scripted_peer import Step, send

ABORT: Sequence[Step] = [send(peer.abort_pdu())]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation."""
    with Inline(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize(("poisonous", "size"), [(12, 500), (50, 500), (7, 3)])
def test_poison_at_the_front(site: Inline, poisonous: int, size: int) -> None:
    """Whether a dozen or fifty come first, and however chunks are cut: all good ones are sent at the first go, the
    others failed after three tries each, within a minute of waiting by the default pauses.
    """
    site.cut_at(size)
    files = site.mr(poisonous + 40)
    poison = samples.uids(files[:poisonous])
    with Bench(answer=lambda store: ABORT if store.uid in poison else 0) as bench:
        job_id = site.store(bench.address)
        begun = site.clock.time
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert (site.clock.time - begun).total_seconds() <= 60
    assert site.tally(job_id) == Tally(total=len(files), succeeded=40, failed=poisonous)
    assert {row.reason for row in site.items(job_id) if row.sop_instance_uid in poison} == {"aborted"}
    assert {bench.stores.count(file.sop_instance_uid) for file in files[:poisonous]} == {3}
    if size == 500:
        assert bench.stores[poisonous : poisonous + 40] == [file.sop_instance_uid for file in files[poisonous:]]


def test_a_neighbour_is_not_hindered(site: Inline) -> None:
    """Chunks that wait because of their own poison are no sign that the remote is away: a job that comes then is sent
    at once, and the breaker stays closed.
    """
    site.cut_at(2)
    files = site.mr(12)
    poison = samples.uids(files)
    with Bench(answer=lambda store: ABORT if store.uid in poison else 0) as bench:
        first = site.store(bench.address)
        site.run_due()
        assert {chunk.state for chunk in site.chunks(first)} == {"pending"}
        good = samples.instance(site.files.parent / "good.dcm", number=99, size=8)
        second = site.store(bench.address, good.path)
        begun = site.clock.time
        site.run_due()
        assert site.clock.time == begun
        assert site.job(second).state == JobState.SUCCEEDED
        assert site.drain(first) is JobState.FAILED
    assert (site.clock.time - begun).total_seconds() <= 60


def test_a_new_chunk_waits_as_the_breaker_does(site: Inline) -> None:
    """What is planned while the breaker is open waits until the next look, with the reason; once it is closed, new
    chunks are due at once, whatever others wait for.
    """
    port = free_port()
    site.mr(1)
    first = site.store(f"BENCH@127.0.0.1:{port}")
    site.run_due()
    (waiting,) = site.chunks(first)
    second = site.store(f"BENCH@127.0.0.1:{port}")
    site.run_next()
    (new,) = site.chunks(second)
    assert (new.state, new.not_before, new.reason) == ("pending", waiting.not_before, "unreachable")
    remote = new.remote_id
    site.database.write(lambda connection: breaker.reset(connection, remote, site.clock()))
    third = site.store(f"BENCH@127.0.0.1:{port}")
    site.run_next()
    (due,) = site.chunks(third)
    assert (due.state, due.not_before, due.reason) == ("pending", site.clock.time, None)


def test_a_peer_that_breaks_everything_off_and_answers_no_echo(site: Inline) -> None:
    """The item in flight is charged and the remote left alone for a while: nobody else is tried."""
    site.mr(5)

    def greet(number: int) -> Sequence[Step] | None:
        return None if number == 1 else [send(peer.rejection(2, 1, 1))]

    with Bench(answer=lambda _: ABORT, greet=greet) as bench:
        job_id = site.store(bench.address)
        site.run_due()
        (chunk,) = site.chunks(job_id)
        assert (chunk.state, chunk.reason, chunk.barren) == ("pending", "aborted", 1)
        assert chunk.not_before > site.clock.time
        assert (len(bench.stores), bench.associations) == (1, 2)


def test_a_peer_that_breaks_everything_off_but_answers_echoes(site: Inline) -> None:
    """Nothing gets through but C-ECHOs: after so many in a row the attempt ends, the chunk waits, and it counts for the
    breaker, so that a sick archive is not run over.
    """
    site.tune(most_broken_in_a_row=4)
    site.mr(10)
    with Bench(answer=lambda _: ABORT) as bench:
        job_id = site.store(bench.address)
        site.run_due()
        (chunk,) = site.chunks(job_id)
        assert (chunk.state, chunk.barren, len(bench.stores)) == ("pending", 1, 4)
        assert sorted(row.charges for row in site.items(job_id)) == [0] * 6 + [1] * 4
        assert site.drain(job_id) is JobState.FAILED
    assert site.tally(job_id) == Tally(total=10, failed=10)


def test_charged_items_go_alone(site: Inline) -> None:
    """An item that broke an association once has the next one for itself, behind all others: who is sent along with it
    is never in flight when it breaks another.
    """
    files = site.mr(4)
    seen: list[tuple[str, int, int]] = []

    def answer(store: Store) -> int | Sequence[Step]:
        seen.append((store.uid, store.association, store.place))
        return ABORT if store.uid in (files[0].sop_instance_uid, files[2].sop_instance_uid) and store.nth == 1 else 0

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    order = [uid for uid, _, _ in seen]
    assert order == [files[n].sop_instance_uid for n in (0, 1, 2, 3, 0, 2)]
    assert seen[4][2] == seen[5][2] == 1
    assert seen[4][1] != seen[5][1]
    assert {row.charges for row in site.items(job_id)} == {0, 1}


def test_what_was_sent_and_waits_for_its_verification_is_not_sent_again(site: Inline) -> None:
    """An association that breaks later does not make an attempt forget what was confirmed before."""
    files = site.mr(4)
    poison = files[2].sop_instance_uid

    def no_query(abstract: str, offered: list[str]) -> peer.Answer:
        return (3 if abstract.startswith("1.2.840.10008.5.1.4.1.2") else 0), offered[0]

    with Bench(answer=lambda store: ABORT if store.uid == poison else 0, choose=no_query) as bench:
        job_id = site.submit(bench.address, StoreSpec(paths=(str(site.files),), verify=True))
        site.drain(job_id)
    assert [bench.stores.count(file.sop_instance_uid) for file in files] == [1, 1, 3, 1]


def long_uid(path: Path, number: int) -> str:
    """A file whose SOP Instance UID has 66 characters."""
    text = f"1.2.826.{number}.".ljust(66, "4")
    body = element(0x00080016, "UI", uid(MR)) + element(0x00080018, "UI", uid(text)) + b"".join(elements()[4:])
    path.write_bytes(b"\0" * 128 + b"DICM" + meta(instance=text) + body)
    return text


def test_uids_over_64_characters(site: Inline) -> None:
    """PS3.5 9.1 allows 64; peers break associations off at more. They are refused before anybody is asked."""
    for number in (1, 2):
        long_uid(site.files / f"0000{number}-long.dcm", number)
    files = site.mr(3, first=4)
    with Bench() as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert bench.stores == [file.sop_instance_uid for file in files]
    endings = site.endings(job_id)
    assert endings["00001-long.dcm"] == endings["00002-long.dcm"] == ("failed", "bad uid")


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("which", ["SOP Class UID", "Transfer Syntax UID"])
def test_what_no_association_can_be_asked_for(site: Inline, which: str, odd: bool) -> None:
    """A SOP class or transfer syntax of over 64 characters is the file's own fault, whatever is to be sent besides: it
    is in no request for an association, and told by its name.
    """
    text = "1.2.826.0.1.".ljust(70, "4")
    sop_class, syntax = (text, EXPLICIT_LE) if which == "SOP Class UID" else (MR, text)
    body = element(0x00080016, "UI", uid(sop_class)) + b"".join(elements()[1:])
    (site.files / "00001-long.dcm").write_bytes(b"\0" * 128 + b"DICM" + meta(syntax, sop_class) + body)
    files = site.mr(2, first=2)
    with Bench() as bench:
        job_id = site.submit(bench.address, StoreSpec(paths=(str(site.files),), send_odd_uids=odd))
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert bench.stores == [file.sop_instance_uid for file in files]
    assert site.endings(job_id)["00001-long.dcm"] == ("failed", "bad uid")
    (item,) = [item for item in site.items(job_id) if item.reason == "bad uid"]
    assert item.detail == f"its {which} has 70 characters, 64 are allowed: {text}"


def test_uids_over_64_characters_that_are_to_be_sent(site: Inline) -> None:
    """`--send-odd-uids`: last, and each on an association of its own."""
    odd = [long_uid(site.files / f"0000{number}-long.dcm", number) for number in (1, 2)]
    files = site.mr(3, first=4)
    seen: list[tuple[str, int]] = []

    def answer(store: Store) -> int:
        seen.append((store.uid, store.association))
        return 0

    with Bench(answer=answer) as bench:
        what = StoreSpec(paths=(str(site.files),), send_odd_uids=True)
        job_id = site.submit(bench.address, what)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert seen == [(file.sop_instance_uid, 1) for file in files] + [(odd[0], 2), (odd[1], 3)]

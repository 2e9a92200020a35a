"""Associations that break in the middle: who is charged, what is sent again, and what is not."""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicomferry.models.rules.state import JobState, Tally
from support import samples
from support import scripted_peer as peer
from support.bench import Bench, Reply, Store
from support.inline import Inline
from support.scripted_peer import Step, send

ABORT: Sequence[Step] = [send(peer.abort_pdu())]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation that is patient with peers."""
    with Inline(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation that waits half a second for an answer."""
    with Inline(tmp_path, monkeypatch, timeouts={"store_answer": 0.5, "progress": 0.5}) as made:
        yield made


def every_tenth(store: Store) -> Reply:
    """Abort in place of every tenth answer."""
    return 0 if store.number % 10 else ABORT


def test_aborting_at_every_tenth_instance(site: Inline) -> None:
    """Each abort costs one instance a second try, alone and behind all others; the job succeeds in one go."""
    files = site.mr(35)
    with Bench(answer=every_tenth) as bench:
        job_id = site.store(bench.address)
        begun = site.clock.time
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.clock.time == begun, "an attempt that got something through is followed by the next at once"
    assert site.tally(job_id) == Tally(total=35, succeeded=35)
    assert (len(bench.stores), bench.transfers) == (35 + 3, 4 + 3)
    assert set(bench.stores) == samples.uids(files)
    assert site.ends(job_id) == ["error", "completed"]
    tried_twice = {row.sop_instance_uid for row in site.items(job_id) if row.tries == 2}
    assert tried_twice == {bench.stores[n] for n in (9, 19, 29)}
    assert {row.charges for row in site.items(job_id)} == {0, 1}


@pytest.mark.parametrize("place", [0, 2, 4], ids=["first", "middle", "last"])
def test_one_instance_that_always_aborts(site: Inline, place: int) -> None:
    """Three charges fail that item; it goes to the chunk's end each time, alone, and the rest succeeds at once."""
    files = site.mr(5)
    poison = files[place].sop_instance_uid
    with Bench(answer=lambda store: ABORT if store.uid == poison else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=5, succeeded=4, failed=1)
    row = site.item(job_id, poison)
    assert (row.state, row.reason, row.status, row.charges, row.tries) == ("failed", "aborted", None, 3, 3)
    assert site.job(job_id).reason == "aborted"
    assert bench.stores.count(poison) == 3
    assert len(bench.stores) == 4 + 3
    assert bench.transfers == (3 if place == 4 else 4)


def test_two_that_always_abort(site: Inline) -> None:
    """Several such items do not shield each other: each is charged three times for itself only."""
    files = site.mr(4)
    poison = {files[0].sop_instance_uid, files[1].sop_instance_uid}
    with Bench(answer=lambda store: ABORT if store.uid in poison else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=4, succeeded=2, failed=2)
    assert [bench.stores.count(file.sop_instance_uid) for file in files] == [3, 3, 1, 1]


@pytest.mark.parametrize("steps", [[peer.close], [peer.reset], ABORT], ids=["closed", "reset", "aborted"])
def test_a_connection_that_breaks_in_the_middle_of_a_data_set(site: Inline, steps: Sequence[Step]) -> None:
    """The item in flight is charged once, sent again from the beginning, and succeeds."""
    target = samples.instance(site.files / "0.dcm", number=1, size=1500).sop_instance_uid
    site.mr(2, first=2)
    with Bench(early=lambda store: steps if store.nth == 1 and store.uid == target else None) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=3, succeeded=3)
    row = site.item(job_id, target)
    assert (row.charges, row.tries) == (1, 2)
    assert bench.stores.count(target) == 2
    assert (len(bench.stores), bench.transfers) == (4, 3)


def test_an_answer_before_the_data_is_complete(site: Inline) -> None:
    """A peer that refuses early is understood: status taken, the rest of the data sent, the association kept."""
    target = samples.instance(site.files / "0.dcm", number=1, size=1500).sop_instance_uid
    site.mr(2, first=2)

    def early(store: Store) -> Sequence[Step] | None:
        return [send(peer.store_rsp(store.message_id, 0xA900))] if store.uid == target else None

    with Bench(early=early) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    row = site.item(job_id, target)
    assert (row.state, row.status, row.tries) == ("failed", 0xA900, 1)
    assert site.tally(job_id) == Tally(total=3, succeeded=2, failed=1)
    assert (len(bench.stores), bench.transfers) == (3, 1)


def wrong_message(store: Store) -> Sequence[Step]:
    """An answer to another message."""
    return [send(peer.store_rsp(store.message_id + 7))]


def wrong_instance(store: Store) -> Sequence[Step]:
    """An answer about another instance."""
    return [send(peer.store_rsp(store.message_id, AffectedSOPInstanceUID="1.2.3.4"))]


def wrong_command(store: Store) -> Sequence[Step]:
    """A C-ECHO-RSP."""
    return [send(peer.store_rsp(store.message_id, CommandField=0x8030))]


def no_pdu(_: Store) -> Sequence[Step]:
    """Bytes that are no PDU of DICOM."""
    return [send(b"HTTP/1.1 400 Bad Request\r\n\r\n")]


@pytest.mark.parametrize("wrong", [wrong_message, wrong_instance, wrong_command, no_pdu])
def test_one_answer_against_the_standard(site: Inline, wrong: object) -> None:
    """Such an answer is believed by nobody: association aborted, the item charged and sent again, all succeed."""
    assert callable(wrong)
    files = site.mr(4)
    with Bench(answer=lambda store: wrong(store) if store.number == 2 else 0) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=4, succeeded=4)
    assert (len(bench.stores), bench.transfers) == (5, 3)
    assert site.item(job_id, files[1].sop_instance_uid).charges == 1
    assert [attempt.reason for attempt in site.attempts(job_id)] == ["protocol violation", None]


def test_answers_always_against_the_standard(site: Inline) -> None:
    """A peer that never answers rightly: nothing counts as sent, and the reason says whose fault it is."""
    site.mr(2)
    with Bench(answer=wrong_message) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.FAILED
    assert site.endings(job_id) == {name: ("failed", "protocol violation") for name in ("00001.dcm", "00002.dcm")}
    assert (len(bench.stores), bench.most) == (6, 3)


def test_a_slow_peer_is_not_killed(hasty: Inline) -> None:
    """An answer that takes longer than the time-out in all, but never stands still for so long, is waited for."""
    hasty.mr(2)
    slow: list[bool] = []

    def answer(store: Store) -> Reply:
        reply = peer.store_rsp(store.message_id)
        slow.append(len(reply) * 0.02 > 2 * hasty.settings.timeouts.store_answer)
        return [peer.send_slowly(reply, 0.02)]

    with Bench(answer=answer) as bench:
        job_id = hasty.store(bench.address)
        assert hasty.drain(job_id) is JobState.SUCCEEDED
    assert slow == [True, True]
    assert (len(bench.stores), bench.transfers, hasty.ends(job_id)) == (2, 1, ["completed"])


def test_a_silent_peer_is_killed(hasty: Inline) -> None:
    """A peer that takes an instance and never answers: its item is charged, three times at most, the rest goes on."""
    files = hasty.mr(3)
    mute = files[0].sop_instance_uid
    with Bench(answer=lambda store: [peer.until_end] if store.uid == mute else 0) as bench:
        job_id = hasty.store(bench.address)
        assert hasty.drain(job_id) is JobState.INCOMPLETE
    assert hasty.tally(job_id) == Tally(total=3, succeeded=2, failed=1)
    row = hasty.item(job_id, mute)
    assert (row.reason, row.charges) == ("no answer to a store", 3)
    assert (len(bench.stores), bench.transfers) == (5, 4)


def test_a_peer_that_stops_reading_is_killed(hasty: Inline) -> None:
    """A peer whose window closes in the middle of a large object is given up after timeouts.progress."""
    big = samples.instance(hasty.files / "big.dcm", number=1, size=4000).sop_instance_uid

    def deaf(store: Store) -> Sequence[Step] | None:
        return [lambda line: line.socket.settimeout(5), wait_for_end] if store.nth == 1 else None

    with Bench(early=deaf) as bench:
        job_id = hasty.store(bench.address)
        assert hasty.drain(job_id) is JobState.SUCCEEDED
    assert [attempt.reason for attempt in hasty.attempts(job_id)] == ["went silent", None]
    assert hasty.item(job_id, big).charges == 1
    assert bench.transfers == 2


def wait_for_end(line: peer.Conversation) -> None:
    """Read nothing until the other side has shut the connection down."""
    poll = select.poll()
    poll.register(line.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    assert poll.poll(peer.PATIENCE * 1000)
    line.socket.close()


def test_a_release_in_place_of_an_answer(site: Inline) -> None:
    """A peer that releases instead of answering has aborted as far as the item is concerned."""
    site.mr(3)
    with Bench(
        answer=lambda store: [send(peer.release_pdu(peer.RELEASE_RQ)), peer.until_end] if store.number == 2 else 0
    ) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (len(bench.stores), bench.transfers) == (4, 3)


def test_a_peer_that_does_not_say_goodbye(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered is recorded, whatever happens to the release, which is waited for as an association is."""
    with Inline(tmp_path, monkeypatch, timeouts={"acse": 1.0}) as site:
        _mute_at_the_end(site)


def _mute_at_the_end(site: Inline) -> None:
    site.mr(2)

    def answer(store: Store) -> Reply:
        steps = [send(peer.store_rsp(store.message_id))]
        return [*steps, peer.until_end] if store.number == 2 else steps

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (len(bench.stores), bench.transfers, site.ends(job_id)) == (2, 1, ["completed"])


# --- echo ---------------------------------------------------------------------------------------------------


def test_an_echo_to_a_peer_that_refuses_verification(site: Inline) -> None:
    """A context refused for C-ECHO fails the request for good, with one association."""
    with Bench(choose=lambda _, syntaxes: (3, syntaxes[0])) as bench:
        job_id = site.echo(bench.address)
        assert site.drain(job_id) is JobState.FAILED
    assert (bench.associations, site.job(job_id).reason) == (1, "context refused")


def test_an_echo_that_is_aborted(site: Inline) -> None:
    """An echo request whose association breaks each time fails after three charges."""
    with Bench(greet=lambda _: [peer.accept(), peer.expect_message(data_set=False), *ABORT]) as bench:
        job_id = site.echo(bench.address)
        assert site.drain(job_id) is JobState.FAILED
    (row,) = site.items(job_id)
    assert (row.kind, row.state, row.reason, row.charges) == ("request", "failed", "aborted", 3)
    assert bench.associations == 3

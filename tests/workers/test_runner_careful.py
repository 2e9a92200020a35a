"""Workers that die in the middle of a chunk: what is sent again, and how the item that kills them is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.state import JobState, Tally
from dicomferry.workers import operations
from dicomferry.workers.attempts.work import Answered, Work
from support import samples
from support.bench import Bench
from support.inline import Inline, Killed


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation that records by number only, so that what a death loses is the most that it can lose."""
    with Inline(tmp_path, monkeypatch) as made:
        made.tune(records={"seconds": 1e9})
        yield made


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A peer that takes everything."""
    with Bench() as made:
        yield made


@dataclass
class Deadly:
    """A store during which the worker dies on certain instances, or once at certain places."""

    uids: set[str] = field(default_factory=set)
    once: set[str] = field(default_factory=set)
    error: type[BaseException] = Killed

    def __call__(self, work: Work) -> Iterator[Answered]:
        def dying() -> Iterator[Item]:
            for row in work.feed:
                if row.sop_instance_uid in self.uids | self.once:
                    self.once.discard(row.sop_instance_uid)
                    raise self.error
                yield row

        return operations.store(replace(work, feed=dying()))


@pytest.fixture
def deadly(site: Inline) -> Deadly:
    """Harmless until instances are named."""
    made = Deadly()
    site.change(operations={Kind.STORE: made})
    return made


def die(site: Inline) -> None:
    """Run until the worker dies, let its lease run out, and sweep."""
    with pytest.raises(Killed):
        site.run_due()
    site.lose()


def test_one_death_is_forgiven(site: Inline, bench: Bench, deadly: Deadly) -> None:
    """At most a hundred instances are sent again; the next attempt is careful; everything succeeds."""
    files = site.mr(250)
    deadly.once = {files[199].sop_instance_uid}
    job_id = site.store(bench.address)
    die(site)
    (chunk,) = site.chunks(job_id)
    assert (chunk.state, chunk.careful, chunk.succeeded, chunk.reason) == ("pending", True, 100, "worker lost")
    assert len(bench.stores) == 199
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=250, succeeded=250)
    assert len(bench.stores) == 250 + 99
    assert (bench.most, set(bench.stores)) == (2, samples.uids(files))
    assert site.ends(job_id) == ["lost", "completed"]


@pytest.mark.parametrize("place", [0, 5, 9], ids=["first", "middle", "last"])
def test_an_item_that_kills_its_worker(site: Inline, bench: Bench, deadly: Deadly, place: int) -> None:
    """After a first death the item in flight is known; the second death on it fails it; the rest succeeds."""
    files = site.mr(10)
    deadly.uids = {files[place].sop_instance_uid}
    job_id = site.store(bench.address)
    die(site)
    assert [row.losses for row in site.items(job_id)] == [0] * 10
    die(site)
    row = site.item(job_id, files[place].sop_instance_uid)
    assert (row.state, row.losses) == ("pending", 1)
    # Careful means that nothing more is lost: what came before it is recorded.
    assert site.tally(job_id).succeeded == place
    die(site)
    row = site.item(job_id, files[place].sop_instance_uid)
    assert (row.state, row.reason, row.losses) == ("failed", "worker died twice on it", 2)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=10, succeeded=9, failed=1)
    assert set(bench.stores) == samples.uids(files) - deadly.uids
    # Only the first, not yet careful attempt was repeated.
    assert len(bench.stores) == 9 + place
    assert site.job(job_id).reason == "worker died twice on it"
    deadly.uids = set()
    verbs.retry(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED


def test_two_items_that_kill_their_worker(site: Inline, bench: Bench, deadly: Deadly) -> None:
    """Each is found for itself: both failed, the rest succeeded, and the chunk was not held meanwhile."""
    files = site.mr(8)
    deadly.uids = {files[2].sop_instance_uid, files[3].sop_instance_uid}
    job_id = site.store(bench.address)
    for _ in range(5):
        assert site.job(job_id).state is not JobState.HELD
        die(site)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=8, succeeded=6, failed=2)
    assert {row.reason for row in site.items(job_id)} == {None, "worker died twice on it"}


def test_workers_that_always_die_before_anything_is_sent(site: Inline, bench: Bench) -> None:
    """Five deaths in a row with nothing done, and no item to blame: held, so that nobody dies for it all night."""
    site.mr(2)

    def dead(*_: object) -> Iterator[Answered]:
        raise Killed
        yield

    site.change(operations={Kind.STORE: dead})
    job_id = site.store(bench.address)
    for _ in range(5):
        die(site)
    assert site.job(job_id).state is JobState.HELD
    assert site.chunks(job_id)[0].reason == "worker lost"
    site.change(operations={})
    verbs.release(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED


def test_a_death_after_the_answer(site: Inline, bench: Bench, deadly: Deadly) -> None:
    """A careful attempt that dies when the answer to its last item is in does not blame that item for it."""
    files = site.mr(3)
    deadly.once = {files[2].sop_instance_uid}
    job_id = site.store(bench.address)
    die(site)

    def dies_at_the_end(work: Work) -> Iterator[Answered]:
        yield from deadly(work)
        raise Killed

    site.change(operations={Kind.STORE: dies_at_the_end})
    with pytest.raises(Killed):
        site.run_due()
    site.change(operations={Kind.STORE: deadly})
    site.lose()
    assert [(row.state, row.losses) for row in site.items(job_id)] == [("succeeded", 0)] * 3
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.stores.count(files[2].sop_instance_uid) == 1


def test_a_fault_of_ours_while_sending(site: Inline, bench: Bench, deadly: Deadly) -> None:
    """An error that nobody foresaw charges the item in flight; after three of them it failed, the rest succeeded."""
    files = site.mr(4)
    deadly.uids, deadly.error = {files[1].sop_instance_uid}, RuntimeError
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=4, succeeded=3, failed=1)
    row = site.item(job_id, files[1].sop_instance_uid)
    assert (row.reason, row.charges) == ("internal error", 3)
    assert len(bench.stores) == 3


def no_advice(patch: pytest.MonkeyPatch) -> None:
    """Once, looking into a file comes to an error that nobody foresaw, in a call of the system that never has one."""
    real = os.posix_fadvise

    def fault(*_: int) -> None:
        patch.setattr(os, "posix_fadvise", real)
        raise RuntimeError("what is this?")

    patch.setattr(os, "posix_fadvise", fault)


def test_a_fault_of_ours_before_sending(site: Inline, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while items are examined again ends the attempt on the record, and is tried again later."""
    files = site.mr(2)
    (site.files / "x.dcm").symlink_to("nowhere")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    (site.files / "x.dcm").unlink()
    third = samples.instance(site.files / "x.dcm", number=3, size=8)
    no_advice(monkeypatch)
    verbs.retry(site.database, job_id)
    site.sweep()
    site.run_due()
    assert site.ends(job_id)[-1] == "error"
    assert [chunk.reason for chunk in site.chunks(job_id)][-1] == "internal error"
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.stores == [sample.sop_instance_uid for sample in [*files, third]]


def test_a_fault_of_ours_while_planning(site: Inline, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the plan is on the record, charges nobody, and is tried again after a pause."""
    site.mr(2)
    no_advice(monkeypatch)
    job_id = site.store(bench.address)
    site.run_due()
    (chunk,) = site.chunks(job_id, plan=True)
    assert (chunk.state, chunk.reason) == ("pending", "internal error")
    assert (chunk.not_before - site.clock.time).total_seconds() == 10
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.ends(job_id, plan=True) == ["error", "completed", "completed"]

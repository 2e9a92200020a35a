"""A process may die at any write: the job ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.rules.state import JobState, Tally
from support import samples
from support.bench import Bench
from support.inline import Inline, Killed
from support.samples import Sample


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation whose plans write three items at a time."""
    with Inline(tmp_path, monkeypatch) as made:
        made.batches_of(3)
        yield made


def tree(site: Inline) -> list[Sample]:
    """Eleven files over several folders and batches; seven of them are instances to be sent."""
    sent = site.mr(4)
    samples.text_file(site.files / "00002.txt")
    (site.files / "00003.lost").symlink_to("nowhere")
    sent += [samples.instance(site.files / "sub" / f"{n}.dcm", number=10 + n, size=8) for n in range(3)]
    samples.same_again(sent[0], site.files / "sub" / "9.dcm")
    samples.altered(sent[4], site.files / "zz.dcm")
    return sent


EXPECTED = Tally(total=11, succeeded=7, skipped=2, failed=2)


def writes_of(site: Inline, bench: Bench) -> int:
    """How many writing transactions the whole job takes."""
    job_id = site.store(bench.address)
    site.database.writes = 0
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == EXPECTED
    return site.database.writes


@pytest.mark.parametrize("after_commit", [False, True], ids=["before", "after"])
def test_death_at_every_write(site: Inline, after_commit: bool) -> None:
    """Dead before or after each commit of claim, plan and sending: nothing stands twice, nothing is missing.

    What is sent again was sent by the dead process and not recorded yet: here at most a chunk of three.
    """
    sent = tree(site)
    with Bench() as bench:
        writes = writes_of(site, bench)
        assert writes > 12
        for point in range(1, writes + 1):
            already = len(bench.stores)
            job_id = site.store(bench.address)
            crash(site, point, after_commit)
            state = site.drain(job_id)
            assert state is JobState.INCOMPLETE, (point, site.endings(job_id))
            assert site.tally(job_id) == EXPECTED, point
            paths = [row.path for row in site.items(job_id)]
            assert len(paths) == len(set(paths)) == 11
            arrived = bench.stores[already:]
            assert set(arrived) == samples.uids(sent)
            assert len(arrived) <= len(sent) + 3, point
            assert site.ends(job_id, plan=True).count("lost") <= 1


def crash(site: Inline, point: int, after_commit: bool) -> None:
    """Run until the process dies at this write, as if it had been the worker's last."""
    site.database.writes = 0
    site.database.crash_at = point
    site.database.after_commit = after_commit
    with pytest.raises(Killed):
        site.run_due()
        while True:  # a write of the sweep, which rings for what was postponed
            site.clock.move(1)
            site.sweep()
            site.run_due()
    site.database.crash_at = None
    site.lose()


def test_a_lease_lost_at_every_write(site: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds its lease gone writes nothing more; whoever goes on ends the job the same way."""
    sent = tree(site)
    with Bench() as bench:
        writes = writes_of(site, bench)
        for point in range(2, writes + 1):
            already = len(bench.stores)
            job_id = site.store(bench.address)
            site.database.writes = 0

            def lose(number: int, point: int = point) -> None:
                if number == point:
                    site.database.on_write = lambda _: None
                    site.lose()

            site.database.on_write = lose
            assert site.drain(job_id) is JobState.INCOMPLETE
            site.database.on_write = lambda _: None
            assert site.tally(job_id) == EXPECTED, point
            assert set(bench.stores[already:]) == samples.uids(sent)
            assert len(bench.stores) - already <= len(sent) + 3


def test_death_of_the_next_one_as_well(site: Inline) -> None:
    """Each claim of a plan dies at its second batch: it still gets ahead by one batch each time."""
    sent = tree(site)
    with Bench() as bench:
        job_id = site.store(bench.address)
        for claims in range(1, 4):
            # Claim, first batch, and dead before the second; after a death each file is written down before its turn.
            site.die(job_id, at=3 if claims == 1 else 7)
            assert site.tally(job_id).total == 3 * claims
            assert site.ends(job_id, plan=True) == ["lost"] * claims
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == EXPECTED
    assert sorted(bench.stores) == sorted(samples.uids(sent))


def test_a_file_that_comes_between_two_deaths(site: Inline) -> None:
    """What was added behind the cursor is found by the restart, what was added before it is not; neither harms."""
    site.mr(6)
    with Bench() as bench:
        job_id = site.store(bench.address)
        site.die(job_id, at=3)
        samples.instance(site.files / "00000.dcm", number=50, size=8)
        behind = samples.instance(site.files / "00009.dcm", number=51, size=8)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert len(bench.stores) == 7
    assert behind.sop_instance_uid in bench.stores


@pytest.mark.parametrize("times", [5])
def test_a_plan_whose_workers_always_die_is_held(site: Inline, times: int) -> None:
    """Workers that die on a plan without getting ahead: held after five, with where to look; release tries again."""
    site.mr(2)
    with Bench() as bench:
        job_id = site.store(bench.address)
        for _ in range(times):
            assert site.job(job_id).state in (JobState.PENDING, JobState.RUNNING)
            site.die(job_id, at=2)
        assert site.job(job_id).state is JobState.HELD
        (chunk,) = site.chunks(job_id, plan=True)
        assert (chunk.reason, "log" in chunk.advice) == ("worker lost", True)
        assert bench.associations == 0

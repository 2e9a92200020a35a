"""Whatever kills workers is found and held back, and nothing else is: files of a chunk, and of a plan."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules import retry
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.state import FINAL_JOB_STATES, JobState, Tally
from dicomferry.workers import operations
from dicomferry.workers.attempts.work import Answered, Work
from support import samples
from support.bench import Bench
from support.inline import Inline, Killed

NUMBER = 12
KILLERS = range(6)
SEEDS = range(2)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation whose chunks and batches are small."""
    with Inline(tmp_path, monkeypatch) as made:
        made.tune(records={"seconds": 1e9}, planning={"batch_items": 5})
        yield made


def deaths_of(site: Inline, job_id: int, most: int) -> int:
    """Run it to its end, one worker after the other; how many died."""
    deaths = 0
    for _ in range(most * 4 + 20):
        try:
            site.run_due()
        except Killed:
            deaths += 1
            assert deaths <= most, site.endings(job_id)
            site.lose()
            continue
        if site.job(job_id).state in (*FINAL_JOB_STATES, JobState.HELD):
            return deaths
        site.clock.move(retry.LONGEST_AFTER_DEATH)
        site.sweep()
    raise AssertionError(f"job {job_id} comes to no end")


@pytest.mark.parametrize(("killers", "seed"), list(itertools.product(KILLERS, SEEDS)))
def test_files_that_kill_the_sender(site: Inline, killers: int, seed: int) -> None:
    """Of some instances in a chunk any number kills the worker that sends it: each is failed by name after two deaths,
    the others arrive, and no worker died in vain but the first.
    """
    files = site.mr(NUMBER)
    deadly = {file.sop_instance_uid for file in random.Random(seed).sample(files, killers)}

    def store(work: Work) -> Iterator[Answered]:
        def dying() -> Iterator[Item]:
            for row in work.feed:
                if row.sop_instance_uid in deadly:
                    raise Killed
                yield row

        return operations.store(replace(work, feed=dying()))

    site.change(operations={Kind.STORE: store})
    with Bench() as bench:
        job_id = site.store(bench.address)
        assert deaths_of(site, job_id, 2 * killers + 3) >= 2 * killers
        assert set(bench.stores) == samples.uids(files) - deadly
    assert site.tally(job_id) == Tally(total=NUMBER, succeeded=NUMBER - killers, failed=killers)
    failed = {row.sop_instance_uid: row.reason for row in site.items(job_id) if row.state == "failed"}
    assert failed == dict.fromkeys(deadly, "worker died twice on it")


@pytest.mark.parametrize(("killers", "seed"), list(itertools.product(KILLERS, SEEDS)))
def test_files_that_kill_the_plan(site: Inline, monkeypatch: pytest.MonkeyPatch, killers: int, seed: int) -> None:
    """Any number of files kills whoever opens them: each is failed by its path, the others are sent."""
    files = site.mr(NUMBER)
    paths = sorted(path for path in site.files.rglob("*") if path.is_file())
    deadly = {bytes(path) for path in random.Random(seed).sample(paths, killers)}
    opens = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if path in deadly:
            raise Killed
        return opens(path, *arguments, **named)

    # Where the system opens a file: nothing that is at the end of it there comes back.
    monkeypatch.setattr(os, "open", opened)
    with Bench() as bench:
        job_id = site.store(bench.address)
        # A plan is careful only as long as it takes: after some files without a death the next one comes unforeseen.
        assert deaths_of(site, job_id, 3 * killers + 1) >= 2 * killers
        assert len(set(bench.stores)) == NUMBER - killers
        assert set(bench.stores) <= samples.uids(files)
    assert site.tally(job_id) == Tally(total=NUMBER, succeeded=NUMBER - killers, failed=killers)
    failed = {row.path: row.reason for row in site.items(job_id) if row.state == "failed"}
    assert failed == dict.fromkeys(deadly, "worker died twice on it")


@pytest.mark.parametrize("other", ["altered", "same again"])
def test_a_twin_of_a_file_that_kills(site: Inline, other: str) -> None:
    """A file that is given up for its workers' deaths gives its SOP Instance UID up: another content of it is sent; the
    same bytes, which would kill again, are not.
    """
    first = samples.instance(site.files / "a", number=1, size=8)
    (samples.altered if other == "altered" else samples.same_again)(first, site.files / "b")
    site.mr(2, first=5)

    def store(work: Work) -> Iterator[Answered]:
        def dying() -> Iterator[Item]:
            for row in work.feed:
                if row.path == bytes(first.path):
                    raise Killed
                yield row

        return operations.store(replace(work, feed=dying()))

    site.change(operations={Kind.STORE: store})
    with Bench() as bench:
        job_id = site.store(bench.address)
        deaths_of(site, job_id, 3)
    assert site.endings(job_id) == {
        "a": ("failed", "worker died twice on it"),
        "b": ("succeeded", None) if other == "altered" else ("skipped", "duplicate"),
        "00005.dcm": ("succeeded", None),
        "00006.dcm": ("succeeded", None),
    }
    assert site.job(job_id).state is JobState.INCOMPLETE

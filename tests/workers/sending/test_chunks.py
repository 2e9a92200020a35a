"""How a plan shares a job out: enough chunks for all associations of the remote, and each study in one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.record.remotes import book
from support import samples
from support.inline import Inline

NOWHERE = "NOBODY@127.0.0.1:9"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation."""
    with Inline(tmp_path, monkeypatch) as made:
        yield made


def studies(site: Inline, count: int, images: int) -> None:
    """So many studies, one after the other in the walk, of so many images each."""
    for study in range(count):
        for number in range(1, images + 1):
            samples.instance(site.files / f"{study:03d}" / f"{number:03d}.dcm", study=study, number=number, size=8)


def found(site: Inline, job_id: int) -> list[tuple[int, int]]:
    """For each chunk that waits, how many items and how many studies it has."""
    items = site.items(job_id)
    chunks = [[item for item in items if item.chunk_id == chunk.id] for chunk in site.chunks(job_id)]
    return [(len(those), len({item.study_instance_uid for item in those})) for those in chunks]


def test_four_studies_keep_four_associations_busy(site: Inline) -> None:
    """A job of four studies is four chunks where the remote takes four associations."""
    studies(site, 4, 9)
    job_id = site.store(NOWHERE)
    assert site.run_next()
    assert found(site, job_id) == [(9, 1)] * 4


def test_a_handful_of_images_is_one_chunk(site: Inline) -> None:
    """Eight images are sent sooner than three more associations are opened, of however many studies they are."""
    studies(site, 8, 1)
    job_id = site.store(NOWHERE)
    assert site.run_next()
    assert found(site, job_id) == [(8, 8)]


def test_a_remote_that_takes_one_association_has_one_chunk(site: Inline) -> None:
    """Nothing is won by more chunks than the remote takes associations."""
    book.add(site.database, "one", NOWHERE, max_associations=1)
    studies(site, 4, 9)
    job_id = site.store("one")
    assert site.run_next()
    assert found(site, job_id) == [(36, 4)]


def test_a_study_is_whole_across_two_writes_of_the_plan(site: Inline) -> None:
    """What a write of the plan would cut off from its study is written with the rest of it."""
    studies(site, 6, 9)
    site.batches_of(15)
    job_id = site.store(NOWHERE)
    assert site.run_next()
    assert site.job(job_id).planned
    assert found(site, job_id) == [(9, 1)] * 6


def test_a_plan_that_goes_on_reads_again_what_it_kept_back(site: Inline) -> None:
    """A plan that gives its slot back in the middle of a study goes on with that study: each file is an item once."""
    studies(site, 4, 9)
    site.batches_of(15)
    site.tune(planning={"slot_seconds": 0.0})
    job_id = site.store(NOWHERE)
    assert site.run_next()
    assert found(site, job_id) == [(9, 1)]
    site.tune(planning={"slot_seconds": 60.0})
    while not site.job(job_id).planned:
        assert site.run_next()
    assert sum(items for items, _ in found(site, job_id)) == 36
    paths = [item.path for item in site.items(job_id)]
    assert len(set(paths)) == 36
    chunks_of: dict[str, set[int]] = {}
    for item in site.items(job_id):
        chunks_of.setdefault(item.study_instance_uid, set()).add(item.chunk_id)
    assert all(len(chunks) == 1 for chunks in chunks_of.values())


def test_the_last_write_of_a_long_plan_is_shared_out(site: Inline) -> None:
    """Large chunks in the middle of a long job, small ones at its end, so that no association has the end to itself."""
    studies(site, 40, 4)
    site.cut_at(16)
    site.batches_of(48)
    site.tune(planning={"stops_at": 1000, "goes_on_below": 1000})
    job_id = site.store(NOWHERE)
    assert site.run_next()
    sizes = [items for items, _ in found(site, job_id)]
    assert sum(sizes) == 160
    assert sizes[0] == 8 and 16 in sizes and sizes[-1] <= 8

"""Several files of one SOP Instance UID: a broken copy never keeps a whole one back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules.state import JobState
from support import samples
from support.bench import Bench, Store
from support.inline import Inline
from support.samples import Sample


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation."""
    with Inline(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A peer that takes everything."""
    with Bench() as made:
        yield made


def cut(sample: Sample, path: Path, by: int) -> None:
    """A copy of the file that ends too early."""
    path.write_bytes(sample.path.read_bytes()[:-by])


def odd(sample: Sample, path: Path) -> None:
    """A copy with an odd value at its end."""
    path.write_bytes(sample.path.read_bytes() + b"\xe1\x7f\x11\x10OB\0\0\x03\0\0\0abc")


def trailing(sample: Sample, path: Path) -> None:
    """A copy with bytes behind its end."""
    path.write_bytes(sample.path.read_bytes() + b"\n")


BROKEN: dict[str, Callable[[Sample, Path], None]] = {
    "truncated": lambda sample, path: cut(sample, path, 20),
    "odd length": odd,
    "trailing bytes": trailing,
}


@pytest.mark.parametrize("reason", list(BROKEN))
@pytest.mark.parametrize("batch", [1, 1000])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["broken first", "broken last"])
def test_a_broken_copy(site: Inline, bench: Bench, reason: str, batch: int, names: tuple[str, str]) -> None:
    """Before a whole copy or behind it, in one batch of the plan or in another: the whole one is sent, and the broken
    one is called what it is, not a conflict.
    """
    site.batches_of(batch)
    broken, whole = names
    sample = samples.instance(site.files / whole, number=1, size=8)
    BROKEN[reason](sample, site.files / broken)
    site.mr(2, first=5)
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        whole: ("succeeded", None),
        broken: ("failed", reason),
        "00005.dcm": ("succeeded", None),
        "00006.dcm": ("succeeded", None),
    }
    assert bench.stores.count(sample.sop_instance_uid) == 1


def test_many_broken_copies(site: Inline, bench: Bench) -> None:
    """Each is truncated wherever it stands; of the whole ones one is sent, the same one again is a duplicate, and one
    that differs from what was sent is a conflict.
    """
    sample = samples.instance(site.files / "d", number=1, size=8)
    for name, by in (("a", 10), ("b", 30), ("c", 10), ("g", 50)):
        cut(sample, site.files / name, by)
    samples.same_again(sample, site.files / "e")
    samples.altered(sample, site.files / "f")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        **dict.fromkeys("abcg", ("failed", "truncated")),
        "d": ("succeeded", None),
        "e": ("skipped", "duplicate"),
        "f": ("failed", "conflict"),
    }
    assert bench.stores == [sample.sop_instance_uid]
    details = {os.path.basename(row.path): row.detail for row in site.items(job_id)}
    assert details[b"e"] == f"duplicate of {sample.path}"
    assert details[b"f"] == f"differs from {sample.path}"


@pytest.mark.parametrize("change", ["vanished", "truncated", "changed", "not DICOM"])
def test_a_first_one_that_fails_later(site: Inline, bench: Bench, change: str) -> None:
    """A copy that was skipped as a duplicate is sent where the file that it is the same as is gone, or holds something
    else by the time it is sent.
    """
    sample = samples.instance(site.files / "a", number=1, size=8)
    samples.same_again(sample, site.files / "b")
    samples.same_again(sample, site.files / "c")
    job_id = site.store(bench.address)
    assert site.run_next()
    assert site.job(job_id).planned
    changes: dict[str, Callable[[], object]] = {
        "vanished": sample.path.unlink,
        "truncated": lambda: os.truncate(sample.path, sample.path.stat().st_size - 10),
        "changed": lambda: samples.instance(sample.path, number=2, size=8),
        "not DICOM": lambda: sample.path.write_text("not any more"),
    }
    changes[change]()
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        "a": ("failed", change),
        "b": ("succeeded", None),
        "c": ("skipped", "duplicate"),
    }
    assert bench.stores == [sample.sop_instance_uid]
    assert {row.path: row.is_first for row in site.items(job_id)} == {
        os.fsencode(site.files / name): name == "b" for name in "abc"
    }


def test_both_gone(site: Inline, bench: Bench) -> None:
    """One after the other gives the UID up; a retry finds whichever is back."""
    sample = samples.instance(site.files / "a", number=1, size=8)
    twin = samples.same_again(sample, site.files / "b")
    content = twin.path.read_bytes()
    job_id = site.store(bench.address)
    assert site.run_next()
    sample.path.unlink()
    twin.path.unlink()
    assert site.drain(job_id) is JobState.FAILED
    assert site.endings(job_id) == {"a": ("failed", "vanished"), "b": ("failed", "vanished")}
    twin.path.write_bytes(content)
    verbs.retry(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {"a": ("failed", "vanished"), "b": ("succeeded", None)}


def test_a_first_one_that_is_gone_when_its_twin_is_compared(site: Inline, bench: Bench) -> None:
    """What cannot be compared is no fault of the second file: it is sent in the place of the first."""
    site.batches_of(1)
    sample = samples.instance(site.files / "a", number=1, size=8)
    samples.same_again(sample, site.files / "b")
    removed: list[bool] = []

    def remove(_: int) -> None:
        if not removed and site.tally(1).total:
            removed.append(True)
            sample.path.unlink()

    job_id = site.store(bench.address)
    site.database.on_write = remove
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert removed
    assert site.endings(job_id) == {"a": ("failed", "vanished"), "b": ("succeeded", None)}


def test_twins_that_are_planned_while_the_first_one_fails(site: Inline, bench: Bench) -> None:
    """A plan goes on while others send: a twin that was compared with a file just before that gave the UID up does not
    stay behind, and of two that take the UID at the same moment one is sent.
    """
    sample = samples.instance(site.files / "b", number=1, size=8)
    cut(sample, site.files / "a", 20)
    samples.same_again(sample, site.files / "c")
    samples.same_again(sample, site.files / "d")
    site.batches_of(2)
    job_id = site.store(bench.address)

    def beside(_: int) -> None:
        if site.tally(job_id).total == 2:
            # Between the comparison and its writing the first batch is sent: another worker's work.
            site.database.on_write = lambda _: None
            assert site.run_next()
            between.append(site.tally(job_id).total)

    between: list[int] = []
    site.database.on_write = beside
    site.drain(job_id)
    assert between == [2]
    assert site.endings(job_id) == {
        "a": ("failed", "truncated"),
        "b": ("succeeded", None),
        "c": ("skipped", "duplicate"),
        "d": ("skipped", "duplicate"),
    }
    assert bench.stores == [sample.sop_instance_uid]


def test_what_a_peer_refuses_keeps_its_place(site: Inline) -> None:
    """A status of the peer is no fault of the copy: the same bytes again would be refused again."""
    sample = samples.instance(site.files / "a", number=1, size=8)
    samples.same_again(sample, site.files / "b")

    def refuse(_: Store) -> int:
        return 0xA900

    with Bench(answer=refuse) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.FAILED
    assert site.endings(job_id)["b"] == ("skipped", "duplicate")
    assert bench.stores == [sample.sop_instance_uid]


def test_a_syntax_that_the_peer_refuses(site: Inline) -> None:
    """A compressed copy that cannot be sent gives way to an uncompressed one; the same compressed one again does not
    come back.
    """
    first = samples.rle(site.files / "a")
    samples.same_again(first, site.files / "b")
    samples.write(site.files / "c", samples.dataset(size=8, SOPInstanceUID=first.sop_instance_uid))

    with Bench(choose=lambda _, offered: (0 if first.transfer_syntax_uid not in offered else 4, offered[0])) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        "a": ("failed", "context refused"),
        "b": ("skipped", "duplicate"),
        "c": ("succeeded", None),
    }

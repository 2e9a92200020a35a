"""Every ending that a path of a store job can have, from the plan to the peer."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules.spec import StoreSpec
from dicomferry.models.rules.state import FINAL_JOB_STATES, JobState, Tally
from dicomferry.models.rules.text import path_text
from dicomferry.workers.attempts.tuning import Planning
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


def planned(site: Inline, bench: Bench, *paths: Path) -> int:
    """A job whose plan is done and whose items wait."""
    job_id = site.store(bench.address, *paths)
    assert site.run_next()
    assert site.job(job_id).planned
    return job_id


# --- what the plan decides ----------------------------------------------------------------------------------


def test_every_kind_of_file(site: Inline, bench: Bench) -> None:
    """Odd but whole files are sent as they are; the rest is skipped or failed by name; nothing disturbs the others."""
    folder = site.files
    sent = [
        *site.mr(2),
        samples.big_endian(folder / "big.dcm"),
        samples.implicit(folder / "implicit.dcm"),
        samples.deflated(folder / "deflated.dcm"),
        samples.deflated(folder / "odd-deflated.dcm", "odd deflated", odd=True),
        samples.without_meta(folder / "bare"),
        samples.private_sop_class(folder / "private.dcm"),
        samples.rle(folder / "rle.dcm"),
        samples.jpeg_baseline(folder / "jpeg.dcm"),
        samples.jpeg2000(folder / "j2k.dcm"),
        samples.meta_mismatch(folder / "meta.dcm"),
    ]
    samples.text_file(folder / "notes.txt")
    (folder / "empty").touch()
    samples.dicomdir(folder / "DICOMDIR")
    samples.same_again(sent[0], folder / "zz-same.dcm")
    samples.altered(sent[1], folder / "zz-other.dcm")
    samples.syntax_mismatch(folder / "syntax.dcm")
    samples.truncated(folder / "short.dcm")
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "fifo")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        **{sample.path.name: ("succeeded", None) for sample in sent[:-1]},
        "meta.dcm": ("succeeded", "meta differs"),
        "notes.txt": ("skipped", "not DICOM"),
        "empty": ("skipped", "not DICOM"),
        "DICOMDIR": ("skipped", "DICOMDIR"),
        "zz-same.dcm": ("skipped", "duplicate"),
        "zz-other.dcm": ("failed", "conflict"),
        "syntax.dcm": ("failed", "syntax mismatch"),
        "short.dcm": ("failed", "truncated"),
        "gone": ("failed", "dangling link"),
        "loop": ("skipped", "link loop"),
        "fifo": ("skipped", "not a file"),
    }
    by_name = {os.path.basename(row.path): row for row in site.items(job_id)}
    assert by_name[b"zz-same.dcm"].detail == f"duplicate of {sent[0].path}"
    assert by_name[b"zz-other.dcm"].detail == f"differs from {sent[1].path}"
    assert sorted(bench.stores) == sorted(samples.uids(sent))
    assert bench.associations == len(site.chunks(job_id))
    assert site.tally(job_id) == Tally(total=len(sent) + 10, succeeded=len(sent), skipped=6, failed=4)


def test_nothing_to_send(site: Inline, bench: Bench) -> None:
    """A job without anything to send failed with `nothing to do`, and no peer was asked."""
    samples.text_file(site.files / "notes.txt")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.FAILED
    assert site.job(job_id).reason == "nothing to do"
    assert site.tally(job_id) == Tally(total=1, skipped=1)
    empty = site.files / "empty"
    empty.mkdir()
    job_id = site.store(bench.address, empty)
    assert site.drain(job_id) is JobState.FAILED
    assert (site.job(job_id).reason, site.tally(job_id)) == ("nothing to do", Tally())
    assert bench.associations == 0


def test_only_skipped_ones_beside_good_ones(site: Inline, bench: Bench) -> None:
    """What was skipped never counts against a job."""
    site.mr(1)
    samples.text_file(site.files / "notes.txt")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.SUCCEEDED


def test_twins_in_two_batches(site: Inline, bench: Bench) -> None:
    """A second file of one instance is known for what it is even if the first was written in an earlier batch."""
    site.batches_of(2)
    files = site.mr(4)
    for number, original in enumerate(files):
        samples.same_again(original, site.files / f"copy{number}.dcm")
    samples.altered(files[0], site.files / "other.dcm")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=9, succeeded=4, skipped=4, failed=1)
    assert sorted(bench.stores) == sorted(samples.uids(files))


def refuse(patch: pytest.MonkeyPatch, *names: str) -> None:
    """The system opens any file but those of these names; no mode says so to root."""
    real = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if isinstance(path, bytes) and os.fsdecode(os.path.basename(path)) in names:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    patch.setattr(os, "open", opened)


def test_unreadable(site: Inline, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be read failed as `unreadable`, whether the plan or the sender finds out; the rest goes on."""
    site.mr(3)
    refuse(monkeypatch, "00001.dcm")
    job_id = planned(site, bench)
    refuse(monkeypatch, "00002.dcm")
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        "00001.dcm": ("failed", "unreadable"),
        "00002.dcm": ("failed", "unreadable"),
        "00003.dcm": ("succeeded", None),
    }
    assert {row.detail for row in site.items(job_id)} == {"Permission denied", None}
    monkeypatch.undo()
    assert verbs.retry(site.database, job_id) == 2
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert (len(bench.stores), bench.most) == (3, 1)


# --- what changes between plan and peer ---------------------------------------------------------------------


def test_changed_between_plan_and_sending(site: Inline, bench: Bench) -> None:
    """Gone: vanished. Another instance in its place: changed. The same one anew, or touched: sent as it is now."""
    files = site.mr(5)
    job_id = planned(site, bench)
    files[0].path.unlink()
    samples.instance(files[1].path, number=99, size=8)
    samples.instance(files[2].path, number=3, size=16)
    os.utime(files[3].path, ns=(1, 1))
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.endings(job_id) == {
        "00001.dcm": ("failed", "vanished"),
        "00002.dcm": ("failed", "changed"),
        "00003.dcm": ("succeeded", None),
        "00004.dcm": ("succeeded", None),
        "00005.dcm": ("succeeded", None),
    }
    assert bench.stores == [file.sop_instance_uid for file in files[2:]]


def test_became_something_else_between_plan_and_sending(site: Inline, bench: Bench) -> None:
    """A file that is text, a folder, a fifo or cut short by the time it is sent fails by name and hurts nobody."""
    files = site.mr(5)
    job_id = planned(site, bench)
    files[0].path.write_text("not any more")
    files[1].path.unlink()
    files[1].path.mkdir()
    files[2].path.unlink()
    os.mkfifo(files[2].path)
    os.truncate(files[3].path, files[3].path.stat().st_size - 20)
    assert site.drain(job_id) is JobState.INCOMPLETE
    endings = site.endings(job_id)
    assert endings.pop("00001.dcm")[0] == "failed"
    assert endings == {
        "00002.dcm": ("failed", "unreadable"),
        "00003.dcm": ("failed", "unreadable"),
        "00004.dcm": ("failed", "truncated"),
        "00005.dcm": ("succeeded", None),
    }
    assert (len(bench.stores), bench.associations) == (1, 1)


def large(site: Inline) -> Sample:
    """An image that no kernel takes in at once (32 MB), first in walk order."""
    return samples.instance(site.files / "00000.dcm", number=1, size=4000)


def grow(sample: Sample) -> None:
    """Append, as a writer does that is not done yet."""
    with sample.path.open("ab") as file:
        file.write(b"\0" * 1000)


def shrink(sample: Sample) -> None:
    """Cut off the second half."""
    os.truncate(sample.path, sample.path.stat().st_size // 2)


def remove(sample: Sample) -> None:
    """Remove the name."""
    sample.path.unlink()


@pytest.mark.parametrize(
    ("change", "ending", "associations"),
    [
        (grow, ("succeeded", None), 2),
        (shrink, ("failed", "truncated"), 2),
        (remove, ("succeeded", None), 1),
    ],
)
def test_while_it_is_being_sent(
    site: Inline, change: Callable[[Sample], None], ending: tuple[str, str | None], associations: int
) -> None:
    """A file that goes is sent as it was; of one that changes nothing is sent to the end: the association is aborted,
    and the file looked at anew.
    """
    target = large(site)
    rest = site.mr(2, first=2)

    def early(store: Store) -> None:
        if store.uid == target.sop_instance_uid and store.nth == 1:
            change(target)

    with Bench(early=early) as bench:
        job_id = site.store(bench.address)
        assert site.drain(job_id) is (JobState.SUCCEEDED if ending[0] == "succeeded" else JobState.INCOMPLETE)
    assert site.endings(job_id) == {
        "00000.dcm": ending,
        **{sample.path.name: ("succeeded", None) for sample in rest},
    }
    assert bench.associations == associations
    assert site.item(job_id, target.sop_instance_uid).charges == 0


# --- odd names and trees ------------------------------------------------------------------------------------


def test_odd_names(site: Inline, bench: Bench) -> None:
    """Names that are no UTF-8, hold a newline or escape codes, or have 255 bytes are kept byte for byte and sent."""
    names = [
        b"caf\xe9.dcm",
        b"two\nlines.dcm",
        b"\x1b[31mred.dcm",
        b"\xff" * 255,
        b"x" * 255,
        "ü€".encode(),
        b" ",
        b"-rf",
    ]
    for number, name in enumerate(names):
        samples.instance(Path(os.fsdecode(os.fsencode(site.files) + b"/" + name)), number=number, size=8)
    (site.files / os.fsdecode(b"bad\xe9.txt")).write_text("no image")
    os.symlink(b"no\xe9where", os.fsencode(site.files) + b"/lost\xe9")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    rows = {os.path.basename(row.path): row for row in site.items(job_id)}
    assert set(rows) == {*names, b"bad\xe9.txt", b"lost\xe9"}
    assert {rows[name].state for name in names} == {"succeeded"}
    assert (rows[b"bad\xe9.txt"].state, rows[b"lost\xe9"].reason) == ("skipped", "dangling link")
    assert all(row.detail is None or row.detail.isprintable() for row in rows.values())
    shown = path_text(rows[b"two\nlines.dcm"].path)
    assert shown is not None and shown.endswith("two\\nlines.dcm")
    assert len(bench.stores) == len(names)


def test_an_odd_root(site: Inline, bench: Bench) -> None:
    """A folder whose own name is no UTF-8 survives the way through JSON and back."""
    folder = Path(os.fsdecode(os.fsencode(site.files) + b"/caf\xe9\n"))
    sample = samples.instance(folder / "a.dcm", number=1, size=8)
    job_id = site.store(bench.address, folder)
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert [row.path for row in site.items(job_id)] == [os.fsencode(sample.path)]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed without pytest's help, which gives up on deep trees."""
    folder = tmp_path / "deep"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def burrow(folder: Path, name: str, levels: int, bottom: bytes) -> None:
    """Folders in each other, made and entered one by one; a file at the bottom."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    fd = os.open("im.dcm", os.O_CREAT | os.O_WRONLY, dir_fd=place)
    os.write(fd, bottom)
    os.close(fd)
    os.close(place)


def test_a_deep_tree(site: Inline, bench: Bench, deep: Path) -> None:
    """1,500 levels are walked and sent; where a path becomes too long for the system, that folder is reported."""
    bottom = samples.instance(site.files / "bottom.dcm", number=1, size=8)
    burrow(deep, "d", 1500, bottom.path.read_bytes())
    burrow(deep, "w" * 200, 30, bottom.path.read_bytes())
    good = samples.instance(deep / "z.dcm", number=2, size=8)
    job_id = site.store(bench.address, deep)
    assert site.drain(job_id) is JobState.INCOMPLETE
    rows = site.items(job_id)
    assert [row.state for row in rows].count("succeeded") == 2
    (failed,) = (row for row in rows if row.state == "failed")
    assert (failed.reason, failed.detail) == ("unreadable folder", "File name too long")
    assert set(bench.stores) == samples.uids([bottom, good])


def crowd(folder: Path, count: int) -> None:
    """So many small images in one folder."""
    study, series = samples.uid("study"), samples.uid("series")
    blank = samples.uid("blank")
    before, *_ = pieces = samples.instance_bytes(size=1, sop=blank, series=series, study=study).split(blank.encode())
    assert len(pieces) == 3 and before
    place = os.open(folder, os.O_RDONLY)
    for number in range(count):
        fd = os.open(f"{number}.dcm", os.O_CREAT | os.O_WRONLY, dir_fd=place)
        os.write(fd, f"2.25.{10**38 + number}".encode().join(pieces))
        os.close(fd)
    os.close(place)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Path]:
    """A folder for very many files."""
    folder = tmp_path / "crowded"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_a_crowded_folder(site: Inline, bench: Bench, crowded: Path, count: int) -> None:
    """One folder with very many files is planned batch by batch; memory stays flat once its names are read."""
    crowd(crowded, count)
    site.tune(planning={"stops_at": 1000, "goes_on_below": 1000})
    resident: list[int] = []
    job_id = site.store(bench.address, crowded)
    site.database.on_write = lambda _: resident.append(resident_bytes())
    while not site.job(job_id).planned:
        assert site.run_next()
    assert len(resident) > count // site.environment.tuning.planning.batch_items
    # The second write is the first batch: by then all names are in memory.
    assert max(resident) - resident[1] < 16 << 20
    assert site.tally(job_id).total == count
    verbs.cancel(site.database, job_id)


# --- the plan gives way -------------------------------------------------------------------------------------


def test_the_plan_gives_way_to_its_chunks(site: Inline, bench: Bench) -> None:
    """It stops once 50 chunks of the job wait, leaves its slot to them, and is claimed again below 25."""
    assert (Planning.stops_at, Planning.goes_on_below) == (50, 25)
    site.tune(planning={"stops_at": 8, "goes_on_below": 4})
    site.batches_of(1)
    site.cut_at(1)
    files = site.mr(20)
    job_id = site.store(bench.address)
    assert site.run_next()
    assert not site.job(job_id).planned
    assert len(site.chunks(job_id)) == 8
    waiting_at_plans = []
    while site.job(job_id).state not in FINAL_JOB_STATES:
        waiting = sum(chunk.state == "pending" for chunk in site.chunks(job_id))
        plans = planned_times(site, job_id)
        assert site.run_next()
        assert len(site.chunks(job_id)) <= 8 + len(bench.stores)
        if planned_times(site, job_id) > plans:
            waiting_at_plans.append(waiting)
    assert waiting_at_plans and all(waiting < 4 for waiting in waiting_at_plans)
    assert site.job(job_id).state is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))
    site.check()


def planned_times(site: Inline, job_id: int) -> int:
    """How often the job's plan was claimed."""
    return len(site.attempts(job_id, plan=True)) - len(site.attempts(job_id))


def test_the_plan_gives_its_slot_back_after_a_while(site: Inline, bench: Bench) -> None:
    """After ten seconds a plan stops behind a batch, pending and due, and the next claim goes on behind its cursor."""
    site.tune(planning={"batch_items": 2, "slot_seconds": 0.0})
    site.mr(5)
    job_id = site.store(bench.address)
    assert site.run_next()
    (chunk, *_) = site.chunks(job_id, plan=True)
    assert (chunk.state, chunk.reason, os.path.basename(chunk.cursor)) == ("pending", None, b"00002.dcm")
    assert site.tally(job_id).total == 2
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=5, succeeded=5)
    assert planned_times(site, job_id) == 3


# --- a person intervenes ------------------------------------------------------------------------------------


def during_plan(site: Inline, job_id: int, verb: Callable[..., object]) -> None:
    """Do something to the job from elsewhere when its plan has written its first batch."""

    def once(number: int) -> None:
        if len(site.chunks(job_id)) >= 1:
            site.database.on_write = lambda _: None
            done = threading.Thread(target=verb, args=(site.database, job_id))
            done.start()
            done.join()

    site.database.on_write = once


def test_cancel_during_planning(site: Inline, bench: Bench) -> None:
    """Planning stops at the next batch, what waits is cancelled, nothing is sent; retry plans on and sends it all."""
    site.batches_of(2)
    files = site.mr(7)
    job_id = site.store(bench.address)
    during_plan(site, job_id, verbs.cancel)
    assert site.drain(job_id) is JobState.CANCELLED
    assert site.job(job_id).reason == "cancelled"
    assert site.tally(job_id) == Tally(total=2, cancelled=2)
    assert bench.associations == 0
    assert site.ends(job_id, plan=True) == ["cancelled"]
    verbs.retry(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))


def test_hold_during_planning(site: Inline, bench: Bench) -> None:
    """Planning stops at the next batch and the job is held; release goes on where it stopped."""
    site.batches_of(2)
    files = site.mr(7)
    job_id = site.store(bench.address)
    during_plan(site, job_id, verbs.hold)
    assert site.drain(job_id) is JobState.HELD
    assert {chunk.state for chunk in site.chunks(job_id, plan=True)} == {"held"}
    assert site.tally(job_id) == Tally(total=2)
    assert bench.associations == 0
    verbs.release(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))


# --- retry --------------------------------------------------------------------------------------------------


def test_retry_examines_what_the_plan_found_wanting(site: Inline, bench: Bench) -> None:
    """Repaired files are sent by `retry` without a new walk; what is still wrong fails again, by its reason now."""
    good = site.mr(1)
    wrong = [
        samples.syntax_mismatch(site.files / "syntax.dcm"),
        samples.truncated(site.files / "short.dcm"),
    ]
    (site.files / "gone.dcm").symlink_to("later.bin")
    (site.files / "still").symlink_to("nowhere")
    never = site.files.parent / "never.dcm"
    job_id = site.store(bench.address, site.files, never)
    assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=6, succeeded=1, failed=5)
    fixed = [samples.write(bad.path, samples.dataset(size=8, SOPInstanceUID=bad.sop_instance_uid)) for bad in wrong]
    new = samples.instance(site.files / "later.bin", number=50, size=8)
    text = samples.text_file(never)
    assert verbs.retry(site.database, job_id) == 5
    site.sweep()
    assert site.drain(job_id) is JobState.INCOMPLETE
    endings = site.endings(job_id)
    assert endings["still"] == ("failed", "dangling link")
    assert endings[text.name] == ("skipped", "not DICOM")
    assert "later.bin" not in endings, "retry walks nothing"
    assert site.tally(job_id) == Tally(total=6, succeeded=4, failed=1, skipped=1)
    assert sorted(bench.stores) == sorted(samples.uids([*good, *fixed, new]))
    (site.files / "still").unlink()
    samples.instance(site.files / "still", number=51, size=8)
    verbs.retry(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert len(bench.stores) == 5


def test_retry_of_twins(site: Inline, bench: Bench) -> None:
    """Two files that turn out to hold one instance when they are examined again: one is sent, one is a duplicate."""
    for name in ("a.dcm", "b.dcm"):
        (site.files / name).symlink_to("nowhere")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.FAILED
    samples.instance(site.files / "nowhere", number=1, size=8)
    verbs.retry(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.endings(job_id) == {"a.dcm": ("succeeded", None), "b.dcm": ("skipped", "duplicate")}
    assert len(bench.stores) == 1


def test_retry_of_a_conflict_that_was_settled(site: Inline, bench: Bench) -> None:
    """A second file that has become the same as the first is a duplicate by then; one with a new UID is sent."""
    files = site.mr(2)
    samples.altered(files[0], site.files / "x.dcm")
    samples.altered(files[1], site.files / "y.dcm")
    job_id = site.store(bench.address)
    assert site.drain(job_id) is JobState.INCOMPLETE
    samples.same_again(files[0], site.files / "x.dcm")
    samples.instance(site.files / "y.dcm", number=77, size=8)
    verbs.retry(site.database, job_id)
    site.sweep()
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=4, succeeded=3, skipped=1)


def test_a_single_file_and_a_flat_folder(site: Inline, bench: Bench) -> None:
    """Without `recursive` a folder gives its own files only; a file is a root of its own and counted once."""
    (one,) = site.mr(1)
    samples.instance(site.files / "sub" / "deep.dcm", number=2, size=8)
    what = StoreSpec(paths=(os.fspath(site.files), os.fspath(one.path)), recursive=False)
    job_id = site.submit(bench.address, what)
    assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.stores == [one.sop_instance_uid]

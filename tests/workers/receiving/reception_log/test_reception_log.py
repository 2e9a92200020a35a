"""Receiving by the log: what is answered for is in it, or flushed by itself; whatever fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomferry.workers.receiving.reception_log.reception_log import NoLog
from support.logged_site import LoggedSite
from support.receiving import IMPLICIT, Site, encoded

UID = "1.2.1"
DATA = encoded(SOPInstanceUID=UID)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoggedSite]:
    made = LoggedSite(tmp_path)
    yield made
    made.die()


class Flushes:
    """Which files and folders are flushed, by their paths, and what the next flush of some of them comes to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.fails: Callable[[str], bool] = lambda path: False
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._flush(getattr(os, name)))

    def _flush(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def flush(fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if self.fails(path):
                raise OSError(5, "Input/output error", path)
            real(fd)
            self.done.append(path)

        return flush

    def of(self, ending: str) -> int:
        """How many there were of paths with this in them."""
        return sum(ending in path for path in self.done)


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Flushes:
    return Flushes(monkeypatch)


def cut(site: LoggedSite) -> None:
    """The power goes: of files that were not flushed not even the name is left."""
    for path in site.files:
        (site.archive.root / path).unlink()
    site.die()


def test_what_is_answered_for_is_in_the_log_and_costs_one_flush(tmp_path: Path, flushes: Flushes) -> None:
    """The file is whole under its name, unflushed; a restart after a power cut makes it anew."""
    site = LoggedSite(tmp_path)
    assert site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9").status == 0
    flushes.done.clear()
    assert site.receive(DATA, UID).status == 0
    assert [Path(path).suffix for path in flushes.done] == [".segment"]
    before = site.contents
    assert len(before) == len(site.waiting) == 2
    cut(site)
    assert sorted(site.recover().files) == sorted(before)
    assert site.contents == before


def test_large_instances_are_flushed_by_themselves(site: LoggedSite, flushes: Flushes) -> None:
    """From a size on the flush costs less than writing twice."""
    data = encoded(SOPInstanceUID=UID, PixelData=bytes(site.log.tuning.instance_bytes))
    assert site.receive(data, UID, size=1000).status == 0
    assert site.log.active is None and flushes.of(".segment") == 0
    assert site.only.read_bytes().endswith(data)


def test_all_that_wait_are_committed_by_one_flush(site: LoggedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one writes the others queue up; the next write has all of them."""
    real, count = os.fdatasync, 0
    begun, go = threading.Event(), threading.Event()

    def held(fd: int) -> None:
        nonlocal count
        count += 1
        if count == 1:
            begun.set()
            assert go.wait(60)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", held)
    commits = []

    def commit(number: int) -> None:
        commits.append(site.log.commit(f"1/2/{number}.dcm", b"x" * 700))

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(5)]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(site.log._queue) < 4:
        pass
    go.set()
    for thread in threads:
        thread.join()
    assert count == 2 and len(commits) == 5
    assert [record.position.number for record in site.log.active.heads()] == [1, 2, 3, 4, 5]  # type: ignore[union-attr]
    for one in commits:
        site.log.settle(one)
    assert site.log.active is not None and site.log.active.unsettled == 0


def test_a_log_whose_flush_failed_is_not_written_again_and_those_who_waited_are_flushed(
    site: LoggedSite, flushes: Flushes
) -> None:
    """The instance is durable all the same, and the next one goes into another segment."""
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    failed = site.log.active
    assert failed is not None
    site.keeper.look()
    flushes.fails = lambda path: path == str(failed.path)
    flushes.done.clear()
    assert site.receive(DATA, UID).status == 0
    # The bytes through the nameless file, and its folder.
    assert len(flushes.done) == 2 and failed.is_failed and failed in site.log.full
    assert site.receive(encoded(SOPInstanceUID="1.2.3"), "1.2.3").status == 0
    assert site.log.active is not None and site.log.active is not failed
    # What it holds is flushed as files, and the segment goes.
    flushes.fails = lambda path: False
    site.keeper.look()
    assert not failed.path.exists()


def test_what_can_be_flushed_nowhere_is_refused_and_leaves_nothing(site: LoggedSite, flushes: Flushes) -> None:
    """The disk is broken: 0xA700, and no file."""
    flushes.fails = lambda path: True
    assert site.receive(DATA, UID).status == 0xA700
    assert site.files == [] and site.waiting == []


def test_without_room_in_the_log_instances_are_flushed_by_themselves(site: LoggedSite, flushes: Flushes) -> None:
    """The log is bounded: what it does not take until files are flushed goes the other way, and nothing waits."""
    site.log.free.clear()
    assert site.receive(DATA, UID).status == 0
    assert flushes.of(".segment") == 0 and len(site.files) == 1
    with pytest.raises(NoLog):
        site.log.commit("1/2/3.dcm", b"x")


def test_a_segment_that_is_full_gives_way_to_the_next(site: LoggedSite) -> None:
    """Records lie in one segment each; the full one waits to be flushed and freed, then is filled again."""
    site.keeper.look()
    size = 150_000
    number = 2 * site.keeper._size // size
    for n in range(number):
        uid = f"1.2.{n}"
        assert site.receive(encoded(SOPInstanceUID=uid, PixelData=bytes([n]) * size), uid).status == 0
        site.keeper.look()
    assert len(site.files) == number and site.log.full == []
    assert [one.lap.number for one in [*site.log.free, site.log.active] if one is not None] == [2, 2]


def test_a_duplicate_is_answered_when_what_it_duplicates_is_on_disk(tmp_path: Path, flushes: Flushes) -> None:
    """Whoever received that one, here or in another process, may have it in a log alone."""
    site = LoggedSite(tmp_path)
    other = Site(tmp_path)  # without a log, as a C-GET
    other.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    site.receive(DATA, UID)
    [path] = [site.archive.root / path for path in site.files if "1.2.1" in path]
    for receiver in (site, other):
        flushes.done.clear()
        assert receiver.receive(DATA, UID).status == 0
        assert flushes.done == [str(path), str(path.parent)]
        assert receiver.waiting[-1].arrival and receiver.waiting[-1].arrival.outcome == "duplicate"
    flushes.fails = lambda one: one == str(path)
    assert other.receive(DATA, UID).status == 0xA700
    site.die()


def test_a_record_whose_name_was_taken_meanwhile_is_withdrawn(
    site: LoggedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process linked the same instance between the look and the link: no recovery brings a second one."""
    Site(site.archive.root.parent).receive(DATA, UID)
    real, seen = site.archive.has_file, iter([False])
    monkeypatch.setattr(site.archive, "has_file", lambda *arguments: next(seen, None) is None and real(*arguments))
    assert site.receive(DATA, UID).status == 0
    [row] = site.waiting
    assert row.arrival is not None and row.arrival.outcome == "duplicate"
    assert site.log.active is not None and site.log.active.unsettled == 0
    assert [record.place for record in site.log.active.heads()] == [None]
    assert b"1.2.1" not in site.left_in_log
    site.only.unlink()
    site.checkpoint()
    assert site.files == []


def test_two_contents_of_one_uid_are_both_kept_and_both_recovered(site: LoggedSite) -> None:
    """The record is for the name that the file got in the end."""
    site.receive(DATA, UID)
    site.receive(encoded(SOPInstanceUID=UID, PatientName="Other"), UID)
    before = site.contents
    assert len(before) == 2
    cut(site)
    site.recover()
    assert site.contents == before
    site.__init__(site.archive.root.parent)  # type: ignore[misc]


def test_where_files_were_removed_meanwhile_the_file_is_flushed_itself(
    site: LoggedSite, flushes: Flushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record may have been erased with others of its place: it is not relied on."""
    real = site.archive.publish

    def publish(*arguments: Any) -> bool:
        with site.keeper._removals.erasing():
            pass
        return real(*arguments)

    monkeypatch.setattr(site.archive, "publish", publish)
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    flushes.done.clear()
    assert site.receive(DATA, UID).status == 0
    assert [Path(path).suffix == ".segment" for path in flushes.done] == [True, False, False]


def test_while_records_are_erased_nothing_goes_by_the_log(site: LoggedSite, flushes: Flushes) -> None:
    """Nor for ever: whoever takes the lock after one that died sets it right."""
    with site.keeper._removals.erasing():
        assert site.receive(DATA, UID).status == 0
    assert flushes.of(".segment") == 0
    site.keeper._removals._set_odd()
    with site.keeper._removals.lock():
        pass
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    assert flushes.of(".segment") == 1


def test_a_folder_that_is_renamed_meanwhile_costs_no_record(site: LoggedSite) -> None:
    """The name in the folder that went is taken back; the file goes where its path says, by the record it has."""
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    folder = site.only.parent
    os.rename(folder, folder.with_name("elsewhere"))
    assert site.receive(DATA, UID).status == 0
    assert (folder / "1.2.1.dcm").exists() and not (folder.with_name("elsewhere") / "1.2.1.dcm").exists()
    assert site.log.active is not None and site.log.active.unsettled == 0
    assert len(list(site.log.active.heads())) == 2


def test_in_another_encoding_it_is_the_same_and_its_record_is_not_kept(site: LoggedSite) -> None:
    """What is answered as a duplicate has no record of its own."""
    site.receive(DATA, UID)
    assert site.receive(encoded(IMPLICIT, SOPInstanceUID=UID), UID, IMPLICIT).status == 0
    assert len(site.files) == 1
    assert site.log.active is not None and len(list(site.log.active.heads())) == 1

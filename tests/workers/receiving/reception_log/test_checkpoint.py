"""Freeing the log: files are on disk before their records count no more, and what is freed is written over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.logged_site import LoggedSite
from support.receiving import encoded

UID = "1.2.1"
DATA = encoded(SOPInstanceUID=UID, PixelData=b"pixel" * 600)


@pytest.fixture
def site(tmp_path: Path) -> LoggedSite:
    made = LoggedSite(tmp_path)
    made.receive(DATA, UID)
    return made


def test_what_is_old_is_flushed_and_freed_and_written_over(tmp_path: Path) -> None:
    """However little it is: so a restart is short, and nothing of a patient stays in the log."""
    site = LoggedSite(tmp_path, age_seconds=0.0)
    site.receive(DATA, UID)
    assert site.left_in_log
    site.keeper.look()
    assert site.log.active is None and site.log.full == [] and site.left_in_log == b""
    site.die()
    site.only.unlink()
    assert site.recover().files == []


def test_what_is_not_linked_yet_keeps_its_record(site: LoggedSite) -> None:
    """Its file is not at its place: flushing would not reach it there."""
    commit = site.log.commit("1/2/3.dcm", b"x" * 100)
    site.checkpoint()
    assert len(site.log.full) == 1
    site.log.settle(commit)
    site.keeper.look()
    assert site.log.full == []


def test_while_somebody_removes_files_nothing_is_freed(site: LoggedSite) -> None:
    """Who erases records goes by where they lie."""
    with site.keeper._removals.lock():
        site.checkpoint()
        assert len(site.log.full) == 1
    site.keeper.look()
    assert site.log.full == []


def test_files_that_could_not_be_flushed_are_made_anew(site: LoggedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory holds of them may be taken for written: the log has the bytes. One that was removed stays so."""
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    gone, kept = (site.archive.root / path for path in sorted(site.files, reverse=True))
    gone.unlink()
    number = kept.stat().st_ino

    def fail(fd: int) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(site.keeper, "_flush_file_system", fail)
    before = kept.read_bytes()
    site.checkpoint()
    assert (
        kept.stat().st_ino != number
        and kept.read_bytes() == before
        and site.files == [f"{kept.parent.parent.name}/{kept.parent.name}/{kept.name}"]
    )
    assert site.log.full == []


def test_a_log_whose_files_cannot_be_had_on_disk_is_kept(site: LoggedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a flush nor anew: so the record stays until that works, or a restart. A later flush that does not fail
    says nothing of those files, nor of what came in meanwhile: they are made anew all the same.
    """

    def fail(fd: int) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(site.keeper, "_flush_file_system", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    site.checkpoint()
    assert len(site.log.full) == 1
    number = site.only.stat().st_ino
    monkeypatch.undo()
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    numbers = {path: (site.archive.root / path).stat().st_ino for path in site.files}
    assert number in numbers.values()
    site.checkpoint()
    assert site.log.full == []
    assert all((site.archive.root / path).stat().st_ino != numbers[path] for path in numbers)


def test_where_file_systems_cannot_be_flushed_each_file_is(site: LoggedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose flush fails is made anew; folders follow."""
    site.receive(encoded(SOPInstanceUID="1.2.9"), "1.2.9")
    first, second = (site.archive.root / path for path in sorted(site.files))
    numbers = first.stat().st_ino, second.stat().st_ino
    real, done = os.fdatasync, []

    def flush(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path == str(first):
            raise OSError(5, "Input/output error")
        done.append(path)
        real(fd)

    monkeypatch.setattr(site.keeper, "_flush_file_system", lambda fd: False)
    monkeypatch.setattr(os, "fdatasync", flush)
    site.checkpoint()
    assert first.stat().st_ino != numbers[0] and second.stat().st_ino == numbers[1]
    assert str(second) in done and site.log.full == []


def test_an_orderly_end_leaves_an_empty_log(site: LoggedSite) -> None:
    """The next start has nothing to recover, and uses the segments that are there."""
    site.keeper.close()
    paths = [one.path for one in site.log.free]
    assert site.left_in_log == b"" and site.recover().files == []
    again = LoggedSite(site.archive.root.parent)
    assert [one.path for one in again.log.free] == paths
    again.die()


def test_the_thread_keeps_the_log(tmp_path: Path) -> None:
    """It is woken when a segment is full, and ends with the log."""
    site = LoggedSite(tmp_path, segments=4, age_seconds=0.0, tick_seconds=0.01)
    site.keeper.start()
    site.receive(DATA, UID)
    site.keeper.close()
    assert site.left_in_log == b"" and len(site.files) == 1


def test_a_log_of_another_size_is_made_anew(site: LoggedSite) -> None:
    """The setting was changed: what lies there is free by then, and goes."""
    site.keeper.close()
    names = {path.name for path in (site.archive.root / ".ferry" / "log-0").glob("*.segment")}
    again = LoggedSite(site.archive.root.parent, segments=4)
    left = {path.name for path in (site.archive.root / ".ferry" / "log-0").glob("*.segment")}
    assert not names & left and len(left) == 1
    again.die()

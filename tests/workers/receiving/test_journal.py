"""The list of folders that may hold files without a row: nothing that was entered is ever off it by accident."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dicomferry.workers.receiving.journal import Journal, left_behind, path_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def full(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """A disk that takes `room` more bytes: a write that does not fit is short, the next one fails (write(2))."""
    real, left = os.write, [room]

    def write(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)


def failing_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which files can be flushed, and folders cannot."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_new_list_that_is_cut_short(path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """It does not take the old one's place: whatever of it the disk took, no folder is forgotten."""
    journal = Journal(path, most_lines=3)
    folders = [f"1.2/1.2.{number}" for number in range(6)]
    for folder in folders:
        journal.enter(folder)
    journal.leave(folders[0])
    with monkeypatch.context() as disk:
        full(disk, room)
        with pytest.raises(OSError):
            journal.shorten()
    assert Journal(path).read() == folders
    journal.enter("1.2/1.3")
    assert Journal(path).read() == [*folders, "1.2/1.3"]


@pytest.mark.parametrize("room", [0, 4])
def test_a_line_that_is_cut_short(path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Nothing is published in its folder, and the next line stands alone."""
    journal = Journal(path)
    journal.enter("1.2/1.3")
    with monkeypatch.context() as disk:
        full(disk, room)
        with pytest.raises(OSError):
            journal.enter("1.2/1.4")
    journal.enter("1.2/1.5")
    assert Journal(path).read() == ["1.2/1.3", "1.2/1.5"]


def test_a_line_that_cannot_be_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where half a line stays, the next folder is written into a new list."""
    journal = Journal(path)
    journal.enter("1.2/1.3")
    with monkeypatch.context() as disk:
        full(disk, 4)

        def ftruncate(fd: int, length: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        disk.setattr(os, "ftruncate", ftruncate)
        with pytest.raises(OSError):
            journal.enter("1.2/1.4")
    journal.enter("1.2/1.5")
    assert Journal(path).read() == ["1.2/1.3", "1.2/1.5"]


def test_a_new_list_whose_name_cannot_be_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is entered after that stands in the list that has the name, and counts once the name is on disk."""
    journal = Journal(path)
    journal.enter("1.1/1.1")
    journal.leave("1.1/1.1")
    with monkeypatch.context() as disk:
        failing_folder(disk)
        with pytest.raises(OSError):
            journal.shorten()
        with pytest.raises(OSError):
            journal.enter("1.2/1.2")
    journal.enter("1.3/1.3")
    assert "1.3/1.3" in Journal(path).read()


def test_what_could_not_be_finished_stays_on_the_list(path: Path) -> None:
    """Folders that a restart could not index are on the next list as well, however often it is shortened."""
    path.write_bytes(b"1.2/1.3\n1.2/1.4\n")
    journal = Journal(path, most_lines=1)
    journal.keep(["1.2/1.3"])
    journal.enter("1.2/1.5")
    journal.leave("1.2/1.5")
    journal.shorten()
    assert Journal(path).read() == ["1.2/1.3"]


def test_each_process_has_a_list_of_its_own(tmp_path: Path) -> None:
    """By its number; where fewer processes receive than before, the lists of the others are found, and nothing else."""
    for number in range(4):
        path_of(tmp_path, number).touch()
    for name in ("journal-x", "journal-3.new", "journals"):
        (tmp_path / name).touch()
    assert path_of(tmp_path, 0).name == "journal"
    assert left_behind(tmp_path, 4) == []
    assert left_behind(tmp_path, 2) == [path_of(tmp_path, 2), path_of(tmp_path, 3)]
    assert left_behind(tmp_path, 1) == [path_of(tmp_path, number) for number in (1, 2, 3)]

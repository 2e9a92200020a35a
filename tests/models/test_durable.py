"""New folders that survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomferry.models.durable import make_folder
from dicomferry.models.settings import prepare_home
from dicomferry.workers.receiving.archive import OWN, Archive


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were flushed, in order."""
    found: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_each_new_folder_is_an_entry_that_is_flushed(tmp_path: Path, flushed: list[str]) -> None:
    """Up to the first folder that was there, which holds a new entry too; a second time costs nothing."""
    make_folder(tmp_path / "a" / "b" / "c")
    assert set(flushed) == {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")}
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    flushed.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert flushed == []


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    """It is no folder, and none is made of it."""
    (tmp_path / "a").write_text("")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "a" / "b")


def test_a_new_home_and_a_new_archive_survive(tmp_path: Path, flushed: list[str]) -> None:
    """A printed job id, and a file that was answered for, lie in folders that are on disk from the root down."""
    prepare_home(tmp_path / "srv" / "ferry" / "home")
    Archive(tmp_path / "data" / "dicom" / "archive").prepare()
    wanted = {tmp_path, *(tmp_path / part for part in ("srv", "srv/ferry", "data", "data/dicom", "data/dicom/archive"))}
    assert {str(one) for one in wanted} <= set(flushed)
    assert str(tmp_path / "data" / "dicom" / "archive" / OWN) in flushed

"""Removing files while others receive: what was answered with success has a file and a row, at every moment after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.archive import identity
from dicomferry.models.record.archive import index as archive_index
from dicomferry.models.record.database import Database
from dicomferry.workers.receiving import archive_check, file_hold, removal
from dicomferry.workers.receiving.archive import Archive
from support import samples
from support.receiving import Site, data_of
from support.samples import Sample


class Shelf(Site):
    """An archive with a record of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.database = Database(f"sqlite:///{folder / 'record.db'}")
        schema.upgrade(self.database)

    def store(self, sample: Sample, *, index: bool = True) -> None:
        """It is received and answered with success; its row is written if `index`, else later by `write`."""
        data = data_of(sample.path)
        answer = self.receive(data, sample.sop_instance_uid, sample.transfer_syntax_uid, sample.sop_class_uid)
        assert answer.status == 0
        if index:
            self.write()

    def write(self) -> None:
        """Rows for all that waits for them."""
        archive_index.record(self.database, self.waiting)
        self.indexer._waiting.clear()

    def remove(self, study: str) -> int:
        """How many bytes that freed."""
        found = archive_index.paths(self.database, study=study)
        removed = removal.remove(self.archive, self.database, found)
        assert removed.number + removed.stay == len(found)
        return removed.size

    @property
    def known(self) -> list[str]:
        return [path for path, _ in identity.sizes(self.database)]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return samples.mr_instance(tmp_path / "one", number=1)


def after(shelf: Shelf, name: str, then: Callable[[], None], monkeypatch: pytest.MonkeyPatch, target: Any) -> None:
    """Once the function of that name has returned for the first time, something else happens."""
    original = getattr(target, name)
    done: list[bool] = []

    def both(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        if not done:
            done.append(True)
            then()
        return found

    monkeypatch.setattr(target, name, both)


def test_a_removed_file_is_gone_with_its_row(shelf: Shelf, sample: Sample) -> None:
    """Rows become history, files and empty folders go."""
    shelf.store(sample)
    size = shelf.only.stat().st_size
    assert shelf.remove(sample.study_instance_uid) == size
    assert (shelf.known, shelf.files) == ([], [])
    assert not (shelf.archive.root / sample.study_instance_uid).exists()


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(("target", "name"), [(file_hold, "look"), (identity, "make_history"), (Archive, "remove")])
def test_what_comes_in_the_middle_of_a_removal_stays(
    shelf: Shelf, sample: Sample, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, indexed: bool
) -> None:
    """After the file was looked at, after its row became history, after it was unlinked; the row may follow later."""
    shelf.store(sample)
    after(shelf, name, lambda: shelf.store(sample, index=indexed), monkeypatch, target)
    shelf.remove(sample.study_instance_uid)
    shelf.write()
    assert len(shelf.files) == 1
    assert shelf.known == shelf.files


def test_what_comes_while_it_is_unlinked_gets_a_name_of_its_own(
    shelf: Shelf, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the other: the newcomer is kept beside the file that goes."""
    shelf.store(sample)
    original = Archive.remove

    def slow(archive: Archive, path: str) -> int:
        shelf.store(sample)
        return original(archive, path)

    monkeypatch.setattr(Archive, "remove", slow)
    shelf.remove(sample.study_instance_uid)
    assert len(shelf.files) == 1 and shelf.files[0].endswith("~2.dcm")
    assert shelf.known == shelf.files


def test_only_what_still_is_that_file_is_unlinked(
    shelf: Shelf, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody has put in its place stays, and has a row."""
    shelf.store(sample)
    place, content = shelf.only, shelf.only.read_bytes()

    def replace() -> None:
        place.with_suffix(".new").write_bytes(content)
        os.replace(place.with_suffix(".new"), place)

    after(shelf, "make_history", replace, monkeypatch, identity)
    assert shelf.remove(sample.study_instance_uid) == 0
    assert shelf.known == shelf.files == [str(place.relative_to(shelf.archive.root))]


def test_a_removal_that_dies_leaves_no_row_without_a_file(
    shelf: Shelf, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows become history first, durably; files without rows are found by `archive verify --repair`."""
    shelf.store(sample)

    def die(archive: Archive, path: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Archive, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        shelf.remove(sample.study_instance_uid)
    assert (shelf.known, len(shelf.files)) == ([], 1)
    monkeypatch.undo()
    archive_check.verify(shelf.archive, shelf.database, repair=True)
    assert shelf.known == shelf.files
    assert shelf.remove(sample.study_instance_uid) and shelf.files == []


def test_repair_makes_no_history_of_what_came_anew(
    shelf: Shelf, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was gone when the archive was looked through, and is received before that is written down."""
    shelf.store(sample)
    shelf.only.unlink()
    after(shelf, "is_gone", lambda: shelf.store(sample), monkeypatch, archive_check)
    archive_check.verify(shelf.archive, shelf.database, repair=True)
    assert shelf.known == shelf.files and len(shelf.files) == 1


def test_repair_notes_damage_until_it_is_mended(shelf: Shelf, sample: Sample) -> None:
    """A damaged file counts for nothing; the one that comes in its place is current, and the bad one can be removed."""
    shelf.store(sample)
    bad, content = shelf.only, shelf.only.read_bytes()
    bad.write_bytes(content[:-10])
    assert archive_check.verify(shelf.archive, shelf.database, repair=True).damaged == 1
    (row,) = archive_index.listing(shelf.database)
    assert row["flaw"] and row["flaw"].startswith("damaged:")
    bad.write_bytes(content)
    archive_check.verify(shelf.archive, shelf.database, repair=True)
    (row,) = archive_index.listing(shelf.database)
    assert row["flaw"] is None
    bad.write_bytes(content[:-10])
    archive_check.verify(shelf.archive, shelf.database, repair=True)
    shelf.store(sample)
    listed = {row["path"]: row["current"] for row in archive_index.listing(shelf.database)}
    name = str(bad.relative_to(shelf.archive.root))
    assert listed == {name: False, name.replace(".dcm", "~2.dcm"): True}
    flawed = archive_index.paths(shelf.database, flawed=True)
    assert flawed == [name]
    removal.remove(shelf.archive, shelf.database, flawed)
    assert shelf.known == shelf.files == [name.replace(".dcm", "~2.dcm")]


def test_what_the_disk_does_not_let_go_keeps_its_row(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, say: whoever removes is told, the others go, and nothing lies there that nobody knows of."""
    for number in (1, 2, 3):
        shelf.store(samples.mr_instance(tmp_path / f"{number}", number=number))
    paths = shelf.files
    real = Archive.remove

    def remove(archive: Archive, path: str) -> int:
        if path == paths[1]:
            raise OSError(30, "Read-only file system", path)
        return real(archive, path)

    monkeypatch.setattr(Archive, "remove", remove)
    with pytest.raises(OSError, match="Read-only"):
        removal.remove(shelf.archive, shelf.database, paths)
    assert shelf.files == shelf.known == [paths[1]]


@pytest.mark.parametrize("place", ["one.dcm", "study/one.dcm", "1/2/3/4/one.dcm"])
def test_a_file_that_lies_elsewhere_than_we_would_put_it_can_be_removed(
    shelf: Shelf, sample: Sample, place: str
) -> None:
    """Somebody moved it, and a repair gave it a row; the folders that are empty then go as well."""
    shelf.store(sample, index=False)
    target = shelf.archive.root / place
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(shelf.only, target)
    archive_check.verify(shelf.archive, shelf.database, repair=True)
    assert shelf.known == [place]
    assert removal.remove(shelf.archive, shelf.database, [place])[::2] == (1, 0)
    assert shelf.files == shelf.known == []
    assert not (shelf.archive.root / place.split("/")[0]).exists()

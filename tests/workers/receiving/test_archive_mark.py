"""An archive is told by its mark from every other folder, an empty one and a disk that is not there included."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.archive import identity, index
from dicomferry.models.record.archive.index import Received
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.workers.receiving import archive_mark
from dicomferry.workers.receiving.archive import OWN, Archive
from support.scp import StorageScp


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'record.db'}")
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def mark_of(archive: Archive) -> str | None:
    view = archive_mark.View(archive.root)
    try:
        return view.mark()
    finally:
        view.close()


def keep(record: Database, archive: Archive, *names: str, there: int) -> None:
    """Rows of these files, the first `there` of which lie in the archive."""
    rows = []
    for number, name in enumerate(names):
        path = archive.root / "1" / "2" / f"{name}.dcm"
        if number < there:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345678")
        rows.append(
            Received(
                path=f"1/2/{name}.dcm", size=8, sop_instance_uid=f"1.{name}", sop_class_uid="1.2.3",
                transfer_syntax_uid="1.2", study_instance_uid="1", series_instance_uid="2", relation="first",
                flaw=None, stored_at=datetime.now(UTC),
            )
        )  # fmt: skip
    index.record(record, rows)


def test_a_new_archive_is_marked_and_known(record: Database, archive: Archive) -> None:
    """From its first start on; the next start finds the same mark."""
    archive_mark.prepare(archive, record)
    mark = mark_of(archive)
    assert mark and identity.mark(record) == mark
    archive_mark.prepare(archive, record)
    assert (mark_of(archive), identity.mark(record)) == (mark, mark)
    assert [path.name for path in (archive.root / OWN).iterdir() if path.name.startswith("mark")] == ["mark"]


@pytest.mark.parametrize("how", ["gone", "emptied", "another"])
def test_what_is_not_the_archive_is_refused(record: Database, archive: Archive, tmp_path: Path, how: str) -> None:
    """A disk that is not mounted, a folder that was emptied, another record's archive: nothing is made there."""
    archive_mark.prepare(archive, record)
    shutil.rmtree(archive.root)
    if how != "gone":
        archive.root.mkdir()
    if how == "another":
        other = Database(f"sqlite:///{tmp_path / 'other.db'}")
        schema.upgrade(other)
        archive_mark.prepare(archive, other)
        other.close()
    before = sorted(archive.root.rglob("*")) if archive.root.exists() else None
    with pytest.raises(ConfigurationError, match=r"scp\.archive .*Is the disk mounted.*archive adopt"):
        archive_mark.prepare(archive, record)
    assert (sorted(archive.root.rglob("*")) if archive.root.exists() else None) == before


@pytest.mark.parametrize(("there", "taken"), [(10, True), (5, True), (4, False), (0, False)])
def test_an_archive_of_a_former_version_is_adopted_once(
    record: Database, archive: Archive, there: int, taken: bool
) -> None:
    """One without a mark is taken for the record's own if a sample of the files that the record names is there."""
    archive.prepare()
    keep(record, archive, *map(str, range(10)), there=there)
    if taken:
        archive_mark.prepare(archive, record)
        assert mark_of(archive) == identity.mark(record) is not None
        return
    with pytest.raises(ConfigurationError, match=f"of 10 files that it names {there} are there"):
        archive_mark.prepare(archive, record)
    assert identity.mark(record) is None and mark_of(archive) is None


def test_restored_or_moved_files_are_adopted_by_a_person(record: Database, archive: Archive) -> None:
    """Whatever the record knew before; a mark that is there stays, so that two records cannot think both it is theirs
    without a person having said so.
    """
    archive_mark.prepare(archive, record)
    shutil.rmtree(archive.root)
    archive.prepare()
    mark = archive_mark.adopt(archive.root, record)
    assert mark == mark_of(archive) == identity.mark(record)
    archive_mark.prepare(archive, record)
    assert archive_mark.adopt(archive.root, record) == mark


def test_a_storage_scp_does_not_start_into_another_folder() -> None:
    """It says why and what to do, and ends; with the archive back it starts."""
    with StorageScp() as scp:
        scp.stop()
        away = scp.archive.root.with_name("away")
        scp.archive.root.rename(away)
        scp.archive.root.mkdir()
        with pytest.raises(RuntimeError, match="is not the archive that this record knows"):
            scp.start()
        assert not list(scp.archive.root.rglob("*"))
        scp.archive.root.rmdir()
        away.rename(scp.archive.root)
        scp.start()

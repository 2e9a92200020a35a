"""Archive and index against each other: one thing that cannot be read stops neither a start nor a repair."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.archive import index, unindexed
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import ConfigurationError, IllegalTransition
from dicomferry.workers.receiving import archive_check
from dicomferry.workers.receiving.archive import OWN
from dicomferry.workers.receiving.journal import Journal
from support.receiving import Site, encoded


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'rows.db'}")
    schema.upgrade(made)
    yield made
    made.close()


def three(site: Site) -> list[str]:
    """Three files in one folder, as paths; a pipe stands for the second one, which gives an error to whoever reads."""
    for number in (1, 2, 3):
        uid = f"1.2.{number}"
        assert site.receive(encoded(SOPInstanceUID=uid), uid).status == 0
    paths = site.files
    (site.archive.root / paths[1]).unlink()
    os.mkfifo(site.archive.root / paths[1])
    return paths


def known(database: Database) -> list[str]:
    return [row["path"] for row in index.listing(database)]


def test_one_that_cannot_be_read_is_left_and_named(site: Site, database: Database) -> None:
    """The others get their rows; its folder is given back, to stay on the journal."""
    paths = three(site)
    folder = os.path.dirname(paths[0])
    number, unfinished = archive_check.recover(site.archive, database, ["1.2/1.3", folder])
    assert (number, unfinished) == (2, [folder])
    assert known(database) == [paths[0], paths[2]]
    (site.archive.root / paths[1]).unlink()
    assert archive_check.recover(site.archive, database, [folder]) == (0, [])


def test_a_repair_goes_on_past_it(site: Site, database: Database) -> None:
    """It is among the findings, with the reason."""
    paths = three(site)
    found = archive_check.verify(site.archive, database, repair=True)
    assert known(database) == [paths[0], paths[2]]
    assert any(kind == "without a row" and text.startswith(f"{paths[1]}: ") for kind, text in found.named)


def test_a_row_that_is_refused_keeps_no_other_back(site: Site, database: Database) -> None:
    """Whatever refuses it, its folder is given back, and the others have their rows."""
    for number in (1, 2, 3):
        uid = f"1.2.{number}"
        assert site.receive(encoded(SOPInstanceUID=uid), uid).status == 0

    def record(into: Database, batch: Sequence[index.Received]) -> None:
        if any(received.sop_instance_uid == "1.2.2" for received in batch):
            raise ValueError("not this one")
        index.record(into, batch)

    folder = os.path.dirname(site.files[0])
    assert archive_check.recover(site.archive, database, [folder], record=record) == (2, [folder])
    assert len(known(database)) == 2


@pytest.mark.parametrize("error", [IllegalTransition("item", "a", "b"), ConfigurationError("not like this")])
def test_a_rule_that_refuses_a_row_is_not_tried_for_ever(site: Site, database: Database, error: Exception) -> None:
    """Only a database out of reach is waited for: what a rule refuses is put aside, named, and its folder kept."""
    for uid in ("1.2.1", "1.2.2"):
        assert site.receive(encoded(SOPInstanceUID=uid), uid).status == 0
    done: list[str] = []

    def record(_: Database, batch: Sequence[index.Received]) -> None:
        if any(received.sop_instance_uid == "1.2.1" for received in batch):
            raise error
        done.extend(received.sop_instance_uid for received in batch)

    site.indexer._record, site.indexer._database = record, database
    site.indexer.start()
    assert site.indexer.close(30)
    assert done == ["1.2.2"] and site.indexer.refused == 1
    assert unindexed.count(database) == 1
    folder = os.path.dirname(site.files[0])
    assert Journal(site.archive.root / OWN / "journal").read() == [folder]
    # A restart tries again, and then it is no more among them.
    assert archive_check.recover(site.archive, database, [folder]) == (2, [])
    assert unindexed.count(database) == 0


def test_rows_come_after_their_files_are_on_disk(
    site: Site, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart flushes file and folder, which the process that died may not have come to, before it writes rows."""
    assert site.receive(encoded(), "1.2.826.0.1") is not None
    done: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for path in site.files:
        archive_check.index(site.archive, database, [path], record=lambda *_: done.append("rows"))
        full = site.archive.root / path
        assert done.index(str(full)) < done.index("rows") and done.index(str(full.parent)) < done.index("rows")


def test_what_cannot_be_looked_at_is_not_gone(site: Site, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is made history only where its file is not there for certain."""
    assert site.receive(encoded(SOPInstanceUID="1.2.1"), "1.2.1").status == 0
    archive_check.index(site.archive, database, site.files)
    (path,) = site.files
    real = os.lstat

    def lstat(name: object) -> os.stat_result:
        if str(name).endswith(path):
            raise PermissionError(13, "Permission denied", str(name))
        return real(str(name))

    with monkeypatch.context() as disk:
        disk.setattr(os, "lstat", lstat)
        disk.setattr(site.archive, "files", lambda: iter(()))
        found = archive_check.verify(site.archive, database, repair=True)
    assert found.missing_files == 0 and known(database) == [path]


def test_a_name_that_is_no_text(site: Site, database: Database) -> None:
    """Somebody copied a file in whose name is in Latin-1: named, and it keeps no other back."""
    paths = three(site)
    folder = os.path.dirname(paths[0])
    os.unlink(site.archive.root / paths[1])
    os.rename(site.archive.root / paths[2], os.fsencode(site.archive.root / folder) + b"/M\xfcller.dcm")
    for _ in range(2):
        assert archive_check.verify(site.archive, database).unindexed
        assert archive_check.recover(site.archive, database, [folder])[1] == [folder]
        assert known(database) == paths[:1]
    found = archive_check.verify(site.archive, database, repair=True)
    assert any(kind == "without a row" and "no text in UTF-8" in text for kind, text in found.named)
    assert (found.unindexed, found.left) == (1, 1) and "unindexed" not in {kind for kind, _ in found.named}
    assert unindexed.count(database) == 1


def test_a_path_that_is_too_long_for_its_row(site: Site, database: Database) -> None:
    """PostgreSQL refuses it, in the list of what has no row as well: it is cut there."""
    unindexed.note(database, [("x" * 300 + "/1", "why"), ("x" * 300 + "/2", "why")])
    assert unindexed.count(database) == 1
    unindexed.forget(database, ["x" * 300])
    assert unindexed.count(database) == 0


@pytest.mark.parametrize("damage", [b"\0\0\0/1\n", b"1.2/\xff\n", b"../..\n", None], ids=str)
def test_a_journal_that_is_damaged_is_none(site: Site, database: Database, damage: bytes | None) -> None:
    """Any folder may have stood on it: all of them are looked at, and the start goes on."""
    uid = "1.2.1"
    assert site.receive(encoded(SOPInstanceUID=uid), uid).status == 0
    path = site.archive.root / OWN / "old"
    if damage is None:
        path.mkdir()
    else:
        path.write_bytes(b"1.2/1.3\n" + damage + b"1.2/1.4\n")
    assert archive_check.take_over(site.archive, database, Journal(path)) == (1, [])
    assert known(database) == site.files

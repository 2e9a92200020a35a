"""What a C-GET that died has published is finished by whoever comes next, and a living one is left alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models import settings
from dicomferry.models.record import schema
from dicomferry.models.record.archive import index
from dicomferry.models.record.database import Database
from dicomferry.models.settings import Settings
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.retrieval import get_association
from support.receiving import Site, encoded


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DICOMFERRY_HOME", str(tmp_path))
    return settings.load()


@pytest.fixture
def database(loaded: Settings) -> Iterator[Database]:
    made = Database(loaded.database)
    schema.upgrade(made)
    yield made
    made.close()


def published(loaded: Settings) -> str:
    """A file in the archive that has no row; its folder."""
    site = Site(loaded.home)
    assert site.receive(encoded(SOPInstanceUID="1.2.1"), "1.2.1").status == 0
    return os.path.dirname(site.files[0])


def die(store: get_association.Store) -> None:
    """The process ends: its locks go, what it has written stays."""
    store.indexer.close(10)
    os.close(store._lock)
    store.journal.close()


def test_two_that_begin_at_once(loaded: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens between the making of a lock and its locking, nobody takes it for a dead one's."""
    archive = Archive(loaded.archive)
    archive.prepare()
    real, others = fcntl.flock, [1]

    def flock(fd: int, how: int) -> None:
        if others:
            others.pop()
            get_association.take_over(archive, database)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    store = get_association.Store(loaded, database)
    assert not others
    folder = published(loaded)
    store.journal.enter(folder)
    get_association.take_over(archive, database)
    assert index.count(database)[0] == 0, "it lives"
    die(store)
    get_association.take_over(archive, database)
    assert index.count(database)[0] == 1
    assert list((archive.root / OWN / get_association.FOLDER).iterdir()) == []


def test_a_journal_without_its_lock_is_finished_too(loaded: Settings, database: Database) -> None:
    """The lock has its name before the journal is there, so nobody living is without."""
    store = get_association.Store(loaded, database)
    store.journal.enter(published(loaded))
    store._lock_path.unlink()
    die(store)
    assert get_association.take_over(store.archive, database) == 1
    assert list((store.archive.root / OWN / get_association.FOLDER).iterdir()) == []


def test_what_cannot_be_read_stays_on_its_journal(loaded: Settings, database: Database) -> None:
    """One file that gives an error keeps the journal, and neither the others' rows nor the next C-GET back."""
    folder = published(loaded)
    store = get_association.Store(loaded, database)
    store.journal.enter(folder)
    die(store)
    bad = store.archive.root / folder / "1.2.9.dcm"
    os.mkfifo(bad)
    assert get_association.take_over(store.archive, database) == 1
    assert store._journal_path.exists()
    get_association.Store(loaded, database).close()
    bad.unlink()
    get_association.take_over(store.archive, database)
    assert not store._journal_path.exists()


def test_the_folder_of_the_first_journal_is_on_disk(
    loaded: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a new entry of `.ferry`, which is flushed with it there, before anything is got."""
    flushed: list[bool] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path.endswith(f"/{OWN}"):
            flushed.append(os.path.isdir(f"{path}/{get_association.FOLDER}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    get_association.Store(loaded, database).close()
    assert flushed[-1]

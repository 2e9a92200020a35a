"""Removing files that a reception log still holds: no recovery brings them back, and their bytes are written over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.archive import identity, index
from dicomferry.models.record.database import Database
from dicomferry.workers.receiving import removal
from dicomferry.workers.receiving.removal import Removed
from support.logged_site import LoggedSite
from support.receiving import encoded


class LoggedShelf(LoggedSite):
    """With a record of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.database = Database(f"sqlite:///{folder / 'record.db'}")
        schema.upgrade(self.database)

    def store(self, uid: str, **elements: str) -> None:
        """It is received, answered for, and has its row."""
        assert self.receive(encoded(SOPInstanceUID=uid, **elements), uid).status == 0
        index.record(self.database, self.waiting)
        self.indexer._waiting.clear()

    def remove(self, *uids: str) -> Removed:
        """Remove these instances, as another process does."""
        known = [path for path, _ in identity.sizes(self.database)]
        paths = [path for path in known if path.endswith(tuple(f"/{uid}.dcm" for uid in uids))]
        return removal.remove(self.archive, self.database, paths)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[LoggedShelf]:
    made = LoggedShelf(tmp_path)
    yield made
    made.database.close()


def names(shelf: LoggedShelf) -> list[str]:
    return [path.split("/")[-1] for path in shelf.files]


@pytest.mark.parametrize("lives", [True, False])
def test_what_is_removed_stays_removed(shelf: LoggedShelf, lives: bool) -> None:
    """Whether the process that received it has the log, or is dead; what was not removed is recovered."""
    for uid in ("1.2.1", "1.2.2", "1.2.3"):
        shelf.store(uid)
    if not lives:
        shelf.die()
    assert shelf.remove("1.2.1", "1.2.3").number == 2
    if lives:
        shelf.die()
    for path in shelf.files:
        (shelf.archive.root / path).unlink()
    shelf.recover()
    assert names(shelf) == ["1.2.2.dcm"]


def test_their_bytes_are_written_over(shelf: LoggedShelf) -> None:
    """When the removal ends neither name nor content is in the log; there is nothing to wait for."""
    shelf.store("1.2.1", PatientName="Removed^One")
    shelf.store("1.2.2", PatientName="Kept^One")
    assert shelf.remove("1.2.1").logs == []
    assert b"Removed^One" not in shelf.left_in_log and b"/1.2.1.dcm" not in shelf.left_in_log
    assert b"Kept^One" in shelf.left_in_log
    shelf.die()


def test_what_was_freed_and_not_written_over_yet_is_said(shelf: LoggedShelf) -> None:
    """The process that has the log writes over it once nothing comes; where none has it, the removal does."""
    shelf.store("1.2.1", PatientName="Removed^One")
    shelf.keeper.look()
    with shelf.log.lock:
        shelf.log._retire()
    shelf.store("1.2.2")
    shelf.keeper.look()
    [freed] = shelf.log.free
    assert shelf.remove("1.2.1").logs == [freed.path]
    assert b"Removed^One" in shelf.left_in_log
    shelf.die()
    assert shelf.remove("1.2.2").logs == []
    assert shelf.left_in_log.find(b"Removed^One") < 0


def test_what_came_again_after_a_removal_is_recovered(shelf: LoggedShelf) -> None:
    """The new record counts, the former one does not."""
    shelf.store("1.2.1", PatientName="First")
    shelf.remove("1.2.1")
    shelf.store("1.2.1", PatientName="Second")
    before = shelf.contents
    shelf.die()
    for path in shelf.files:
        (shelf.archive.root / path).unlink()
    shelf.recover()
    assert shelf.contents == before and b"Second" in next(iter(before.values()))


def test_a_file_is_on_disk_before_its_record_goes(shelf: LoggedShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies between record and file leaves a whole file."""
    shelf.store("1.2.1")
    path = shelf.only
    done: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def flush(fd: int, real: object = real) -> None:
            done.append(os.readlink(f"/proc/self/fd/{fd}"))

        monkeypatch.setattr(os, name, flush)
    shelf.remove("1.2.1")
    segment = next(one for one in done if one.endswith(".segment"))
    assert done.index(str(path)) < done.index(str(path.parent)) < done.index(segment)
    shelf.die()


def test_a_record_that_cannot_be_erased_keeps_its_file(shelf: LoggedShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would come back: the removal fails, and the file has a row."""
    shelf.store("1.2.1")
    real = os.pwritev

    def fail(*arguments: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwritev", fail)
    with pytest.raises(OSError, match="Input/output"):
        shelf.remove("1.2.1")
    monkeypatch.setattr(os, "pwritev", real)
    assert names(shelf) == ["1.2.1.dcm"] and len(list(identity.sizes(shelf.database))) == 1
    shelf.die()

"""Archive and index against each other: what is on disk without a row, gone, damaged, or left over."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from dicomferry.models import telemetry
from dicomferry.models.record.archive import identity
from dicomferry.models.record.archive import index as archive_index
from dicomferry.models.record.archive import unindexed as unindexed_files
from dicomferry.models.record.archive.identity import KnownFile
from dicomferry.models.record.archive.index import Received
from dicomferry.models.record.database import Database
from dicomferry.models.rules import peer_text
from dicomferry.models.rules.errors import ConfigurationError, OutOfReach, UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.files import file_meta, part10
from dicomferry.workers.files.data_set import Uids
from dicomferry.workers.files.same_instance import Relation, compare
from dicomferry.workers.files.soundness import flaw_of, read_uids
from dicomferry.workers.receiving.archive import Archive, file_name, file_number
from dicomferry.workers.receiving.indexer import Record, write_rows
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.receiving.reception_log import recovery

log = telemetry.logger(__name__)

BATCH = 200
_ADVICE = "see who owns it and whether the disk is sound, then `dicomferry archive verify --repair`"
_FIRST = 64 * 1024
_META = 1024
"""Bytes in which the meta group of a file lies that we wrote, but for the oddest UIDs."""
_NO_META = "unreadable: no meta: no file meta information"
MOST_NAMED = 1000


@dataclass
class Findings:
    """What a check found. `named` are (kind, path) of what is wrong, the first MOST_NAMED of them.

    `left` are those of the `unindexed` files that a repair could give no row.
    """

    files: int = 0
    indexed: int = 0
    missing_files: int = 0
    unindexed: int = 0
    damaged: int = 0
    temporary: int = 0
    left: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)

    def name(self, kind: str, path: str) -> None:
        """Write something wrong down."""
        if len(self.named) < MOST_NAMED:
            self.named.append((kind, path))


def verify(archive: Archive, database: Database, *, repair: bool = False) -> Findings:
    """Compare index and files; every file's element lengths are walked.

    `repair`: files without row get one, rows without file become history, left-over temporaries go (unless a storage
    SCP is receiving). Damaged files are named and never touched; with `repair` their rows say so, and they count for
    nothing until they are whole again. Raises OutOfReach.
    """
    if repair:
        recovery.recover(archive)
    found = Findings()
    rows = dict(identity.sizes(database))
    found.indexed = len(rows)
    fresh: list[str] = []
    damaged: list[str] = []
    for path in archive.files():
        found.files += 1
        size = rows.pop(path, None)
        if size is None:
            fresh.append(path)
        elif not _is_whole(archive, path, size):
            found.damaged += 1
            found.name("damaged", path)
            damaged.append(path)
    # What was received since the rows were read has its row by now, or gets it from the storage SCP.
    for path in _unknown(database, fresh):
        found.unindexed += 1
        found.name("unindexed", path)
        if not _is_whole(archive, path, None):
            found.damaged += 1
            found.name("damaged", path)
    # Their rows as they are now, so that one that gets a new file from here on is left alone.
    absent = identity.files_at(database, list(rows))
    missing = [row for row in absent if is_gone(archive, row.path)]
    found.missing_files = len(missing)
    for row in missing:
        found.name("missing", row.path)
    for draft in archive.drafts():
        found.temporary += 1
        found.name("temporary", str(draft.relative_to(archive.root)))
    if repair:
        _repair(archive, database, found, missing, fresh, damaged)
    return found


def _repair(
    archive: Archive,
    database: Database,
    found: Findings,
    missing: list[KnownFile],
    fresh: list[str],
    damaged: list[str],
) -> None:
    for path, why in index(archive, database, fresh).left:
        if ("unindexed", path) in found.named:
            found.named.remove(("unindexed", path))
        found.left += 1
        found.name("without a row", f"{path}: {why}")
    identity.make_history(database, missing)
    rows = identity.files_at(database, damaged)
    identity.note_damage(database, [(row, "it is not as it was received") for row in rows])
    noted = identity.damaged(database)
    identity.clear_damage(database, [row for row in noted if _is_whole(archive, row.path, row.size)])
    if found.temporary:
        try:
            lock = archive.claim()
        except ConfigurationError:
            return
        try:
            archive.remove_drafts()
        finally:
            os.close(lock)


class Indexed(NamedTuple):
    """What came of giving files their rows: how many got one, and (path, why) of those that could not."""

    number: int
    left: list[tuple[str, str]]


def index(
    archive: Archive, database: Database, paths: Iterable[str], *, record: Record = archive_index.record
) -> Indexed:
    """Write rows for those of `paths` that have none, once these files are on disk for good. Raises OutOfReach.

    One file that cannot be read, or whose row is refused, keeps no other from its row.
    """
    number = 0
    left: list[tuple[str, str]] = []
    for part in batches_of(paths):
        batch = []
        for path in archive_index.unknown(database, part):
            try:
                batch.append(_flushed(archive, path))
            except OSError as error:
                left.append((path, error.strerror or str(error)))
        refused = write_rows(record, database, batch)
        left += [(received.path, why) for received, why in refused]
        number += len(batch) - len(refused)
        unindexed_files.forget(database, part)
    unindexed_files.note(database, left)
    return Indexed(number, left)


def recover(
    archive: Archive, database: Database, folders: Iterable[str], *, record: Record = archive_index.record
) -> tuple[int, list[str]]:
    """Give files in these folders their rows: (how many, folders in which something was left). Raises OutOfReach."""
    number = 0
    unfinished = []
    for folder in folders:
        try:
            indexed, left = index(archive, database, archive.files(folder), record=record)
        except OSError as error:
            indexed, left = 0, [(folder, error.strerror or str(error))]
        number += indexed
        if left:
            unfinished.append(folder)
        for path, why in left:
            shown = peer_text.words(path)
            log.error("a file of the archive has no row and cannot be given one", path=shown, why=why, advice=_ADVICE)
    return number, unfinished


def take_over(archive: Archive, database: Database, journal: Journal) -> tuple[int, list[str]]:
    """Give the files their rows that a process which died had published: (how many, folders in which something was
    left). Where its journal does not tell the folders, all of them are looked at. Raises OutOfReach.
    """
    try:
        folders = journal.read()
    except OSError as error:
        log.error("a journal of the archive cannot be read, so every folder is looked at", error=str(error))
        folders = archive.folders()
    return recover(archive, database, folders)


def _flushed(archive: Archive, path: str) -> Received:
    """The row of a file that is on disk, with its name, when this returns. Raises OSError."""
    if not peer_text.is_fit(path):
        raise OSError(errno.EILSEQ, "its name is no text in UTF-8: rename it, or take it out of the archive", path)
    pure = PurePosixPath(path)
    fd = archive.open_file(str(pure.parent), pure.name)
    try:
        # Whoever made it may have died before: a row that survives a power cut needs a file that does.
        if archive.flush:
            os.fsync(fd)
    finally:
        os.close(fd)
    archive.flush_folder(str(pure.parent))
    return describe(archive, path)


def is_gone(archive: Archive, path: str) -> bool:
    """Whether no file is there for certain; what cannot be looked at is not gone."""
    try:
        os.lstat(archive.root / path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _unknown(database: Database, paths: Iterable[str]) -> Iterator[str]:
    for part in batches_of(paths):
        yield from archive_index.unknown(database, part)


def batches_of(paths: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for path in paths:
        part.append(path)
        if len(part) == BATCH:
            yield part
            part = []
    if part:
        yield part


def look(archive: Archive, received: Received, is_sound: bool = False) -> Received | None:
    """What has just been published as its row has it: with its flaw, if any; None where it is no more.

    Raises OutOfReach where the archive is out of sight, so that nobody can tell; OSError.

    A duplicate is described as the file that is there: that may be in another encoding. Of a file whose data set was
    found sound when it came, nothing is read as long as it has the size that it came with.
    """
    duplicate = received.arrival is not None and received.arrival.outcome == "duplicate"
    try:
        if is_sound and not duplicate and archive.size_of(received.path) == received.size:
            return received
        if duplicate:
            return replace(describe(archive, received.path), arrival=received.arrival)
        if received.flaw:
            return received
        folder, _, name = received.path.rpartition("/")
        fd = archive.open_file(folder, name)
    except OSError as error:
        if not archive.is_in_sight():
            raise OutOfReach(f"{archive.root} is not the archive that files were received into") from None
        if isinstance(error, FileNotFoundError):
            return None
        raise
    try:
        meta = file_meta.decode(os.pread(fd, _META, 0))
        if meta is None:
            return replace(received, flaw=_NO_META)
        uids = received.sop_class_uid, received.sop_instance_uid, received.study_instance_uid
        own = *uids, received.series_instance_uid
        flaw = flaw_of(fd, meta.data_offset, received.transfer_syntax_uid, own, received.sop_instance_uid)
    finally:
        os.close(fd)
    return replace(received, flaw=flaw) if flaw else received


def describe(archive: Archive, path: str) -> Received:
    """The row of a file that lies in the archive, from the file alone. Raises OSError."""
    pure = PurePosixPath(path)
    fd = archive.open_file(str(pure.parent), pure.name)
    try:
        status = os.fstat(fd)
        meta = file_meta.decode(os.pread(fd, _FIRST, 0))
        values = meta.values if meta else {}
        syntax = values.get(file_meta.TRANSFER_SYNTAX, "")
        uids: Uids = (values.get(file_meta.SOP_CLASS, ""), values.get(file_meta.SOP_INSTANCE, ""), None, None)
        flaw: str | None = _NO_META
        if meta is not None:
            claimed = uids[1]
            found: Uids | UnusableFile
            try:
                uids = found = read_uids(fd, meta.data_offset, syntax)
            except UnusableFile as error:
                found = error
            flaw = flaw_of(fd, meta.data_offset, syntax, found, claimed)
        relation = _relation(archive, fd, pure)
    finally:
        os.close(fd)
    return Received(
        path=path,
        size=status.st_size,
        sop_instance_uid=uids[1],
        sop_class_uid=uids[0],
        transfer_syntax_uid=syntax,
        study_instance_uid=uids[2],
        series_instance_uid=uids[3],
        relation=relation,
        flaw=flaw,
        stored_at=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _relation(archive: Archive, fd: int, path: PurePosixPath) -> str:
    """What a file is to the first one of its SOP Instance UID, by its name and their contents."""
    if file_number(path.name) == 1:
        return "first"
    stem = path.name.rpartition("~")[0]
    try:
        first = archive.open_file(str(path.parent), file_name(stem, 1))
    except OSError:
        return "first"
    try:
        return Relation.ALTERNATE.value if compare(fd, first) is Relation.ALTERNATE else Relation.CONFLICT.value
    finally:
        os.close(first)


def _is_whole(archive: Archive, path: str, size: int | None) -> bool:
    """Whether a file has the size on record, and its elements end within it."""
    pure = PurePosixPath(path)
    try:
        fd = archive.open_file(str(pure.parent), pure.name)
    except OSError:
        return False
    try:
        real = os.fstat(fd).st_size
        if size is not None and real != size:
            return False
        meta = file_meta.decode(os.pread(fd, _FIRST, 0))
        if meta is None:
            return False
        header = part10.Header(
            sop_class_uid="",
            sop_instance_uid="",
            transfer_syntax_uid=meta.values.get(file_meta.TRANSFER_SYNTAX, ""),
            study_instance_uid=None,
            series_instance_uid=None,
            data_offset=meta.data_offset,
        )
        part10.check_whole(fd, header, real)
    except UnusableFile as error:
        # What cannot be walked at all was received so: it was kept, and flagged, as it came.
        return error.reason != Reason.TRUNCATED or size == real
    except OSError:
        return False
    finally:
        os.close(fd)
    return True

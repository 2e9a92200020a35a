"""What becomes of an ingest of which one system call fails: run as a module, `FOLDER WAY KIND FIRST STEP`.

One process, which makes a child for each case: in the child the n-th call of those that ingest, journal, index and
removal make goes wrong in one manner (an error, a write that is cut short, or the end of the process). What the child
had answered with 0x0000 has to be whole on disk, and indexed, after a restart. The way is `flushed`, or `logged` by a
reception log; of a file that this still has the record, nothing but the name is left then. Prints a JSON document: how
many calls there are, how many cases were tried, and what was lost.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from dicomferry.models.record import schema
from dicomferry.models.record.archive import index
from dicomferry.models.record.database import Database
from dicomferry.models.settings import LEAST_LOG
from dicomferry.workers.receiving import archive_check, removal
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.indexer import Indexer, Tuning
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.receiving.reception_log import recovery
from dicomferry.workers.receiving.reception_log.checkpoint import LogKeeper
from dicomferry.workers.receiving.reception_log.reception_log import Tuning as LogTuning
from dicomferry.workers.receiving.reception_log.segment import Segment
from support import samples
from support.receiving import EXPLICIT, IMPLICIT, Site, data_of, encoded

CALLS = (
    "open", "close", "write", "writev", "pread", "fsync", "fdatasync", "link", "mkdir", "unlink", "rmdir", "stat",
    "lstat", "fstat", "replace", "ftruncate", "statvfs", "access", "scandir", "pwrite", "pwritev", "rename",
)  # fmt: skip
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT}
WAYS = ("flushed", "logged")
KINDS = (*ERRORS, "short", "kill")
DIED = 77
REMOVED = f"{samples.uid('study')}/1.3/1.3.1.dcm"
Answered = tuple[str, bytes, str]
"""SOP Instance UID, data set, transfer syntax."""


class Faults:
    """Counts the calls, in this process, and makes the `at`-th one go wrong; `at` 0 is none."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind = kind
        self.at = at
        self.count = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """While this lasts."""
        real = {name: getattr(os, name) for name in CALLS}
        try:
            for name, call in real.items():
                setattr(os, name, self._wrapped(name, call))
            yield
        finally:
            for name, call in real.items():
                setattr(os, name, call)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.count += 1
                mine = self.count == self.at
            if not mine:
                return real(*arguments, **options)
            if self.kind == "kill":
                os._exit(DIED)
            if self.kind == "short":
                return _short(name, real, *arguments, **options)
            if name == "close":
                real(*arguments, **options)  # the descriptor is gone all the same
            raise OSError(ERRORS[self.kind], os.strerror(ERRORS[self.kind]))

        return call


def _short(name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Half of what was to be written; of other calls it is an interrupted disk."""
    if name == "write":
        return real(arguments[0], arguments[1][: len(arguments[1]) // 2])
    if name == "pwrite":
        return real(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
    if name == "pwritev":
        first = memoryview(arguments[1][0])
        return real(arguments[0], [first[: len(first) // 2]], arguments[2])
    if name == "writev":
        first = memoryview(arguments[1][0])
        return real(arguments[0], [first[: len(first) // 2]])
    return real(*arguments, **options)


def things() -> list[Answered]:
    """What is sent: two folders, the same again, in another encoding, another content, what cannot be read."""
    uids = [f"1.2.{number}" for number in range(1, 4)]
    found = [(uid, encoded(SOPInstanceUID=uid), EXPLICIT) for uid in uids]
    found.append(("1.3.1", encoded(SOPInstanceUID="1.3.1", SeriesInstanceUID="1.3"), EXPLICIT))
    found.append(found[0])
    found.append((uids[1], encoded(IMPLICIT, SOPInstanceUID=uids[1]), IMPLICIT))
    found.append((uids[2], encoded(SOPInstanceUID=uids[2], PatientName="Other"), EXPLICIT))
    found.append(("1.2.9", b"junk that is no data set", EXPLICIT))
    return found


def keeper_of(archive: Archive) -> LogKeeper | None:
    """The log as a process has it that receives; None where it cannot be had."""
    with contextlib.suppress(OSError):
        keeper = LogKeeper(archive, 0, LEAST_LOG, tuning=LogTuning(age_seconds=0))
        with contextlib.suppress(OSError):
            keeper.look()
        return keeper
    return None


def child(folder: Path, way: str, faults: Faults, report: Callable[[int], object]) -> None:
    """Receive all of it, index half of it under way, take one away again; `report` hears what was answered 0x0000."""
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    site = Site(folder)
    sent = list(enumerate(things()))
    with faults.on():
        for part in (sent[:5], sent[5:]):
            recovery.recover(site.archive)
            journal = Journal(site.archive.root / OWN / "journal")
            keeper = keeper_of(site.archive) if way == "logged" else None
            site.ingest = partial(Ingest, reception_log=keeper.log if keeper else None)
            # A restart: what the one before could not finish is tried first.
            journal.keep(archive_check.recover(site.archive, database, journal.read())[1])
            look = partial(archive_check.look, site.archive)
            site.indexer = Indexer(database, journal, look=look, tuning=Tuning(pause_seconds=0.01))
            for number, (uid, data, syntax) in part:
                if site.receive(data, uid, syntax, size=700).status == 0:
                    report(number)
                if keeper is not None and number == 3:
                    with contextlib.suppress(OSError):
                        keeper.look()
            site.indexer.start()
            site.indexer.close(20)
            journal.close()
            if len(part) == 5 and keeper is not None:
                with contextlib.suppress(OSError):
                    keeper.close()
        # While the process lives, and has its log.
        removal.remove(site.archive, database, [REMOVED])
    database.close()


def tear(archive: Archive) -> None:
    """Leave nothing of the files that a log has the records of: they need not have been flushed."""
    for log in recovery.folders(archive):
        for path in recovery.segments(log):
            segment, contents = Segment.open(path)
            for record in contents.records:
                file = archive.root / (record.place or "nothing")
                if file.is_file() and file.read_bytes() == segment.bytes_of(record):
                    os.truncate(file, 0)
            segment.close()


def lost(folder: Path, answered: list[Answered]) -> list[str]:
    """What was answered and is not whole, or not indexed, after a restart."""
    archive = Archive(folder / "archive")
    archive.prepare()
    tear(archive)
    recovery.recover(archive)
    archive.remove_drafts()
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    try:
        archive_check.recover(archive, database, Journal(archive.root / OWN / "journal").read())
        rows = {str(row["path"]): row for row in index.listing(database)}
    finally:
        database.close()
    wrong = [f"a row without its file: {path}" for path in rows if not (archive.root / path).is_file()]
    wrong += [
        f"a row of another size: {path}"
        for path, row in rows.items()
        if (archive.root / path).is_file() and (archive.root / path).stat().st_size != row["size"]
    ]
    wrong += [f"left over: {path}" for path in archive.drafts()]
    for uid, data, syntax in answered:
        if uid == "1.3.1":
            continue  # it was taken away, or that ended between its row and its file; no row is without a file, above
        paths = [path for path, row in rows.items() if row["sop_instance_uid"] == uid]
        kept = [data_of(archive.root / path) for path in paths if (archive.root / path).is_file()]
        # The same in another encoding is kept once.
        if data not in kept and not (syntax == IMPLICIT and encoded(SOPInstanceUID=uid) in kept):
            wrong.append(f"{uid} is not there, of {len(paths)} rows")
    return wrong


def case(folder: Path, way: str, kind: str, at: int) -> tuple[int, list[str]]:
    """(calls that were made, what was lost) of one case; `folder` is its own."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        code = 1
        write = os.write  # not the one that fails
        try:
            faults = Faults(kind, at)
            with contextlib.suppress(OSError):  # whoever removes a file is told, and ends
                child(folder, way, faults, lambda number: write(writer, b"%d\n" % number))
            write(writer, b"calls %d\n" % faults.count)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as lines:
        told = lines.read().split("\n")
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    sent = things()
    wrong = lost(folder, [sent[int(line)] for line in told if line.isdigit()])
    if code not in (0, DIED):
        wrong.append(f"the process ended with {code}")
    return next((int(line.split()[1]) for line in told if line.startswith("calls")), 0), wrong


def main() -> None:
    """Try the first case and each `step`-th after it."""
    folder, way, kind, first, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    template = folder / "template"
    Archive(template / "archive").prepare()
    database = Database(f"sqlite:///{template / 'rows.db'}")
    schema.upgrade(database)
    database.close()

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(template, folder / name))

    # Once here, so that everything is loaded before the children are made.
    child(fresh("warm"), way, Faults(kind, 0), lambda _: None)
    calls, wrong = case(fresh("whole"), way, kind, 0)
    found = {"none": wrong} if wrong else {}
    tried = range(first, calls + 1, step)
    for at in tried:
        own = fresh(f"{at}")
        _, wrong = case(own, way, kind, at)
        if wrong:
            found[str(at)] = wrong
        shutil.rmtree(own)
    print(json.dumps({"calls": calls, "tried": len(tried), "lost": found}))


if __name__ == "__main__":
    main()

"""Where C-GET is asked, and how what comes back on its association gets into the archive.

The archive is shared with the storage SCP. Each attempt that gets has a journal of its own, which is locked while it
lives; whoever comes later finishes what a dead one has published and not indexed.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dicomferry.models import telemetry
from dicomferry.models.durable import make_folder
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.models.settings import Settings
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.pace import Slowed
from dicomferry.workers.dimse import get
from dicomferry.workers.dimse.acceptor import Incoming, Sink
from dicomferry.workers.dimse.get import Gets
from dicomferry.workers.dimse.reports import Retrieval
from dicomferry.workers.dimse.requestor import Association
from dicomferry.workers.receiving import archive_check, archive_mark
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.call_log import Refusals
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.receiving.reception_log import recovery

log = telemetry.logger(__name__)

FOLDER = "gets"
INDEX_SECONDS = 30.0


def take_over(archive: Archive, database: Database) -> int:
    """Write rows for what dead processes got and published; how many. Raises OutOfReach.

    What cannot be read stays on its journal, for the next who comes.
    """
    folder = archive.root / OWN / FOLDER
    found = 0
    for name in sorted({path.stem for path in folder.glob("*") if path.suffix in (".lock", ".journal")}):
        try:
            found += _take_over(archive, database, folder / f"{name}.lock")
        except BlockingIOError:
            continue
        except OSError as error:
            log.error("the journal of a process that died cannot be read", path=str(folder / name), error=str(error))
    if found:
        log.warning("taken over from a process that died", indexed=found)
    return found


def _take_over(archive: Archive, database: Database, path: Path) -> int:
    """Finish what the owner of the lock at `path` could not. Raises BlockingIOError where it lives, OSError."""
    journal = path.with_suffix(".journal")
    # A journal without its lock is nobody's: the lock has its name before the journal is there.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        indexed, left = archive_check.take_over(archive, database, Journal(journal))
        if not left:
            journal.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return indexed
    finally:
        os.close(fd)


class Store:
    """The archive as one attempt writes to it. Raises OSError, ConfigurationError, OutOfReach when it is made."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.archive = Archive(settings.archive, reserve_bytes=settings.scp.reserve_bytes, flush=settings.scp.flush)
        archive_mark.prepare(self.archive, database)
        recovery.recover(self.archive)
        take_over(self.archive, database)
        folder = self.archive.root / OWN / FOLDER
        make_folder(folder)
        self._lock_path = folder / f"{uuid.uuid4().hex}.lock"
        self._lock = _locked(self._lock_path)
        self._journal_path = self._lock_path.with_suffix(".journal")
        self.journal = Journal(self._journal_path, flush=settings.scp.flush)
        self._database = database.impatient()
        self.indexer = Indexer(self._database, self.journal, look=partial(archive_check.look, self.archive))
        self.indexer.start()

    def is_behind(self) -> bool:
        """Whether something waits for its row; that is written at once."""
        self.indexer.hurry()
        return self.indexer.waiting > 0

    def close(self) -> None:
        """Write the rows that wait. What cannot be written is left for whoever takes over."""
        written = self.indexer.close(INDEX_SECONDS)
        self.journal.close()
        if written and not self.indexer.refused:
            self._journal_path.unlink(missing_ok=True)
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._database.close()


def _locked(path: Path) -> int:
    """A new lock at `path`. It is locked before it has that name: nobody can take it for a dead one's meanwhile."""
    fresh = path.with_suffix(".fresh")
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(fresh, path)
    except BaseException:
        os.close(fd)
        fresh.unlink(missing_ok=True)
        raise
    return fd


class GetLine:
    """C-GET: an association for each set of SOP classes. `classes` are those of the instances that are missing; `part`
    tells which transfer syntaxes are proposed where there is no room for all: others in each round. `compressed_first`:
    the order in which they are proposed. `only`: the transfer syntaxes that are proposed, where not all of them are.
    """

    def __init__(
        self,
        remote: Remote,
        root: str,
        store: Store,
        lease: Lease,
        heart: Heartbeat,
        classes: Callable[[], Sequence[str]],
        *,
        part: int = 0,
        compressed_first: bool = False,
        only: Sequence[str] = (),
    ) -> None:
        self._remote = remote
        self._part = part
        self._compressed_first = compressed_first
        self._only = only
        self._root = root
        self._store = store
        self._lease = lease
        self._heart = heart
        self._classes = classes
        self._gets: Gets | None = None
        self._proposed: frozenset[str] = frozenset()
        self._token = ""
        self.refused: dict[int, Refusals] = {}

    def ask(self, one: Target, message_id: int, move_id: int) -> Retrieval:
        """Ask for it, over an association that takes what is missing."""
        wanted = self._classes()
        if self._gets is not None and not self._proposed.issuperset(wanted):
            self.release()
        if self._gets is None:
            association = get.open_for(
                self._remote,
                self._root,
                wanted,
                part=self._part,
                compressed_first=self._compressed_first,
                only=self._only,
                progress=self._heart.progress,
            )
            self._heart.on_abort(association.abort)
            self._gets = Gets(association, self._root)
            self._proposed = frozenset(context.abstract_syntax for context in association.contexts)
            self._token = uuid.uuid4().hex
        return self._gets.ask(one, message_id, lambda incoming: self._receive(incoming, move_id))

    def _receive(self, incoming: Incoming, move_id: int) -> Sink:
        ingest = Ingest(
            self._store.archive,
            self._store.indexer,
            incoming,
            association=self._token,
            address=self._remote.host[:64],
            job_id=self._lease.job_id,
            move_id=move_id,
            refused=self.refused.setdefault(move_id, Refusals()).add,
        )
        return Slowed(ingest, self._remote.pace.received) if self._remote.pace else ingest

    def abort(self) -> None:
        """Break the association, if one is open."""
        self._end(lambda association: association.close())

    def release(self) -> None:
        """End it in good order."""
        self._end(lambda association: association.release())

    def _end(self, how: Callable[[Association], None]) -> None:
        gets, self._gets = self._gets, None
        if gets is not None:
            self._heart.on_abort(None)
            how(gets.association)

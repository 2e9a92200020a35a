"""A process that receives into the archive: its journal, its rows, who may call it and at what pace it answers.

An archive has one of them or several, told apart by their numbers, which count from 0. Each has a journal of its own,
and whoever comes next under a number finishes what its forerunner could not.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import threading
from functools import partial

from dicomferry.daemon.archive_connection import ArchiveConnection, StorageScp
from dicomferry.daemon.connections import RELEASE_SECONDS, Connections
from dicomferry.daemon.places import AssociationPlaces, PlaceKeeper, most_associations, most_of_one
from dicomferry.daemon.port import take_port
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import telemetry
from dicomferry.models.record.archive import identity
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.settings import Settings
from dicomferry.workers.attempts.pace import Paces
from dicomferry.workers.dimse.acceptor import Waits
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.dimse.wire import associate_as_acceptor
from dicomferry.workers.receiving import archive_check, indexer, journal
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.call_log import CallLog
from dicomferry.workers.receiving.callers import Admission
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.receiving.reception_log import recovery
from dicomferry.workers.receiving.reception_log.checkpoint import LogKeeper
from dicomferry.workers.retrieval import get_association

MOST_DESCRIPTORS = 65_536
LIMITS_SECONDS = 1.0
INDEX_SECONDS = 30.0

log = telemetry.logger(__name__)


class ReceivingProcess:
    """What a process has that receives into this archive, of which there are `processes`.

    `places` are those of all of them; without it this process has its own. Made, it has given the files their rows that
    its forerunner left without. Raises OutOfReach.
    """

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        database: Database,
        *,
        number: int = 0,
        processes: int = 1,
        places: PlaceKeeper | None = None,
    ) -> None:
        self._settings = settings
        self._journal = Journal(journal.path_of(archive.root / OWN, number), flush=settings.scp.flush)
        _recover(archive, self._journal, database)
        self._keeper = _log_keeper(settings, archive, number)
        self._indexer = Indexer(
            database.impatient(),
            self._journal,
            look=partial(archive_check.look, archive),
            tuning=indexer.Tuning(most_waiting=indexer.DEFAULT.most_waiting // processes),
        )
        names = Names()
        self._admission = Admission(database.impatient(), names)
        self._admission.reload()
        self.waits = Waits(acse=settings.timeouts.acse, idle=settings.scp.idle, progress=settings.timeouts.progress)
        self._calls = CallLog(database.impatient())
        self._paces = Paces(database.impatient(), names)
        self._paces.reload()
        self._scp = StorageScp(
            settings,
            archive,
            self._indexer,
            self._admission,
            self.waits,
            self._calls,
            self._paces,
            places or AssociationPlaces(lambda: self.most_associations, lambda: most_of_one(settings.scp, self.moves)),
            self._keeper.log if self._keeper else None,
        )

    @property
    def moves(self) -> int:
        """How many moves may be in flight at once, towards us, from all remotes."""
        return self._admission.callers.moves

    @property
    def most_associations(self) -> int:
        """How many associations are taken at once."""
        return most_associations(self._settings.scp, self.moves)

    def begin(self, sock: socket.socket, address: str) -> ArchiveConnection:
        """What a connection that came from there is to be. Raises OSError where it is gone already."""
        return ArchiveConnection(self._scp, sock, address)

    def start(self) -> None:
        """All is loaded: begin to look after callers and rows."""
        associate_as_acceptor.prepare()
        # What was loaded stays: otherwise the collector walks through all of it again and again while files come in.
        gc.collect()
        gc.freeze()
        self._admission.start()
        self._indexer.start()
        if self._keeper is not None:
            self._keeper.start()
        self._calls.start()

    def read_limits(self, stop: StopSignal) -> None:
        """Read beside, until a stop is asked for, what the remotes may send."""
        threading.Thread(target=_read_limits, args=(self._paces, stop), name="limits", daemon=True).start()

    def close(self) -> None:
        """Nothing comes any more: write what waits."""
        if self._keeper is not None:
            self._keeper.close()
        self._admission.close()
        self._calls.close(RELEASE_SECONDS)
        if not self._indexer.close(INDEX_SECONDS):
            log.warning("files without a row are indexed at the next start", files=self._indexer.waiting)
        self._journal.close()


class Alone:
    """The one process of a storage SCP that has no others: it takes the connections from the port itself."""

    def __init__(self, settings: Settings, archive: Archive, database: Database) -> None:
        self._settings = settings
        self._process = ReceivingProcess(settings, archive, database)
        self._connections: Connections | None = None

    @property
    def most_associations(self) -> int:
        """How many associations are taken at once."""
        return self._process.most_associations

    def start(self, stop: StopSignal) -> bool:
        """Take the port, and begin; always True. Raises ConfigurationError."""
        self._connections = Connections(take_port(self._settings), self._process.begin)
        self._process.start()
        self._process.read_limits(stop)
        return True

    def stand(self, stop: StopSignal, seconds: float) -> None:
        """Take connections for so long, or until a stop is asked for."""
        assert self._connections is not None
        self._connections.accept(stop, seconds)

    @property
    def turns(self) -> bool:
        """Whether all who receive do so: the one who asks is the one who does."""
        return True

    def drain(self, stop: StopSignal) -> None:
        """Let associations end in good order, at once if that is urgent, and write what waits."""
        assert self._connections is not None
        self._connections.drain(stop, self._process.waits.progress)
        self._process.close()

    def close(self) -> None:
        """Nothing is left to end."""


def take_over_unused(archive: Archive, database: Database, processes: int) -> None:
    """Finish what processes left whose numbers are used no longer, and what C-GETs left. Raises OutOfReach."""
    _put_back(archive, database, processes)
    found = 0
    for path in journal.left_behind(archive.root / OWN, processes):
        indexed, unfinished = archive_check.take_over(archive, database, Journal(path))
        found += indexed
        if not unfinished:
            path.unlink()
    if found:
        log.warning("taken over from a process that died", indexed=found)
    get_association.take_over(archive, database)


def _put_back(archive: Archive, database: Database, processes: int | None = None) -> None:
    """Have files again, and their rows, that the reception logs of dead processes hold.

    Where it is known how many `processes` there are, the logs of other numbers go. Raises
    ConfigurationError, OutOfReach.
    """
    try:
        files = recovery.recover(archive, processes=processes).files
    except OSError as error:
        raise ConfigurationError(f"the reception log in {archive.root} cannot be recovered: {error}") from error
    archive_check.index(archive, database, files)
    again = set(files)
    identity.clear_damage(database, [row for row in identity.damaged(database) if row.path in again] if again else [])


def _log_keeper(settings: Settings, archive: Archive, number: int) -> LogKeeper | None:
    """The reception log of this process; None where none is wanted, or none can be had: then each file is flushed."""
    if not settings.scp.flush or not settings.scp.log_bytes:
        return None
    try:
        return LogKeeper(archive, number, settings.scp.log_bytes)
    except OSError as error:
        log.error("no reception log can be made, each instance is flushed by itself", error=str(error))
        return None


def _recover(archive: Archive, own: Journal, database: Database) -> None:
    """Finish what a process that died could not: rows for what it published, an end to what it had not."""
    _put_back(archive, database)
    drafts = archive.remove_drafts()
    found, unfinished = archive_check.take_over(archive, database, own)
    own.keep(unfinished)
    if drafts or found:
        log.warning("taken over from a process that died", indexed=found, temporary_files_removed=drafts)


def take_descriptors() -> None:
    """Raise the limit of open files, 1,024 as a rule, as far as the system allows: an association has two or three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _read_limits(paces: Paces, stop: StopSignal) -> None:
    """What the remotes may send, as it is set."""
    while not stop.is_set():
        try:
            paces.reload()
        except Exception:
            log.exception("the limits cannot be read")
        stop.wait(LIMITS_SECONDS)

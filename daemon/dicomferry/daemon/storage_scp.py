"""The storage SCP role: listens, a thread for each association, and what is received goes into the archive."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import sys
import threading
import uuid
from functools import partial

from dicomferry.daemon.connections import RELEASE_SECONDS, Connections
from dicomferry.daemon.places import AssociationPlaces, Caller
from dicomferry.daemon.port import take_port
from dicomferry.daemon.sign_of_life import SignOfLife
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import disks, telemetry
from dicomferry.models import settings as settings_module
from dicomferry.models.record import presence, role_facts, schema
from dicomferry.models.record.archive import calls as recorded_calls
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import DicomferryError, DimseError
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent
from dicomferry.workers.attempts.pace import Paces, Slowed
from dicomferry.workers.dimse.acceptor import Acceptor, Incoming, Sink, Waits
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.dimse.wire import associate_as_acceptor
from dicomferry.workers.dimse.wire.associate_as_acceptor import AssociateRequest, Rejection
from dicomferry.workers.dimse.wire.upper_layer import UpperLayer
from dicomferry.workers.receiving import archive_check, archive_mark
from dicomferry.workers.receiving.archive import OWN, Archive, Draft
from dicomferry.workers.receiving.call_log import CallLog, OpenCall
from dicomferry.workers.receiving.callers import Admission
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.receiving.sight import Lookout
from dicomferry.workers.retrieval import get_association

MOST_DESCRIPTORS = 65_536
TICK_SECONDS = 1.0
INDEX_SECONDS = 30.0

log = telemetry.logger(__name__)


class StorageScp:
    """What all connections share: who is admitted, how many, and where instances go."""

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        indexer: Indexer,
        admission: Admission,
        waits: Waits,
        calls: CallLog,
        paces: Paces,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._indexer = indexer
        self._admission = admission
        self._waits = waits
        self._calls = calls
        self._paces = paces
        self.places = AssociationPlaces(lambda: self.most_associations, lambda: self.most_of_one)

    @property
    def most_associations(self) -> int:
        """How many associations are taken at once: as many as set, or four times all moves in flight where that is
        more.
        """
        return max(self._settings.scp.max_associations, 4 * self._admission.callers.moves)

    @property
    def most_of_one(self) -> int:
        """How many of them one caller may have: as many as set, else half of all."""
        return self._settings.scp.per_caller or max(1, self.most_associations // 2)

    def listen(self) -> Connections:
        """Take the port; what comes to it. Raises ConfigurationError."""
        return Connections(take_port(self._settings), lambda sock, address: _ArchiveConnection(self, sock, address))


class _ArchiveConnection:
    """One connection: the `Service` of its acceptor, and what is logged of it."""

    def __init__(self, scp: StorageScp, sock: socket.socket, address: str) -> None:
        self._scp = scp
        self._address = address
        self._token = uuid.uuid4().hex
        self._stores = 0
        self.caller = Caller("", address)
        self._call: OpenCall | None = None
        self._spare: Draft | None = None
        self._layer = UpperLayer(sock, address, self._moved)
        self.acceptor = Acceptor(self._layer, self, scp._waits)

    def run(self) -> None:
        """The whole life of the connection."""
        try:
            self.acceptor.serve()
            why = None
        except DimseError as error:
            why = str(error)
        except Exception:
            log.exception("an association failed", association=self._token)
            why = "our own fault"
        finally:
            self._scp._calls.ended(self._token)
            if self._stores:
                self._scp._indexer.hurry()
        if self.acceptor.request is not None:
            log.info("association ended", association=self._token, stores=self._stores, why=why)
        elif why and "was closed" not in why:
            log.info("no association came about", address=self._address, why=why)

    def idle_seconds(self) -> float:
        """How long its association has said nothing."""
        return self.acceptor.idle_seconds()

    def give_way(self) -> None:
        """End the association: its place is needed for another caller."""
        self.acceptor.end("it was idle, and its place was needed")

    def admit(self, request: AssociateRequest) -> Rejection | None:
        """Known callers, as long as there is a place."""
        caller = request.calling_ae_title
        scp = self._scp
        self.caller = Caller(caller, self._address)
        rejection, allow = self._stranger(caller), ""
        if rejection is not None:
            allow = (
                f"to allow it: `dicomferry remote add NAME {caller or 'AET'}@{self._address}:PORT`, "
                f'or `dicomferry remote set NAME --also-from {self._address}`, or scp.accept = "any"'
            )
        elif (full := scp.places.take(self)) is not None:
            rejection, allow = Rejection(2, 3, 2, full), "it may try again"
        if rejection is not None:
            log.warning(
                "association rejected",
                result=f"{rejection.result}/{rejection.source}/{rejection.reason}",
                why=rejection.text,
                advice=allow,
                calling_ae_title=caller,
                called_ae_title=request.called_ae_title,
                address=self._address,
            )
            scp._calls.rejected(
                self._token,
                calling=caller,
                called=request.called_ae_title,
                address=self._address,
                why=f"{rejection.text} ({rejection.result}/{rejection.source}/{rejection.reason}); {allow}",
            )
            return rejection
        self._layer.peer = f"{caller}@{self._address}"
        answers = associate_as_acceptor.negotiate(request.contexts)
        self._call = scp._calls.begin(
            self._token,
            calling=caller,
            called=request.called_ae_title,
            address=self._address,
            refused=tuple(dict.fromkeys(answer.abstract_syntax for answer in answers if not answer.accepted)),
        )
        log.info(
            "association accepted",
            association=self._token,
            calling_ae_title=caller,
            called_ae_title=request.called_ae_title,
            address=self._address,
        )
        return None

    def _stranger(self, caller: str) -> Rejection | None:
        """The rejection of who is not known, by the rule that `scp.accept` names."""
        admission, accept = self._scp._admission, self._scp._settings.scp.accept
        if accept == "any" or admission.knows(caller, self._address, both=accept == "both"):
            return None
        near = admission.callers.near(caller)
        hint = f"; did it mean {near}? AE titles are case-sensitive" if near and near != caller else ""
        if accept == "both":
            text = f"the AE title {caller!r} and the address {self._address} do not belong to one remote{hint}"
        else:
            text = f"neither the AE title {caller!r} nor the address {self._address} belongs to a remote{hint}"
        return Rejection(1, 1, 3, text)

    def _moved(self, _bytes: int) -> None:
        if self._call is not None:
            self._call.moved = True

    def prefer(self, request: AssociateRequest) -> str | None:
        """The caller's remote decides, and whether something of it is under repair."""
        return self._scp._admission.prefer(request.calling_ae_title, self._address)

    def store(self, incoming: Incoming) -> Sink:
        """One instance into the archive, answered when the limits of its remote allow it."""
        self._stores += 1
        scp = self._scp
        spare, self._spare = self._spare, None
        ingest = Ingest(
            scp._archive,
            scp._indexer,
            incoming,
            association=self._token,
            address=self._address,
            spare=spare,
            refused=self._call.refuse if self._call else None,
        )
        pace = scp._paces.of(incoming.request.calling_ae_title, self._address)
        return Slowed(ingest, pace.received) if pace else ingest

    def look_ahead(self) -> None:
        """The next instance's file: to make one is a tenth of what a small instance costs."""
        if self._stores and self._spare is None:
            self._spare = self._scp._archive.spare_draft()

    def leave(self, request: AssociateRequest) -> None:
        """One place free."""
        self._scp.places.leave(self)
        if self._spare is not None:
            self._spare.close()
            self._spare = None


def run(settings: Settings) -> int:
    """Be the storage SCP until TERM; the exit code. Raises ConfigurationError, OutOfReach before it has begun."""
    parent.end_with_parent()
    log_file.configure("scp", settings)
    os.umask(0o077)
    _take_descriptors()
    settings_module.prepare_home(settings.home)
    database = Database(settings.database, patience=settings.lease_seconds)
    schema.require_current(database)
    archive = Archive(settings.archive, reserve_bytes=settings.scp.reserve_bytes, flush=settings.scp.flush)
    archive_mark.prepare(archive, database)
    lock = archive.claim()
    stop = StopSignal()
    try:
        if not settings.scp.flush:
            log.warning("scp.flush is off: what is answered with success would not survive a power cut")
        journal = Journal(archive.root / OWN / "journal", flush=settings.scp.flush)
        _recover(archive, journal, database)
        indexer = Indexer(database.impatient(), journal, look=partial(archive_check.look, archive))
        names = Names()
        admission = Admission(database.impatient(), names)
        admission.reload()
        admission.start()
        waits = Waits(acse=settings.timeouts.acse, idle=settings.scp.idle, progress=settings.timeouts.progress)
        calls = CallLog(database.impatient())
        paces = Paces(database.impatient(), names)
        paces.reload()
        scp = StorageScp(settings, archive, indexer, admission, waits, calls, paces)
        associate_as_acceptor.prepare()
        # What was loaded stays: otherwise the collector walks through all of it again and again while files come in.
        gc.collect()
        gc.freeze()
        connections = scp.listen()
        indexer.start()
        worker = presence.register(
            database, "scp", slots=scp.most_associations, facts=role_facts.of_role("scp", settings)
        )
        recorded_calls.begin(database)
        calls.start()
        log.info("storage SCP listens", host=settings.scp.host, port=settings.scp.port, archive=str(archive.root))
        parent.tell_ready()
        Lookout(archive.root, database.impatient(), stop).start()
        _stand(connections, settings, database.impatient(), worker, paces, stop)
        connections.drain(stop, waits.progress)
        admission.close()
        calls.close(RELEASE_SECONDS)
        if not indexer.close(INDEX_SECONDS):
            log.warning("files without a row are indexed at the next start", files=indexer.waiting)
        journal.close()
        with contextlib.suppress(DicomferryError):
            presence.leave(database.impatient(), worker)
    finally:
        os.close(lock)
    return 0


def _take_descriptors() -> None:
    """Raise the limit of open files, 1,024 as a rule, as far as the system allows: an association has two or three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _recover(archive: Archive, journal: Journal, database: Database) -> None:
    """Finish what a process that died could not: rows for what it published, an end to what it had not."""
    drafts = archive.remove_drafts()
    found, unfinished = archive_check.take_over(archive, database, journal)
    journal.keep(unfinished)
    get_association.take_over(archive, database)
    if drafts or found:
        log.warning("taken over from a process that died", indexed=found, temporary_files_removed=drafts)


def _stand(
    connections: Connections,
    settings: Settings,
    database: Database,
    worker: presence.Worker,
    paces: Paces,
    stop: StopSignal,
) -> None:
    """Until a stop is asked for: take connections, read the limits again, give signs of life.

    Each waits for the database, which nobody at the door should, and the sign of life for nothing else.
    """
    life = SignOfLife(_Beat(settings, database, worker))
    life.start()
    threading.Thread(target=_read_limits, args=(paces, stop), name="limits", daemon=True).start()
    while not stop.is_set():
        connections.accept(stop, TICK_SECONDS)
    life.stop()


class _Beat:
    """A sign of life, with what room the disks have; what waited for room goes on."""

    def __init__(self, settings: Settings, database: Database, worker: presence.Worker) -> None:
        self._settings = settings
        self._database = database
        self._worker = worker
        self._was_short = True

    def __call__(self) -> None:
        """Raises OutOfReach."""
        found = disks.of(self._settings)
        presence.beat(self._database, self._worker, found)
        short = disks.short_archive(found)
        if short is None and self._was_short:
            recorded_calls.room_again(self._database)
        elif short is not None and not self._was_short:
            log.error("the disk of the archive is full to its reserve", **short)
        self._was_short = short is not None


def _read_limits(paces: Paces, stop: StopSignal) -> None:
    """What the remotes may send, as it is set."""
    while not stop.is_set():
        try:
            paces.reload()
        except Exception:
            log.exception("the limits cannot be read")
        stop.wait(TICK_SECONDS)


def main() -> None:
    """Entry point of the child process that `up` starts."""
    try:
        sys.exit(run(settings_module.load()))
    except DicomferryError as error:
        print(f"dicomferry scp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

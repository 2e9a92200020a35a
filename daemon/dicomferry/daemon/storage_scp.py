"""The storage SCP role: one for an archive, with its port, its sign of life and what receives."""

from __future__ import annotations

import contextlib
import os
import sys

from dicomferry.daemon.connections import Connections
from dicomferry.daemon.port import take_port
from dicomferry.daemon.pulse import Pulse, tell_ready
from dicomferry.daemon.receiving_process import ReceivingProcess, take_descriptors, take_over_unused
from dicomferry.daemon.sign_of_life import SignOfLife
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import disks, telemetry
from dicomferry.models import settings as settings_module
from dicomferry.models.record import presence, role_facts, schema
from dicomferry.models.record.archive import calls as recorded_calls
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent
from dicomferry.workers.receiving import archive_mark
from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.receiving.sight import Lookout

TICK_SECONDS = 1.0

log = telemetry.logger(__name__)


def run(settings: Settings) -> int:
    """Be the storage SCP until TERM; the exit code. Raises ConfigurationError, OutOfReach before it has begun."""
    parent.end_with_parent()
    log_file.configure("scp", settings)
    os.umask(0o077)
    take_descriptors()
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
        take_over_unused(archive, database, 1)
        process = ReceivingProcess(settings, archive, database)
        connections = Connections(take_port(settings), process.begin)
        process.start()
        worker = presence.register(
            database, "scp", slots=process.most_associations, facts=role_facts.of_role("scp", settings)
        )
        recorded_calls.begin(database)
        log.info("storage SCP listens", host=settings.scp.host, port=settings.scp.port, archive=str(archive.root))
        tell_ready()
        Lookout(archive.root, database.impatient(), stop).start()
        life = SignOfLife(_Beat(settings, database.impatient(), worker))
        life.start()
        process.read_limits(stop)
        pulse = Pulse(settings.home, "scp")
        while not stop.is_set():
            connections.accept(stop, TICK_SECONDS)
            pulse()
        pulse.end()
        life.stop()
        connections.drain(stop, process.waits.progress)
        process.close()
        with contextlib.suppress(DicomferryError):
            presence.leave(database.impatient(), worker)
    finally:
        os.close(lock)
    return 0


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


def main() -> None:
    """Entry point of the child process that `up` starts."""
    try:
        sys.exit(run(settings_module.load()))
    except DicomferryError as error:
        print(f"dicomferry scp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

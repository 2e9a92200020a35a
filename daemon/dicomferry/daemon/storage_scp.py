"""The storage SCP role: one for an archive, with its port, its sign of life and what receives."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import time
from collections.abc import Sequence

from dicomferry.daemon.crew import Crew
from dicomferry.daemon.port import ORPHAN_SECONDS
from dicomferry.daemon.pulse import Pulse, tell_ready
from dicomferry.daemon.receiving_process import Alone, take_descriptors, take_over_unused
from dicomferry.daemon.sign_of_life import SignOfLife
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import disks, telemetry
from dicomferry.models import settings as settings_module
from dicomferry.models.record import presence, role_facts, schema
from dicomferry.models.record.archive import calls as recorded_calls
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import ConfigurationError, DicomferryError
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent
from dicomferry.workers.receiving import archive_mark
from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.receiving.reception_log import recovery
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
    lock = _claim(archive)
    stop = StopSignal()
    beat = _Beat(settings, database.impatient())
    receives: Alone | Crew | None = None
    try:
        if not settings.scp.flush:
            log.warning("scp.flush is off: what is answered with success would not survive a power cut")
        take_over_unused(archive, database, settings.scp.processes)
        if settings.scp.processes == 1:
            receives = Alone(settings, archive, database)
        else:
            receives = Crew(settings, lock, lost=beat.lost)
        if receives.start(stop):
            beat.begin(database, receives.most_associations)
            recorded_calls.begin(database)
            log.info("storage SCP listens", host=settings.scp.host, port=settings.scp.port, archive=str(archive.root))
            pulse = Pulse(settings.home, "scp")
            pulse()
            tell_ready()
            Lookout(archive.root, database.impatient(), stop).start()
            life = SignOfLife(beat)
            life.start()
            while not stop.is_set():
                receives.stand(stop, TICK_SECONDS)
                if receives.turns:
                    pulse()
            pulse.end()
            life.stop()
        receives.drain(stop)
        beat.leave()
    finally:
        if receives is not None:
            receives.close()
        os.close(lock)
    return 0


def _claim(archive: Archive) -> int:
    """The archive's lock. Processes that received for a role which was killed, and have it as well, end within a
    second. Raises ConfigurationError.
    """
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            return archive.claim()
        except ConfigurationError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


class _Beat:
    """The role on the record: its sign of life, with what room the disks have; what waited for room goes on."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._worker: presence.Worker | None = None
        self._slots = 0
        self._was_short = True
        self._losses: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
        self._unsettled: list[str] | None = None

    def begin(self, database: Database, slots: int) -> None:
        """The role has begun. Raises OutOfReach."""
        self._slots = slots
        damaged = [str(path) for path in recovery.damaged(Archive(self._settings.archive))]
        facts = role_facts.of_role("scp", self._settings) | {"log_damaged": damaged}
        self._worker = presence.register(database, "scp", slots=slots, facts=facts)

    def lost(self, associations: Sequence[str]) -> None:
        """A process that received has died, and these associations with it. For any thread; never blocks."""
        self._losses.put(associations)

    def leave(self) -> None:
        """The role has ended in good order."""
        if self._worker is not None:
            with contextlib.suppress(DicomferryError):
                presence.leave(self._database, self._worker)

    def _settle(self) -> None:
        """Put on the record that a process died: its associations are over, and for those that wait for what was to
        come over them the storage SCP is another one from now on, as after a restart. Raises OutOfReach.
        """
        while not self._losses.empty():
            self._unsettled = [*(self._unsettled or ()), *self._losses.get()]
        if self._unsettled is not None:
            recorded_calls.end(self._database, self._unsettled)
            assert self._worker is not None
            presence.leave(self._database, self._worker)
            self.begin(self._database, self._slots)
            self._unsettled = None

    def __call__(self) -> None:
        """Raises OutOfReach."""
        self._settle()
        assert self._worker is not None
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

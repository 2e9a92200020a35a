"""`dicomferry up`: broker, worker, storage SCP and scheduler under one roof, in order, kept up, drained together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dicomferry.daemon.broker import READY_SECONDS, EmbeddedBroker
from dicomferry.daemon.child import CannotKeepUp, Child, python
from dicomferry.daemon.home_lock import no_worker_lives, take_home
from dicomferry.daemon.port import take_port
from dicomferry.daemon.pulse import Pulse, tell_ready
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import settings as settings_module
from dicomferry.models.record import schema
from dicomferry.models.record.database import Database, hide_password
from dicomferry.models.record.jobs import loss
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file
from dicomferry.workers.doorbell import lanes
from dicomferry.workers.receiving import callers

WORKER_READY_SECONDS = 90.0
SCHEDULER_READY_SECONDS = 60.0
SCP_READY_SECONDS = 300.0
"""Before it listens it may have to index what a process that died had published."""
TICK_SECONDS = 0.5
URGENT_SECONDS = 5.0


say_at_once = partial(print, flush=True)
"""What reads it through a pipe waits for the line that says `ready`."""


def run(settings: Settings, *, scheduler: Sequence[str], say: Callable[[str], object] = say_at_once) -> int:
    """Run everything until TERM, INT or HUP; 0, or 1 when a role cannot be kept up. `say` prints a line for people.

    `scheduler` is how a scheduler is started: it has to know the submit commands, which are not known here.

    Raises ConfigurationError (another `up` on this home, database not upgraded), OutOfReach.
    """
    stop = StopSignal()
    settings_module.prepare_home(settings.home)
    lock = take_home(settings.home)
    try:
        _prepare_database(settings)
        take_port(settings).close()  # a port in use is told before anything is started
        return _Up(settings, stop, scheduler, say).run()
    finally:
        os.close(lock)


def _prepare_database(settings: Settings) -> None:
    database = Database(settings.database, patience=10.0)
    try:
        if settings.is_sqlite:
            schema.upgrade(database)
            if no_worker_lives(settings.home):
                # Nobody is left who could renew them, so there is nothing to wait for.
                loss.expire(database, everything=True)
        else:
            schema.require_current(database)
    finally:
        database.close()


class _Up:
    def __init__(
        self, settings: Settings, stop: StopSignal, scheduler: Sequence[str], say: Callable[[str], object]
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._scheduler = scheduler
        self._say = say
        self._broker: EmbeddedBroker | None = None
        self._children: list[Child] = []

    def run(self) -> int:
        try:
            if self._start():
                self._stand()
            self._drain()
        except CannotKeepUp as error:
            self._say(f"dicomferry: {error}")
            self._say(f"whole log: {self._settings.log_file}")
            return 1
        finally:
            for child in reversed(self._children):
                child.kill()
            if self._broker:
                self._broker.clean_up()
        return 0

    def _start(self) -> bool:
        """Start the roles in order, each ready before the next; False when a stop was asked for meanwhile."""
        url = self._start_broker()
        if url is None:
            return False
        environment = os.environ | {"DICOMFERRY_HOME": str(self._settings.home), "DICOMFERRY_BROKER_URL": url}
        worker = self._child("worker", python("dicomferry.daemon.worker_role"), environment)
        if not worker.wait_ready(WORKER_READY_SECONDS, self._stop.is_set):
            return False
        self._say(f"worker    {self._settings.workers} bulk slots and one for quick jobs, process {worker.pid}")
        scp = self._child("scp", python("dicomferry.daemon.storage_scp"), environment)
        if not scp.wait_ready(SCP_READY_SECONDS, self._stop.is_set):
            return False
        ae_title, where = self._settings.ae_title, self._settings.scp
        self._say(
            f"scp       {ae_title} on {where.host}, port {where.port}, into {self._settings.archive}, process {scp.pid}"
        )
        scheduler = self._child("scheduler", self._scheduler, environment)
        if not scheduler.wait_ready(SCHEDULER_READY_SECONDS, self._stop.is_set):
            return False
        self._say(f"scheduler process {scheduler.pid}")
        self._say(f"database  {hide_password(self._settings.database)}")
        self._say(f"home      {self._settings.home}")
        self._say(f"log       {self._settings.log_file}")
        self._say("ready; Ctrl-C stops. Next, in another terminal: dicomferry submit store REMOTE FOLDER -r --wait")
        host, port = callers.public_host(self._settings), callers.public_port(self._settings)
        self._say(f"Tell your PACS administrator: AE title {ae_title}, host {host}, port {port}")
        return True

    def _child(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Child:
        """A role of ours, started."""
        child = Child(name, argv, log_file=self._settings.log_file, environment=environment)
        self._children.append(child)
        child.start()
        return child

    def _start_broker(self) -> str | None:
        """The URL of a broker that answers; None when a stop was asked for meanwhile. Raises OutOfReach."""
        if self._settings.broker:
            from dicomferry.workers.doorbell import tasks  # only here: it brings all of Celery along

            url = lanes.kombu_url(self._settings.broker)
            tasks.require_broker(url)
            self._say(f"broker    {hide_password(url)} (broker_url)")
            return url
        self._broker = EmbeddedBroker(self._settings)
        child = self._broker.start()
        self._children.append(child)
        if not child.wait_ready(READY_SECONDS, self._stop.is_set):
            return None
        self._broker.announce()
        self._say(f"broker    {self._broker.program.name}, socket {self._broker.socket_path}, process {child.pid}")
        return self._broker.url

    def _stand(self) -> None:
        pulse = Pulse(self._settings.home, "up")
        pulse()
        tell_ready()
        while not self._stop.wait(TICK_SECONDS):
            pulse()
            log_file.rotate(self._settings)
            for child in self._children:
                change = child.keep_up()
                if change:
                    self._say(f"{child.name} {change}")
                    if self._broker and child is self._broker.child and child.is_running:
                        self._broker.announce()

        pulse.end()

    def _drain(self) -> None:
        """The roles in reverse order; the broker last, since the others speak to it."""
        self._say("stopping: running items finish, the rest waits for the next start; Ctrl-C again stops at once")
        patience = self._settings.timeouts.store_answer + self._settings.timeouts.progress + 10.0
        for child in reversed(self._children):
            child.terminate()
            if not child.wait_end(patience, self._stop.is_urgent):
                self._say(f"{child.name} is ended at once; what was in flight is sent again next time")
                child.terminate()
                child.wait_end(URGENT_SECONDS)

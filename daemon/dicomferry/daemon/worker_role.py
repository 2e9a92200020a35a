"""The worker role: a Celery worker with its pool as child, and beside it the signs of life and the sweep.

This process never forks the pool itself, so it may use the database and threads as it likes.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial

from dicomferry.daemon import sweep
from dicomferry.daemon.child import CannotKeepUp, Child, python
from dicomferry.daemon.chronicle import Chronicle
from dicomferry.daemon.home_lock import share_home
from dicomferry.daemon.pool_watch import PoolWatch
from dicomferry.daemon.pulse import Pulse, tell_ready
from dicomferry.daemon.sign_of_life import SignOfLife
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import settings as settings_module
from dicomferry.models import telemetry
from dicomferry.models.record import presence, role_facts, schema
from dicomferry.models.record.database import Database, hide_password
from dicomferry.models.record.jobs import claims
from dicomferry.models.rules.errors import ConfigurationError, DicomferryError
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent
from dicomferry.workers.doorbell import lanes, tasks
from dicomferry.workers.doorbell.lanes import Doorbell

START_SECONDS = 60.0
MOVED = "the embedded broker has moved"
STOOD_STILL = "the pool of worker processes stood still, and was ended and made anew"

log = telemetry.logger(__name__)


def run(settings: Settings) -> int:
    """Be the worker role until TERM; the exit code. Raises ConfigurationError, OutOfReach before it has begun.

    The embedded broker of an `up` that is started again listens at another place: then the role begins anew there. So
    it does where its pool claims nothing that it could.
    """
    parent.end_with_parent()
    log_file.configure("worker", settings)
    stop = StopSignal()
    remark = ""
    while True:
        why = _serve(settings, stop, remark=remark)
        if isinstance(why, int):
            return why
        log.warning(f"{why}; starting again", broker=lanes.broker_url(settings))
        remark = why


def _serve(settings: Settings, stop: StopSignal, *, remark: str) -> int | str:
    """Be the worker role of one broker and one pool until TERM; the exit code, or why it has to begin anew. `remark` is
    why it began.
    """
    url = lanes.broker_url(settings)
    if url is None:
        raise ConfigurationError("no broker: set broker_url, or let `dicomferry up` run one with its worker")
    if not parent.is_watched():
        # Under `up` a broker that is away for a while is waited for; a person, or systemd, wants to hear of it.
        tasks.require_broker(url)
    settings_module.prepare_home(settings.home)
    database = Database(settings.database, patience=settings.lease_seconds)
    schema.require_current(database)
    share = share_home(settings.home)
    worker = presence.register(database, "worker", slots=settings.workers, facts=role_facts.of_role("worker", settings))
    environment = os.environ | {
        "DICOMFERRY_HOME": str(settings.home),
        "DICOMFERRY_BROKER_URL": url,
        tasks.WORKER_ID: str(worker.id),
        tasks.WORKER_NAME: worker.name,
    }
    child = Child(
        "worker",
        python("dicomferry.workers.doorbell.tasks"),
        log_file=log_file.of_role(settings),
        environment=environment,
        pass_fds=[share],
    )
    bell = tasks.doorbell(settings)
    assert bell is not None
    if remark == STOOD_STILL:
        presence.remark(database, worker, remark)
    life = SignOfLife(partial(presence.beat, database.impatient(), worker))
    life.start()
    try:
        child.start()
        if child.wait_ready(START_SECONDS, stop.is_set):
            tell_ready()
            log.info("worker is ready", slots=settings.workers, broker=hide_password(url), process=child.pid)
        why = _stand(settings, url, database, worker, child, bell, stop)
        _drain(settings, why, database, worker, child, stop)
        presence.leave(database, worker)
    except CannotKeepUp as error:
        log.error("worker cannot be kept up", error=str(error))
        return 1
    finally:
        life.stop()
        child.kill()
        os.close(share)
        database.close()
    return why or 0


def _stand(
    settings: Settings,
    url: str,
    database: Database,
    worker: presence.Worker,
    child: Child,
    bell: tasks.CeleryDoorbell,
    stop: StopSignal,
) -> str | None:
    """Until a stop is asked for: keep the child up, sweep. Why it has to begin anew, if it has to."""
    watch = PoolWatch(database, worker, bell.ring, lease_seconds=settings.lease_seconds)
    ring, chronicle, pulse = _Ring(bell), Chronicle(database, worker), Pulse(settings.home, "worker")
    pulse()
    while not stop.wait(sweep.INTERVAL_SECONDS):
        pulse()
        change = child.keep_up()
        if change:
            log.warning(f"worker process {change}")
        try:
            sweep.sweep(database, worker, ring)
            chronicle.look()
            if watch.stands_still():
                return STOOD_STILL
        except DicomferryError as error:
            log.warning("sweep put off", error=str(error))
        if not parent.is_watched():
            log_file.rotate(settings)
        if lanes.broker_url(settings) not in (None, url):
            return MOVED
    pulse.end()
    return None


class _Ring:
    """Rings, and says in the log when that begins to fail, and when it works again."""

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell
        self._trouble: str | None = None

    def __call__(self, lane: str) -> None:
        """Ring for this lane."""
        before, self._trouble = self._trouble, self._bell.ring(lane)
        if self._trouble and not before:
            log.error("workers cannot be rung, nothing new is begun until they can", error=self._trouble)
        elif before and not self._trouble:
            log.info("workers can be rung again")


def _drain(
    settings: Settings,
    why: str | None,
    database: Database,
    worker: presence.Worker,
    child: Child,
    stop: StopSignal,
) -> None:
    """Let running items finish; what is left of their chunks goes back to pending.

    A pool that stands still does not end by itself: as soon as nothing of it runs it need not be waited for.
    """
    try:
        presence.drain(database, worker)
    except DicomferryError as error:
        log.warning("cannot tell running attempts to stop; their leases will run out", error=str(error))
    child.terminate()
    if why != STOOD_STILL:
        child.wait_end(settings.timeouts.store_answer + settings.timeouts.progress, stop.is_urgent)
        return
    deadline = time.monotonic() + settings.lease_seconds
    while time.monotonic() < deadline and _has_work(database, worker) and not stop.is_urgent():
        if child.wait_end(1.0, stop.is_urgent):
            return


def _has_work(database: Database, worker: presence.Worker) -> bool:
    try:
        return claims.is_busy(database, worker)
    except DicomferryError:
        return True


def main() -> None:
    """Entry point of the child process that `up` starts."""
    try:
        sys.exit(run(settings_module.load()))
    except DicomferryError as error:
        print(f"dicomferry worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

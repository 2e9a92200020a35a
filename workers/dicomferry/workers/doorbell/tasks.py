"""The one Celery task, the doorbell over it, and the worker process that hears it.

Run as a program, this is a Celery worker; its settings come from the environment that its parent made.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
from typing import TYPE_CHECKING

from celery import Celery, signals
from kombu.exceptions import KombuError
from kombu.messaging import Producer
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from dicomferry.models import settings as settings_module
from dicomferry.models import telemetry
from dicomferry.models.record.database import Database, hide_password
from dicomferry.models.record.presence import Worker
from dicomferry.models.rules.errors import DicomferryError, OutOfReach
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent
from dicomferry.workers.doorbell import lanes
from dicomferry.workers.doorbell.celery_app import create, transport_options

if TYPE_CHECKING:
    from dicomferry.workers.attempts.environment import Environment

RING = "dicomferry.ring"
RING_EXPIRES_SECONDS = 60
PROBE_KEY = "dicomferry.probe"
WORKER_ID, WORKER_NAME = "_DICOMFERRY_WORKER_ID", "_DICOMFERRY_WORKER_NAME"

log = telemetry.logger(__name__)


class CeleryDoorbell:
    """Rings by a Celery message, unless enough of them wait already. To be used by one thread of one process."""

    def __init__(self, app: Celery, *, slots: int) -> None:
        self._app = app
        self._limit = lanes.RINGS_PER_SLOT * slots
        # Its own: after a lost connection Celery's pool of them can only be closed for good, or blocks for ever.
        self._producer: Producer | None = None

    def ring(self, lane: str) -> str | None:
        """Send one message unless the lane's queue is long enough; what went wrong, in a sentence. Never raises."""
        try:
            if self._producer is None:
                self._producer = Producer(self._app.connection_for_write())  # type: ignore[no-untyped-call]
            # kombu's own retries have no bound in time; a ring that fails is made up for by the sweep.
            if self._producer.channel.client.llen(lane) >= self._limit:
                return None
            self._app.send_task(
                RING,
                (lane,),
                queue=lane,
                producer=self._producer,
                expires=RING_EXPIRES_SECONDS,
                retry=True,
                retry_policy={"max_retries": 0},
            )
        except (OSError, KombuError, RedisError) as error:
            self._forget()
            log.warning("ring failed", lane=lane, error=str(error))
            return str(error) or type(error).__name__
        return None

    def _forget(self) -> None:
        """Let go of a connection that failed; the next ring opens another one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(OSError, KombuError, RedisError):
                producer.connection.collect(socket_timeout=0.1)


def require_broker(url: str) -> None:
    """Raise OutOfReach unless the broker takes us, and a write: host, certificate, password and room included."""
    producer = Producer(create(url, publisher=True).connection_for_write())  # type: ignore[no-untyped-call]
    try:
        # Of a broker that is full, or a replica, a PING would say nothing.
        producer.channel.client.set(PROBE_KEY, "1", px=1000)
    except NoPermissionError:
        pass  # not on that key; on those of the queue it may be another matter
    except ResponseError as error:
        text = f"it answers and takes no message: {str(error).strip().rstrip('.')}; make room there, or name its master"
        raise OutOfReach(f"broker {hide_password(url)}: {text}") from error
    except (OSError, KombuError, RedisError) as error:
        raise OutOfReach(
            f"broker {hide_password(url)}: {str(error).strip().rstrip('.') or type(error).__name__}"
        ) from error
    finally:
        producer.connection.collect(socket_timeout=0.1)


def doorbell(settings: Settings) -> CeleryDoorbell | None:
    """The doorbell for a process that publishes; None when no broker is known."""
    url = lanes.broker_url(settings)
    return CeleryDoorbell(create(url, publisher=True), slots=settings.workers) if url else None


class _Process:
    """What a pool process keeps between two messages."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._environment: Environment | None = None

    def environment(self, app: Celery) -> Environment:
        from dicomferry.workers.attempts.environment import Environment

        with self._lock:
            if self._environment is None:
                loaded = settings_module.load()
                # In a pool process the application only publishes, so it must not wait like a consumer.
                app.conf.broker_transport_options = transport_options(3.0, publisher=True)
                self._environment = Environment(
                    settings=loaded,
                    database=Database(loaded.database, patience=loaded.lease_seconds),
                    worker=Worker(id=int(os.environ[WORKER_ID]), name=os.environ[WORKER_NAME], slots=loaded.workers),
                    ring=CeleryDoorbell(app, slots=loaded.workers).ring,
                )
            return self._environment


def register(app: Celery) -> None:
    """Make the application answer rings."""
    # Only here, and before the pool is forked: whoever rings needs none of it.
    from dicomferry.workers import runner

    process = _Process()

    def ring(lane: str) -> None:
        environment = process.environment(app)
        try:
            runner.run_due(environment, lane)
        except DicomferryError as error:
            log.error("claim failed", lane=lane, error=str(error))

    app.task(ring, name=RING)


def _begin_process(parent_pid: int) -> None:
    """What a pool process does first."""
    parent.end_with(parent_pid)
    # What was loaded stays for good: the collector need not go over it again and again, which took a tenth of the time.
    gc.freeze()


def main() -> None:
    """Be a Celery worker until TERM; one slot more than `workers`, so that `quick` always finds one."""
    from celery.apps import worker as celery_worker  # only here: whoever rings needs none of it

    parent.end_with_parent()
    loaded = settings_module.load()
    log_file.configure("worker", loaded, quiet=("celery.worker.strategy", "celery.app.trace"))
    logging.captureWarnings(True)
    signals.setup_logging.connect(lambda **_: None, weak=False)
    pid = os.getpid()
    signals.worker_process_init.connect(lambda **_: _begin_process(pid), weak=False)
    signals.worker_ready.connect(lambda **_: parent.tell_ready(), weak=False)
    # What it says of its end by hand would stand between the log's JSON lines.
    celery_worker.safe_say = lambda *_: None
    app = create(lanes.broker_url(loaded), publisher=False)
    register(app)
    app.worker_main(
        [
            "--quiet",
            "worker",
            f"--queues={lanes.QUICK},{lanes.BULK}",
            "--pool=prefork",
            f"--concurrency={loaded.workers + 1}",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    main()

"""The scheduler role: submits what is due, once, however many schedulers run; and tells of what has ended.

It rings no bell: the sweep of the workers finds new jobs within seconds. So it needs no broker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TypeAlias

from dicomferry.daemon import notify
from dicomferry.daemon.pulse import Pulse, tell_ready
from dicomferry.daemon.sign_of_life import SignOfLife
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import settings as settings_module
from dicomferry.models import telemetry
from dicomferry.models.record import presence, role_facts, schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.schedules import runs, verbs
from dicomferry.models.record.schedules.runs import Order, RunRefusal
from dicomferry.models.rules import timetable
from dicomferry.models.rules.errors import DicomferryError, OutOfReach, UsageError
from dicomferry.models.rules.schedule import Schedule
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent

INTERVAL_SECONDS = 1.0

Interpret: TypeAlias = Callable[[Database, Schedule, datetime], Order]
"""What a schedule's command asks for at a moment; raises UsageError as the command would."""

log = telemetry.logger(__name__)


def run(settings: Settings, interpret: Interpret) -> int:
    """Be a scheduler until TERM; the exit code. Raises ConfigurationError, OutOfReach before it has begun."""
    parent.end_with_parent()
    log_file.configure("scheduler", settings)
    stop = StopSignal()
    settings_module.prepare_home(settings.home)
    database = Database(settings.database, patience=settings.lease_seconds)
    schema.require_current(database)
    worker = presence.register(database, "scheduler", slots=0, facts=role_facts.of_role("scheduler", settings))
    courier = Courier(settings)
    courier.start()
    pulse = Pulse(settings.home, "scheduler")
    pulse()
    tell_ready()
    log.info("scheduler is ready", home=str(settings.home))
    life = SignOfLife(partial(presence.beat, database.impatient(), worker))
    life.start()
    try:
        scan = Scan(database, interpret)
        while not stop.wait(INTERVAL_SECONDS):
            pulse()
            try:
                scan()
            except DicomferryError as error:
                log.warning("schedules put off", error=str(error))
        pulse.end()
        courier.stop()
        while courier.is_alive() and not stop.is_urgent():
            courier.join(0.2)
        presence.leave(database, worker)
    finally:
        life.stop()
        database.close()
    return 0


class Scan:
    """One look at all schedules a call."""

    def __init__(self, database: Database, interpret: Interpret) -> None:
        self._database = database
        self._interpret = interpret
        self._unreadable: set[int] = set()
        self._recomputed = False

    def __call__(self) -> None:
        """Settle all that is due. What goes wrong with one schedule is not the others' matter. Raises OutOfReach."""
        if not self._recomputed:
            # Once a process: time zones do not change while it lives.
            for name in verbs.recompute(self._database):
                log.info("next due time is another one now", schedule=name)
            self._recomputed = True
        now, due = runs.due(self._database)
        for found in due:
            with self._apart(found):
                self._settle(found, now)
        for run, found in runs.waiting(self._database):
            with self._apart(found):
                self._end_waiting(run, found)

    @contextmanager
    def _apart(self, found: Schedule) -> Iterator[None]:
        try:
            yield
        except OutOfReach:
            raise
        except Exception:
            log.exception("a schedule could not be settled", schedule=found.name)

    def _end_waiting(self, run: runs.Waiting, found: Schedule) -> None:
        job_id = runs.end_waiting(self._database, run, found, self._order(found, run.due_at))
        if job_id is not None:
            log.info("submitted", schedule=found.name, due=run.due_at.isoformat(), job=job_id)

    def _settle(self, found: Schedule, now: datetime) -> None:
        try:
            plan = timetable.plan(found.timetable, found.policy, counted_from=found.counted_from, now=now)
        except UsageError as error:
            if found.id not in self._unreadable:
                self._unreadable.add(found.id)
                log.error("this schedule cannot fire", schedule=found.name, error=str(error))
            return
        if plan is None:
            return
        orders = {slot: self._order(found, slot) for slot in plan.fire}
        jobs = runs.settle(self._database, found, plan, orders)
        if jobs is not None:
            missed = sum(some.number for some in plan.missed)
            log.info("due", schedule=found.name, at=plan.settled.isoformat(), jobs=list(jobs), missed=missed)

    def _order(self, found: Schedule, slot: datetime) -> Order | RunRefusal:
        """What is asked for at a due time, or why nothing can be. Raises OutOfReach."""
        try:
            return self._interpret(self._database, found, slot)
        except OutOfReach:
            raise
        except DicomferryError as error:
            return RunRefusal(str(error))
        except Exception as error:
            log.exception("a schedule's command broke", schedule=found.name)
            return RunRefusal(f"unexpected {type(error).__name__}: {error}")


class Courier(threading.Thread):
    """Tells of what has ended, one after the other, so that a mute receiver keeps no schedule waiting."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="courier", daemon=True)
        self._settings = settings
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End after what is being told now."""
        self._stopped.set()

    def run(self) -> None:
        """Until `stop`."""
        database = Database(self._settings.database, patience=self._settings.lease_seconds)
        try:
            while not self._stopped.is_set():
                try:
                    more = notify.tell_next(database, self._settings)
                except Exception as error:
                    more = False
                    log.warning("notifications put off", error=str(error))
                if not more:
                    self._stopped.wait(INTERVAL_SECONDS)
        finally:
            database.close()

"""Waiting for the end of a job: `--wait` and `jobs wait`. The rows are looked at, nobody is asked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.command_classes import INTERRUPTED, note
from dicomferry.cli.jobs import words as job_words
from dicomferry.cli.jobs.progress import Display, display
from dicomferry.models.documents import job_history, jobs
from dicomferry.models.documents.shapes import JobDocument, ShownJob
from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.ledger import UNVERIFIED
from dicomferry.models.record.retrieves.expected import ALREADY_HERE
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.models.rules.flaws import TRUNCATED_AT_SOURCE
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.state import FINAL_JOB_STATES, ItemState

NO_WORKER = "no worker is running, so nothing happens yet: start one with `dicomferry up`"
FAILED_SHOWN = 5
_AWAY_AT_MOST = 60.0
_LOOK_FOR_WORKERS_EVERY = 2.0
_LONG_SECONDS = 60.0
"""A wait of so long is told each time, so that nobody takes it for a standstill; at most so often."""
_LOOK_EVERY = 0.25
"""Seconds between two looks at the whole job."""
_QUICKEST, _SHARE = 0.02, 0.01
"""Whether it has ended is asked at least after so many seconds, and after this share of the time that it took so far:
a quick job is seen to end at once, a long one costs four looks a second.
"""
_ENDED = frozenset(state.value for state in FINAL_JOB_STATES)


@dataclass(kw_only=True)
class JobWait:
    """One wait. `read` gives the job's document, `state` its state alone, which costs a hundredth of that; `workers`
    says how many worker roles are alive.
    """

    read: Callable[[], ShownJob]
    state: Callable[[], str | None]
    workers: Callable[[], int]
    shown: Display
    timeout: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _told: set[str] = field(default_factory=set)
    _waits: dict[str, tuple[str | None, float]] = field(default_factory=dict)
    _looked_at: float | None = None
    _away_since: float | None = None

    def run(self) -> ShownJob | None:
        """The document of the job once it has ended or is held; None when `timeout` seconds went by before that.

        Raises OutOfReach when the database stays away for a minute.
        """
        began = self.clock()
        while True:
            job = self._look()
            if job is not None:
                if job["state"] in _ENDED or job["state"] == "held":
                    return job
                self._tell(job)
                self.shown.update(job)
            left = None if self.timeout is None else self.timeout - (self.clock() - began)
            if left is not None and left <= 0:
                return None
            self._pause(_LOOK_EVERY if left is None else min(_LOOK_EVERY, left), self.clock() - began)

    def _pause(self, seconds: float, waited: float) -> None:
        """Let so many seconds go by, fewer where the job ends meanwhile; it was waited for so long already."""
        nap = min(max(_QUICKEST, waited * _SHARE), seconds)
        while seconds > 0:
            self.sleep(min(nap, seconds))
            seconds -= nap
            if seconds > 0 and self._has_ended():
                return

    def _has_ended(self) -> bool:
        try:
            return self.state() in _ENDED
        except OutOfReach:
            return False  # the next look at the whole job says so

    def _look(self) -> ShownJob | None:
        try:
            job = self.read()
        except OutOfReach as error:
            now = self.clock()
            if self._away_since is None:
                self._away_since = now
                self.shown.say(f"{error}; trying again, the job is not affected")
            elif now - self._away_since > _AWAY_AT_MOST:
                raise
            return None
        self._away_since = None
        return job

    def _tell(self, job: JobDocument) -> None:
        """Each reason once, and each long wait; that no worker is alive, each time that it becomes so."""
        now = self.clock()
        if self._looked_at is None or now - self._looked_at >= _LOOK_FOR_WORKERS_EVERY:
            self._looked_at = now
            self._tell_workers()
        if job["reason"] and self._is_news(job["reason"], job["not_before"], now):
            self._waits[job["reason"]] = job["not_before"], now
            self.shown.say(job_words.waiting_line(job, self.now()))

    def _is_news(self, reason: str, due: str | None, now: float) -> bool:
        if reason not in self._waits:
            return True
        told, told_at = self._waits[reason]
        if due in (None, told) or now - told_at < _LONG_SECONDS:
            return False
        return (datetime.fromisoformat(due) - self.now()).total_seconds() >= _LONG_SECONDS

    def _tell_workers(self) -> None:
        try:
            alive = self.workers()
        except OutOfReach:
            return
        if alive:
            self._told.discard(NO_WORKER)
        elif NO_WORKER not in self._told:
            self._told.add(NO_WORKER)
            self.shown.say(f"{NO_WORKER}; Ctrl-C leaves the job queued")


def workers_alive(database: Database) -> int:
    """How many worker roles gave a sign of life lately."""
    return sum(role.role == "worker" for role in presence.alive(database))


def follow(
    database: Database,
    job_id: int,
    *,
    timeout: float | None,
    as_json: bool,
    say: Callable[[str], None] = note,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait for a job and tell how it ended with `say`; the exit code for that."""
    jobs.show(database, job_id)  # no such job: said before anything is drawn
    try:
        with display() as shown:
            job = JobWait(
                read=lambda: jobs.show(database, job_id),
                state=lambda: job_history.state(database, job_id),
                workers=lambda: workers_alive(database),
                shown=shown,
                timeout=timeout,
                sleep=sleep,
            ).run()
    except KeyboardInterrupt:
        note(
            f"job {job_id} goes on without you; `dicomferry jobs wait {job_id}` to look again, "
            f"`dicomferry jobs cancel {job_id}` to stop it"
        )
        return INTERRUPTED
    if job is None:
        note(f"job {job_id} has not ended within {timeout:g} s and goes on: `dicomferry jobs wait {job_id}`")
        job = jobs.show(database, job_id)
    else:
        tell_end(database, job, note if as_json else say)
    if as_json:
        render.document(job)
        sys.stdout.flush()
    return exit_code(job)


def exit_code(job: JobDocument) -> int:
    """0 for done and proven, 1 for everything else."""
    return 0 if job["state"] == "succeeded" else 1


def tell_end(database: Database, job: ShownJob, say: Callable[[str], None]) -> None:
    """The one sentence, some failed items with reason and advice, and the command for the rest."""
    if job["state"] == "held":
        say(job_words.held_line(job))
    if job["state"] != "held" or job["items"]["total"]:
        say(end_sentence(database, job))
    for item in jobs.items(database, job["id"], state=ItemState.FAILED, limit=FAILED_SHOWN):
        say(f"  {job_words.item_line(item)}")
    if job["kind"] == Kind.FIND:
        for item in jobs.items(database, job["id"], state=ItemState.WARNING, limit=FAILED_SHOWN):
            say(f"  {job_words.item_line(item)}")
        if job["matches"]:
            say(f"see them with `dicomferry jobs matches {job['id']}`")
    if job["items"]["failed"] > FAILED_SHOWN:
        more = job["items"]["failed"] - FAILED_SHOWN
        say(f"  and {words.number(more)} more: `dicomferry jobs items {job['id']} --state failed`")
    step = after_the_end(database, job)
    if step:
        say(step)


def after_the_end(database: Database, job: ShownJob) -> str | None:
    """What to do about an ended job, if anything. A retry is offered where it may end otherwise."""
    if job["reason"] == "nothing to do":
        return job_words.nothing_found(job, inside=not job["recursive"] and any(map(_has_folders, job["paths"])))
    if job["accepted_at"]:
        return f"closed as it is by a person: {words.printable(job['accepted_reason'])}"
    if job["state"] not in ("failed", "incomplete", "cancelled"):
        return None
    retry = f"`dicomferry jobs retry {job['id']}`"
    if not job["planned"]:
        return f"the search goes on, and what is missing is tried again, with {retry}"
    failures = jobs.failures(database, job["id"])
    service = jobs.service(database, job["id"])
    if job["items"]["cancelled"] or any(lookup.retry_helps(service, status, reason) for status, reason, _ in failures):
        return f"what is missing is tried again with {retry}"
    return f"first do what is said of each item, then {retry}" if failures else None


def _has_folders(path: str) -> bool:
    """Whether there are folders in this one, as far as it can be seen from here."""
    try:
        with os.scandir(path) as entries:
            return any(entry.is_dir() for entry in entries)
    except OSError:
        return False


def end_sentence(database: Database, job: JobDocument) -> str:
    """What came of a job; counted apart what the remote, or we, had before, and what nobody could verify."""
    found = jobs.reasons(database, job["id"], ItemState.WARNING) if job["items"]["warning"] else {}
    store = job["kind"] == Kind.STORE and job["items"]["failed"]
    lost = jobs.reasons(database, job["id"], ItemState.FAILED) if store else {}
    here = jobs.reasons(database, job["id"], ItemState.SUCCEEDED) if job["kind"] in RETRIEVES else {}
    return job_words.sentence(
        job,
        already_there=found.get(Reason.ALREADY_THERE, 0),
        unverified=lost.get(UNVERIFIED, 0),
        already_here=here.get(ALREADY_HERE, 0),
        truncated=found.get(TRUNCATED_AT_SOURCE, 0),
        again=job_history.tried_again(database, job["id"]),
    )


def leave(code: int) -> None:
    """End the command with this exit code."""
    click.get_current_context().exit(code)

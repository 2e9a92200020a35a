"""An installation in one thread: the record, the doorbell without a broker, and a clock that the test moves."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.daemon import sweep
from dicomferry.models.record import presence, schema
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.jobs import ledger, verbs
from dicomferry.models.record.jobs.claims import PLAN
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, EventRow, ItemRow, JobRow
from dicomferry.models.rules import retry, spec
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.models.rules.state import FINAL_JOB_STATES, ChunkState, ItemState, JobState, Tally
from dicomferry.models.settings import Settings
from dicomferry.workers import runner
from dicomferry.workers.attempts.environment import Environment
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.tuning import Tuning
from support import samples
from support.samples import Sample

_T = TypeVar("_T")
_MOST_ROUNDS = 500


class Clock:
    """Shows the same time until it is moved."""

    def __init__(self) -> None:
        self.time = self.began = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        """So many seconds later."""
        self.time += timedelta(seconds=seconds)

    def monotonic(self) -> float:
        """The same in seconds, as a clock that nobody sets."""
        return (self.time - self.began).total_seconds()


class Killed(BaseException):
    """Stands for a process that ends where it is: nothing is recorded any more."""


class Faulty(Database):
    """A record that fails on demand.

    `away` makes every call fail. `crash_at` counts writing transactions down; at 0 `Killed` is raised, after the commit
    if `after_commit`. Twins, such as the heartbeat's, share `away` and do not count.
    """

    def __init__(self, url: str, *, clock: Clock, patience: float = 0.0, master: Faulty | None = None) -> None:
        super().__init__(url, patience=patience, clock=clock, monotonic=clock.monotonic)
        self.master = master or self
        self.away = False
        self.crash_at: int | None = None
        self.after_commit = False
        self.writes = 0
        self.on_write: Callable[[int], object] = lambda _: None

    def impatient(self) -> Database:
        """The same record for the heartbeat."""
        assert isinstance(self._clock, Clock)
        return Faulty(self.url, clock=self._clock, master=self.master)

    def write(self, work: Callable[[Connection], _T], **options: Any) -> _T:
        """One transaction, unless something is to go wrong."""
        self._reach()
        if self.master is not self:
            return super().write(work, **options)
        self.writes += 1
        self.on_write(self.writes)
        dies = self.crash_at is not None and self.writes == self.crash_at
        if dies and not self.after_commit:
            raise Killed
        result = super().write(work, **options)
        if dies:
            raise Killed
        return result

    def write_at_once(self, work: Callable[[Connection], _T]) -> _T:
        """The same for what is not waited for; it is not counted."""
        self._reach()
        return super().write_at_once(work)

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """One transaction, unless the record is away."""
        self._reach()
        return super().read(work)

    def _reach(self) -> None:
        if self.master.away:
            raise OutOfReach("database: away")


class InlineDoorbell:
    """A doorbell without a broker: what was rung for is run by `drain`, in this thread."""

    def __init__(self) -> None:
        self._rung: deque[str] = deque()

    def ring(self, lane: str) -> str | None:
        """Remember the lane."""
        if lane not in self._rung:
            self._rung.append(lane)
        return None

    def drain(self, run_next: Callable[[str], bool]) -> None:
        """Run whatever is due in the lanes that were rung, until nothing is."""
        while self._rung:
            lane = self._rung.popleft()
            while run_next(lane):
                pass


@cache
def _template() -> bytes:
    """A database with this version's tables and no rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        database = Database(f"sqlite:///{path}")
        schema.upgrade(database)
        database.close()
        return path.read_bytes()


class Inline:
    """An installation with one worker of four slots; `settings` go over defaults that suit a test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        home = folder / "home"
        home.mkdir()
        (home / "dicomferry.db").write_bytes(_template())
        patient = {"connect": 10.0, "acse": 15.0, "first_answer": 15.0, "store_answer": 15.0, "progress": 15.0}
        settings["timeouts"] = {**patient, **settings.get("timeouts", {})}
        self.settings = Settings(home=home, **settings)
        self.clock = Clock()
        self.database = Faulty(self.settings.database, clock=self.clock)
        self.worker = presence.register(self.database, "worker", slots=4)
        self.sweeper = presence.register(self.database, "scheduler", slots=0)
        self.bell = InlineDoorbell()
        # What was refused for want of resources is tried again at once; the pauses have a test of their own.
        self._changes: dict[str, Any] = {"tuning": Tuning(congestion_pauses=(0.0, 0.0, 0.0))}
        self.environment = self._environment()

    def _environment(self) -> Environment:
        return Environment(
            settings=self.settings,
            database=self.database,
            worker=self.worker,
            ring=self.bell.ring,
            jitter=lambda: 0.0,
            **self._changes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    @contextmanager
    def moment(self) -> Iterator[Callable[[], None]]:
        """What brings record, clock and bell back to how they are now, as often as it is called; files stay.

        For examples by the thousand: each new installation would compile every statement anew.
        """
        then = self.clock.time
        with closing(sqlite3.connect(":memory:")) as kept:

            def bring_back() -> None:
                with closing(self.database.engine.raw_connection()) as record:
                    assert isinstance(record.driver_connection, sqlite3.Connection)
                    kept.backup(record.driver_connection)
                self.clock.time = then
                self.bell = InlineDoorbell()
                self.environment = replace(self.environment, ring=self.bell.ring)

            with closing(self.database.engine.raw_connection()) as record:
                assert isinstance(record.driver_connection, sqlite3.Connection)
                record.driver_connection.backup(kept)
            yield bring_back

    def change(self, **options: Any) -> None:
        """Another environment from here on, for workers to come as well."""
        self._changes |= options
        self.environment = replace(self.environment, **options)

    def tune(self, **values: Any) -> None:
        """Other times and sizes of attempts; those of a part in a dict of their own."""
        tuning = self.environment.tuning
        parts = {
            name: replace(getattr(tuning, name), **value) if isinstance(value, dict) else value
            for name, value in values.items()
        }
        self.change(tuning=replace(tuning, **parts))

    def cut_at(self, instances: int) -> None:
        """Chunks of at most so many instances."""
        self.tune(planning={"chunk_instances": instances})

    def batches_of(self, items: int) -> None:
        """Plans that write so many items a transaction."""
        self.tune(planning={"batch_items": items})

    # --- what a person does

    def mr(self, count: int, *, first: int = 1) -> list[Sample]:
        """So many small images, in the order in which they are walked."""
        return [
            samples.instance(self.files / f"{number:05d}.dcm", number=number, size=8)
            for number in range(first, first + count)
        ]

    def store(self, address: str, *paths: Path, recursive: bool = True, **options: Any) -> int:
        """A store job for these paths, or for all test files."""
        what = spec.StoreSpec(paths=tuple(os.fspath(path) for path in paths or (self.files,)), recursive=recursive)
        return self.submit(address, what, **options)

    def echo(self, address: str) -> int:
        """An echo job."""
        return self.submit(address, spec.EchoSpec())

    def submit(self, address: str, what: spec.Spec, **options: Any) -> int:
        """A job on the record; its bell has rung."""
        remote_id = book.resolve_id(self.database, address)
        job_id = verbs.submit(self.database, what, remote_id, **options)
        self.bell.ring(what.lane)
        return job_id

    # --- what a worker does

    def run_next(self, lane: str = "bulk") -> bool:
        """One chunk."""
        return runner.run_one(self.environment, lane)

    def hire(self) -> None:
        """Another worker takes over from here, and is rung for."""
        self.worker = presence.register(self.database, "worker", slots=4)
        self.environment = self._environment()
        self.bell.ring("bulk")

    def run_due(self) -> None:
        """Everything that was rung for."""
        self.bell.drain(self.run_next)

    def sweep(self) -> None:
        """One round of the sweep."""
        sweep.sweep(self.database, self.sweeper, self.bell.ring)

    def drain(self, job_id: int) -> JobState:
        """Run and wait, by the moved clock, until the job has ended or is held; its state then."""
        for _ in range(_MOST_ROUNDS):
            self.run_due()
            state = self.job(job_id).state
            if state in FINAL_JOB_STATES or state is JobState.HELD:
                self.check()
                return JobState(state)
            self.wait(job_id)
        raise AssertionError(f"job {job_id} goes on and on: {self.chunks(job_id)}")

    def wait(self, job_id: int) -> None:
        """Let time pass until something of the job is due, and sweep, which rings for it."""
        waiting = [row.not_before for row in self.chunks(job_id, plan=True) if row.state is ChunkState.PENDING]
        leases = [row.lease_until for row in self.chunks(job_id, plan=True) if row.state is ChunkState.RUNNING]
        assert waiting or leases, f"job {job_id} neither waits nor runs"
        moment = min(waiting + [lease + timedelta(seconds=1) for lease in leases])
        self.clock.time = max(self.clock.time, moment)
        self.sweep()

    def die(self, job_id: int, **crash: Any) -> None:
        """Run until the process dies, then let its lease run out."""
        self.database.writes = 0
        self.database.crash_at = crash.get("at")
        self.database.after_commit = crash.get("after_commit", False)
        with pytest.raises(Killed):
            self.run_due()
        self.database.crash_at = None
        self.lose()

    def lose(self) -> None:
        """Let every lease run out, and sweep, until the pause after a death is over."""
        for seconds in (self.settings.lease_seconds + 1, retry.LONGEST_AFTER_DEATH):
            self.clock.move(seconds)
            self.sweep()

    # --- rows

    def rows(self, statement: sa.Select[Any]) -> Sequence[AnyRow]:
        """What a query gives."""
        return self.database.read(lambda connection: connection.execute(statement).all())

    def job(self, job_id: int) -> AnyRow:
        """A job's row."""
        return self.rows(sa.select(JobRow.__table__).where(JobRow.id == job_id))[0]

    def chunks(self, job_id: int, *, plan: bool = False) -> Sequence[AnyRow]:
        """A job's chunks in order, its plan apart."""
        query = sa.select(ChunkRow.__table__).where(ChunkRow.job_id == job_id).order_by(ChunkRow.id)
        return self.rows(query if plan else query.where(ChunkRow.kind != PLAN))

    def items(self, job_id: int) -> Sequence[AnyRow]:
        """A job's items in order."""
        return self.rows(sa.select(ItemRow.__table__).where(ItemRow.job_id == job_id).order_by(ItemRow.id))

    def item(self, job_id: int, uid: str) -> AnyRow:
        """The item that speaks for an instance, or the only one that names it."""
        rows = [row for row in self.items(job_id) if row.sop_instance_uid == uid]
        (row,) = [row for row in rows if row.is_first] or rows
        return row

    def endings(self, job_id: int) -> dict[str, tuple[str, str | None]]:
        """(state, reason) of each file by its name."""
        return {os.fsdecode(os.path.basename(row.path)): (row.state.value, row.reason) for row in self.items(job_id)}

    def tally(self, job_id: int) -> Tally:
        """A job's numbers."""
        return self.database.read(lambda connection: ledger.tally(connection, job_id))

    def attempts(self, job_id: int, *, plan: bool = False) -> Sequence[AnyRow]:
        """A job's attempts in order, those of its plan apart."""
        query = (
            sa.select(AttemptRow.__table__)
            .join(ChunkRow, ChunkRow.id == AttemptRow.chunk_id)
            .where(AttemptRow.job_id == job_id)
            .order_by(AttemptRow.id)
        )
        return self.rows(query if plan else query.where(ChunkRow.kind != PLAN))

    def ends(self, job_id: int, *, plan: bool = False) -> list[str | None]:
        """How each attempt ended."""
        return [row.end.value if row.end else None for row in self.attempts(job_id, plan=plan)]

    def events(self, job_id: int) -> Sequence[AnyRow]:
        """A job's history."""
        return self.rows(sa.select(EventRow.__table__).where(EventRow.job_id == job_id).order_by(EventRow.id))

    def check(self) -> None:
        """What is true of every job at every moment: chunks agree with their items, ends with both."""
        active = {ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD}
        for job in self.rows(sa.select(JobRow.__table__)):
            chunks = self.chunks(job.id, plan=True)
            items = self.items(job.id)
            firsts = [_instance_of(row) for row in items if row.is_first and row.sop_instance_uid]
            assert len(firsts) == len(set(firsts)), "an instance stands twice"
            paths = [row.path for row in items if row.path is not None]
            assert len(paths) == len(set(paths)), "a file stands twice"
            for chunk in chunks:
                states = [row.state for row in items if row.chunk_id == chunk.id]
                assert chunk.total == len(states)
                for state in ItemState:
                    if state is not ItemState.PENDING:
                        assert getattr(chunk, state.value) == states.count(state), (chunk, state)
                if chunk.state not in active:
                    assert ItemState.PENDING not in states, "an item waits in a chunk that nobody will claim"
                assert (chunk.lease_until is not None) == (chunk.state is ChunkState.RUNNING)
            live = bool(active & {chunk.state for chunk in chunks})
            assert (job.finished_at is None) == live, "a job's end and its chunks contradict each other"
            assert (job.state in FINAL_JOB_STATES) != live


def hasty(site: Inline) -> list[float]:
    """Attempts of this site do not wait when they pause; the seconds for which they would have."""
    taken: list[float] = []

    class Hasty(Heartbeat):
        def pause(self, seconds: float) -> None:
            taken.append(seconds)

    site.change(heartbeat=Hasty)
    return taken


def hearts_of(site: Inline) -> list[Heartbeat]:
    """Every heartbeat that an attempt of this site starts from here on."""
    found: list[Heartbeat] = []

    def start(*arguments: Any, **named: Any) -> Heartbeat:
        found.append(Heartbeat(*arguments, **named))
        return found[-1]

    site.change(heartbeat=start)
    return found


def _instance_of(item: AnyRow) -> tuple[str | None, ...]:
    """What an item is the first of: a retrieve expects an instance as it was listed, in a study and series."""
    uid: str = item.sop_instance_uid
    return (uid,) if item.request_id is None else (uid, item.study_instance_uid, item.series_instance_uid)

"""An installation's record as the tests drive it: through the same functions as workers and commands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from dicomferry.models.record import presence
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.jobs import claims, loss, plans, verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.jobs.items import pending_items
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, EventRow, ItemRow, JobRow
from dicomferry.models.rules import ending, retry, spec
from dicomferry.models.rules.ending import Decision
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState
from support import decided

LEASE = 30.0
DONE = Decision(next=ending.Next.DONE)


class Clock:
    """Shows the same time until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
        self.passed = 0.0

    def __call__(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        """So many seconds later."""
        self.time += timedelta(seconds=seconds)
        self.passed += seconds

    def monotonic(self) -> float:
        """The same as a clock that nobody sets."""
        return self.passed

    def step(self, seconds: float) -> None:
        """Somebody sets the clock: no time has passed."""
        self.time += timedelta(seconds=seconds)


class Site:
    """One remote, one worker of four slots, and short names for what workers and commands do."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        book.add(database, "PACS1", "PACS1@127.0.0.1:104")
        self.remote_id = 1
        self.worker = presence.register(database, "worker", slots=4)
        self.planner = Worker(id=self.worker.id, name="planner", slots=1000)
        self._files = 0

    def remote(self, name: str, **options: Any) -> int:
        """A remote of the address book; its row id."""
        book.add(self.database, name, f"{name}@127.0.0.1:104", **options)
        return book.resolve_id(self.database, name)

    # --- jobs

    def echo(self, remote_id: int | None = None, **options: Any) -> int:
        """A submitted echo job."""
        return verbs.submit(self.database, spec.EchoSpec(), remote_id or self.remote_id, **options)

    def submit_store(self, remote_id: int | None = None, **options: Any) -> int:
        """A store job whose plan waits."""
        return verbs.submit(self.database, spec.StoreSpec(paths=("/data",)), remote_id or self.remote_id, **options)

    def store(self, *sizes: int, remote_id: int | None = None, **options: Any) -> int:
        """A store job, planned: one chunk of so many items for each number."""
        job_id = self.submit_store(remote_id, **options)
        lease = self.claim_plan(job_id)
        self.batch(lease, *sizes)
        self.finish(lease, planned=True)
        return job_id

    def claim_plan(self, job_id: int) -> Lease:
        """The job's plan, before all else that is due, on a worker of its own."""
        if job_id > 1:
            plan = sa.update(ChunkRow).where(ChunkRow.job_id == job_id, ChunkRow.kind == claims.PLAN)
            self.set(plan.values(priority=99))
        lease = self.claim(worker=self.planner)
        assert lease.kind == claims.PLAN and lease.job_id == job_id
        return lease

    def files(self, number: int, **values: Any) -> list[dict[str, Any]]:
        """Values of pending item rows, each for another file and SOP instance."""
        found = []
        for _ in range(number):
            self._files += 1
            found.append(
                {
                    "is_first": True,
                    "path": b"/data/%06d.dcm" % self._files,
                    "size": 1000,
                    "mtime_ns": 1,
                    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
                    "sop_instance_uid": f"1.2.3.{self._files}",
                    "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                    "state": ItemState.PENDING,
                    **values,
                }
            )
        return found

    def batch(
        self, lease: Lease, *sizes: int, decided: Sequence[Mapping[str, Any]] = (), cursor: bytes | None = None
    ) -> tuple[bool, int]:
        """One step of a plan."""
        chunks = [self.files(size) for size in sizes]
        return plans.add_batch(
            self.database,
            lease,
            cursor=cursor or b"/data/%06d.dcm" % self._files,
            chunks=chunks,
            decided=decided,
        )

    # --- work

    def try_claim(self, lane: str = "bulk", worker: Worker | None = None) -> Lease | None:
        """What a worker gets when the bell rings."""
        return claims.take(self.database, lane, worker or self.worker, lease_seconds=LEASE)

    def claim(self, lane: str = "bulk", worker: Worker | None = None) -> Lease:
        """As `try_claim`, where there must be something."""
        lease = self.try_claim(lane, worker)
        assert lease is not None
        return lease

    def outcomes(self, lease: Lease, state: ItemState = ItemState.SUCCEEDED, **values: Any) -> list[Outcome]:
        """The same outcome for every item of the chunk that is still pending."""
        pending = pending_items(self.database, lease.chunk_id)
        return [Outcome(item_id=row.id, state=state, **values) for row in pending]

    def finish(
        self,
        lease: Lease,
        *,
        end: AttemptEnd = AttemptEnd.COMPLETED,
        decision: Decision | None = DONE,
        outcomes: Iterable[Outcome] = (),
        **values: Any,
    ) -> None:
        """End an attempt."""
        decided.finish(self.database, lease, end=end, decision=decision, outcomes=list(outcomes), **values)

    def complete(self, lease: Lease, state: ItemState = ItemState.SUCCEEDED, **values: Any) -> None:
        """End an attempt that came through."""
        outcomes = self.outcomes(lease, state, **values)
        self.finish(lease, outcomes=outcomes, finished_items=len(outcomes))

    def away(self, lease: Lease, *, barren: int = 1, seconds: float = 10.0) -> Decision:
        """End an attempt that found the remote unreachable, as `ending` decides it."""
        since = lease.waiting_since or self.clock()
        decision = Decision(
            next=ending.Next.RETRY,
            at=self.clock() + timedelta(seconds=seconds),
            reason="unreachable",
            advice="is it up?",
            barren=barren,
            waiting_since=since,
            for_all=True,
        )
        self.finish(lease, end=AttemptEnd.ERROR, decision=decision)
        return decision

    def refused(self, lease: Lease) -> None:
        """End an attempt that the remote refused for good."""
        decision = Decision(next=ending.Next.HOLD, reason="not authorized", advice="ask them to allow us", barren=1)
        self.finish(lease, end=AttemptEnd.ERROR, decision=decision)

    def lose(self, lease: Lease | None = None) -> int:
        """Let every lease run out that is not renewed, and sweep; the pause after a death is over then."""
        self.clock.move(LEASE + 1)
        number = loss.expire(self.database)
        self.clock.move(retry.LONGEST_AFTER_DEATH)
        return number

    # --- rows

    def rows(self, statement: sa.Select[Any]) -> Sequence[AnyRow]:
        """What a query gives."""
        return self.database.read(lambda connection: connection.execute(statement).all())

    def set(self, statement: sa.Update) -> None:
        """Bring about what takes too long to come about by itself."""
        self.database.write(lambda connection: connection.execute(statement))

    def job(self, job_id: int) -> AnyRow:
        """A job's row."""
        return self.rows(sa.select(JobRow.__table__).where(JobRow.id == job_id))[0]

    def state(self, job_id: int) -> JobState:
        """A job's state."""
        found: JobState = self.job(job_id).state
        return found

    def chunk(self, lease: Lease | int) -> AnyRow:
        """A chunk's row."""
        key = lease if isinstance(lease, int) else lease.chunk_id
        return self.rows(sa.select(ChunkRow.__table__).where(ChunkRow.id == key))[0]

    def chunks(self, job_id: int, *, plan: bool = False) -> Sequence[AnyRow]:
        """A job's chunks in order, its plan apart."""
        query = sa.select(ChunkRow.__table__).where(ChunkRow.job_id == job_id).order_by(ChunkRow.id)
        return self.rows(query if plan else query.where(ChunkRow.kind != claims.PLAN))

    def items(self, job_id: int) -> Sequence[AnyRow]:
        """A job's items in order."""
        return self.rows(sa.select(ItemRow.__table__).where(ItemRow.job_id == job_id).order_by(ItemRow.id))

    def item_states(self, job_id: int) -> list[ItemState]:
        """The states of a job's items in order."""
        return [row.state for row in self.items(job_id)]

    def attempts(self, job_id: int) -> Sequence[AnyRow]:
        """A job's attempts in order, those of its plan apart."""
        return self.rows(
            sa.select(AttemptRow.__table__)
            .join(ChunkRow, ChunkRow.id == AttemptRow.chunk_id)
            .where(AttemptRow.job_id == job_id, ChunkRow.kind != claims.PLAN)
            .order_by(AttemptRow.id)
        )

    def events(self, job_id: int) -> list[str]:
        """The kinds of a job's events in order."""
        query = sa.select(EventRow.kind).where(EventRow.job_id == job_id).order_by(EventRow.id)
        return [row.kind for row in self.rows(query)]

    def everything(self) -> dict[str, list[AnyRow]]:
        """All rows that the work on jobs may change, to compare before and after."""
        tables = (JobRow, ChunkRow, ItemRow, AttemptRow, EventRow)
        return self.database.read(
            lambda connection: {
                table.__tablename__: list(connection.execute(sa.select(table.__table__).order_by(table.id)).all())
                for table in tables
            }
        )

    def check(self) -> None:
        """What is true of every job at every moment: chunks agree with their items, ends with both."""
        active = {ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD}
        jobs, chunks, items = self.database.read(
            lambda connection: [
                connection.execute(sa.select(table.__table__)).all() for table in (JobRow, ChunkRow, ItemRow)
            ]
        )
        for chunk in chunks:
            states = [row.state for row in items if row.chunk_id == chunk.id]
            assert chunk.total == len(states)
            for state in ItemState:
                if state is not ItemState.PENDING:
                    assert getattr(chunk, state.value) == states.count(state), (chunk, state)
            if chunk.state not in active:
                assert ItemState.PENDING not in states, "an item waits in a chunk that nobody will claim"
            assert (chunk.lease_until is not None) == (chunk.state is ChunkState.RUNNING)
            assert (chunk.owner_id is not None) == (chunk.state is ChunkState.RUNNING)
        for job in jobs:
            works = bool(active & {chunk.state for chunk in chunks if chunk.job_id == job.id})
            assert works == (job.finished_at is None), "a job has ended if and only if no work is left"


def together(*calls: Callable[[], object]) -> list[object]:
    """Run the calls at the same moment, each in a thread; what each gave or raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@contextmanager
def listening(database: Database, event: str, happens: Callable[..., object]) -> Iterator[None]:
    """At each such event of the database library's engine something happens, in the thread that it is used in."""
    sa.event.listen(database.engine, event, happens)
    try:
        yield
    finally:
        sa.event.remove(database.engine, event, happens)

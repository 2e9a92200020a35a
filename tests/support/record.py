"""The rows of an installation as a test looks at them: beside every process, and without their help."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, EventRow, ItemRow, JobRow
from dicomferry.models.rules.state import FINAL_JOB_STATES, AttemptEnd, ChunkState, ItemState, JobState

_COUNTED = (
    ItemState.SUCCEEDED,
    ItemState.WARNING,
    ItemState.FAILED,
    ItemState.SKIPPED,
    ItemState.CANCELLED,
)
_LIVE = (ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD)


class Record:
    """The database of an installation, by its URL."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, patience=60)

    def close(self) -> None:
        self.database.close()

    def rows(self, query: sa.Executable) -> Sequence[AnyRow]:
        return self.database.read(lambda connection: connection.execute(query).all())

    def one(self, query: sa.Executable) -> Any:
        return self.database.read(lambda connection: connection.execute(query).scalar_one())

    def show(self, job_id: int) -> Any:
        return job_documents.show(self.database, job_id)

    def done(self, job_id: int) -> int:
        """How many items of a job arrived."""
        arrived = sa.func.coalesce(sa.func.sum(ChunkRow.succeeded + ChunkRow.warning), 0)
        return int(self.one(sa.select(arrived).where(ChunkRow.job_id == job_id)))

    def jobs(self) -> int:
        return int(self.one(sa.select(sa.func.count()).select_from(JobRow)))

    def running(self, job_id: int, *kinds: str) -> list[AnyRow]:
        """(chunk_id, kind, fence, pid, left) of the attempts that have not ended; `left` counts the pending items."""
        ended = ChunkRow.succeeded + ChunkRow.warning + ChunkRow.failed + ChunkRow.skipped + ChunkRow.cancelled
        left = (ChunkRow.total - ended).label("left")
        query = (
            sa.select(AttemptRow.chunk_id, ChunkRow.kind, AttemptRow.fence, AttemptRow.pid, left)
            .join(ChunkRow, ChunkRow.id == AttemptRow.chunk_id)
            .where(AttemptRow.job_id == job_id, AttemptRow.end.is_(None), ChunkRow.state == ChunkState.RUNNING)
            .order_by(AttemptRow.id)
        )
        return [row for row in self.rows(query) if not kinds or row.kind in kinds]

    def items_found(self, job_id: int) -> int:
        return int(self.one(sa.select(sa.func.count()).where(ItemRow.job_id == job_id)))

    def uids(self, job_id: int, *states: ItemState) -> set[str]:
        wanted = states or (ItemState.SUCCEEDED, ItemState.WARNING)
        query = sa.select(ItemRow.sop_instance_uid).where(ItemRow.job_id == job_id, ItemRow.state.in_(wanted))
        return {row.sop_instance_uid for row in self.rows(query)}

    def story(self, job_id: int) -> str:
        """The attempts and the events of a job, for a test that fails."""
        attempts = self.rows(
            sa.select(AttemptRow.__table__).where(AttemptRow.job_id == job_id).order_by(AttemptRow.started_at)
        )
        lines = [
            f"{row.started_at:%H:%M:%S.%f} to {row.ended_at and f'{row.ended_at:%H:%M:%S.%f}'}: chunk {row.chunk_id}, "
            f"fence {row.fence}, process {row.pid}, {row.end}, {row.finished_items} items, {row.reason}, {row.detail}"
            for row in attempts
        ]
        events = [f"{event['at']} {event['kind']}: {event['text']}" for event in self.show(job_id)["events"]]
        return "\n".join([*lines, *events])

    def ends(self, job_id: int) -> Counter[AttemptEnd]:
        """How the attempts of a job ended."""
        return Counter(row.end for row in self.rows(sa.select(AttemptRow.end).where(AttemptRow.job_id == job_id)))


def assert_consistent(record: Record, *, ends: int = 1) -> None:
    """No state contradicts another: jobs, chunks, items, attempts and events tell one story.

    `ends` is how often each job that succeeded has ended: once, and once more for each retry.
    """
    jobs = record.rows(sa.select(JobRow.id, JobRow.state, JobRow.planned, JobRow.finished_at))
    chunks = record.rows(sa.select(ChunkRow.__table__))
    items = record.rows(
        sa.select(
            ItemRow.job_id, ItemRow.chunk_id, ItemRow.path, ItemRow.sop_instance_uid, ItemRow.is_first, ItemRow.state
        )
    )
    attempts = record.rows(sa.select(AttemptRow.__table__))
    wrong: list[str] = []

    counted = Counter((item.chunk_id, item.state) for item in items)
    totals = Counter(item.chunk_id for item in items)
    job_of = {chunk.id: chunk.job_id for chunk in chunks}
    for chunk in chunks:
        name = f"chunk {chunk.id} ({chunk.kind}, {chunk.state})"
        if chunk.total != totals[chunk.id]:
            wrong.append(f"{name}: total {chunk.total}, has {totals[chunk.id]} items")
        for state in _COUNTED:
            said, are = getattr(chunk, state.value), counted[chunk.id, state]
            if said != are:
                wrong.append(f"{name}: says {said} {state}, has {are}")
        pending = counted[chunk.id, ItemState.PENDING]
        if chunk.state in (ChunkState.DONE, ChunkState.CANCELLED) and pending:
            wrong.append(f"{name}: {pending} items pending")
        if (chunk.state is ChunkState.RUNNING) != (chunk.lease_until is not None and chunk.owner_id is not None):
            wrong.append(f"{name}: lease {chunk.lease_until}, owner {chunk.owner_id}")
        if chunk.state is not ChunkState.RUNNING and chunk.in_flight_item_id is not None:
            wrong.append(f"{name}: item {chunk.in_flight_item_id} in flight")
        fences = sorted(attempt.fence for attempt in attempts if attempt.chunk_id == chunk.id)
        if fences != list(range(1, chunk.fence + 1)):
            wrong.append(f"{name}: fence {chunk.fence}, attempts {fences}")
        for attempt in attempts:
            if attempt.chunk_id == chunk.id and attempt.end is None:
                if chunk.state is not ChunkState.RUNNING or attempt.fence != chunk.fence:
                    wrong.append(f"{name}: attempt {attempt.fence} has no end")
            elif attempt.chunk_id == chunk.id and attempt.ended_at is None:
                wrong.append(f"{name}: attempt {attempt.fence} ended at no time")

    for item in items:
        if job_of[item.chunk_id] != item.job_id:
            wrong.append(f"item of job {item.job_id} in a chunk of job {job_of[item.chunk_id]}")
    for what, keys in (
        ("path", [(item.job_id, item.path) for item in items if item.path is not None]),
        (
            "instance",
            [(item.job_id, item.sop_instance_uid) for item in items if item.is_first and item.sop_instance_uid],
        ),
    ):
        wrong += [f"{what} {key} recorded {number} times" for key, number in Counter(keys).items() if number > 1]

    for job in jobs:
        states = Counter(chunk.state for chunk in chunks if chunk.job_id == job.id)
        final = job.state in FINAL_JOB_STATES
        live = sum(states[state] for state in _LIVE)
        if final != (live == 0):
            wrong.append(f"job {job.id} is {job.state} with chunks {dict(states)}")
        if final != (job.finished_at is not None):
            wrong.append(f"job {job.id} is {job.state}, finished at {job.finished_at}")
        kinds = Counter(item.state for item in items if item.job_id == job.id)
        arrived = kinds[ItemState.SUCCEEDED] + kinds[ItemState.WARNING]
        expected = {
            JobState.SUCCEEDED: arrived > 0 and not kinds[ItemState.FAILED] and not kinds[ItemState.PENDING],
            JobState.INCOMPLETE: arrived > 0 and kinds[ItemState.FAILED] > 0,
            JobState.FAILED: arrived == 0,
        }.get(job.state, True)
        if not expected:
            wrong.append(f"job {job.id} is {job.state} with items {dict(kinds)}")
        ended = record.rows(sa.select(EventRow.id).where(EventRow.job_id == job.id, EventRow.kind == "ended"))
        if job.state in (JobState.SUCCEEDED, JobState.INCOMPLETE, JobState.FAILED) and not ended:
            wrong.append(f"job {job.id} is {job.state} without an event that says so")
        if job.state is JobState.SUCCEEDED and len(ended) != ends:
            wrong.append(f"job {job.id} ended {len(ended)} times")
    assert not wrong, "\n".join(wrong)

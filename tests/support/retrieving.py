"""A small installation that retrieves: a real storage SCP, and a worker in this process that runs what is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dicomferry.daemon import sweep
from dicomferry.models.documents import jobs, retrieves
from dicomferry.models.record import presence
from dicomferry.models.record.database import AnyRow
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, ItemRow, JobRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.state import FINAL_JOB_STATES, ChunkState, JobState
from dicomferry.models.settings import Settings
from dicomferry.workers import runner
from dicomferry.workers.attempts.environment import Environment
from support.installation import until
from support.process import LOOPBACK
from support.scp import StorageScp

TITLE = "FERRY"
STUDY, SERIES, IMAGE, PATIENT = "0020000D", "0020000E", "00080018", "00100020"
IMPATIENT: dict[str, dict[str, float]] = {
    "timeouts": {
        "connect": 5, "acse": 3, "first_answer": 5, "store_answer": 10, "progress": 4, "quiet": 0.5, "settle": 0.7,
    },
    "retry": {"first_delay": 0.1, "max_delay": 0.3, "give_up_after": 6},
}  # fmt: skip
"""For peers that let us wait: what takes hours in life takes seconds here."""


class Site:
    """The record of a running storage SCP, and one worker with its eyes on the same archive."""

    def __init__(self, scp: StorageScp, **settings: Any) -> None:
        self.scp = scp
        self.database = scp.database
        self.settings = Settings(
            home=scp.home, ae_title=TITLE, **{"scp": {"host": LOOPBACK, "port": scp.port}, **IMPATIENT, **settings}
        )
        self.worker = presence.register(self.database, "worker", slots=4)
        self.sweeper = presence.register(self.database, "scheduler", slots=0)
        self.environment = Environment(
            settings=self.settings, database=self.database, worker=self.worker, ring=lambda _: None, jitter=lambda: 0.0
        )

    def tune(self, **values: Any) -> None:
        """Other times and sizes of attempts from here on."""
        self.environment = replace(self.environment, tuning=replace(self.environment.tuning, **values))

    # --- jobs

    def move(self, address: str, *keys: Key, level: str = "study", **more: Any) -> int:
        """A move job of one request."""
        return self.submit(address, spec.MoveSpec(identifiers=((None, tuple(keys)),), level=level, **more))

    def get(self, address: str, *keys: Key, level: str = "study", **more: Any) -> int:
        """A get job of one request."""
        return self.submit(address, spec.GetSpec(identifiers=((None, tuple(keys)),), level=level, **more))

    def submit(self, address: str, what: spec.Spec) -> int:
        return verbs.submit(self.database, what, book.resolve_id(self.database, address))

    def drive(self, job_id: int, seconds: float = 90.0) -> Any:
        """Run what is due until the job has ended or is held; its document then."""

        def ended() -> bool:
            presence.beat(self.database, self.worker)
            sweep.sweep(self.database, self.sweeper, lambda _: None)
            while runner.run_one(self.environment, "bulk"):
                pass
            return self.state(job_id) in {*FINAL_JOB_STATES, JobState.HELD}

        try:
            until(ended, f"job {job_id} ends", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story(job_id)}") from None
        return self.show(job_id)

    # --- what came of it

    def state(self, job_id: int) -> JobState:
        (row,) = self.rows(sa.select(JobRow.state).where(JobRow.id == job_id))
        return JobState(row.state)

    def show(self, job_id: int) -> Any:
        return jobs.show(self.database, job_id)

    def items(self, job_id: int) -> list[Any]:
        return list(jobs.items(self.database, job_id))

    def reasons(self, job_id: int) -> set[str | None]:
        """Why the instances of a job failed."""
        return {
            item["reason"] for item in self.items(job_id) if item["kind"] == "instance" and item["state"] == "failed"
        }

    def request(self, job_id: int) -> Any:
        """The one request of a job."""
        (request,) = retrieves.requests(self.database, job_id)
        return request

    def rounds(self, job_id: int) -> list[int]:
        """The round of each move, in order."""
        return [move["round"] for move in retrieves.moves(self.database, job_id)]

    def rows(self, statement: sa.Select[Any]) -> Sequence[AnyRow]:
        return self.database.read(lambda connection: connection.execute(statement).all())

    def story(self, job_id: int) -> str:
        """What happened, for a test that fails."""
        show = self.show(job_id)
        lines = [f"{key}: {value}" for key, value in show.items() if key != "events"]
        lines += [f"{event['at']} {event['kind']}: {event['text']}" for event in show["events"]]
        for row in self.rows(sa.select(ChunkRow.__table__).where(ChunkRow.job_id == job_id)):
            lines.append(f"chunk {row.id} {row.kind} {row.state} round {row.round} {row.reason} {row.not_before}")
        for row in self.rows(sa.select(AttemptRow.__table__).where(AttemptRow.job_id == job_id)):
            lines.append(f"attempt {row.fence} {row.started_at} {row.ended_at} {row.end} {row.reason} {row.detail}")
        lines += [str(move) for move in retrieves.moves(self.database, job_id)]
        kinds = Counter((item["kind"], item["state"], item["reason"], item["detail"]) for item in self.items(job_id))
        lines += [f"{count} items {kind}" for kind, count in kinds.items()]
        return "\n".join(lines)

    def check(self, job_id: int) -> None:
        """Chunks agree with their items, the job with both."""
        active = {ChunkState.PENDING, ChunkState.RUNNING, ChunkState.HELD}
        items = self.rows(sa.select(ItemRow.__table__).where(ItemRow.job_id == job_id))
        for chunk in self.rows(sa.select(ChunkRow.__table__).where(ChunkRow.job_id == job_id)):
            states = [row.state.value for row in items if row.chunk_id == chunk.id]
            assert chunk.total == len(states), chunk
            for state in ("succeeded", "warning", "failed", "skipped", "cancelled"):
                assert getattr(chunk, state) == states.count(state), (chunk, state)
            assert chunk.state in active or "pending" not in states, "an item waits where nobody will look for it"


@contextmanager
def site(**settings: Any) -> Iterator[Site]:
    """A running site; its archive is kept for as long as the block."""
    flat: dict[str, Any] = {
        f"{section}__{key}": value for section, values in IMPATIENT.items() for key, value in values.items()
    }
    with StorageScp(**flat) as scp:
        yield Site(scp, **settings)


def flat(sections: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """Settings as keywords, such as timeouts__quiet."""
    return {f"{section}__{key}": value for section, values in sections.items() for key, value in values.items()}


def archived(scp: StorageScp) -> dict[str, Path]:
    """SOP Instance UID -> file, by the index."""
    rows = scp.rows("SELECT sop_instance_uid, path FROM instance WHERE is_current AND removed_at IS NULL")
    return {uid: scp.archive.root / path for uid, path in rows}

"""Which jobs are meant, by what they are rather than by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import datetime

import sqlalchemy as sa

from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, JobRow, RemoteRow
from dicomferry.models.rules.answers.connections import CONNECTIONS
from dicomferry.models.rules.state import ChunkState, ItemState, JobState

WAITING = "waiting"
"""A state for people: what has not ended, runs nothing, and waits for more than its turn."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """All of what is given has to hold. `state` is a job's, or `waiting`; `remote` a name or address as shown.

    `since`: submitted or ended since then. `label` may have * for any text; case does not count. `reason` is a reason
    word, or what happened as `explain` takes it (`timeout`), of the job, of what waits of it or of one of its items.
    """

    state: str | None = None
    kind: str | None = None
    remote: str | None = None
    since: datetime | None = None
    label: str | None = None
    reason: str | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in astuple(self))

    def conditions(self) -> Iterator[sa.ColumnElement[bool]]:
        """The conditions of a query over jobs joined with their remotes."""
        if self.state == WAITING:
            yield is_waiting()
        elif self.state is not None:
            yield JobRow.state == self.state
        if self.kind is not None:
            yield JobRow.kind == self.kind
        if self.remote is not None:
            yield RemoteRow.name == self.remote
        if self.since is not None:
            yield sa.or_(JobRow.submitted_at >= self.since, JobRow.finished_at >= self.since)
        if self.label is not None:
            yield _like(JobRow.label, self.label)
        if self.reason is not None:
            yield _has_reason(self.reason)


def is_waiting() -> sa.ColumnElement[bool]:
    """Condition on a job: nothing of it runs or is held, and its chunk that is due first has a reason to wait."""
    first, other = ChunkRow.__table__.alias("first"), ChunkRow.__table__.alias("other")
    sooner = sa.or_(
        other.c.not_before < first.c.not_before,
        sa.and_(other.c.not_before == first.c.not_before, other.c.id < first.c.id),
    )
    waits = (
        sa.select(first.c.id)
        .where(first.c.job_id == JobRow.id, first.c.state == ChunkState.PENDING, first.c.reason.is_not(None))
        .where(
            ~sa.select(other.c.id)
            .where(other.c.job_id == first.c.job_id, other.c.state == ChunkState.PENDING, sooner)
            .exists()
        )
    )
    moves = sa.select(ChunkRow.id).where(
        ChunkRow.job_id == JobRow.id, ChunkRow.state.in_((ChunkState.RUNNING, ChunkState.HELD))
    )
    return sa.and_(JobRow.state.in_((JobState.PENDING, JobState.RUNNING)), waits.exists(), ~moves.exists())


def _like(
    column: sa.ColumnElement[str | None] | sa.orm.InstrumentedAttribute[str | None], text: str
) -> sa.ColumnElement[bool]:
    pattern = "".join("%" if char == "*" else f"/{char}" if char in "%_/" else char for char in text.lower())
    return sa.func.lower(column).like(pattern, escape="/")


def reasons(text: str) -> set[str]:
    """The reason words that are meant: the word itself, that of what happened, or those of all that begins so.

    `timeout` is every time-out but the one that looks like any other host that is away.
    """
    wanted = text.strip().lower().replace("time-out", "timeout").replace("_", " ")
    happened = {key.replace("_", " "): answer.reason or "" for key, answer in CONNECTIONS.items()}
    begins = {key: reason for key, reason in happened.items() if key.startswith(f"{wanted} ")}
    others = {reason for key, reason in happened.items() if key not in begins}
    return {wanted, text.strip(), happened.get(wanted, ""), *(set(begins.values()) - others)} - {""}


def _has_reason(text: str) -> sa.ColumnElement[bool]:
    words = reasons(text)
    waits = sa.select(ChunkRow.id).where(
        ChunkRow.job_id == JobRow.id,
        ChunkRow.state.in_((ChunkState.PENDING, ChunkState.HELD)),
        ChunkRow.reason.in_(words),
    )
    failed = sa.select(ItemRow.id).where(
        ItemRow.job_id == JobRow.id, ItemRow.reason.in_(words), ItemRow.state == ItemState.FAILED
    )
    return sa.or_(JobRow.reason.in_(words), waits.exists(), failed.exists())

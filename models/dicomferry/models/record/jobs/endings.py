"""The end of an attempt as it is written down: each step one thing, in the one order in which rows are locked.

It runs inside the caller's transaction, with the rows of the job and the chunk locked and the chunk's items written.
What is to be written is decided already (see `rules.ending`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import calls
from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.remotes import breaker
from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow
from dicomferry.models.rules.ending import Along, Ending, Seen
from dicomferry.models.rules.state import CHUNK_TRANSITIONS, ChunkState, step

# Built once: they are part of every end of an attempt.
_CHUNK = sa.update(ChunkRow.__table__).where(ChunkRow.id == sa.bindparam("chunk"))  # type: ignore[arg-type]
_ATTEMPT = sa.update(AttemptRow.__table__).where(  # type: ignore[arg-type]
    AttemptRow.chunk_id == sa.bindparam("chunk"), AttemptRow.fence == sa.bindparam("held")
)


class Place(NamedTuple):
    """The attempt that ends: its job, chunk, fence and remote."""

    job_id: int
    chunk_id: int
    fence: int
    remote_id: int


def write(
    connection: Connection,
    place: Place,
    ending: Ending,
    now: datetime,
    *,
    finished: int = 0,
    detail: str | None = None,
    remark: str | None = None,
) -> None:
    """Write the end of an attempt that brought so many items to an end, and that of its job where it has come.

    `remark` is a line for the job's history beside what the ending itself tells.
    """
    _tell_breaker(connection, place, ending, now, detail)
    _end_attempt(connection, place, ending, now, finished, detail)
    _leave_chunk(connection, place.chunk_id, ending, now)
    _take_along(connection, place, ending, now)
    _tell_history(connection, place, ending, now, detail)
    if remark:
        ledger.add_event(connection, place.job_id, now, "retry", remark)
    ledger.derive(connection, place.job_id, now)


def _tell_breaker(connection: Connection, place: Place, ending: Ending, now: datetime, detail: str | None) -> None:
    """Bring the remote's breaker in line with what the attempt found."""
    match ending.seen:
        case Seen.WELL:
            breaker.close(connection, place.remote_id, place.chunk_id, place.fence, now)
        case Seen.FAILED | Seen.AWAY:
            breaker.count_failure(connection, place.remote_id, ending, now, detail)
        case Seen.CROWDED:
            breaker.note_crowding(connection, place.remote_id, place.chunk_id, now)
        case Seen.NOTHING:
            pass


def _end_attempt(
    connection: Connection, place: Place, ending: Ending, now: datetime, finished: int, detail: str | None
) -> None:
    """How the attempt ended, and why."""
    values = {
        "end": ending.attempt,
        "ended_at": now,
        "reason": ending.decision.reason if ending.decision else None,
        "detail": detail,
        "finished_items": finished,
    }
    connection.execute(_ATTEMPT, {"chunk": place.chunk_id, "held": place.fence, **values})


def _leave_chunk(connection: Connection, chunk_id: int, ending: Ending, now: datetime) -> None:
    """Give the running chunk its next state; what is left of one that was cancelled is cancelled with it."""
    values: dict[str, Any] = {
        "state": step(CHUNK_TRANSITIONS, ChunkState.RUNNING, ending.chunk),
        "reason": ending.reason,
        "advice": ending.advice,
        "lease_until": None,
        "leased_at": None,
        "owner_id": None,
        "in_flight_item_id": None,
        "careful": ending.careful,
        "waits_from": now,
    }
    if not ending.careful:
        values |= {"in_flight_path": None, "in_flight_losses": 0}
    if ending.due:
        values["not_before"] = ending.due
    if ending.keeps_count and ending.decision:
        values |= {"barren": ending.decision.barren, "waiting_since": ending.decision.waiting_since}
    if ending.chunk is ChunkState.CANCELLED:
        ledger.cancel_items(connection, [chunk_id])
    connection.execute(_CHUNK, {"chunk": chunk_id, **values})


def _take_along(connection: Connection, place: Place, ending: Ending, now: datetime) -> None:
    """Other chunks that wait: held along, put off along, or freed of having waited along."""
    if ending.frees_others:
        ledger.answered(connection, place.chunk_id)
    decision = ending.decision
    if decision is None:
        return
    match ending.along:
        case Along.JOB:
            ledger.hold_chunks(connection, place.job_id, reason=decision.reason, advice=decision.advice)
        case Along.REMOTE:
            ledger.postpone(connection, place.chunk_id, decision, now)
        case Along.MOVES_HERE | Along.ALL_HERE:
            calls.put_off(connection, decision, now)
        case Along.NOBODY:
            pass


def _tell_history(connection: Connection, place: Place, ending: Ending, now: datetime, detail: str | None) -> None:
    """What the job's history says of it: that the chunk is held for a reason, or when it is tried again."""
    decision = ending.decision
    if decision is None:
        return
    if ending.chunk is ChunkState.HELD and ending.keeps_count:
        name = f"{ledger.name_of(connection, place.chunk_id)}: " if decision.alone else ""
        ledger.add_event(connection, place.job_id, now, "held", f"{name}{decision.reason}: {decision.advice}")
    if ending.tells_pause:
        pause = ((decision.at or now) - now).total_seconds()
        when = f"next try in {pause:.0f} s" if pause >= 0.5 else "tried again at once"
        text = f"chunk {place.chunk_id}: {detail or decision.reason}, {when}"
        ledger.add_event(connection, place.job_id, now, "retry", text)

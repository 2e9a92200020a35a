"""What a running chunk becomes when its attempt has ended, however that was.

It runs inside the caller's transaction, with the job's row and the chunk's locked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules.retry import Decision, Next
from dicomferry.models.rules.state import CHUNK_TRANSITIONS, ChunkState, ItemState, step

# Built once: they are part of every end of an attempt.
_LEFT = sa.select(sa.func.count()).where(ItemRow.chunk_id == sa.bindparam("chunk"), ItemRow.state == ItemState.PENDING)
_CHUNK = sa.update(ChunkRow.__table__).where(ChunkRow.id == sa.bindparam("chunk"))  # type: ignore[arg-type]


def left(connection: Connection, chunk_id: int) -> int:
    """How many items of a chunk have no outcome yet."""
    number: int = connection.execute(_LEFT, {"chunk": chunk_id}).scalar_one()
    return number


def leave(
    connection: Connection,
    job_id: int,
    chunk_id: int,
    now: datetime,
    *,
    cancel: bool,
    hold: bool,
    complete: bool,
    decision: Decision | None,
    careful: bool = False,
) -> None:
    """Give a running chunk its next state."""
    values: dict[str, Any] = {
        "lease_until": None,
        "leased_at": None,
        "owner_id": None,
        "in_flight_item_id": None,
        "careful": careful,
        "waits_from": now,
    }
    if not careful:
        values |= {"in_flight_path": None, "in_flight_losses": 0}
    if complete:
        values |= {"state": ChunkState.DONE, "reason": None, "advice": None}
    elif cancel:
        ledger.cancel_items(connection, [chunk_id])
        values |= {"state": ChunkState.CANCELLED, "reason": None, "advice": None}
    elif decision and decision.next is Next.HOLD:
        values |= {"state": ChunkState.HELD, "reason": decision.reason, "advice": decision.advice}
        values |= {"barren": decision.barren, "waiting_since": decision.waiting_since}
        if decision.alone:
            text = f"{ledger.name_of(connection, chunk_id)}: {decision.reason}: {decision.advice}"
        else:
            ledger.hold_chunks(connection, job_id, reason=decision.reason, advice=decision.advice)
            text = f"{decision.reason}: {decision.advice}"
        ledger.add_event(connection, job_id, now, "held", text)
    elif hold:
        values |= {"state": ChunkState.HELD, "reason": "held by a person", "advice": ledger.RELEASE}
    elif decision:
        at = decision.at or now
        values |= {
            "state": ChunkState.PENDING,
            "not_before": at,
            "reason": decision.reason,
            "advice": decision.advice,
        }
        values |= {"barren": decision.barren, "waiting_since": decision.waiting_since}
    else:
        values |= {"state": ChunkState.PENDING, "not_before": now, "reason": None, "advice": None}
    step(CHUNK_TRANSITIONS, ChunkState.RUNNING, values["state"])
    connection.execute(_CHUNK, {"chunk": chunk_id, **values})

"""What the record knows when an attempt ends: all that `rules.ending` decides by, read once.

It is read inside the transaction that writes the end, with the rows of the job and the chunk locked and the attempt's
last outcomes written, so nothing of it changes before the end is on record.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import AnyRow
from dicomferry.models.record.jobs.claims import PLAN, Lease
from dicomferry.models.record.remotes import breaker
from dicomferry.models.record.tables.jobs import AttemptRow, ItemRow, RemoteRow
from dicomferry.models.rules import window
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.situation import Account, AttemptFacts, Breaker
from dicomferry.models.rules.state import ItemState

# Built once: it is part of every end of an attempt.
_LEFT = sa.select(sa.func.count()).where(ItemRow.chunk_id == sa.bindparam("chunk"), ItemRow.state == ItemState.PENDING)


def breaker_of(connection: Connection, lease: Lease, account: Account) -> Breaker:
    """The breaker of the attempt's remote, which is locked before the chunk's items are written; a plan uses none."""
    if lease.kind == PLAN:
        return Breaker()
    return breaker.known(connection, lease.remote_id, lease.chunk_id, lock=account.may_blame_remote)


def of_attempt(connection: Connection, lease: Lease, account: Account, begun: AttemptFacts) -> AttemptFacts:
    """The facts at the end of an attempt whose lease is still its own: what was known before its items were written,
    and what the record knows now. What only a fault is judged by is read for a fault.
    """
    fault = account.fault
    is_suspect = fault is not None and fault.rule is Rule.SUSPECT
    is_plan = lease.kind == PLAN
    return replace(
        begun,
        plan=is_plan,
        left=0 if is_plan else _left(connection, lease.chunk_id),
        barren=lease.barren,
        alike=_alike(connection, lease, fault.reason if fault else None) if account.cause and lease.barren else 0,
        waiting_since=lease.waiting_since,
        waited=_waited(connection, lease.remote_id, lease.waiting_since, begun.now) if account.cause else None,
        served=is_suspect and breaker.has_served(connection, lease.remote_id, begun.now),
        failures=lease.failures,
    )


def of_lost(connection: Connection, chunk: AnyRow, now: datetime, *, cancel: bool, hold: bool) -> AttemptFacts:
    """The facts at the end of a lease whose holder died: nobody knows anything new of the remote."""
    is_plan = chunk.kind == PLAN
    return AttemptFacts(
        now=now,
        cancel=cancel,
        hold=hold,
        plan=is_plan,
        left=0 if is_plan else _left(connection, chunk.id),
        barren=chunk.barren,
        waiting_since=chunk.waiting_since,
    )


def _left(connection: Connection, chunk_id: int) -> int:
    """How many items of a chunk have no outcome yet."""
    number: int = connection.execute(_LEFT, {"chunk": chunk_id}).scalar_one()
    return number


def _alike(connection: Connection, lease: Lease, reason: str | None) -> int:
    """How many of the chunk's fruitless attempts in a row, counted back from this one, ended for this reason."""
    query = (
        sa.select(AttemptRow.reason)
        .where(AttemptRow.chunk_id == lease.chunk_id, AttemptRow.fence < lease.fence)
        .order_by(AttemptRow.fence.desc())
        .limit(lease.barren)
    )
    reasons = connection.execute(query).scalars()
    return sum(1 for _ in itertools.takewhile(lambda found: found == reason, reasons))


def _waited(connection: Connection, remote_id: int, since: datetime | None, now: datetime) -> float | None:
    """The seconds since `since` in which the remote's window was open; None where it has none, or nothing waits."""
    if since is None:
        return None
    query = sa.select(RemoteRow.window).where(RemoteRow.id == remote_id)
    hours = window.from_document(connection.execute(query).scalar_one())
    return hours.open_seconds(since, now) if hours else None

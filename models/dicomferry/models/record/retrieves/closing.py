"""The end of the requests of a chunk, by what came of their instances. Every write is fenced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import here
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules import flaws
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.rounds import Missing
from dicomferry.models.rules.state import GOOD_ITEM_STATES, ItemState


def close(
    connection: Connection,
    lease: Lease,
    requests: Sequence[int],
    *,
    failures: Mapping[int, Outcome] = MappingProxyType({}),
    missing_as: Callable[[Missing], Outcome] | None = None,
) -> None:
    """Bring requests of the chunk to their end, those of which nothing is pending. Runs with the chunk's row locked.

    `missing_as` gives the outcome of each instance that is still pending; `failures` are the requests' own where their
    instances do not decide it.
    """
    if missing_as is not None:
        wanted = expected.missing_in(connection, lease.chunk_id)
        who = here.asker(connection, lease.job_id)
        came = here.flaws_of(connection, who, expected.awaited(lease.chunk_id)) if wanted else {}
        lost = [
            missing_as(one)._replace(reason=flaws.CAME_FLAWED, detail=came[one.item_id])
            if one.item_id in came
            else missing_as(one)
            for one in wanted
        ]
        leases.write_outcomes(connection, lease.chunk_id, lost)
    states: dict[int, Counter[ItemState]] = {key: Counter() for key in requests}
    reasons: dict[int, Counter[str]] = {key: Counter() for key in requests}
    for row in connection.execute(
        sa.select(ItemRow.request_id, ItemRow.state, ItemRow.reason, sa.func.count().label("number"))
        .where(ItemRow.chunk_id == lease.chunk_id, ItemRow.request_id.is_not(None))
        .group_by(ItemRow.request_id, ItemRow.state, ItemRow.reason)
    ):
        if row.request_id not in states:
            continue
        states[row.request_id][row.state] += row.number
        if row.state is ItemState.FAILED:
            reasons[row.request_id][row.reason or Reason.INCOMPLETE] += row.number
    grew = _grown(connection, requests)
    outcomes = [
        failures.get(key) or _outcome_of(key, states[key], reasons[key], grew=key in grew)
        for key in requests
        if key in failures or not states[key][ItemState.PENDING]
    ]
    leases.write_outcomes(connection, lease.chunk_id, outcomes)


def _grown(connection: Connection, requests: Sequence[int]) -> frozenset[int]:
    """Those of which the archive had more than it listed at first."""
    query = sa.select(ItemRow.id).where(ItemRow.reason == expected.GREW)
    return frozenset(
        key for part in batches(requests) for key in connection.execute(query.where(ItemRow.id.in_(part))).scalars()
    )


def _outcome_of(request_id: int, states: Counter[ItemState], reasons: Counter[str], *, grew: bool) -> Outcome:
    """What becomes of a request all instances of which have their end."""
    if set(states) == {ItemState.SKIPPED}:
        # What comes of it is decided where its instances are asked for.
        return Outcome(item_id=request_id, state=ItemState.SKIPPED, reason=expected.DUPLICATE)
    if all(one in GOOD_ITEM_STATES for one, number in states.items() if number):
        return Outcome(item_id=request_id, state=ItemState.SUCCEEDED, reason=expected.GREW if grew else None)
    worst = reasons.most_common(1)[0][0] if reasons else Reason.INCOMPLETE
    told = f"{sum(reasons.values())} of {states.total()} missing"
    return Outcome(item_id=request_id, state=ItemState.FAILED, reason=worst, detail=told)

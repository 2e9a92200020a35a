"""The plan of a retrieve: each identifier becomes a request item, a list of values several. Each has a chunk of its
own, but for single images, which are asked for together.

One that stands in the list a second time is skipped: reports by instance name a study once for each of its instances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import plans
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves.expected import DUPLICATE
from dicomferry.models.rules import lists, together
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.spec import GetSpec, Identifier, MoveSpec, Retrieve
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.tuning import DEFAULT, Planning
from dicomferry.workers.dimse.identifier import vr_of


def run(
    database: Database,
    lease: Lease,
    heart: Heartbeat,
    ring: Callable[[], object],
    planning: Planning = DEFAULT.planning,
) -> bool:
    """Plan until everything is planned (True), or a stop is asked for (False). The cursor counts requests.

    `ring` is called after each batch. Raises LeaseLost.
    """
    assert isinstance(lease.spec, MoveSpec | GetSpec)
    identifiers = [(row, one) for row, keys in lease.spec.identifiers for one in _each(keys, lease.spec)]
    rows = {keys: row for row, keys in reversed(identifiers)}
    size = planning.batch_requests
    for first in range(int(lease.cursor or b"0"), len(identifiers), size):
        heart.require_lease()
        heart.progress(0)
        batch = identifiers[first : first + size]
        cursor = b"%d" % (first + len(batch))
        firsts = [one for one in batch if rows[one[1]] == one[0]]
        chunks = [list(map(_item, part)) for part in together.chunks(firsts, lease.spec)]
        again = [_duplicate(one, rows[one[1]]) for one in batch if rows[one[1]] != one[0]]
        stop, _ = plans.add_batch(database, lease, cursor=cursor, chunks=chunks, decided=again)
        ring()
        if stop or heart.stop:
            return not stop and first + len(batch) == len(identifiers)
    return True


def _each(keys: tuple[Key, ...], spec: Retrieve) -> Sequence[tuple[Key, ...]]:
    """A request for each value of a list, whichever door it came by: what is absent has an answer of its own."""
    try:
        return lists.alternatives(keys, spec.level, spec.root, vr_of)
    except UsageError:  # more than anybody asks for; the doors refuse that
        return [keys]


def _item(one: Identifier) -> dict[str, Any]:
    row, keys = one
    return {
        "kind": "request",
        "row": row,
        "identifier": [list(key) for key in keys],
        "is_first": True,
        "state": ItemState.PENDING,
    }


def _duplicate(one: Identifier, first: int | None) -> dict[str, Any]:
    told = {"reason": DUPLICATE, "detail": f"the same as row {first}"}
    return {**_item(one), **told, "is_first": False, "state": ItemState.SKIPPED}

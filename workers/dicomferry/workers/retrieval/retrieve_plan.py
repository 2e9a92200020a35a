"""The plan of a retrieve: each identifier becomes a request item, and a chunk of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dicomferry.models import plan_store
from dicomferry.models.claim import Claim
from dicomferry.models.database import Database
from dicomferry.models.spec import GetSpec, Identifier, MoveSpec
from dicomferry.models.state import ItemState
from dicomferry.workers.heartbeat import Heartbeat

BATCH = 500
"""Requests that are written in one transaction."""


def run(database: Database, held: Claim, heart: Heartbeat, ring: Callable[[], object]) -> bool:
    """Plan until everything is planned (True), or a stop is asked for (False). The cursor counts identifiers.

    `ring` is called after each batch. Raises LeaseLost.
    """
    assert isinstance(held.spec, MoveSpec | GetSpec)
    identifiers = held.spec.identifiers
    for first in range(int(held.cursor or b"0"), len(identifiers), BATCH):
        heart.require_lease()
        heart.progress(0)
        batch = identifiers[first : first + BATCH]
        chunks = [[_item(one)] for one in batch]
        stop, _ = plan_store.add_batch(database, held, cursor=b"%d" % (first + len(batch)), chunks=chunks, decided=())
        ring()
        if stop or heart.stop:
            return not stop and first + len(batch) == len(identifiers)
    return True


def _item(one: Identifier) -> dict[str, Any]:
    row, keys = one
    return {
        "kind": "request",
        "row": row,
        "identifier": [list(key) for key in keys],
        "is_first": True,
        "state": ItemState.PENDING,
    }

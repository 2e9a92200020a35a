"""Several files of one SOP Instance UID in a store: the first in walk order speaks for it, as long as it can be sent.

A broken copy never keeps a whole one back: where the first cannot be sent, for a reason of its own, it gives the UID
up, and its twins come back to be looked at again. All of it runs inside the caller's transaction, with the job's row
locked, so that no plan writes another twin meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.database import read_many
from dicomferry.models.record.jobs import ledger
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.answers.answer import Category
from dicomferry.models.rules.answers.reasons import REASONS
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ITEM_TRANSITIONS, ItemState, step

DUPLICATE, CONFLICT = Reason.DUPLICATE, Reason.CONFLICT
# Word for word the condition of an index, which is used for this alone.
_TWINS = sa.text("reason IN ('duplicate', 'conflict') AND request_id IS NULL")

_UNTAKEN = frozenset(
    {Reason.CONTEXT_REFUSED, Reason.NO_DECODER, Reason.NOT_TRANSCODABLE, Reason.WORKER_DIED_TWICE_ON_IT}
)
"""Why a file was not sent that another one with the same content is not sent for either."""
_OF_FILES = frozenset(reason for reason, answer in REASONS.items() if answer.category is Category.FILE)
_OTHERS = _OF_FILES - _UNTAKEN
_FIRSTS = (
    "SELECT sop_instance_uid, path FROM item WHERE job_id = ? AND is_first AND request_id IS NULL "
    "AND sop_instance_uid IN ({})"
)


def gives_up(outcome: Outcome) -> bool:
    """Whether a file that ended so cannot speak for its SOP Instance UID: it was not sent, and that was not the peer's
    answer.
    """
    return outcome.state is ItemState.FAILED and outcome.status is None and outcome.reason in _UNTAKEN | _OTHERS


def come_back(connection: Connection, job_id: int, chunk_id: int, outcomes: Iterable[Outcome]) -> None:
    """Take the UID from files that cannot be sent, and bring their twins into this chunk, to be looked at again.

    The chunk's row is locked, the outcomes are written.
    """
    for outcome in filter(gives_up, outcomes):
        taken = (
            sa.update(ItemRow)
            .where(ItemRow.id == outcome.item_id, ItemRow.is_first, ItemRow.request_id.is_(None))
            .values(is_first=False)
            .returning(ItemRow.sop_instance_uid)
        )
        uid = connection.execute(taken).scalar_one_or_none()
        if uid is None:
            continue
        reasons = (DUPLICATE, CONFLICT) if outcome.reason in _OTHERS else (CONFLICT,)
        twins = connection.execute(
            sa.select(ItemRow.id, ItemRow.chunk_id, ItemRow.state).where(
                ItemRow.job_id == job_id,
                ItemRow.sop_instance_uid == uid,
                _TWINS,
                ItemRow.reason.in_(reasons),
                ItemRow.state.in_((ItemState.SKIPPED, ItemState.FAILED)),
                ItemRow.id != outcome.item_id,
            )
        ).all()
        if not twins:
            continue
        for twin in twins:
            step(ITEM_TRANSITIONS, twin.state, ItemState.PENDING)
        connection.execute(
            sa.update(ItemRow)
            .where(ItemRow.id.in_([twin.id for twin in twins]))
            .values(state=ItemState.PENDING, chunk_id=chunk_id, reason=None, detail=None)
        )
        for changed in sorted({chunk_id, *(twin.chunk_id for twin in twins)}):
            ledger.recount(connection, changed)


def orphans(
    connection: Connection, job_id: int, decided: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide items that a plan is about to write as decided: (those that stay so, those that have to wait instead).

    The latter are twins of a file that gave its UID up while they were compared with it (`twin_of`).
    """
    twins = [item for item in decided if "twin_of" in item]
    known = firsts(connection, job_id, (item["sop_instance_uid"] for item in twins)) if twins else {}
    stay, lone = [], []
    for item in decided:
        row = {key: value for key, value in item.items() if key != "twin_of"}
        if "twin_of" not in item or known.get(item["sop_instance_uid"]) == item["twin_of"]:
            stay.append(row)
        else:
            lone.append({**row, "state": ItemState.PENDING, "reason": None, "detail": None})
    return stay, lone


def demoted(
    connection: Connection, job_id: int, chunks: Sequence[Sequence[Mapping[str, Any]]]
) -> list[list[dict[str, Any]]]:
    """The items, without the claim to a UID for which another file speaks meanwhile: those are compared later."""
    known = firsts(connection, job_id, (item["sop_instance_uid"] for items in chunks for item in items))
    return [
        [{**item, "is_first": item["is_first"] and item["sop_instance_uid"] not in known} for item in items]
        for items in chunks
    ]


def firsts(connection: Connection, job_id: int, uids: Iterable[str]) -> dict[str, bytes]:
    """The SOP Instance UIDs among these for which a file of the job speaks: UID to its path."""
    wanted = sorted(set(uids))
    found: dict[str, bytes] = {}
    for some in batches(wanted):
        found |= read_many(connection, _FIRSTS.format(", ".join("?" * len(some))), (job_id, *some))
    return found

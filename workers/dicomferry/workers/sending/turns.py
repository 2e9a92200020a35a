"""In which order an attempt at a store tries its items, so that a few poisonous ones keep nothing else back.

An item at which the peer breaks the association off is charged and comes last: behind everything that has not been
tried, alone on an association of its own, once an attempt. So whatever is behind it gets its turn at once, and nobody
else is in flight when it breaks another association.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules import uid
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.kind import Kind


class Turns:
    """What is still to be tried of a chunk's items, and what broke an association in this attempt.

    After `most_in_a_row` associations that broke before anything was answered, a C-ECHO proves nothing any more.
    """

    def __init__(self, kind: Kind, *, most_in_a_row: int) -> None:
        self._most_in_a_row = most_in_a_row
        self._by_turns = kind == Kind.STORE
        self._broke: set[int] = set()
        self._rest = 0
        self._in_a_row = 0
        self.returned = False
        """Whether items came back that were settled before: they are to be read anew."""

    @property
    def left(self) -> int:
        """How many items wait beside those of the group that was given last."""
        return self._rest + len(self._broke)

    @property
    def untried(self) -> bool:
        """Whether any of them has not had its turn in this attempt."""
        return self._rest > 0

    def group(self, rows: Sequence[Item]) -> list[Item]:
        """The waiting items, in their order, that may share the next association; none: all had a turn."""
        waiting = [row for row in rows if row.id not in self._broke]
        group = waiting
        if self._by_turns:
            group = [row for row in waiting if not _goes_alone(row)] or waiting[:1]
        self._rest = len(waiting) - len(group)
        return group

    def broke(self, row: Item) -> None:
        """An association broke while this item was in flight, and it is to be tried again, in the next attempt."""
        self._broke.add(row.id)

    def is_hopeless(self, answered: bool) -> bool:
        """Count one more association that broke; `answered`: after something else had been answered on it."""
        self._in_a_row = 0 if answered else self._in_a_row + 1
        return self._in_a_row >= self._most_in_a_row


def _goes_alone(row: Item) -> bool:
    if any(one and len(one) > uid.MOST for one in (row.sop_class_uid, row.sop_instance_uid)):
        return True
    if not row.charges or row.status is not None or row.reason is None:
        return False
    met = lookup.for_reason("store", row.reason)
    return met is not None and met.rule is Rule.BROKEN

"""The answers to a query, held against its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dicomferry.models import matching, query
from dicomferry.models.matching import Judged
from dicomferry.models.query import UNIQUE, Key
from dicomferry.workers.dimse.identifier import Answer, vr_of


class Judge:
    """Of one query of a root, or of a worklist (None)."""

    def __init__(self, root: str | None, keys: Sequence[Key]) -> None:
        self._keys = [key for key in keys if not matching.is_universal(key[1])]
        # Archives need not repeat them at lower levels, and whatever has none at its own level cannot be asked for.
        self._unique = {f"{UNIQUE[level]:08X}" for level in query.levels(root)} if root else set()

    def of(self, answer: Answer) -> Sequence[Judged]:
        """What an answer says of each key that asks for something."""
        if not self._keys:
            return ()
        found = matching.judge(self._keys, answer.attributes, vr_of, unreadable=answer.unreadable)
        return [one for one in found if not (one.wants_value and one.path in self._unique)]


def against(judged: Sequence[Judged]) -> list[str]:
    """The keys that an answer contradicts."""
    return [one.path for one in judged if one.outcome is matching.CONTRADICTS]


def named(counts: Mapping[str, int]) -> list[str]:
    """Paths as people write keys, those that stand most often first."""
    from dicomferry.workers.keys import spelled

    return [spelled(path) for path in sorted(counts, key=lambda path: -counts[path])]

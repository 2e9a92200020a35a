"""How a key with a list of values is asked for. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import UNIQUE, Key, Level, levels, steps_of, value_of

MOST_ALTERNATIVES = 10_000
"""Requests that one row or command line may come to, at most."""
_WHOLE = frozenset(("LT", "ST", "UT", "UR"))
"""Text in which a backslash is a backslash (PS3.5 6.2)."""


def alternatives(
    keys: Sequence[Key], level: Level | str, root: str, vr_of: Callable[[int], str], *, uids: bool = True
) -> list[tuple[Key, ...]]:
    """The requests that these keys come to: one for each value of a list, so that each has an answer of its own.

    Lists are for UIDs alone (PS3.4 C.2.2.2.2): of those, SOP Instance UIDs stay together, and so do the UIDs above a
    unique key that is given; without `uids` all UIDs. Raises UsageError where they are too many.
    """
    parts = [_parts(path, value, keys, Level(level), root, vr_of, uids) for path, value in keys]
    number = math.prod(map(len, parts))
    if number > MOST_ALTERNATIVES:
        raise UsageError(f"these lists come to {number:,} requests; {MOST_ALTERNATIVES:,} are the most at a time")
    return [
        tuple((path, value) for (path, _), value in zip(keys, values, strict=True))
        for values in itertools.product(*parts)
    ]


def _parts(
    path: str, value: str, keys: Sequence[Key], level: Level, root: str, vr_of: Callable[[int], str], uids: bool
) -> list[str]:
    if "\\" not in value:
        return [value]
    tag = steps_of(path)[-1][0]
    vr = vr_of(tag)
    unique = next((one for one in levels(root) if path == f"{UNIQUE[one]:08X}"), None)
    if vr in _WHOLE or (
        vr == "UI" and (not uids or unique in (None, Level.IMAGE) or _names_below(keys, unique, level))
    ):
        return [value]
    return list(dict.fromkeys(one for part in value.split("\\") if (one := part.strip()))) or [""]


def _names_below(keys: Sequence[Key], unique: Level | None, level: Level) -> bool:
    """Whether a unique key below is given, so that what is asked for is named by that."""
    if unique is None:
        return False
    ordered = list(Level)
    below = ordered[ordered.index(unique) + 1 : ordered.index(level) + 1]
    return any(value_of(keys, UNIQUE[one]) for one in below)

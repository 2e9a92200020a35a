"""Where a plan begins a new chunk: so that a job keeps all associations of its remote busy, and a study stays on one.

Pure. A chunk is a run of consecutive items that one association sends. More of them than associations cost a claim and
an association each and win nothing; fewer leave associations idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

LEAST = 8
"""Items of several studies that are worth an association of their own."""


def bound(coming: int, *, planned: int, associations: int, most: int, is_last: bool) -> int:
    """How many items a chunk of several studies takes at most, for so many that are `coming` now.

    It grows with what was planned before, up to `most`, so that a job of a million files has few chunks. What comes
    last is shared out among all associations, so that none has the end of the job to itself. A handful is not divided.
    """
    shared = coming if is_last else planned + coming
    return min(most, max(LEAST, -(-shared // max(associations, 1))))


def borders(studies: Sequence[str | None], *, bound: int, most: int) -> frozenset[int]:
    """At which of these items, given by their study in their order, a new chunk begins, the first one apart.

    Whole studies share a chunk up to `bound` items. A study is cut only where it has more than `most` items by itself,
    and then into even parts. Items of no known study are each on their own.
    """
    found: set[int] = set()
    at = size = 0
    for length in _runs(studies):
        if size and size + length > bound:
            found.add(at)
            size = 0
        if length > most:
            parts = -(-length // most)
            inner = [at + length * part // parts for part in range(1, parts)]
            found.update(inner)
            size = at + length - inner[-1]
        else:
            size += length
        at += length
    return frozenset(found)


def open_tail(studies: Sequence[str | None], *, most: int) -> int:
    """How many items at the end are of one study, of which more may come; 0 where nothing would be left before them, or
    where they are too many for one chunk.
    """
    if not studies or studies[-1] is None:
        return 0
    length = next((index for index, study in enumerate(reversed(studies)) if study != studies[-1]), len(studies))
    return 0 if length >= most or length == len(studies) else length


def _runs(studies: Sequence[str | None]) -> Iterator[int]:
    for study, run in groupby(studies):
        length = sum(1 for _ in run)
        yield from [length] if study is not None else [1] * length

"""Many values in lists of a size that one statement, or one request, can take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

MOST = 500
"""Values in a list of a statement, at most: every database takes so many parameters."""

_T = TypeVar("_T")


def batches(values: Iterable[_T], size: int = MOST) -> Iterator[list[_T]]:
    """The values in lists of `size`, in their order, the last one shorter; read as far as they are asked for."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some

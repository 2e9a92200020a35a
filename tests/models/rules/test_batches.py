"""Many values, a list at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dicomferry.models.rules.batches import batches


@pytest.mark.parametrize(
    ("values", "lists"),
    [("", []), ("ab", ["ab"]), ("abc", ["abc"]), ("abcd", ["abc", "d"]), ("abcdef", ["abc", "def"])],
)
def test_lists_of_a_size(values: str, lists: Sequence[str]) -> None:
    """Every value is in one list, in order; only the last list is shorter, and none is empty."""
    assert list(batches(values, 3)) == [list(some) for some in lists]


def test_no_more_is_read_than_is_asked_for() -> None:
    """Rows that come page by page are not all held in memory."""
    rest = iter(range(10))
    assert next(batches(rest, 4)) == [0, 1, 2, 3]
    assert list(rest) == [4, 5, 6, 7, 8, 9]

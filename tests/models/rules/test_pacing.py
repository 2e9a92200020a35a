"""Places in time, and what was learned of a remote: arithmetic without clock or database."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.models.rules import pacing
from dicomferry.models.rules.pacing import BURST_SECONDS

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(1.0, 500.0), takers=st.integers(1, 8), late=st.floats(0.0, 0.3))
def test_no_second_has_more_than_the_limit_and_its_burst(rate: float, takers: int, late: float) -> None:
    """However many share a limit, and however late each one is with each of its places."""
    until: datetime | None = None
    used: list[float] = []
    amount = pacing.share(rate, takers)
    # (moment at which a taker asks again, who)
    asking = [(number * 0.01, number) for number in range(takers)]
    while asking[0][0] < 3.0:
        moment, who = heapq.heappop(asking)
        grant, until = pacing.reserve(until, NOW + seconds(moment), rate, amount)
        at = moment
        for number in range(int(amount)):
            place = moment + grant.starts_in + number / rate
            at = max(at, place) + (late / rate if who % 2 else 0.0)
            used.append(at)
        heapq.heappush(asking, (max(at, moment + 0.001), who))
    used.sort()
    for first, begin in enumerate(used):
        count = bisect_left(used, begin + 1.0) - first
        assert count <= rate * (1.0 + BURST_SECONDS) + takers


def test_places_that_nobody_took_are_lost_but_for_a_moment() -> None:
    """After a pause there is no more than the burst to catch up with."""
    grant, until = pacing.reserve(None, NOW, 10.0, 1.0)
    assert (grant.starts_in, until) == (0.0, NOW + seconds(0.1))
    grant, _ = pacing.reserve(until, NOW, 10.0, 1.0)
    assert grant.starts_in == pytest.approx(0.1)
    grant, _ = pacing.reserve(until, NOW + seconds(60), 10.0, 1.0)
    assert grant.starts_in == -pacing.CARRY_SECONDS


def test_a_share_is_at_least_one() -> None:
    """Slow limits and many takers as well."""
    assert pacing.share(200.0, 2) == 10.0
    assert pacing.share(0.5, 8) == 1.0
    assert pacing.share(100.0, 0) == 10.0


def test_a_learned_rate_falls_at_once_and_grows_slowly() -> None:
    """By a factor with each refusal, by a share in each second without; it is forgotten in the end."""
    first = pacing.slower(None, 1000.0)
    assert first == pytest.approx(700.0)
    assert pacing.slower(first, 650.0) == pytest.approx(455.0)
    assert pacing.slower(first, 2000.0) == pytest.approx(490.0), "what was allowed counts, not what one hoped to try"
    assert pacing.slower(None, 0.0) == pacing.LEAST_RATE
    assert pacing.learned_rate(100.0, NOW, NOW) == 100.0
    assert pacing.learned_rate(100.0, NOW, NOW + seconds(20)) == 200.0
    assert pacing.learned_rate(100.0, NOW, NOW + pacing.FORGOTTEN_AFTER) is None
    assert pacing.learned_rate(None, None, NOW) is None


def test_one_more_association_each_minute() -> None:
    """After the remote had no room for more than two."""
    assert pacing.learned_associations(2, NOW, NOW + seconds(59)) == 2
    assert pacing.learned_associations(2, NOW, NOW + seconds(121)) == 4
    assert pacing.learned_associations(2, NOW, NOW + pacing.FORGOTTEN_AFTER) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("10M", 10**7), ("500k", 500_000), ("1.5G", 1_500_000_000), ("10 MB/s", 10**7), ("4096", 4096), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    """As an administrator writes them."""
    assert pacing.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "fast", "10T", "-1", "nan", "1e400", "M"])
def test_what_is_no_size(text: str) -> None:
    """Is said to be none."""
    assert pacing.parse_size(text) is None


def test_limits_are_false_where_there_are_none() -> None:
    """So that nothing is done where nothing is limited."""
    assert not pacing.RateLimits()
    assert pacing.RateLimits(instances=1.0)
    assert pacing.lowest(None, None) is None and pacing.lowest(None, 3.0, 2.0) == 2.0

"""A slot that was rung for goes on by itself with what is due in its lane."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomferry.models.rules.state import JobState
from dicomferry.workers import runner
from support.inline import Inline


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    with Inline(tmp_path, monkeypatch) as inline:
        yield inline


def _jobs(site: Inline) -> list[int]:
    """Three stores that have nothing to send: each is one chunk, its plan."""
    return [site.store("ANY@127.0.0.1:11112") for _ in range(3)]


def test_one_ring_is_enough_for_all_that_is_due(site: Inline) -> None:
    """Within its time a turn claims one chunk after the other until none of its lane is due."""
    jobs = _jobs(site)
    runner.run_due(replace(site.environment, clock=lambda: 0.0), "quick")
    assert {site.job(job).state for job in jobs} == {JobState.PENDING}
    runner.run_due(replace(site.environment, clock=lambda: 0.0), "bulk")
    assert {site.job(job).state for job in jobs} == {JobState.FAILED}


def test_after_its_time_a_turn_rings_for_the_rest(site: Inline) -> None:
    """A turn that is over leaves what is due to whoever hears the bell; it rings for nothing else."""
    jobs = _jobs(site)
    rung: list[str] = []
    clock = itertools.count(0.0, runner.TURN_SECONDS / 2)
    turn = replace(site.environment, clock=lambda: next(clock), ring=rung.append)
    runner.run_due(turn, "bulk")
    assert [site.job(job).state for job in jobs].count(JobState.PENDING) == 2
    assert rung[-1] == "bulk"
    runner.run_due(turn, "bulk")
    runner.run_due(turn, "bulk")
    rung.clear()
    runner.run_due(turn, "bulk")
    assert {site.job(job).state for job in jobs} == {JobState.FAILED} and not rung

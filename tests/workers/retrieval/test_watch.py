"""Watching over what a retrieve asked for: nothing that has come is overlooked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicomferry.models.record.remotes import book
from dicomferry.models.rules import spec
from dicomferry.models.rules.proof import Way
from dicomferry.models.rules.rounds import Ask, Capabilities
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.receiving.callers import Callers
from dicomferry.workers.retrieval import watch
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation
from support.inline import Inline


@dataclass
class Counted:
    """A goal that is reached when so many rows are seen."""

    wanted: int
    rows: int = 0
    seen: int = 0

    def mark(self) -> int:
        new, self.seen = self.rows - self.seen, self.rows
        return new

    def is_reached(self) -> bool:
        return self.seen >= self.wanted

    def asks(self, fineness: int, limits: Capabilities, put_off: Set[int]) -> list[Ask]:
        return []

    def has(self, ask: Ask) -> bool:
        return self.is_reached()

    def hear(self, ask: Ask, report: Report) -> None:
        pass


class Quiet:
    """An attempt's heartbeat that nobody stops."""

    stop = False

    def progress(self, _: int) -> None:
        pass

    def require_lease(self) -> None:
        pass


@dataclass
class Time:
    """Passes in sleep alone."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    with Inline(tmp_path, monkeypatch, timeouts={"quiet": 1.0}) as running:
        yield running


def until_quiet(site: Inline, time: Time, goal: Counted, is_behind: Callable[[], bool]) -> None:
    """Wait as an attempt at a C-GET does."""
    keys = spec.GetSpec(identifiers=((None, (("0020000D", "1.2"),)),))
    job_id = site.submit("ARCHIVE@127.0.0.1:1", keys)
    settings = site.settings
    remote = book.load(
        site.database, site.job(job_id).remote_id, ae_title=settings.ae_title, timeouts=settings.timeouts.value()
    )
    unused: Any = None
    situation = Situation(
        environment=replace(site.environment, clock=time, sleep=time.sleep),
        lease=cast(Any, SimpleNamespace(job_id=job_id)),
        heart=cast(Any, Quiet()),
        remote=remote,
        spec=keys,
        callers=Callers(),
        last_call=0,
        last_arrival=0,
        scps=frozenset(),
        destination=None,
        way=Way.HERE,
        sight=unused,
        lines=cast(Any, SimpleNamespace(is_behind=is_behind)),
    )
    watch.until_quiet(situation, Progress(unused, cast(Any, goal), Capabilities(), set()))


def test_what_gets_its_row_at_the_last_moment_is_seen(site: Inline) -> None:
    """The quiet is not over before everything that waited for its row was looked at once more."""
    time, goal = Time(), Counted(wanted=1)

    def is_behind() -> bool:
        goal.rows = int(time.now >= 1.0)  # The rows are written just now.
        return False

    until_quiet(site, time, goal, is_behind)
    assert goal.is_reached()


def test_what_waits_for_its_row_is_waited_for(site: Inline) -> None:
    """However long that takes: the quiet begins anew with it."""
    time, goal = Time(), Counted(wanted=2)

    def is_behind() -> bool:
        goal.rows = int(time.now >= 5.0)
        return goal.rows == 0

    until_quiet(site, time, goal, is_behind)
    assert goal.seen == 1
    assert 6.0 <= time.now < 7.0

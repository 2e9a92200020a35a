"""A pool that claims nothing though it could stands still; one that is busy, or cannot hear the bell, does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.daemon.pool_watch import LEASES, PoolWatch
from dicomferry.daemon.sign_of_life import SignOfLife
from dicomferry.models.record import presence
from dicomferry.models.record.jobs import claims
from dicomferry.models.rules.errors import OutOfReach
from support.inline import Inline

LEASE = 30.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    with Inline(tmp_path, monkeypatch) as made:
        yield made


class Watched:
    """A watch, its clock, and what it rang for."""

    def __init__(self, site: Inline) -> None:
        self.now = 0.0
        self.rung: list[str] = []
        self.trouble: str | None = None
        self.watch = PoolWatch(site.database, site.worker, self.ring, lease_seconds=LEASE, clock=lambda: self.now)

    def ring(self, lane: str) -> str | None:
        self.rung.append(lane)
        return self.trouble

    def after(self, leases: float) -> bool:
        """Whether it says so at any look within so many leases."""
        looks = round(leases * 3)
        said = False
        for _ in range(looks):
            self.now += LEASE / 3 + 0.01
            said = said or self.watch.stands_still()
        return said


def test_work_that_nobody_claims(site: Inline) -> None:
    """Something is due, and nothing is claimed for some leases: the pool stands still; it was rung for in vain."""
    watched = Watched(site)
    assert not watched.after(2 * LEASES)
    site.echo("NOBODY@127.0.0.1:1")
    assert not watched.after(LEASES - 1)
    assert watched.after(2)
    assert set(watched.rung) == {"quick"}


def test_a_pool_that_claims_is_well(site: Inline) -> None:
    """However much is due: whoever claims now and then does not stand still."""
    watched = Watched(site)
    for _ in range(6):
        site.echo("NOBODY@127.0.0.1:1")
    for _ in range(4):
        assert not watched.after(LEASES - 1)
        assert claims.take(site.database, "quick", site.worker, lease_seconds=LEASE)


def test_a_pool_whose_slots_are_taken_is_busy(site: Inline) -> None:
    """All slots of the lane run something: that more is due is no reproach."""
    watched = Watched(site)
    for number in range(6):
        site.echo(f"NOBODY@127.0.0.1:{number + 1}")
    for _ in range(site.worker.slots):
        assert claims.take(site.database, "quick", site.worker, lease_seconds=LEASE)
    watched.after(0.5)
    assert not watched.after(3 * LEASES)


def test_a_bell_that_nobody_can_hear(site: Inline) -> None:
    """The broker takes no ring: a new pool would hear as little."""
    watched = Watched(site)
    watched.trouble = "connection refused"
    site.echo("NOBODY@127.0.0.1:1")
    assert not watched.after(3 * LEASES)


def test_a_record_out_of_reach_is_no_standstill(site: Inline) -> None:
    """While nothing can be claimed because the record is away, the time does not count."""
    watched = Watched(site)
    site.echo("NOBODY@127.0.0.1:1")
    assert not watched.after(LEASES - 1)
    site.database.away = True
    watched.now += LEASE
    with pytest.raises(OutOfReach):
        watched.watch.stands_still()
    site.database.away = False
    assert not watched.after(LEASES - 1)


def test_a_sign_of_life_waits_for_nothing_else(site: Inline) -> None:
    """It is given again and again by a thread of its own, whatever goes wrong with one."""
    beats = iter([OutOfReach("away"), ValueError("odd"), None])
    given = []

    def beat() -> None:
        error = next(beats)
        if error:
            raise error
        given.append(presence.alive(site.database))
        life.stop()

    life = SignOfLife(beat, seconds=0.001)
    life.start()
    life.join(20)
    assert len(given) == 1


def test_a_pool_that_stands_still_is_waited_for_only_while_something_of_it_runs(site: Inline) -> None:
    """Its running attempts may finish what is in flight before it is ended; where none is left nobody waits."""
    assert not claims.is_busy(site.database, site.worker)
    site.echo("NOBODY@127.0.0.1:1")
    held = claims.take(site.database, "quick", site.worker, lease_seconds=LEASE)
    assert held and claims.is_busy(site.database, site.worker)
    site.clock.move(2 * LEASE)
    site.sweep()
    assert not claims.is_busy(site.database, site.worker), "its lease has run out"

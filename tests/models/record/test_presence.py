"""Who is alive, and whose turn it is."""

from __future__ import annotations

import os

from dicomferry.models.record import presence
from dicomferry.models.record.jobs import leases
from support.record_site import LEASE, Site, together


def test_a_role_is_alive_while_it_says_so(site: Site) -> None:
    """By its last sign of life: silent for too long, or gone in good order, it is not listed."""
    scp = presence.register(site.database, "scp", slots=0)
    assert [(row.role, row.pid, row.slots) for row in presence.alive(site.database)] == [
        ("worker", os.getpid(), 4),
        ("scp", os.getpid(), 0),
    ]
    site.clock.move(presence.SILENT_AFTER)
    presence.beat(site.database, scp)
    assert len(presence.alive(site.database)) == 2
    site.clock.move(0.001)
    assert [row.role for row in presence.alive(site.database)] == ["scp"]
    presence.leave(site.database, scp)
    assert presence.alive(site.database) == []


def test_a_silent_role_that_speaks_again_is_alive(site: Site) -> None:
    """A machine that slept."""
    site.clock.move(1000)
    assert presence.alive(site.database) == []
    presence.beat(site.database, site.worker)
    assert len(presence.alive(site.database)) == 1


def test_each_registration_is_a_worker_of_its_own(site: Site) -> None:
    """Slots and drains are those of one role process; ids are not used again."""
    other = presence.register(site.database, "worker", slots=1)
    assert other.id != site.worker.id
    presence.drain(site.database, other)
    site.store(1)
    lease = site.claim()
    assert not leases.renew(site.database, lease, site.worker, lease_seconds=LEASE).drain
    assert leases.renew(site.database, lease, other, lease_seconds=LEASE).drain


def test_a_turn_is_one_roles_at_a_time(site: Site) -> None:
    """Who has it keeps it by taking it again; another one gets it when it lapses; other turns are not concerned."""
    other = presence.register(site.database, "scheduler", slots=0)

    def take(worker: presence.Worker, name: str = "sweep") -> bool:
        return presence.take_turn(site.database, name, worker, seconds=10)

    assert take(site.worker)
    assert not take(other)
    assert take(other, "schedule")
    site.clock.move(9)
    assert take(site.worker)
    site.clock.move(10)
    assert not take(other)
    site.clock.move(0.001)
    assert take(other)
    assert not take(site.worker)


def test_eight_at_once_one_gets_the_turn(site: Site) -> None:
    """Also the very first time, when the turn has no row yet, and when it lapsed."""
    workers = [presence.register(site.database, "worker", slots=1) for _ in range(8)]
    for _ in range(3):
        results = together(
            *[
                lambda worker=worker: presence.take_turn(site.database, "sweep", worker, seconds=10)
                for worker in workers
            ]
        )
        assert sorted(map(str, results)) == ["False"] * 7 + ["True"]
        site.clock.move(11)

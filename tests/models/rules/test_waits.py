"""A clock that was set, and waits that we computed: nothing waits longer than it was meant to, nobody is blamed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.record import outbox, presence
from dicomferry.models.record.database import UTCDateTime
from dicomferry.models.record.jobs import leases, loss
from dicomferry.models.record.remotes import book, governor
from dicomferry.models.record.tables import archive
from dicomferry.models.record.tables import governor as governor_tables
from dicomferry.models.record.tables import schedules as schedule_tables
from dicomferry.models.record.tables import trials as trial_tables
from dicomferry.models.record.tables.jobs import Base, ChunkRow, RemoteRow
from dicomferry.models.record.tables.schedules import NotificationRow
from dicomferry.models.rules import gate, waits
from dicomferry.models.rules.ending import Decision, Next
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState
from dicomferry.models.rules.waits import StepWatch
from support.record_site import LEASE, Site

BACK = -600.0
NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


# --- the rule


def test_every_time_on_record_says_what_it_is() -> None:
    """A new column that holds a time is declared: a wait of ours with the moment when it was written, a given time, or
    a moment that nothing waits for.
    """
    assert archive and governor_tables and schedule_tables and trial_tables
    known = {*waits.WAITS, *waits.WAITS.values(), *waits.FOUND, *waits.GIVEN, *waits.MOMENTS}
    there = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, UTCDateTime)
    }
    assert there - known == set(), "declare it in models/rules/waits.py"
    assert known - there == set(), "no such column"


@pytest.mark.parametrize(
    ("until", "written", "over"),
    [
        (None, None, True),
        (NOON, None, True),
        (NOON + timedelta(seconds=1), None, False),
        (NOON + timedelta(seconds=1), NOON, False),
        (NOON + timedelta(seconds=1), NOON + timedelta(microseconds=1), True),
    ],
)
def test_a_wait_is_past_at_its_end_or_before_it_was_written(
    until: datetime | None, written: datetime | None, over: bool
) -> None:
    """One that says when it was written is over where the clock shows a time before that."""
    assert waits.is_past(until, written, NOON) is over
    assert waits.ahead(until, written, NOON) == (None if over else until)


@pytest.mark.parametrize(
    ("wall", "before", "after", "stepped"),
    [
        (10.0, 10.0, 10.0, False),
        (10.0, 9.5, 10.5, False),
        (-600.0, 10.0, 10.0, True),
        (72.0, 10.0, 10.0, True),
        # The answer took half a minute: the clock was read at any time between.
        (40.0, 10.0, 40.0, False),
        (10.9, 10.0, 10.0, False),
    ],
)
def test_a_step_is_told_from_time_that_passed(wall: float, before: float, after: float, stepped: bool) -> None:
    """The wall clock went another way than the one that nobody sets, by more than the time that reading it took."""
    watch = StepWatch()
    watch.look(NOON, 0.0, 0.0)
    assert not watch.take()
    watch.look(NOON + timedelta(seconds=wall), before, after)
    assert watch.take() is stepped
    assert not watch.take()


# --- what waits


def test_what_is_due_stays_due(site: Site) -> None:
    """A job that was submitted before the clock was set back is claimed."""
    site.echo()
    site.clock.step(BACK)
    assert site.try_claim("quick")


def test_a_time_that_a_person_gave_is_not_moved(site: Site) -> None:
    """`--not-before` means that time, whatever becomes of the clock."""
    site.echo(not_before=site.clock() + timedelta(seconds=60))
    site.clock.step(BACK)
    site.clock.move(600 + 59)
    assert not site.try_claim("quick")
    site.clock.move(1)
    assert site.try_claim("quick")


def test_the_pause_after_a_fault_ends(site: Site) -> None:
    """A retry is due at once where the clock shows a time before the pause was decided on, for all that wait along."""
    first, second = site.store(1), site.store(1)
    site.away(site.claim(), seconds=3600)
    assert not site.try_claim()
    site.clock.step(BACK)
    assert {site.claim().job_id, site.claim().job_id} == {first, second}


def test_a_window_is_not_opened(site: Site) -> None:
    """What waits for a window waits for its hour."""
    book.change(site.database, "PACS1", None, window={"hours": "daily 08:00-18:00", "tz": "UTC"})
    site.echo()
    assert not site.try_claim("quick")
    site.clock.step(BACK)
    assert not site.try_claim("quick")
    (chunk,) = site.rows(sa.select(ChunkRow.__table__))
    assert (chunk.reason, chunk.waits_from) == (gate.WINDOW, None)


def test_an_open_breaker_is_looked_at_again(site: Site) -> None:
    """The look that was to come in some minutes is due, and its success closes the breaker."""
    site.store(1)
    site.store(1)
    lease = site.claim()
    until = site.clock() + timedelta(seconds=900)
    decision = Decision(next=Next.RETRY, at=until, reason="unreachable", for_all=True, leave_until=until, away=True)
    site.finish(lease, end=AttemptEnd.ERROR, decision=decision)
    site.clock.step(BACK)
    probe = site.claim()
    assert probe.probe
    assert site.try_claim() is None
    site.complete(probe)
    assert site.try_claim() is not None


def test_places_in_time_are_free_again(site: Site) -> None:
    """Of a limit nobody waits for places that were taken in what is now the future."""
    site.set(sa.update(RemoteRow).values(max_instances_per_second=10.0))
    for _ in range(30):
        governor.take(site.database, site.remote_id, "instances", 1.0)
    site.clock.step(BACK)
    grant = governor.take(site.database, site.remote_id, "instances", 1.0)
    assert grant is not None and grant.starts_in <= 0
    assert governor.debt(site.database, site.remote_id) <= 0.1


def test_what_was_learned_in_the_future_is_not_known(site: Site) -> None:
    """A rate and a number of associations that were learned after now count for nothing, and can be learned anew."""
    governor.slow_down(site.database, site.remote_id, 10.0)
    site.clock.step(BACK)
    gate = site.database.read(
        lambda connection: governor.gate(connection, site.remote_id, Kind.STORE, site.clock(), ignore_window=False)
    )
    assert gate.limits is None
    limits = governor.slow_down(site.database, site.remote_id, 20.0)
    assert limits is not None and limits.instances == 14.0


def test_a_turn_is_free(site: Site) -> None:
    """Who begins after the step gets the turn of one that took it before and is gone."""
    assert presence.take_turn(site.database, "sweep", site.worker, seconds=10)
    site.clock.step(BACK)
    assert presence.take_turn(site.database, "sweep", presence.register(site.database, "worker", slots=1), seconds=10)


def test_a_role_that_was_seen_in_the_future_is_gone(site: Site) -> None:
    """A sign of life of before the step says nothing; the next one, seconds later, does."""
    site.clock.step(BACK)
    assert presence.alive(site.database) == []
    presence.beat(site.database, site.worker)
    assert [role.role for role in presence.alive(site.database)] == ["worker"]


def test_a_notification_goes_out(site: Site) -> None:
    """Neither one that was just written nor one that is tried again waits for the clock to come back."""
    site.echo()
    site.complete(site.claim("quick"))
    site.clock.step(BACK)
    taken = outbox.take(site.database, seconds=40)
    assert taken is not None
    outbox.not_told(site.database, taken, "refused", again_in=3600)
    site.set(sa.update(NotificationRow).where(NotificationRow.id != taken.id).values(outcome="unwanted"))
    assert outbox.take(site.database, seconds=40) is None
    site.clock.step(BACK)
    again = outbox.take(site.database, seconds=40)
    assert again is not None and again.id == taken.id


# --- leases


@pytest.mark.parametrize("seconds", [60.0, 3600.0, -60.0, -3600.0])
def test_living_attempts_outlive_a_step(site: Site, seconds: float) -> None:
    """Whoever renewed a moment before the clock was set keeps the lease, and nobody's item is charged."""
    job_id = site.store(2)
    lease = site.claim()
    (first, _) = site.items(job_id)
    for _ in range(3):
        leases.record(site.database, lease, (), in_flight=first.id)
        site.clock.move(2)
        leases.renew(site.database, lease, site.worker, lease_seconds=LEASE)
        assert loss.expire(site.database) == 0
        site.clock.step(seconds)
        assert loss.expire(site.database) == 0
    assert site.chunk(lease).state is ChunkState.RUNNING
    assert site.item_states(job_id) == [ItemState.PENDING] * 2
    leases.renew(site.database, lease, site.worker, lease_seconds=LEASE)


@pytest.mark.parametrize("seconds", [60.0, -3600.0])
def test_dead_attempts_end_one_lease_after_a_step(site: Site, seconds: float) -> None:
    """The step is worth one renewal: whoever does not make it is dead."""
    site.store(1)
    lease = site.claim()
    loss.expire(site.database)
    site.clock.step(seconds)
    assert loss.expire(site.database) == 0
    site.clock.move(LEASE + 1)
    assert loss.expire(site.database) == 1
    assert site.chunk(lease).state is ChunkState.PENDING


def test_a_step_that_nobody_saw_is_seen_in_the_lease(site: Site) -> None:
    """A sweep that begins after the clock was set back finds leases of the future, and lets each last once more."""
    site.store(1)
    lease = site.claim()
    site.clock.step(BACK)
    site.database.steps = StepWatch()
    assert loss.expire(site.database) == 0
    assert site.chunk(lease).lease_until == site.clock() + timedelta(seconds=LEASE)

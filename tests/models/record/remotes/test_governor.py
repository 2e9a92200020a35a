"""What the governor lets through: windows, limits, what was learned of a remote, and the breaker."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.documents import remotes
from dicomferry.models.record.jobs import claims, leases, verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book, breaker, governor
from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import ChunkRow
from dicomferry.models.rules import ending
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.ending import Decision
from dicomferry.models.rules.errors import AssociationRejected
from dicomferry.models.rules.pacing import BURST_SECONDS
from dicomferry.models.rules.state import AttemptEnd, ChunkState
from support.record_site import Site, together

# The clock of the tests begins on a Sunday, 02:00 UTC.
NIGHT = {"hours": "daily 20:00-04:00", "tz": "UTC"}
DAY = {"hours": "daily 08:00-18:00", "tz": "UTC"}


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def at(site: Site, hour: int) -> datetime:
    return site.clock().replace(hour=hour, minute=0)


def away(site: Site, lease: Lease, *, pause: float = 10.0) -> None:
    """End an attempt that found the remote unreachable, as an attempt decides it."""
    until = site.clock() + seconds(pause)
    decision = Decision(
        next=ending.Next.RETRY,
        at=until,
        reason="unreachable",
        advice="is it up?",
        barren=1,
        waiting_since=site.clock(),
        for_all=True,
        leave_until=until,
        away=True,
    )
    site.finish(lease, end=AttemptEnd.ERROR, decision=decision, detail="connection refused")


def shown(site: Site) -> Any:
    return remotes.show(site.database, "PACS1")


# --- windows


def test_a_closed_window_keeps_work_waiting(site: Site) -> None:
    """Pending until it opens, with the reason; no attempt and no event; then it is due. Other remotes go on."""
    book.change(site.database, "PACS1", None, window=DAY)
    other = site.remote("OTHER")
    job = site.store(1, 1)
    events, elsewhere = site.events(job), site.store(1, remote_id=other)
    assert site.claim().job_id == elsewhere
    assert site.try_claim() is None and not claims.any_due(site.database, "bulk")
    for chunk in site.chunks(job):
        assert (chunk.state, chunk.reason, chunk.not_before) == (ChunkState.PENDING, "window", at(site, 8))
        assert "--ignore-window" in chunk.advice
    assert site.attempts(job) == [] and site.events(job) == events
    assert (shown(site)["open"], shown(site)["opens_at"]) == (False, "2026-11-22T08:00:00.000Z")
    site.clock.move(6 * 3600)
    assert claims.any_due(site.database, "bulk") and site.claim().job_id == job
    assert shown(site)["closes_at"] == "2026-11-22T18:00:00.000Z"


def test_not_everybody_begins_in_the_same_second(site: Site) -> None:
    """A part of the jitter comes on top of the opening."""
    book.change(site.database, "PACS1", None, window=DAY)
    job = site.store(1)
    assert claims.take(site.database, "bulk", site.worker, lease_seconds=30, jitter=0.5) is None
    assert site.chunks(job)[0].not_before == at(site, 8) + seconds(governor.JITTER_SECONDS / 2)


def test_a_job_that_cannot_wait(site: Site) -> None:
    """It is claimed at any hour, and is known for it; what keeps to the window goes on waiting."""
    book.change(site.database, "PACS1", None, window=DAY)
    patient, urgent = site.store(1), site.store(1, ignore_window=True)
    lease = site.claim()
    assert (lease.job_id, site.job(urgent).ignore_window, site.job(patient).ignore_window) == (urgent, True, False)
    assert site.try_claim() is None
    assert not leases.signals(site.database, lease, site.worker).stop


def test_at_closing_time_what_runs_is_asked_to_stop(site: Site) -> None:
    """Between two items, by the next look of its heartbeat; the rest waits for the next opening, and uses no budget."""
    book.change(site.database, "PACS1", None, window=NIGHT)
    job = site.store(2)
    lease = site.claim()
    assert not leases.signals(site.database, lease, site.worker).closed
    site.clock.move(2 * 3600)
    signals = leases.renew(site.database, lease, site.worker, lease_seconds=30)
    assert signals.closed and signals.stop
    site.finish(lease, end=AttemptEnd.INTERRUPTED, decision=None, outcomes=site.outcomes(lease)[:1], finished_items=1)
    assert site.try_claim() is None
    [chunk] = site.chunks(job)
    assert (chunk.state, chunk.reason, chunk.not_before) == (ChunkState.PENDING, "window", at(site, 20))
    assert (chunk.succeeded, chunk.barren, chunk.waiting_since) == (1, 0, None)


def test_a_plan_needs_no_window(site: Site) -> None:
    """It walks our own disk."""
    book.change(site.database, "PACS1", None, window=DAY)
    site.submit_store()
    lease = site.claim()
    assert lease.kind == claims.PLAN
    assert not leases.signals(site.database, lease, site.worker).stop


def test_a_window_that_is_changed_counts_at_once(site: Site) -> None:
    """What waited for the old one is due; what begins to wait for the new one waits for that."""
    book.change(site.database, "PACS1", None, window=DAY)
    job = site.store(1)
    assert site.try_claim() is None
    book.change(site.database, "PACS1", None, window={"hours": "daily 05:00-06:00"})
    assert site.try_claim() is None
    assert site.chunks(job)[0].not_before == at(site, 5)
    book.change(site.database, "PACS1", None, window={"hours": ""})
    assert site.chunks(job)[0].reason is None
    assert site.claim().job_id == job


# --- limits


def test_places_are_shared_by_all(site: Site) -> None:
    """Who asks next gets the places after those of the one before; nobody gets any where there is no limit."""
    assert governor.take(site.database, site.remote_id, "instances", 1.0) is None
    book.change(site.database, "PACS1", None, max_instances_per_second=100.0)
    first, second = (governor.take(site.database, site.remote_id, "instances", 1.0) for _ in range(2))
    assert first is not None and second is not None
    assert (first.amount, first.starts_in, first.rate) == (10.0, 0.0, 100.0)
    assert second.starts_in == pytest.approx(0.1)
    assert governor.debt(site.database, site.remote_id) == pytest.approx(0.2)
    site.store(1, 1)
    for _ in range(2):
        site.claim()
    third = governor.take(site.database, site.remote_id, "instances", 1.0)
    assert third is not None and third.amount == 5.0, "two use it, so that each takes half"
    requests = governor.take(site.database, site.remote_id, "requests", 1.0)
    assert requests is None


def test_many_that_ask_at_once_never_get_the_same_places(site: Site) -> None:
    """Each place is given once."""
    book.change(site.database, "PACS1", None, max_bytes_per_second=1000)
    grants = together(*[lambda: governor.take(site.database, site.remote_id, "size", 100.0)] * 8)
    starts = sorted(round(grant.starts_in, 3) for grant in grants)  # type: ignore[attr-defined]
    assert starts == pytest.approx([number * 0.1 for number in range(8)])


def test_an_attempt_hears_of_its_limits_by_its_heartbeat(site: Site) -> None:
    """Those at the claim come with it; a change comes with the next look."""
    book.change(site.database, "PACS1", None, max_instances_per_second=200.0, max_requests_per_minute=30.0)
    site.store(1)
    lease = site.claim()
    assert lease.limits is not None and (lease.limits.instances, lease.limits.requests) == (200.0, 0.5)
    book.change(site.database, "PACS1", None, max_instances_per_second=50.0, max_requests_per_minute=None)
    limits = leases.signals(site.database, lease, site.worker).limits
    assert limits is not None and (limits.instances, limits.requests) == (50.0, None)
    book.change(site.database, "PACS1", None, max_instances_per_second=None)
    assert leases.signals(site.database, lease, site.worker).limits is None


def test_requests_that_would_wait_long_are_not_begun(site: Site) -> None:
    """The chunk waits until there is a place for its request, with the reason; a store needs none."""
    book.change(site.database, "PACS1", None, max_requests_per_minute=6.0)
    for _ in range(2):
        governor.take(site.database, site.remote_id, "requests", 1.0)
    echo, store = site.echo(), site.store(1)
    assert site.try_claim("quick") is None
    [chunk] = site.chunks(echo)
    assert (chunk.reason, chunk.not_before) == ("limit", site.clock() + seconds(20))
    assert site.claim().job_id == store
    site.clock.move(20)
    assert site.claim("quick").job_id == echo


def test_what_is_learned_of_a_remote_is_a_limit_for_all(site: Site) -> None:
    """Short of resources: as much as was tried, less a part; more with each second; at most the limit that was set."""
    site.store(1, 1)
    lease = site.claim()
    site.claim()
    limits = governor.slow_down(site.database, site.remote_id, 100.0)
    assert limits is not None and limits.instances == pytest.approx(140.0), "two of them tried as much"
    again = governor.slow_down(site.database, site.remote_id, 100.0)
    assert again == limits, "one finding in a second"
    assert shown(site)["learned"]["instances_per_second"] == pytest.approx(140.0)
    site.clock.move(10)
    faster = leases.signals(site.database, lease, site.worker).limits
    assert faster is not None and faster.instances == pytest.approx(210.0)
    book.change(site.database, "PACS1", None, max_instances_per_second=150.0)
    known = leases.signals(site.database, lease, site.worker).limits
    assert known is not None and known.instances == 150.0
    site.clock.move(600)
    book.change(site.database, "PACS1", None, max_instances_per_second=None)
    assert leases.signals(site.database, lease, site.worker).limits is None


def test_no_room_for_another_association_is_remembered(site: Site) -> None:
    """As many as were open are allowed, and one more each minute; the word for it is that of the table of answers."""
    assert lookup.for_error(AssociationRejected(2, 3, 2)).reason == ending.CROWDED
    site.store(1, 1, 1, 1)
    lease = [site.claim() for _ in range(3)]
    decision = Decision(
        next=ending.Next.RETRY, at=site.clock() + seconds(10), reason=ending.CROWDED, advice="fewer", for_all=True
    )
    site.finish(lease[2], end=AttemptEnd.ERROR, decision=decision)
    site.clock.move(11)
    assert site.try_claim() is None, "two are open, and two is what it has room for"
    assert shown(site)["learned"]["associations"] == 2 and shown(site)["breaker"]["state"] == "closed"
    site.clock.move(60)
    site.claim()
    assert site.try_claim() is None


def test_a_long_store_does_not_starve_a_retrieve(site: Site) -> None:
    """Ten studies behind as many images as there are: of every two chunks that begin, one is a study."""
    store = site.store(*[1] * 60)
    retrieve = site.store(*[1] * 10)
    query = sa.update(ChunkRow).where(ChunkRow.job_id == retrieve, ChunkRow.kind == "store")
    site.set(query.values(kind="move"))
    running = [site.claim() for _ in range(4)]
    begun = [lease.job_id for lease in running]
    while begun.count(retrieve) < 10:
        site.complete(running.pop(0))
        running.append(site.claim())
        begun.append(running[-1].job_id)
    assert len(begun) <= 4 * 10 + 4, "one move at a time, and a place for it whenever the last one ended"
    assert begun.count(store) < 40


# --- the breaker


def test_one_looks_for_all(site: Site) -> None:
    """Open: all wait until the next look. Then one chunk is begun as a probe, the others wait for what it finds."""
    first, second = site.store(1, 1), site.store(1, 1)
    lease = site.claim()
    away(site, lease)
    assert shown(site)["breaker"] | {"since": None} == {
        "state": "open",
        "since": None,
        "probe_at": "2026-11-22T02:00:10.000Z",
        "failures": 1,
        "reason": "unreachable",
        "detail": "connection refused",
        "advice": "is it up?",
    }
    late = site.store(1)
    assert site.try_claim() is None
    assert {chunk.not_before for job in (first, second, late) for chunk in site.chunks(job)} == {
        site.clock() + seconds(10)
    }
    assert {chunk.reason for chunk in site.chunks(late)} == {"unreachable"}
    site.clock.move(10)
    probe = site.claim()
    assert (probe.probe, probe.failures) == (True, 1)
    assert site.try_claim() is None and not claims.any_due(site.database, "bulk")
    assert shown(site)["breaker"]["state"] == "half-open"
    away(site, probe, pause=20.0)
    assert (shown(site)["breaker"]["state"], shown(site)["breaker"]["failures"]) == ("open", 2)
    site.clock.move(20)
    probe = site.claim()
    site.database.write(
        lambda connection: breaker.close(connection, site.remote_id, probe.chunk_id, probe.fence, site.clock())
    )
    assert shown(site)["breaker"]["state"] == "closed"
    assert not site.claim().probe, "the others begin at once"


def test_who_was_under_way_tells_nothing_new(site: Site) -> None:
    """Failing after the breaker opened it neither counts nor moves the next look; ending well does not close it."""
    site.store(1, 1, 1)
    lease = [site.claim() for _ in range(3)]
    site.clock.move(1)
    away(site, lease[0])
    away(site, lease[1], pause=99.0)
    site.complete(lease[2])
    found = shown(site)["breaker"]
    assert (found["state"], found["failures"], found["probe_at"]) == ("open", 1, "2026-11-22T02:00:11.000Z")


def test_a_probe_whose_worker_died_is_followed_by_another(site: Site) -> None:
    """Its lease ends, and the next one may look."""
    site.store(1)
    away(site, site.claim())
    site.clock.move(10)
    assert site.claim().probe
    assert site.lose() == 1
    assert site.claim().probe


def test_aborts_in_a_row_open_it_as_well(site: Site) -> None:
    """Not the first one; one attempt that gets through in between begins the count anew."""
    site.store(*[1] * 30)
    broken = Decision(next=ending.Next.RETRY, at=site.clock(), reason="aborted", advice="see their log", barren=1)
    broken = replace(broken, leave_until=site.clock() + seconds(10))

    def fail(times: int) -> None:
        for _ in range(times):
            site.finish(site.claim(), end=AttemptEnd.ERROR, decision=broken)

    fail(ending.MAX_BROKEN - 1)
    site.complete(site.claim())
    fail(ending.MAX_BROKEN - 1)
    assert shown(site)["breaker"]["state"] == "closed"
    fail(1)
    assert shown(site)["breaker"]["state"] == "open"
    assert site.try_claim() is None


@pytest.mark.parametrize("how", ["release", "address"])
def test_a_person_who_mended_it_need_not_wait(site: Site, how: str) -> None:
    """After a release, or with another address, the next attempt is made without a look before it."""
    job = site.store(1)
    away(site, site.claim(), pause=600.0)
    if how == "release":
        verbs.hold(site.database, job)
        verbs.release(site.database, job)
    else:
        book.change(site.database, "PACS1", "PACS1@127.0.0.2:104")
    lease = site.claim()
    assert (lease.job_id, lease.probe) == (job, False)


def test_status_names_what_is_not_as_usual(site: Site) -> None:
    """A remote that is closed, broken or slowed down; all others are left out."""
    assert remotes.exceptions(site.database) == []
    book.change(site.database, "PACS1", None, window=DAY)
    site.remote("FINE", window=NIGHT)
    [found] = remotes.exceptions(site.database)
    assert (found["name"], found["open"]) == ("PACS1", False)


def test_the_row_is_made_when_it_is_needed(site: Site) -> None:
    """No remote without limits and without trouble has one: nothing is written for it."""
    site.complete(site.claim("quick") if site.echo() else site.claim())
    assert site.rows(sa.select(GovernorRow.remote_id)) == []
    assert BURST_SECONDS < 0.5

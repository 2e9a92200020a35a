"""The breaker closes, by an attempt or by a person: what waited for it goes on, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.documents import remotes
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book, breaker, governor
from dicomferry.models.record.tables.jobs import ChunkRow, RemoteRow
from dicomferry.models.rules import gate
from dicomferry.models.rules.ending import Decision, Next
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.state import AttemptEnd
from support.record_site import Site

DAY = {"hours": "daily 08:00-18:00", "tz": "UTC"}


def break_it(site: Site, *, seconds: float = 600.0) -> None:
    """An attempt that found the remote away; other jobs wait for it as well."""
    lease = site.claim()
    until = site.clock() + timedelta(seconds=seconds)
    decision = Decision(
        next=Next.RETRY,
        at=until,
        reason="unreachable",
        waiting_since=site.clock(),
        barren=1,
        for_all=True,
        leave_until=until,
        away=True,
    )
    site.finish(lease, end=AttemptEnd.ERROR, decision=decision)


def waiting(site: Site) -> list[tuple[int, str | None]]:
    """Jobs with chunks that are not due, and what is said of them."""
    query = sa.select(ChunkRow.__table__).where(ChunkRow.not_before > site.clock()).order_by(ChunkRow.id)
    return [(row.job_id, row.reason) for row in site.rows(query)]


def test_what_waited_for_the_breaker_is_due_when_an_attempt_closes_it(site: Site) -> None:
    """The probe comes through: the other jobs are due at once and say nothing of a remote that is away."""
    jobs = [site.store(1), site.store(1), site.store(1)]
    break_it(site)
    assert [job for job, _ in waiting(site)] == jobs
    site.clock.move(600)
    probe = site.claim()
    assert site.try_claim() is None
    late = site.store(1)
    site.complete(probe)
    assert waiting(site) == []
    assert {site.claim().job_id for _ in range(3)} == {*jobs, late} - {probe.job_id}


def test_a_good_look_by_a_person_closes_it(site: Site) -> None:
    """`remote echo`: the breaker is closed, all that waited for it is due; where it was closed, nothing is written."""
    jobs = [site.store(1), site.store(1)]
    break_it(site)
    assert breaker.answers(site.database, "PACS1") is True
    assert waiting(site) == []
    assert {site.claim().job_id, site.claim().job_id} == set(jobs)
    assert breaker.answers(site.database, "PACS1") is False
    assert breaker.answers(site.database, "NOBODY") is False


def test_resume_makes_everything_due_that_we_put_off(site: Site) -> None:
    """`remote resume`: pauses and the breaker are over, what was learned is forgotten; the claim's limits hold."""
    site.set(sa.update(RemoteRow).values(max_associations=2))
    for _ in range(4):
        site.store(1)
    break_it(site)
    governor.slow_down(site.database, site.remote_id, 1.0)
    assert breaker.resume(site.database, site.remote_id) == 4
    assert site.claim() and site.claim() and site.try_claim() is None
    shown = remotes.show(site.database, "PACS1")
    assert (shown["breaker"]["state"], shown["learned"]["instances_per_second"]) == ("closed", None)
    assert breaker.resume(site.database, site.remote_id) == 0


def test_neither_windows_nor_times_of_a_person_nor_holds_are_passed_over(site: Site) -> None:
    """What waits for its window, for a limit or for `--not-before`, and what a person held, stays."""
    other = site.remote("OTHER")
    windowed = site.store(1, remote_id=other)
    book.change(site.database, "OTHER", None, window=DAY)
    assert site.try_claim() is None
    later = site.echo(not_before=site.clock() + timedelta(hours=1))
    lease = site.store(1)
    verbs.hold(site.database, lease)
    limited = site.store(1)
    put_off = sa.update(ChunkRow).where(ChunkRow.job_id == limited, ChunkRow.kind == "store")
    hour = site.clock() + timedelta(hours=1)
    site.set(put_off.values(not_before=hour, waits_from=site.clock(), reason=gate.LIMIT))
    before = waiting(site)
    assert [job for job, _ in before] == [windowed, later, limited]
    for remote_id in (site.remote_id, other):
        breaker.resume(site.database, remote_id)
    breaker.answers(site.database, "PACS1")
    assert waiting(site) == before
    assert site.state(lease) == "held"
    for job in (windowed, later, limited):
        with pytest.raises(UsageError, match="waits for nothing that this would end"):
            verbs.release(site.database, job)


def test_release_of_a_job_that_waits_tries_it_now(site: Site) -> None:
    """`jobs release` of a job that waits for its next try makes it due, whatever it waits for of ours."""
    job = site.store(1)
    break_it(site)
    assert site.try_claim() is None
    assert verbs.release(site.database, job) == "running"
    assert site.events(job)[-1] == "released"
    assert site.claim().job_id == job


def test_retry_of_a_job_that_waits_says_what_helps(site: Site) -> None:
    """Retry is for what has ended; the message names the verb for what waits."""
    job = site.store(1)
    with pytest.raises(UsageError, match=f"`dicomferry jobs release {job}`"):
        verbs.retry(site.database, job)


def test_a_breaker_that_nobody_waits_for_is_not_shown(site: Site) -> None:
    """`status` names what something waits for; `remote show` tells of it all the same."""
    job = site.store(1)
    break_it(site)
    assert [one["name"] for one in remotes.exceptions(site.database)] == ["PACS1"]
    verbs.cancel(site.database, job)
    assert remotes.exceptions(site.database) == []
    assert remotes.show(site.database, "PACS1")["breaker"]["state"] == "open"


def test_a_success_closes_a_breaker_that_was_opened_in_the_future(site: Site) -> None:
    """The clock was set back since it opened: an attempt of now is news all the same."""
    site.store(1)
    site.store(1)
    break_it(site)
    site.clock.step(-3600)
    site.complete(site.claim())
    assert remotes.show(site.database, "PACS1")["breaker"]["state"] == "closed"

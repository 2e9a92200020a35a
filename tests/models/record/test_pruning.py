"""Old jobs and old runs of schedules go, on both databases; what has not ended, and what arrived, stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.documents import jobs, schedules
from dicomferry.models.record import outbox, pruning
from dicomferry.models.record.archive import index
from dicomferry.models.record.jobs import matches
from dicomferry.models.record.jobs import verbs as job_store
from dicomferry.models.record.outbox import Channel
from dicomferry.models.record.pruning import Pruned
from dicomferry.models.record.schedules import runs as run_store
from dicomferry.models.record.schedules import verbs as schedule_store
from dicomferry.models.record.schedules.runs import Order
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import (
    AttemptRow,
    Base,
    ChunkRow,
    EventRow,
    ItemRow,
    JobRow,
    MatchRow,
    MoveRow,
)
from dicomferry.models.record.tables.schedules import NotificationRow, RunRow, ScheduleRow
from dicomferry.models.rules import spec, timetable
from dicomferry.models.rules.errors import NotFound
from dicomferry.models.rules.state import ItemState, JobState
from dicomferry.models.rules.timetable import CatchUp, CatchUpPolicy, Overlap
from support.record_site import Site, together

from .archive.test_pairing import Desk, came

DAY = 86_400.0
OF_JOBS = (JobRow, ChunkRow, ItemRow, AttemptRow, EventRow, MatchRow, MoveRow, NotificationRow)


def _steps(site: Site, days: float = 90, told_within: float = 0.0, **bounds: int) -> Iterator[Pruned]:
    return pruning.prune(site.database, pruning.age(site.database, days * DAY, told_within=told_within), **bounds)


def _prune(site: Site, days: float = 90, told_within: float = 0.0) -> Pruned:
    """All of it; what was foretold is what went."""
    foretold = pruning.extent(site.database, pruning.age(site.database, days * DAY, told_within=told_within))
    gone = sum(_steps(site, days, told_within), Pruned())
    assert gone == foretold
    return gone


def _number(site: Site, *tables: type[Base]) -> list[int]:
    return [site.rows(sa.select(sa.func.count()).select_from(table))[0][0] for table in tables]


def _done(site: Site, *sizes: int) -> int:
    """A store job that has ended."""
    job = site.store(*sizes)
    for _ in sizes:
        site.complete(site.claim())
    assert site.job(job).finished_at is not None
    return job


def test_what_ended_long_ago_goes_with_all_that_was_written_of_it(site: Site) -> None:
    """Younger ones stay, and those that wait, run or are held, however old."""
    for _ in range(2):
        _done(site, 3, 2)
    lease = site.echo()
    site.refused(site.claim("quick"))
    waits = site.submit_store(not_before=site.clock() + timedelta(days=365))
    site.clock.move(91 * DAY)
    young = _done(site, 4)
    before = {job: site.events(job) for job in (lease, waits, young)}
    assert _prune(site) == Pruned(jobs=2, items=10)
    assert [job["id"] for job in jobs.listing(site.database)] == [young, waits, lease]
    assert {job: site.events(job) for job in (lease, waits, young)} == before
    assert [len(site.items(job)) for job in (lease, waits, young)] == [1, 0, 4]
    site.check()
    assert not _prune(site)
    job_store.release(site.database, lease)
    site.complete(site.claim("quick"))
    assert site.state(lease) is JobState.SUCCEEDED


def test_nothing_of_a_job_is_left(site: Site) -> None:
    """Not a row of any table, nor of what a find found or a retrieve asked for; ids are not given away again."""
    _done(site, 2)
    find = job_store.submit(site.database, spec.FindSpec(), site.remote_id)
    lease = site.claim("quick")
    (item,) = site.items(find)
    row = {
        "job_id": find, "item_id": item.id, "fence": lease.fence, "number": 1, "attributes": "{}",
        "character_set": "ISO_IR 100", "transfer_syntax_uid": "1.2", "data": b"",
    }  # fmt: skip
    site.database.write(lambda connection: matches.add(connection, item.id, [row]))
    site.set(sa.update(ChunkRow).where(ChunkRow.id == lease.chunk_id).values(matches=1))
    site.complete(lease)
    desk = Desk(site)
    last = desk.submit("1")
    lease = desk.claim()
    desk.ask(lease, desk.expect(lease, "1.1", "1.2"))
    job_store.cancel(site.database, last)
    site.finish(lease, decision=None)
    site.clock.move(91 * DAY)
    assert _prune(site) == Pruned(jobs=3, items=2 + 1 + 3, matches=1)
    assert _number(site, *OF_JOBS) == [0] * len(OF_JOBS)
    assert site.echo() > last
    desk.submit("1")
    lease = desk.claim()
    assert desk.ask(lease, desk.expect(lease, "1.1")) == 2, "nor are message ids"


def test_what_arrived_stays_and_names_its_job(site: Site) -> None:
    """The archive is as it was; what comes later for a job that is gone is kept as well."""
    desk = Desk(site)
    job = desk.submit("1")
    lease = desk.claim()
    message_id = desk.ask(lease, desk.expect(lease, "1.1", "1.2"))
    index.record(site.database, [came(1, "1.1", move=message_id)])
    job_store.cancel(site.database, job)
    site.finish(lease, decision=None)
    site.clock.move(91 * DAY)
    assert _prune(site).jobs == 1
    assert _number(site, InstanceRow, ArrivalRow) == [1, 1]
    assert [row.job_id for row in site.rows(sa.select(ArrivalRow.job_id))] == [job]
    assert [row["path"] for row in index.listing(site.database, job_id=job)] == ["1/2/1.1.dcm"]
    index.record(site.database, [came(2, "1.2", move=message_id)])
    assert _number(site, InstanceRow, ArrivalRow) == [2, 2]


def test_a_job_that_is_being_removed_is_gone_for_everyone(site: Site) -> None:
    """Whoever dies in the middle leaves nothing that could be shown, retried or healed; the next one goes on, whatever
    its age.
    """
    desk = Desk(site)
    job = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1", "1.2")
    site.complete(lease, ItemState.FAILED, reason="not delivered")
    site.clock.move(91 * DAY)
    assert list(islice(_steps(site), 1)) == [Pruned(items=3)]
    assert _number(site, JobRow) == [1]
    assert jobs.listing(site.database) == []
    assert jobs.counts(site.database)["failed"] == 0
    shown: tuple[Any, ...] = (
        lambda: jobs.show(site.database, job),
        lambda: jobs.events(site.database, job),
        lambda: list(jobs.items(site.database, job)),
        lambda: jobs.resolve_id(site.database, "last"),
        lambda: job_store.retry(site.database, job),
        lambda: job_store.cancel(site.database, job),
    )
    for call in shown:
        with pytest.raises(NotFound):
            call()
    index.record(site.database, [came(1, "1.1")])
    assert sum(_steps(site, days=1000), Pruned()) == Pruned(jobs=1)
    assert _number(site, *OF_JOBS) == [0] * len(OF_JOBS)


def test_no_transaction_is_long(site: Site) -> None:
    """However much there is, so many rows at a time."""
    for _ in range(3):
        _done(site, 5)
    site.clock.move(91 * DAY)
    steps = list(_steps(site, rows_at_once=4, jobs_at_once=2))
    assert max(step.items for step in steps) == 4 and max(step.jobs for step in steps) == 2
    assert sum(steps, Pruned()) == Pruned(jobs=3, items=15)


def test_two_at_once_do_no_harm(site: Site) -> None:
    """Everything is gone, and counted once."""
    for _ in range(4):
        _done(site, 20)
    site.clock.move(91 * DAY)
    answers = together(*[lambda: sum(_steps(site, rows_at_once=3), Pruned())] * 2)
    gone = [one for one in answers if isinstance(one, Pruned)]
    assert len(gone) == 2, answers
    assert _number(site, *OF_JOBS) == [0] * len(OF_JOBS)
    assert sum(gone, Pruned()).jobs == 4


def test_what_is_still_to_be_told_stays(site: Site) -> None:
    """As long as it would be tried; where nobody is to be told, nothing is waited for."""
    _done(site, 1)
    site.clock.move(2 * 3600)
    assert not _prune(site, days=1 / 24, told_within=DAY)
    outbox.pass_over(site.database, channels=[Channel.COMMAND], states=["succeeded"])
    told = outbox.take(site.database, seconds=60)
    assert told is not None
    outbox.told(site.database, told, "command sent")
    assert _prune(site, days=1 / 24, told_within=DAY).jobs == 1
    _done(site, 1)
    site.clock.move(2 * 3600)
    assert _prune(site, days=1 / 24).jobs == 1
    _done(site, 1)
    site.clock.move(25 * 3600)
    assert _prune(site, days=1 / 24, told_within=DAY).jobs == 1


def _hourly(site: Site) -> None:
    policy = CatchUpPolicy(catch_up=CatchUp.LATEST, grace=None, cap=5)
    when = timetable.parse("0 * * * *", "Europe/Berlin")
    schedule_store.add(
        site.database, "hourly", when, words=("echo", "PACS1"), folder="/", policy=policy, overlap=Overlap.SKIP
    )


def _fire(site: Site) -> int:
    """The next due time; its job."""
    site.clock.move(3600)
    now, (found,) = run_store.due(site.database)
    plan = timetable.plan(found.timetable, found.policy, counted_from=found.counted_from, now=now)
    assert plan is not None
    order = Order(what=spec.EchoSpec(), remote_id=site.remote_id, options={})
    (job,) = run_store.settle(site.database, found, plan, dict.fromkeys(plan.fire, order)) or ()
    return job


def test_runs_of_schedules_go_as_jobs_do(site: Site) -> None:
    """Not those whose job stays, and not the last one of a schedule, which would look as if it had never fired."""
    _hourly(site)
    lease = _fire(site)
    site.refused(site.claim("quick"))
    for _ in range(3):
        last = _fire(site)
        site.complete(site.claim("quick"))
    assert _number(site, RunRow) == [4]
    due = schedule_store.by_name(site.database, "hourly").next_due
    schedule_store.pause(site.database, "hourly")
    site.clock.move(91 * DAY)
    assert _prune(site) == Pruned(jobs=3, items=3, runs=2)
    runs = schedules.show(site.database, "hourly")["runs"]
    assert [(run["job"], run["job_state"]) for run in runs] == [(last, None), (lease, "held")]
    assert schedule_store.by_name(site.database, "hourly").next_due == due


def test_a_schedule_that_was_removed_goes_with_its_last_run(site: Site) -> None:
    """Its row was kept for its runs alone."""
    _hourly(site)
    _fire(site)
    site.complete(site.claim("quick"))
    schedule_store.remove(site.database, "hourly")
    assert not _prune(site)
    assert _number(site, ScheduleRow) == [1]
    site.clock.move(91 * DAY)
    assert _prune(site) == Pruned(jobs=1, items=1, runs=1)
    assert _number(site, ScheduleRow, RunRow) == [0, 0]


def test_the_space_is_given_back(site: Site) -> None:
    """An SQLite file keeps what is free for new rows until it is made smaller; elsewhere there is nothing to tell."""
    _done(site, 400)
    site.clock.move(91 * DAY)
    _prune(site)
    if not site.database.is_sqlite:
        assert site.database.free_bytes() == 0
        return
    assert site.database.free_bytes() > 0
    site.database.compact()
    assert site.database.free_bytes() == 0

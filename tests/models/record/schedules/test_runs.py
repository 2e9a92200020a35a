"""What becomes of the due times of schedules, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.documents import schedules
from dicomferry.models.record import pruning
from dicomferry.models.record.jobs import verbs as job_store
from dicomferry.models.record.schedules import runs
from dicomferry.models.record.schedules import verbs as schedule_store
from dicomferry.models.record.schedules.runs import Order, RunRefusal
from dicomferry.models.record.tables.jobs import EventRow, JobRow
from dicomferry.models.record.tables.schedules import NotificationRow, RunRow, ScheduleRow
from dicomferry.models.rules import spec, timetable
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.schedule import Schedule
from dicomferry.models.rules.state import JobState
from dicomferry.models.rules.timetable import CatchUp, CatchUpPolicy, Overlap
from support.record_site import Site, together

HOUR = timedelta(hours=1)


def _add(site: Site, name: str = "hourly", *, cron: str = "0 * * * *", **options: Any) -> Schedule:
    given = {"catch_up": "latest", "grace": None, "cap": 5, "overlap": "skip", **options}
    return schedule_store.add(
        site.database,
        name,
        timetable.parse(cron, "Europe/Berlin"),
        words=("echo", "PACS1"),
        folder="/data",
        policy=CatchUpPolicy(catch_up=CatchUp(given["catch_up"]), grace=given["grace"], cap=given["cap"]),
        overlap=Overlap(given["overlap"]),
    )


def _order(site: Site, **options: Any) -> Order:
    return Order(what=spec.EchoSpec(), remote_id=site.remote_id, options=options)


def _scan(site: Site, order: Order | RunRefusal | None = None) -> list[int]:
    """What a scheduler does in one look; the jobs."""
    order = order or _order(site)
    now, due = runs.due(site.database)
    jobs: list[int] = []
    for found in due:
        plan = timetable.plan(found.timetable, found.policy, counted_from=found.counted_from, now=now)
        assert plan is not None
        jobs += runs.settle(site.database, found, plan, dict.fromkeys(plan.fire, order)) or []
    for run, found in runs.waiting(site.database):
        job = runs.end_waiting(site.database, run, found, order)
        jobs += [job] if job else []
    return jobs


def _runs(site: Site) -> list[tuple[str, str | None, int | None]]:
    query = sa.select(RunRow.__table__).order_by(RunRow.id)
    return [(row.state, row.reason, row.job_id) for row in site.rows(query)]


def _due(site: Site, name: str = "hourly") -> datetime | None:
    return schedule_store.by_name(site.database, name).next_due


def test_a_due_time_fires_once(site: Site) -> None:
    """Its run, its job and the next due time come about together; the job says where it is from."""
    _add(site)
    assert _scan(site) == [], "02:00 was when it was written down"
    site.clock.move(3600)
    (job,) = _scan(site)
    assert _scan(site) == []
    assert _runs(site) == [("submitted", None, job)]
    assert _due(site) == site.clock() + HOUR
    assert site.job(job).label == "hourly"
    (event,) = site.rows(sa.select(EventRow.text).where(EventRow.job_id == job))
    assert event.text == "echo job submitted by schedule hourly, due 2026-11-22 04:00 CET"


@pytest.mark.parametrize("back", [-600.0, -7200.0])
def test_a_due_time_fires_once_though_the_clock_goes_back(site: Site, back: float) -> None:
    """The clock shows the due time twice: the second time, after a restart of the scheduler or a pause as well, it is
    settled already. Later ones come at their time.
    """
    _add(site)
    site.clock.move(3600)
    (job,) = _scan(site)
    site.clock.step(back)
    assert schedule_store.recompute(site.database) == []
    schedule_store.pause(site.database, "hourly")
    schedule_store.resume(site.database, "hourly")
    site.clock.move(-back)
    assert _scan(site) == []
    assert _runs(site) == [("submitted", None, job)]
    job_store.cancel(site.database, job)
    site.clock.move(3600)
    assert len(_scan(site)) == 1


def test_of_several_schedulers_one_fires(site: Site) -> None:
    """Whoever moves the due time on writes the job; the others find that they were late and write nothing."""
    found = _add(site)
    site.clock.move(3600)
    plan = timetable.plan(found.timetable, found.policy, counted_from=found.counted_from, now=site.clock())
    assert plan is not None
    orders = dict.fromkeys(plan.fire, _order(site))
    answers = together(*[lambda: runs.settle(site.database, found, plan, orders)] * 4)
    assert sorted(map(str, answers)) == ["None", "None", "None", "[1]"]
    assert len(site.rows(sa.select(JobRow.id))) == len(_runs(site)) == 1


def test_what_was_missed_is_one_run_with_its_reason(site: Site) -> None:
    """Nobody looked for six hours: one fires, five are missed, and it says why."""
    _add(site)
    site.clock.move(6 * 3600 + 60)
    (job,) = _scan(site)
    assert _runs(site) == [("missed", "a later one was due", None), ("submitted", None, job)]
    shown = schedules.show(site.database, "hourly")
    assert (shown["missed"], shown["skipped"], shown["refused"]) == (5, 0, 0)
    missed = shown["runs"][1]
    assert (missed["number"], missed["due_at"], missed["last_due_at"]) == (
        5, "2026-11-22T03:00:00.000Z", "2026-11-22T07:00:00.000Z",
    )  # fmt: skip
    assert "no scheduler looked before 2026-11-22 09:01 CET" in (missed["detail"] or "")
    assert len(shown["next"]) == 5
    assert shown["next"][0] == {"at": "2026-11-22T09:00:00.000Z", "local": "2026-11-22T10:00:00+01:00"}


def test_a_job_that_runs_is_not_run_into(site: Site) -> None:
    """`skip`: the due time comes to no job, and says which one was in its way; then the next one fires."""
    _add(site)
    site.clock.move(3600)
    (first,) = _scan(site)
    site.clock.move(3600)
    assert _scan(site) == []
    assert _runs(site)[1] == ("skipped", "previous job has not ended", None)
    assert schedules.show(site.database, "hourly")["runs"][0]["detail"] == f"job {first} is pending"
    job_store.cancel(site.database, first)
    site.clock.move(3600)
    assert len(_scan(site)) == 1


def test_a_held_job_silences_no_later_night(site: Site) -> None:
    """It waits for a person; the schedule does not wait for that person."""
    _add(site)
    site.clock.move(3600)
    (first,) = _scan(site)
    site.refused(site.claim("quick"))
    assert site.state(first) is JobState.HELD
    site.clock.move(3600)
    assert len(_scan(site)) == 1


def test_a_queue_goes_one_after_the_other(site: Site) -> None:
    """`queue`: due times wait for the job before them, in order, and none is lost."""
    _add(site, overlap="queue")
    jobs = []
    for _ in range(3):
        site.clock.move(3600)
        jobs += _scan(site)
    assert len(jobs) == 1
    assert [state for state, _, _ in _runs(site)] == ["submitted", "waiting", "waiting"]
    for number in (2, 3):
        job_store.cancel(site.database, jobs[-1])
        jobs += _scan(site)
        assert len(jobs) == number, "one at a time"
    job_store.cancel(site.database, jobs[-1])
    assert _scan(site) == []
    assert [run[2] for run in _runs(site)] == jobs
    due = site.rows(sa.select(RunRow.due_at).order_by(RunRow.job_id))
    assert [row.due_at for row in due] == sorted(row.due_at for row in due)


def test_catching_up_on_all_queues(site: Site) -> None:
    """As many as the cap allows, the newest; one after the other."""
    _add(site, catch_up="all", cap=3, overlap="queue")
    site.clock.move(6 * 3600)
    jobs = _scan(site)
    assert [state for state, _, _ in _runs(site)] == ["missed", "submitted", "waiting", "waiting"]
    assert len(jobs) == 1


def test_a_queue_has_an_end(site: Site) -> None:
    """A job that never ends does not pile up runs for ever."""
    _add(site, overlap="queue")
    for _ in range(runs.MOST_WAITING + 2):
        site.clock.move(3600)
        _scan(site)
    assert [state for state, _, _ in _runs(site)] == ["submitted", *["waiting"] * runs.MOST_WAITING, "skipped"]


def test_what_cannot_be_submitted_is_recorded(site: Site) -> None:
    """The remote is gone, a file is not there: the run says so, and the next one is tried."""
    _add(site)
    site.clock.move(3600)
    assert _scan(site, RunRefusal("no remote 'PACS1' in the address book")) == []
    assert _runs(site) == [("refused", "cannot be submitted", None)]
    site.clock.move(3600)
    assert len(_scan(site)) == 1


def test_a_pause_is_quiet(site: Site) -> None:
    """Nothing fires; what passed meanwhile is missed, and says that it was paused; then it goes on."""
    _add(site)
    schedule_store.pause(site.database, "hourly")
    with pytest.raises(UsageError, match="paused already"):
        schedule_store.pause(site.database, "hourly")
    site.clock.move(3 * 3600)
    assert _scan(site) == []
    assert schedule_store.resume(site.database, "hourly") == 3
    with pytest.raises(UsageError, match="not paused"):
        schedule_store.resume(site.database, "hourly")
    assert _scan(site) == []
    assert _runs(site) == [("missed", "paused", None)]
    site.clock.move(3600)
    assert len(_scan(site)) == 1


def test_a_removed_one_leaves_its_jobs_and_its_name(site: Site) -> None:
    """What waited is skipped; the name may be used again, and the runs of both are kept apart."""
    _add(site, overlap="queue")
    for _ in range(2):
        site.clock.move(3600)
        _scan(site)
    schedule_store.remove(site.database, "hourly")
    with pytest.raises(NotFound):
        schedules.show(site.database, "hourly")
    assert _runs(site)[1] == ("skipped", "removed", None)
    site.clock.move(3600)
    assert _scan(site) == []
    _add(site)
    assert schedules.show(site.database, "hourly")["runs"] == []
    with pytest.raises(UsageError, match="there is a schedule hourly already"):
        _add(site)
    with pytest.raises(NotFound, match="did you mean hourly"):
        schedule_store.by_name(site.database, "hourl")


def test_by_hand_it_fires_in_any_case(site: Site) -> None:
    """While it is paused and while its job runs; such a job is one that a due time waits for."""
    found = _add(site)
    schedule_store.pause(site.database, "hourly")
    first = runs.by_hand(site.database, found, _order(site, label="mine"))
    second = runs.by_hand(site.database, found, _order(site))
    assert [site.job(job).label for job in (first, second)] == ["mine", "hourly"]
    assert [run["by_hand"] for run in schedules.show(site.database, "hourly")["runs"]] == [True, True]
    schedule_store.resume(site.database, "hourly")
    site.clock.move(3600)
    assert _scan(site) == []


def test_a_pruned_job_leaves_its_run(site: Site) -> None:
    """The run still names the job, whose notifications go along with it."""
    _add(site)
    site.clock.move(3600)
    (job,) = _scan(site)
    job_store.cancel(site.database, job)
    assert site.rows(sa.select(NotificationRow.id))

    site.clock.move(1)
    old = pruning.age(site.database, 0.0, told_within=0.0)
    assert sum(pruning.prune(site.database, old), pruning.Pruned()).jobs == 1
    (run,) = schedules.show(site.database, "hourly")["runs"]
    assert (run["job"], run["job_state"]) == (job, None)
    assert not site.rows(sa.select(NotificationRow.id))
    site.clock.move(3600)
    assert len(_scan(site)) == 1


def test_other_time_zones_move_what_is_due(site: Site) -> None:
    """A newer time zone database, or another expression: the next due time follows, what was settled stays settled."""
    found = _add(site, cron="30 6 * * *")
    assert schedule_store.recompute(site.database) == []
    site.set(sa.update(ScheduleRow).values(next_due=found.next_due + HOUR if found.next_due else None))
    assert schedule_store.recompute(site.database) == ["hourly"]
    assert _due(site) == found.next_due
    site.set(sa.update(ScheduleRow).values(zone="Atlantis/Center"))
    assert schedule_store.recompute(site.database) == [], "what is not understood is left alone"


@pytest.mark.parametrize("change", [schedule_store.pause, schedule_store.remove])
def test_a_change_by_a_person_is_not_overtaken(site: Site, change: Callable[[Any, str], object]) -> None:
    """A scheduler that had read the schedule before writes nothing after."""
    found = _add(site)
    site.clock.move(3600)
    plan = timetable.plan(found.timetable, found.policy, counted_from=found.counted_from, now=site.clock())
    assert plan is not None
    change(site.database, "hourly")
    assert runs.settle(site.database, found, plan, dict.fromkeys(plan.fire, _order(site))) is None
    assert _runs(site) == []

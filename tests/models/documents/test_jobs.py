"""Jobs as they are shown: stable keys, read while writers work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dicomferry.models.documents import job_history
from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.documents.shapes import JobDocument
from dicomferry.models.record.jobs import leases, verbs
from dicomferry.models.record.jobs.filter import Filter
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.state import ItemState, JobState
from dicomferry.models.rules.text import moment, path_text
from support.record_site import Site

JOB_KEYS = set(
    [
        "id",
        "kind",
        "remote",
        "destination",
        "label",
        "state",
        "reason",
        "reason_text",
        "planned",
        "verified",
        "expectation",
        "submitted_at",
        "started_at",
        "finished_at",
        "not_before",
        "attempts",
        "items",
        "expected",
        "received",
        "missing",
        "surplus",
        "bytes",
        "rate_instances_per_s",
    ]
)
ITEM_COUNTS = ["total", "pending", "succeeded", "warning", "failed", "skipped", "cancelled"]
ITEM_KEYS = set(
    [
        "kind",
        "row",
        "sop_instance_uid",
        "sop_class_uid",
        "transfer_syntax_uid",
        "path",
        "state",
        "status",
        "reason",
        "advice",
        "attempts",
    ]
)
TIMES = ("submitted_at", "started_at", "finished_at", "not_before")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _whole(document: JobDocument, *, events: bool) -> None:
    assert set(document) >= JOB_KEYS
    assert ("events" in document) == events
    assert list(document["items"]) == ITEM_COUNTS
    values: Mapping[str, Any] = document
    for key in TIMES:
        assert values[key] is None or RFC3339.fullmatch(values[key])


def _jobs(site: Site) -> list[int]:
    """A job in each state that a job can be in, and an echo."""
    succeeded = site.store(1)
    site.complete(site.claim())
    failed = site.store(1)
    site.complete(site.claim(), ItemState.FAILED, reason="cannot understand", status=0xC000)
    incomplete = site.store(2)
    lease = site.claim()
    first, second = site.outcomes(lease)
    site.finish(lease, outcomes=[first, Outcome(item_id=second.item_id, state=ItemState.FAILED, reason="truncated")])
    cancelled = site.store(1)
    verbs.cancel(site.database, cancelled)
    refused = site.store(1)
    site.refused(site.claim())
    running = site.store(1)
    site.claim()
    return [succeeded, failed, incomplete, cancelled, refused, running, site.echo(), site.submit_store()]


def test_the_rate_is_that_of_the_time_in_which_attempts_ran(site: Site) -> None:
    """Neither a wait nor the time until somebody said `retry` counts, nor the same second twice."""
    job = site.store(2, 2)
    one, two = site.claim(), site.claim()
    site.clock.move(2)
    failed = [Outcome(item_id=row.item_id, state=ItemState.FAILED, reason="aborted") for row in site.outcomes(two)]
    site.finish(one, outcomes=site.outcomes(one, status=0), finished_items=2)
    site.finish(two, outcomes=failed, finished_items=2)
    assert job_documents.show(site.database, job)["rate_instances_per_s"] == pytest.approx(2 / 2, abs=0.01)
    site.clock.move(3600)
    verbs.retry(site.database, job)
    site.clock.move(3600)
    lease = site.claim()
    site.clock.move(2)
    site.finish(lease, outcomes=site.outcomes(lease, status=0), finished_items=2)
    assert job_documents.show(site.database, job)["rate_instances_per_s"] == pytest.approx(4 / 4, abs=0.01)


def test_every_key_is_there_in_every_state(site: Site) -> None:
    """Null, never absent: in show, in the list, and always the same keys in the same order."""
    jobs = _jobs(site)
    shapes = set()
    states = set()
    for job in jobs:
        document = job_documents.show(site.database, job)
        _whole(document, events=True)
        shapes.add(tuple(document))
        states.add(document["state"])
    assert states == {state.value for state in JobState}
    assert len(shapes) == 1
    for listed in job_documents.listing(site.database):
        _whole(listed, events=False)
        assert set(listed) | {"events", "paths", "recursive", "asked"} == set(next(iter(shapes)))


def test_the_document_of_a_store_that_ended(site: Site) -> None:
    """Numbers, times, proof."""
    job = site.store(3, label="ward 3")
    site.clock.move(1)
    lease = site.claim()
    site.clock.move(2)
    one, two, three = site.outcomes(lease, status=0, sent_bytes=1000)
    failed = Outcome(item_id=three.item_id, state=ItemState.FAILED, reason="cannot understand", status=0xC001)
    site.finish(lease, outcomes=[one, two, failed], finished_items=3)
    document = job_documents.show(site.database, job)
    assert (document["id"], document["kind"], document["remote"]) == (job, "store", "PACS1")
    assert (document["label"], document["state"], document["reason"]) == ("ward 3", "incomplete", "cannot understand")
    assert document["reason_text"]
    assert (document["planned"], document["verified"], document["attempts"]) == (True, "uids", 2)
    assert list(document["items"].values()) == [3, 0, 2, 0, 1, 0, 0]
    assert (document["expected"], document["received"], document["missing"], document["surplus"]) == (3, 2, 1, 0)
    assert document["bytes"] == 2000
    assert document["submitted_at"] == "2026-11-22T02:00:00.000Z"
    assert document["finished_at"] == "2026-11-22T02:00:03.000Z"
    assert document["not_before"] is None
    assert document["rate_instances_per_s"] == pytest.approx(2 / 2, abs=0.05)
    kinds = [event["kind"] for event in document["events"]]
    assert kinds[0] == "submitted" and kinds[-1] == "ended"
    assert {"at", "kind", "text"} == set(document["events"][0])


def test_numbers_are_kept_while_a_job_runs(site: Site) -> None:
    """Expected, received and missing move with each record."""
    job = site.store(3)
    lease = site.claim()
    leases.record(site.database, lease, site.outcomes(lease)[:2])
    document = job_documents.show(site.database, job)
    assert (document["state"], document["expected"], document["received"], document["missing"]) == ("running", 3, 2, 1)
    assert document["items"]["pending"] == 1


def test_a_waiting_job_says_why_and_until_when(site: Site) -> None:
    """The reason of the chunk that is due first, its advice, and its time as long as that lies ahead."""
    job = site.store(1)
    site.away(site.claim(), seconds=20)
    document = job_documents.show(site.database, job)
    assert (document["state"], document["reason"], document["reason_text"]) == ("running", "unreachable", "is it up?")
    assert document["not_before"] == "2026-11-22T02:00:20.000Z"
    site.clock.move(20)
    assert job_documents.show(site.database, job)["not_before"] is None


def test_a_held_job_says_why_and_what_to_do(site: Site) -> None:
    """The held chunk comes before all others."""
    job = site.store(1, 1)
    site.refused(site.claim())
    document = job_documents.show(site.database, job)
    assert (document["state"], document["reason"], document["reason_text"]) == (
        "held",
        "not authorized",
        "ask them to allow us",
    )


def test_the_last_events_oldest_first(site: Site) -> None:
    """Show has the last fifty; the whole history is another command."""
    job = site.store(1)
    for _ in range(60):
        verbs.hold(site.database, job)
        verbs.release(site.database, job)
    shown = job_documents.show(site.database, job)["events"]
    assert len(shown) == job_documents.EVENTS_SHOWN
    whole = job_documents.events(site.database, job)
    assert len(whole) > 120 and whole[-50:] == shown
    assert whole[0]["kind"] == "submitted"


def test_the_list_is_newest_first(site: Site) -> None:
    """With a limit, and by state."""
    jobs = [site.echo() for _ in range(5)]
    verbs.cancel(site.database, jobs[2])
    assert [document["id"] for document in job_documents.listing(site.database)] == jobs[::-1]
    assert [document["id"] for document in job_documents.listing(site.database, limit=2)] == jobs[:2:-1]
    assert [document["id"] for document in job_documents.listing(site.database, chosen=Filter(state="cancelled"))] == [
        jobs[2]
    ]
    assert job_documents.counts(site.database)["pending"] == 4
    assert set(job_documents.counts(site.database)) == {state.value for state in JobState}


def test_items_by_state(site: Site) -> None:
    """In the order of the walk, by any state, with a limit; each with all keys, status as four hexadecimal digits."""
    job = site.store(6, 1)
    lease = site.claim()
    states = [state for state in ItemState if state is not ItemState.PENDING]
    outcomes = [
        Outcome(item_id=outcome.item_id, state=state, status=0x0110, reason="processing failure", detail="disk full")
        for outcome, state in zip(site.outcomes(lease), states, strict=False)
    ]
    leases.record(site.database, lease, outcomes)
    documents = list(job_documents.items(site.database, job))
    assert [document["state"] for document in documents] == [*states, "pending", "pending"]
    for document in documents:
        assert set(document) >= ITEM_KEYS
        assert document["kind"] == "instance"
    assert (documents[0]["status"], documents[0]["path"], documents[0]["attempts"]) == (
        "0x0110",
        "/data/000001.dcm",
        1,
    )
    assert documents[0]["advice"] and documents[-1]["advice"] is None
    assert documents[-1]["status"] is None
    for state in ItemState:
        found = list(job_documents.items(site.database, job, state=state))
        assert [document["state"] for document in found] == [state] * (2 if state is ItemState.PENDING else 1)
    assert len(list(job_documents.items(site.database, job, limit=3))) == 3
    assert len(list(job_documents.items(site.database, job, limit=7))) == 7
    assert list(job_documents.items(site.database, job, limit=0)) == []


def test_reasons_of_items(site: Site) -> None:
    """How many have which, among those of one state."""
    job = site.store(3)
    lease = site.claim()
    for outcome, reason in zip(site.outcomes(lease), ("already there", "already there", None), strict=True):
        leases.record(site.database, lease, [Outcome(item_id=outcome.item_id, state=ItemState.WARNING, reason=reason)])
    assert job_documents.reasons(site.database, job, ItemState.WARNING) == {"already there": 2}
    assert job_documents.reasons(site.database, job, ItemState.FAILED) == {}
    assert job_documents.reasons(site.database, job, ItemState.PENDING) == {}


def test_attempts_of_a_job(site: Site) -> None:
    """Every try of every chunk, those of the plan included, none ever deleted."""
    job = site.store(1)
    site.claim()
    site.lose()
    site.complete(site.claim())
    found = job_history.attempts(site.database, job)
    assert [attempt["end"] for attempt in found] == ["completed", "lost", "completed"]
    assert all(RFC3339.fullmatch(attempt["started_at"] or "") for attempt in found)


def test_lanes(site: Site) -> None:
    """How many chunks wait, run and are held in each lane."""
    assert job_documents.lanes(site.database) == {
        lane: {"pending": 0, "running": 0, "held": 0} for lane in ("quick", "bulk")
    }
    site.store(1, 1)
    site.claim()
    verbs.hold(site.database, site.echo())
    assert job_documents.lanes(site.database) == {
        "quick": {"pending": 0, "running": 0, "held": 1},
        "bulk": {"pending": 1, "running": 1, "held": 0},
    }


def test_last_is_the_newest(site: Site) -> None:
    """A number, or `last`; anything else is a mistake."""
    with pytest.raises(NotFound, match="no job yet"):
        job_documents.resolve_id(site.database, "last")
    site.echo()
    newest = site.echo()
    assert job_documents.resolve_id(site.database, "last") == newest
    assert job_documents.resolve_id(site.database, "4711") == 4711
    for text in ("", "first", "-1", "1.5", "0x1"):
        with pytest.raises(UsageError):
            job_documents.resolve_id(site.database, text)


def test_an_unknown_job_is_named(site: Site) -> None:
    """In every view that is about one job."""
    for view in (job_documents.show, job_documents.events, lambda *given: list(job_documents.items(*given))):
        with pytest.raises(NotFound, match="no job 4711"):
            view(site.database, 4711)


def test_times_are_utc() -> None:
    """RFC 3339 with milliseconds, wherever the value came from."""
    berlin = timezone(timedelta(hours=1))
    assert moment(datetime(2026, 11, 22, 3, 0, 0, 999_999, berlin)) == "2026-11-22T02:00:00.999Z"
    assert moment(datetime(2026, 11, 22, 2, tzinfo=UTC)) == "2026-11-22T02:00:00.000Z"
    assert moment(None) is None


def test_paths_are_shown_whatever_their_bytes() -> None:
    """No line break and no escape sequence gets onto a terminal; what is no UTF-8 is shown as hexadecimal."""
    assert path_text(b"/data/a b.dcm") == "/data/a b.dcm"
    assert path_text("/data/Müller".encode()) == "/data/Müller"
    assert path_text(b"/data/\xff\n\x1b[31m") == "/data/\\xff\\n\\x1b[31m"
    assert path_text(None) is None

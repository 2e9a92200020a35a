"""Numbers, times and sentences as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicomferry.cli.frame import words
from dicomferry.cli.jobs import words as job_words

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (0.42, "0.4 s"), (41.2, "41 s"), (119.4, "119 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, text: str) -> None:
    """As exact as anybody wants to know."""
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (999, "999 B"), (33_120, "33.1 kB"), (524_288_000, "524 MB"), (10**15, "1000 TB")]
)
def test_sizes(amount: int, text: str) -> None:
    """Decimal units, as disks have them."""
    assert words.size(amount) == text


def test_a_next_try_is_in_seconds_or_at_a_time() -> None:
    """Soon: in so many seconds; later: at a local time, with the day if it is another one."""
    assert words.clock(NOW + timedelta(seconds=10), NOW) == "in 10 s"
    assert words.clock(NOW - timedelta(seconds=10), NOW) == "in 0 s"
    assert words.clock(NOW + timedelta(minutes=10), NOW).startswith("at ")
    assert words.clock(NOW + timedelta(days=3), NOW).startswith("on 2026-11-2")


def test_text_from_outside_cannot_command_a_terminal() -> None:
    """Control characters become visible."""
    assert words.printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"


def test_a_find_is_told_by_its_matches() -> None:
    """How many, where, and what is doubtful about it."""
    told = job_words.sentence(_job("succeeded", "find", matches=1234, rate_instances_per_s=None))
    assert told.startswith("job 7: 1,234 matches at PACS1")
    told = job_words.sentence(
        _job("succeeded", "find", matches=100, reason="maybe truncated", rate_instances_per_s=None)
    )
    assert "100 matches at PACS1, maybe truncated" in told
    told = job_words.sentence(_job("failed", "find", matches=0, reason="unable to process", rate_instances_per_s=None))
    assert "the find failed: unable to process" in told


def _job(state: str, kind: str = "store", **values: Any) -> Any:
    items = {"total": 0, "pending": 0, "succeeded": 0, "warning": 0, "failed": 0, "skipped": 0, "cancelled": 0}
    return {
        "id": 7, "kind": kind, "remote": "pacs1", "remote_address": "PACS1@10.0.0.5:104", "state": state,
        "reason": None, "detail": None, "reason_text": None, "attempts": 1,
        "planned": True, "expected": None, "received": None,
        "submitted_at": "2026-11-22T02:00:00.000Z", "started_at": "2026-11-22T02:00:00.000Z",
        "finished_at": "2026-11-22T02:00:41.000Z", "rate_instances_per_s": None, "not_before": None,
        "waiting_for": None, "items": items | values.pop("items", {}),
        "requests": items | values.pop("requests", {}), "instances": items | values.pop("instances", {}),
    } | values  # fmt: skip


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (
            _job(
                "incomplete",
                items={"total": 10_000, "succeeded": 9997, "failed": 3},
                expected=10_000,
                received=9997,
                rate_instances_per_s=243.8,
            ),
            "job 7: 9,997 of 10,000 proven at PACS1, 3 failed, 41 s, 244/s",
        ),
        (
            _job("succeeded", items={"total": 5, "succeeded": 3, "warning": 1, "skipped": 1}, expected=4, received=4),
            "job 7: 4 of 4 proven at PACS1, 1 skipped, 1 with a warning, 41 s",
        ),
        (
            _job("cancelled", items={"total": 9, "succeeded": 4, "cancelled": 5}, expected=9, received=4),
            "job 7: cancelled, 4 of 9 proven at PACS1, 5 cancelled, 41 s",
        ),
        (
            _job("held", items={"total": 9, "succeeded": 4, "pending": 5}, expected=9, received=4, finished_at=None),
            "job 7: 4 of 9 proven at PACS1, 5 left to do",
        ),
        (_job("failed", expected=0, received=0), "job 7: nothing to send, 41 s"),
        (
            _job("failed", items={"total": 2, "skipped": 2}, expected=0, received=0),
            "job 7: nothing to send, 2 skipped, 41 s",
        ),
        (_job("cancelled", planned=False), "job 7: cancelled before anything was found, 41 s"),
        (
            _job("cancelled", planned=False, items={"total": 1000, "succeeded": 1000}, expected=1000, received=1000),
            "job 7: cancelled after 1,000 instances were found (the search for more was stopped), "
            "1,000 proven at PACS1, 41 s",
        ),
        (
            _job("held", planned=False, items={"total": 9, "succeeded": 9}, expected=9, received=9, finished_at=None),
            "job 7: 9 instances found so far, 9 proven at PACS1",
        ),
        (_job("cancelled", "echo", attempts=0), "job 7: cancelled before PACS1 was asked, 41 s"),
        (_job("cancelled", "echo", attempts=2), "job 7: cancelled before PACS1 answered, 41 s"),
        (_job("succeeded", "echo"), "job 7: PACS1 answered, 41 s"),
        (_job("failed", "echo", reason="refused"), "job 7: the echo of PACS1 failed: refused, 41 s"),
        (_job("held", "echo", reason="rejected", finished_at=None), "job 7: the echo of PACS1 held: rejected"),
    ],
)
def test_the_end_of_a_job_is_one_sentence(job: Any, text: str) -> None:
    """How many of how many are proven where, what went wrong, how long it took, how fast it was."""
    assert job_words.sentence(job) == text


def test_what_was_there_before_is_counted_apart() -> None:
    """Its contents were not compared, so it is named."""
    job = _job("succeeded", items={"total": 5, "succeeded": 1, "warning": 4}, expected=5, received=5)
    assert "4 of them" not in job_words.sentence(job)
    assert "3 already there, 1 with a warning" in job_words.sentence(job, already_there=3)


def test_a_request_that_brought_nothing_is_in_the_sentence() -> None:
    """All of what was found may be here, and still the job is not done."""
    failed = {"total": 2, "succeeded": 1, "failed": 1}
    job = _job("incomplete", "move", items={"total": 8}, requests=failed, expected=6, received=6)
    job |= {"verified": "uids", "missing": 0, "surplus": 0, "conflicts": 0, "destination": None, "reason": "no match"}
    assert job_words.sentence(job) == "job 7: 6 of 6 proven from PACS1, 1 request failed, 41 s"
    job |= {"state": "failed", "verified": "none", "expected": 0, "received": 0}
    assert job_words.sentence(job) == "job 7: nothing was found at PACS1, 1 request failed, 41 s"


def test_what_nobody_could_verify_is_not_called_proven() -> None:
    """It was confirmed, and looking for it was asked for."""
    job = _job("incomplete", items={"total": 5, "succeeded": 2, "warning": 1, "failed": 2}, expected=5, received=3)
    told = job_words.sentence(job, unverified=2)
    assert told.startswith("job 7: 3 of 5 proven at PACS1, 2 confirmed but not verified, 1 with a warning, ")


def test_an_item_says_what_and_what_to_do() -> None:
    """Name, reason, detail, status, advice; the request of an echo has no name of its own."""
    item: Any = {"path": "/a\x1b.dcm", "sop_instance_uid": "1.2", "reason": "refused", "detail": "disk\nfull"}
    item |= {"status": "0xA700", "advice": "check its disk", "state": "failed"}
    assert job_words.item_line(item) == "/a\\x1b.dcm: refused; disk\\nfull (0xA700); check its disk"
    bare: Any = dict.fromkeys([*item, "identifier"]) | {"state": "pending"}
    assert job_words.item_line(bare) == "the request"


def test_where_nothing_was_found_is_named() -> None:
    """The paths, a few of many; -r where folders were not looked into."""
    job = _job("failed", paths=["/a", "/b", "/c", "/d", "/e"])
    assert job_words.nothing_found(job, inside=False) == "no DICOM file was found in /a, /b, /c and 2 paths more"
    assert job_words.nothing_found(job | {"paths": ["/a"]}, inside=True).endswith("submit again with -r")


def test_a_job_with_a_start_time_says_when() -> None:
    """Waiting because it was told to is no fault of the remote."""
    job = _job("pending", reason="not before", not_before="2026-11-22T02:00:30.000Z")
    assert job_words.waiting_line(job, NOW) == "job 7: starts in 30 s; Ctrl-C leaves the job queued"


def test_what_waits_for_its_hour_says_when_that_comes() -> None:
    """A closed window, and a limit."""
    job = _job("pending", reason="window", reason_text="...", not_before="2026-11-25T21:00:00.000Z")
    assert job_words.waiting_line(job, NOW).startswith("pacs1: outside of its window, which opens on 2026-11-2")
    job = _job("pending", reason="limit", not_before="2026-11-22T02:00:30.000Z")
    assert job_words.waiting_line(job, NOW) == "pacs1: at its limit, goes on in 30 s; Ctrl-C leaves the job queued"


@pytest.mark.parametrize(
    ("changed", "given", "text"),
    [
        ({}, {}, "job 7: 40 of 40 proven from PACS1, 41 s, 88/s"),
        ({}, {"already_here": 40}, "job 7: 40 of 40 proven from PACS1, 40 were here already, 41 s"),
        ({}, {"again": "2026-11-22T02:00:38.000Z"}, "job 7: 40 of 40 proven from PACS1, 3.0 s"),
        ({"expected": 4, "received": 4}, {}, "job 7: 4 of 4 proven from PACS1, 41 s"),
        (
            {"expected": 1, "received": 1},
            {"already_here": 1},
            "job 7: 1 of 1 proven from PACS1, 1 was here already, 41 s",
        ),
    ],
)
def test_a_speed_is_told_of_what_moved_now(changed: dict[str, Any], given: dict[str, Any], text: str) -> None:
    """None of a few, of what lay here already (that is said), nor of a retry, whose time counts from then on."""
    job = _job("succeeded", "move", expected=40, received=40, rate_instances_per_s=88.0, verified="uids")
    job |= {"missing": 0, "surplus": 0, "conflicts": 0, "destination": None} | changed
    assert job_words.sentence(job, **given) == text


def test_requests_and_instances_are_counted_apart() -> None:
    """Of a held retrieve: what is left to do of each."""
    job = _job("held", "move", expected=9, received=4, finished_at=None, verified=None)
    job |= {"missing": 5, "surplus": 0, "conflicts": 0, "destination": None}
    job |= {"requests": {"failed": 0, "pending": 1}, "instances": {"failed": 0, "pending": 5}}
    assert job_words.sentence(job).endswith("5 missing, 1 request left to do")
    job |= {"missing": 0}
    assert job_words.sentence(job).endswith("5 instances and 1 request left to do")


def test_what_waits_is_called_so() -> None:
    """The derived state stays in documents; people read what is waited for, and until when."""
    job = _job("running", reason="unreachable", detail="10.0.0.5:104: refused", waiting_for="unreachable")
    assert job_words.state(job) == "waiting"
    assert job_words.waiting_for(job) == "unreachable: 10.0.0.5:104: refused"
    job["not_before"] = "2026-11-22T02:10:00.000Z"
    assert str(job_words.waiting_for(job)).startswith("unreachable: 10.0.0.5:104: refused, next try 2026-11-2")
    assert job_words.waiting_for(_job("running")) is None and job_words.state(_job("running")) == "running"
    assert job_words.state(_job("held", waiting_for=None, reason="rejected")) == "held"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (41, "41s"),
        (60, "1m"),
        (3600, "60m"),
        (7200, "2h"),
        (90_000, "25h"),
        (200_000, "2d"),
        (-600, "in 10m"),
    ],
)
def test_ages_are_brief(seconds: float, text: str) -> None:
    """One number and its unit; what is to come is `in` that."""
    assert words.age(seconds) == text

"""`jobs cancel, retry, hold, release, accept` of several jobs, and how jobs are chosen by what they are like."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dicomferry.cli.jobs.chosen import parse_since
from dicomferry.models.record.jobs import filter, verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.rules import spec
from dicomferry.models.rules.state import ItemState
from support.desk import REFUSED, SUCCEEDED, Desk

SILENT = (ItemState.FAILED, "no answer to a store", None)
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.fixture
def several(desk: Desk) -> Desk:
    """1: a success; 2 and 3: failures of two kinds; 4: a success in part; 5: held, at another remote; 6: it waits."""
    desk.store_job([SUCCEEDED], label="nightly")
    desk.store_job([SILENT], label="nightly 100%")
    desk.store_job([REFUSED, REFUSED])
    desk.store_job([SUCCEEDED, REFUSED, REFUSED, SILENT])
    book.add(desk.database, "other", "OTHER@127.0.0.1:105")
    held = verbs.submit(desk.database, spec.EchoSpec(), book.resolve_id(desk.database, "other"))
    verbs.hold(desk.database, held)
    desk.planned_job(1)
    desk.wait_for_remote(desk.claim())
    return desk


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("--state failed", [3, 2]),
        ("--state waiting", [6]),
        ("--state running", [6]),
        ("--kind echo", [5]),
        ("--remote other", [5]),
        ("--label nightly", [1]),
        ("--label NIGHT*", [2, 1]),
        ("--label *0%", [2]),
        ("--label n_ghtly", []),
        ("--reason timeout", [4, 2]),
        ("--reason unreachable", [6]),
        ("--reason cannot", []),
        ("--since yesterday", [6, 5, 4, 3, 2, 1]),
        ("--since 2099-01-01", []),
        ("--state failed --reason timeout --since yesterday --remote pacs1", [2]),
    ],
)
def test_a_list_of_jobs_that_are_alike(words: str, ids: list[int], several: Desk) -> None:
    """Each option leaves some out; a reason is the job's, of what waits of it, or of one of its items."""
    assert [job["id"] for job in several.json("jobs", "list", *words.split())] == ids


def test_what_waits_is_counted_as_it_is_called(several: Desk) -> None:
    """The filter, the documents and the status agree on it."""
    listed = several.json("jobs", "list", "--state", "waiting")
    assert [job["id"] for job in listed] == [job["id"] for job in several.json("jobs") if job["waiting_for"]] == [6]
    assert several.json("status")["waiting"] == 1 and "1 running (1 of these wait)" in several.run("status").stdout
    assert len(several.json("jobs", "list", "--state", "waiting", "--limit", "1")) == 1


def test_nonsense_is_refused(several: Desk) -> None:
    """An unknown remote with the nearest name, a time that is none; nothing that is like that is said."""
    assert "did you mean other?" in several.run("jobs", "--remote", "othr", code=2).stderr
    assert "yesterday" in several.run("jobs", "--since", "soon", code=2).stderr
    assert "no job is like that" in several.run("jobs", "--kind", "get").stderr
    assert "--limit" in several.run("jobs", "--limit", "2").stderr


def test_a_timeout_is_every_one_that_has_a_word_of_its_own() -> None:
    """`unreachable` has other causes as well: that one has to be asked for by its name."""
    assert {"no answer", "went silent"} <= filter.reasons("timeout")
    assert "unreachable" not in filter.reasons("timeout")
    assert "unreachable" in filter.reasons("timeout connect") and "no match" in filter.reasons("No Match")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("yesterday", datetime(2026, 11, 21)),
        ("@today", datetime(2026, 11, 22)),
        ("2026-11-20", datetime(2026, 11, 20)),
        ("2026-11-20T12:00", datetime(2026, 11, 20, 12)),
    ],
)
def test_since_a_day_begins_at_midnight_here(text: str, moment: datetime) -> None:
    """By this machine's clock; an age counts back from now; a bare time of the day is none."""
    found = parse_since(text, NOW)
    assert found is not None and found.astimezone(None).replace(tzinfo=None) in (
        moment,
        moment.replace(tzinfo=NOW.tzinfo).astimezone(None).replace(tzinfo=None),
    )
    assert parse_since("12h", NOW) == NOW - timedelta(hours=12) and parse_since("22:00", NOW) is None


def test_several_by_their_ids(several: Desk) -> None:
    """Each once, one line each; what refuses does not stop the others, and the exit code is its."""
    told = several.run("jobs", "retry", "2", "3", "2", "1", code=2)
    assert [line[:6] for line in told.stdout.splitlines()] == ["job 2:", "job 3:"]
    assert "job 1 has nothing to retry" in told.stderr
    assert [job["id"] for job in several.json("jobs", "hold", "2", "3")] == [2, 3]
    assert [several.json("jobs", "show", job)["state"] for job in (2, 3)] == ["held", "held"]
    assert several.json("jobs", "cancel", "2")["state"] == "cancelled"


def test_those_that_are_alike_are_counted_and_asked_about(several: Desk) -> None:
    """Where nobody can be asked nothing happens without --yes; ids and likeness do not go together."""
    told = several.run("jobs", "retry", "--state", "failed", code=2)
    assert "this would retry 2 jobs: 2, 3: give --yes" in told.stderr and told.stdout == ""
    assert "one of both" in several.run("jobs", "retry", "3", "--state", "failed", code=2).stderr
    assert "which jobs?" in several.run("jobs", "cancel", code=2).stderr
    assert several.run("jobs", "retry", "--state", "failed", "--yes").stdout.count("tried again") == 2
    assert "no job is like that" in several.run("jobs", "retry", "--state", "failed", "--yes", code=2).stderr
    several.run("jobs", "hold", "--kind", "store", "--yes")
    assert {job["id"] for job in several.json("jobs", "--state", "held")} == {2, 3, 5, 6}
    several.run("jobs", "release", "--remote", "pacs1", "--yes")
    assert [job["id"] for job in several.json("jobs", "--state", "held")] == [5]
    assert "in which this can be done" in several.run("jobs", "release", "--kind", "store", "--yes", code=2).stderr


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 1)])
def test_a_terminal_is_asked(answer: bytes, code: int, several: Desk) -> None:
    """The number and the first ids stand in the question; only yes does it."""
    ours, theirs = os.openpty()
    os.write(ours, answer)
    done = subprocess.run(
        [sys.executable, "-m", "dicomferry.cli.main", "jobs", "cancel", "--state", "waiting"],
        stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, timeout=60,
        env={**os.environ, "DICOMFERRY_HOME": str(several.home)},
    )  # fmt: skip
    asked = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code and "cancel 1 job: 6?" in asked
    assert several.json("jobs", "show", "6")["state"] == ("running" if code else "cancelled")


def test_several_are_accepted(several: Desk) -> None:
    """Each that ended unproven; one that cannot be is named, and stops none of the others. Twice is harmless."""
    for _ in range(2):
        told = several.run("jobs", "accept", "4", "1", "2", "--reason", "as they are", code=2)
        assert "job 4: accepted as it is (incomplete)" in told.stdout and "job 2: accepted" in told.stdout
        assert "job 1 is succeeded" in told.stderr
    assert "2 jobs of 3" in told.stderr
    for job_id in ("2", "4"):
        shown = several.json("jobs", "show", job_id)
        assert shown["accepted_at"]
        assert [event["kind"] for event in shown["events"]].count("accepted") == 1
    assert [job["id"] for job in several.json("jobs", "accept", "2", "3", "--reason", "why not")] == [2, 3]
    several.run("jobs", "accept", "--reason", "of what", code=2)

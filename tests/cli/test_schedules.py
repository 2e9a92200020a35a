"""`dicomferry schedule`, as a person meets it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import sqlalchemy as sa

from dicomferry.cli.submit import parsed_command
from dicomferry.daemon import scheduler
from dicomferry.models.record.remotes import book
from dicomferry.models.record.schedules import verbs
from dicomferry.models.record.schedules.runs import Order
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.settings import Settings
from support.desk import Desk

NIGHT = ("--cron", "30 2 * * *", "--tz", "Europe/Berlin")


def _add(desk: Desk, *words: object, name: str = "nightly", options: tuple[str, ...] = (), code: int = 0) -> Any:
    assert desk.database
    return desk.run("schedule", "add", name, *NIGHT, *options, "--", *words, code=code)


def _at(desk: Desk, moment: str, name: str = "nightly") -> Order:
    """What a scheduler would submit for a due time."""
    found = verbs.by_name(desk.database, name)
    with click.Context(click.Command("scheduler")):
        return parsed_command.of(desk.database, found, datetime.fromisoformat(moment))


def test_added_shown_and_removed(desk: Desk) -> None:
    """What was saved, when it fires next in its zone, and that somebody has to fire it."""
    added = _add(desk, "retrieve", "pacs1", "-k", "StudyDate=@yesterday")
    assert added.stdout.startswith("nightly is saved; it fires first at ")
    assert "no scheduler is running" in added.stderr
    (listed,) = desk.json("schedule")
    assert listed["command"] == "retrieve pacs1 -k StudyDate=@yesterday"
    shown = desk.json("schedule", "show", "nightly")
    assert set(listed) - {"last_run"} == set(shown) - {"next", "runs", "missed", "skipped", "refused"}
    assert len(shown["next"]) == 5 and all("T02:30:00+0" in slot["local"] for slot in shown["next"])
    text = desk.run("schedule", "show", "nightly").stdout
    assert "30 2 * * * in Europe/Berlin" in text and text.count(" 02:30 +0") == 5
    assert "it has not fired yet" in text
    assert "is removed; its jobs stay" in desk.run("schedule", "remove", "nightly").stdout
    assert desk.json("schedule", "list") == []
    assert "no schedule 'nightly'" in desk.run("schedule", "show", "nightly", code=2).stderr


def test_before_anything_is_written(desk: Desk) -> None:
    """No schedule yet is no error, and makes no database."""
    assert "there is no schedule yet" in desk.run("schedule").stderr or not desk.file.exists()
    assert "there is none yet" in desk.run("schedule", "pause", "nightly", code=2).stderr
    assert not desk.file.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "what is to be submitted? Write it behind --"),
        (("ecko", "pacs1"), "no command 'ecko'; did you mean echo?"),
        (("echo", "pacs2"), "no remote 'pacs2' in the address book; did you mean pacs1?"),
        (("find", "pacs1", "-k", "StudyDte=1"), "did you mean StudyDate?"),
        (("find", "pacs1", "-k", "StudyDate=@yesterdy"), "'@yesterdy' is no day"),
        (("move", "pacs1"), "what is to be retrieved?"),
        (("move", "pacs1", "-k", "StudyDate=@today", "--wait"), "--wait: nobody waits"),
        (("move", "pacs1", "-k", "StudyDate=@today", "--json"), "--json: nobody waits"),
        (("move", "pacs1", "--from-csv", "-"), "a schedule has no standard input"),
        (("move", "pacs1", "--nonsense"), "(see `dicomferry submit move --help`)"),
        (("echo", "pacs1", "--not-before", "2026-12-01T10:00"), "a schedule takes HH:MM"),
        (("echo", "pacs1", "--home", "/elsewhere"), "have their place before --"),
        (("store", "pacs1", "/not/there"), "/not/there: no such file or directory"),
        (("store", "pacs1", "--from-job", "last"), "a schedule needs the job's number"),
    ],
)
def test_a_command_that_cannot_be_submitted_is_refused(desk: Desk, words: tuple[str, ...], told: str) -> None:
    """As `submit` would refuse it, in one line, and nothing is written."""
    result = _add(desk, *words, code=2)
    assert told in result.stderr and len(result.stderr.splitlines()) == 1
    assert verbs.listing(desk.database) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cron", "30 2 * *"), "4 fields instead of five"),
        (("--tz", "Europe/Berln"), "did you mean Europe/Berlin?"),
        (("--catch-up", "skip", "--grace", "60"), "with --catch-up skip none is"),
        (("--cap", "3"), "--cap goes with --catch-up all"),
        (("--catch-up", "all", "--overlap", "skip"), "would be skipped but for the first"),
    ],
)
def test_rules_that_make_no_sense_are_refused(desk: Desk, options: tuple[str, ...], told: str) -> None:
    """Exit 2, before anything is written."""
    assert told in _add(desk, "echo", "pacs1", options=options, code=2).stderr
    assert "is no name for a schedule" in _add(desk, "echo", "pacs1", name="a b", code=2).stderr
    assert verbs.listing(desk.database) == []


def test_a_name_is_there_once(desk: Desk) -> None:
    """And the word `submit` may stand before the command."""
    _add(desk, "submit", "echo", "pacs1")
    assert verbs.by_name(desk.database, "nightly").words == ("echo", "pacs1")
    assert "there is a schedule nightly already" in _add(desk, "echo", "pacs1", code=2).stderr


def test_days_are_those_of_the_due_time(desk: Desk) -> None:
    """In the zone of the schedule: 02:30 in Berlin is still the day before in UTC."""
    _add(
        desk, "find", "pacs1", "-k", "StudyDate=@yesterday", "-k", "SeriesDate=@today-7..@today-1", "--level", "series"
    )
    found = _at(desk, "2026-07-10T00:30:00+00:00").what
    assert isinstance(found, spec.FindSpec)
    assert dict(found.keys) == {"00080020": "20260709", "00080021": "20260703-20260709"}


def test_times_are_those_after_the_due_time(desk: Desk) -> None:
    """--not-before 22:00 is the evening after, by the schedule's clock."""
    _add(desk, "echo", "pacs1", "--not-before", "22:00", "--priority", "low", "--label", "mine")
    found = _at(desk, "2026-10-25T01:30:00+00:00")
    assert found.options["not_before"] == datetime(2026, 10, 25, 21, tzinfo=UTC)
    assert (found.options["priority"], found.options["label"]) == ("low", "mine")


def test_files_are_read_when_it_fires(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of requests that is written anew every day is what is meant, from the folder where it was added."""
    wanted = tmp_path / "wanted.csv"
    wanted.write_text("AccessionNumber\n1\n")
    monkeypatch.chdir(tmp_path)
    _add(desk, "move", "pacs1", "--from-csv", "wanted.csv")
    monkeypatch.chdir("/")
    wanted.write_text("AccessionNumber\n2\n3\n")
    found = _at(desk, "2026-07-10T00:30:00+00:00").what
    assert isinstance(found, spec.MoveSpec)
    assert [keys for _, keys in found.identifiers] == [(("00080050", "2"),), (("00080050", "3"),)]
    wanted.write_text("AccessionNumber\n1E+10\n")
    with pytest.raises(UsageError, match="row 2, column AccessionNumber"):
        _at(desk, "2026-07-10T00:30:00+00:00")
    wanted.unlink()
    with pytest.raises(UsageError, match="no such file"):
        _at(desk, "2026-07-10T00:30:00+00:00")


def test_paths_begin_where_it_was_added(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler runs in another folder; names that are no UTF-8 stay what they are."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    _add(desk, "store", "pacs1", "data", "-r")
    monkeypatch.chdir("/")
    found = _at(desk, "2026-07-10T00:30:00+00:00").what
    assert found == spec.StoreSpec(paths=(str(tmp_path / "data"),), recursive=True)


def test_a_remote_that_is_gone(desk: Desk) -> None:
    """The same words mean the remote of the address book, whoever that is by then."""
    _add(desk, "echo", "pacs1")
    book.remove(desk.database, "pacs1")
    with pytest.raises(UsageError, match="no remote 'pacs1'"):
        _at(desk, "2026-07-10T00:30:00+00:00")
    book.add(desk.database, "pacs1", "NEW@127.0.0.1:105")
    assert _at(desk, "2026-07-10T00:30:00+00:00").remote_id == book.resolve_id(desk.database, "pacs1")


def test_pause_run_resume(desk: Desk) -> None:
    """By hand it fires also while it is paused; the id alone is on stdout."""
    _add(desk, "echo", "pacs1")
    assert "go on with `dicomferry schedule resume nightly`" in desk.run("schedule", "pause", "nightly").stdout
    assert desk.json("schedule", "show", "nightly")["next_due"] is None
    assert "paused" in desk.run("schedule").stdout
    job = int(desk.run("schedule", "run", "nightly").stdout)
    (run,) = desk.json("schedule", "show", "nightly")["runs"]
    assert (run["job"], run["by_hand"], run["state"], run["job_state"]) == (job, True, "submitted", "pending")
    assert "by hand" in desk.run("schedule", "show", "nightly").stdout
    assert desk.json("jobs", "show", job)["label"] == "nightly"
    assert "it fires next at" in desk.run("schedule", "resume", "nightly").stdout
    assert "is not paused" in desk.run("schedule", "resume", "nightly", code=2).stderr


def test_submit_is_not_changed_by_it(desk: Desk) -> None:
    """What a schedule only looks at is not queued; what `submit` says is."""
    _add(desk, "echo", "pacs1")
    count = sa.select(sa.func.count()).select_from(JobRow)
    assert desk.database.read(lambda connection: connection.execute(count).scalar_one()) == 0
    assert int(desk.run("submit", "echo", "pacs1").stdout) == 1
    assert json.loads(desk.run("submit", "echo", "pacs1", "--json").stdout)["id"] == 2


def test_hints_are_for_people(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds it or runs it by hand is told what `submit` would say; a scheduler's log has log lines alone, and
    nothing that other threads of it write is kept back meanwhile.
    """
    wanted = tmp_path / "wanted.csv"
    wanted.write_text("StudyInstanceUID,SeriesInstanceUID\n1.2,1.2.3\n")
    hint = "not used at level study"
    assert hint in _add(desk, "move", "pacs1", "--from-csv", wanted).stderr
    assert hint in desk.run("schedule", "run", "nightly").stderr

    def once(settings: Settings, interpret: scheduler.Interpret) -> int:
        stderr = sys.stderr
        found = verbs.by_name(desk.database, "nightly")
        assert isinstance(interpret(desk.database, found, datetime.now(UTC)).what, spec.MoveSpec)
        assert sys.stderr is stderr
        return 0

    monkeypatch.setattr(scheduler, "run", once)
    assert desk.run("scheduler").stderr == ""


def test_a_command_without_dashes_before_it_says_so(desk: Desk) -> None:
    """Exit 2, in one line with the two dashes where they belong; a misspelt option before them is told as ever."""
    words = ("schedule", "add", "nightly", "--cron", "0 2 * * *", "--tz", "UTC")
    told = desk.run(*words, "move", "pacs1", "-k", "StudyDate=@yesterday", code=2).stderr
    assert "stands behind --" in told and "--tz ZONE -- move ..." in told and told.count("\n") == 1
    assert "behind --" not in desk.run(*words, "--crn", "--", "move", "pacs1", code=2).stderr

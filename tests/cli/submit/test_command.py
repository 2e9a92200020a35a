"""`dicomferry submit`: what is written, what is refused before anything is written, what goes to which stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.cli.frame.options import parse_moment
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.rules import spec
from support.desk import Desk


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "to send"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(b"x")
    return folder


def _spec(desk: Desk, job_id: int = 1) -> spec.Spec:
    query = sa.select(JobRow.kind, JobRow.spec).where(JobRow.id == job_id)
    row = desk.database.read(lambda connection: connection.execute(query).one())
    return spec.from_json(row.kind, row.spec)


def test_the_id_alone_goes_to_stdout(desk: Desk, files: Path) -> None:
    """For scripts; that no worker runs is said on stderr. A bare submit that is recorded is a success."""
    assert desk.remote_id
    told = desk.run("submit", "store", "pacs1", files)
    assert told.stdout == "1\n"
    assert "dicomferry up" in told.stderr and told.stderr.count("\n") == 1
    assert desk.run("submit", "echo", "pacs1").stdout == "2\n"


def test_the_first_submit_makes_the_database(desk: Desk) -> None:
    """Nothing has to be set up before; an address needs no entry in the address book."""
    assert not desk.home.exists()
    assert desk.run("submit", "echo", "PACS1@127.0.0.1:104").stdout == "1\n"
    assert desk.json("jobs", "show", "1")["remote"] == "PACS1@127.0.0.1:104"


def test_a_job_whose_id_cannot_be_printed_is_named(desk: Desk) -> None:
    """It is recorded all the same: the id goes to stderr, and the exit code says that something is wrong."""
    assert desk.remote_id
    words = [sys.executable, "-m", "dicomferry.cli.main", "submit", "echo", "pacs1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "job 1 is recorded, though its id could not be printed",
        "dicomferry: cannot write to standard output: no space left on device",
    ]


def test_json_prints_the_document(desk: Desk) -> None:
    """The same as jobs show, with what was asked for."""
    assert desk.remote_id
    told = desk.run("submit", "echo", "pacs1", "--label", "né", "--priority", "high", "--json")
    job = json.loads(told.stdout)
    assert job == desk.json("jobs", "show", "1")
    assert (job["label"], job["priority"], job["kind"], job["state"]) == ("né", "high", "echo", "pending")


def test_paths_are_made_absolute(desk: Desk, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers have another working folder."""
    assert desk.remote_id
    monkeypatch.chdir(files)
    desk.run("submit", "store", "pacs1", "a.dcm", ".", "../to send", "-r")
    assert _spec(desk) == spec.StoreSpec(paths=(f"{files}/a.dcm", str(files), str(files)), recursive=True)


def test_a_path_that_is_no_utf8_survives(desk: Desk, files: Path) -> None:
    """Byte for byte, from the argument to the record."""
    assert desk.remote_id
    path = os.fsencode(files) + b"/caf\xe9\n.dcm"
    Path(os.fsdecode(path)).write_bytes(b"x")
    words: list[str | bytes] = [sys.executable, "-m", "dicomferry.cli.main", "submit", "store", "pacs1", path]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    found = _spec(desk)
    assert isinstance(found, spec.StoreSpec) and found.roots == (path,)


def test_a_missing_path_is_refused_before_anything_is_written(desk: Desk, files: Path) -> None:
    """Exit 2; it is named, also when the others are there and its name is no UTF-8."""
    gone = os.fsdecode(os.fsencode(files) + b"/g\xf6ne.dcm")
    told = desk.run("submit", "store", "pacs1", files, gone, code=2)
    assert "g\\xf6ne.dcm: no such file or directory; nothing was submitted" in told.stderr
    assert told.stdout == "" and not desk.home.exists()


def test_an_unknown_remote_is_refused(desk: Desk, files: Path) -> None:
    """Exit 2 with the nearest name; no job is written."""
    assert desk.remote_id
    told = desk.run("submit", "store", "pacs2", files, code=2)
    assert "did you mean pacs1?" in told.stderr and told.stdout == ""
    assert desk.json("jobs") == []
    assert "AET@host:port" in desk.run("submit", "echo", "PACS1@h", code=2).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--timeout", "5"),
        ("--priority", "urgent"),
        ("--not-before", "soon"),
        ("--wait", "--timeout", "-1"),
        ("--wait", "--timeout", "nan"),
        ("--wait", "--timeout", "inf"),
        ("--label", os.fsdecode(b"\xff")),
        ("--label", "x" * 201),
    ],
)
def test_nonsense_is_refused(words: tuple[str, ...], desk: Desk) -> None:
    """Exit 2 in one line, and no job."""
    assert desk.remote_id
    told = desk.run("submit", "echo", "pacs1", *words, code=2)
    assert told.stderr.startswith("dicomferry: ") and told.stderr.count("\n") == 1
    assert desk.json("jobs") == []


def test_a_broker_url_that_cannot_work_is_told_before_anything_is_written(desk: Desk) -> None:
    """Exit 3 and no job."""
    told = desk.run("submit", "echo", "A@127.0.0.1:104", code=3, DICOMFERRY_BROKER_URL="amqp://x")
    assert told.stderr.startswith("dicomferry: broker_url") and not desk.home.exists()


def test_not_before_waits(desk: Desk) -> None:
    """The job says when it starts, in UTC."""
    assert desk.remote_id
    desk.run("submit", "echo", "pacs1", "--not-before", "2126-11-22T22:00:00+01:00")
    job = desk.json("jobs", "show", "1")
    assert job["not_before"] == "2126-11-22T21:00:00.000Z" and job["reason"] == "not before"


def test_times_are_local_and_a_clock_time_is_the_next_one() -> None:
    """HH:MM is today or tomorrow, never the past; a zone that is given is kept."""
    now = datetime(2026, 11, 22, 15, 30)
    later, earlier = parse_moment("22:00", now), parse_moment("7:05", now)
    assert later == datetime(2026, 11, 22, 22, 0).astimezone()
    assert earlier == datetime(2026, 11, 23, 7, 5).astimezone()
    assert parse_moment("15:30", now) == datetime(2026, 11, 23, 15, 30).astimezone()
    assert parse_moment("2026-12-01 08:00", now) == datetime(2026, 12, 1, 8).astimezone()
    zoned = parse_moment("2026-12-01T08:00+05:00", now)
    assert zoned is not None and zoned - datetime(2026, 12, 1, 3).astimezone() <= timedelta(days=1)
    assert zoned.isoformat() != "" and parse_moment("2026-12-01T03:00Z", now) == zoned
    assert [parse_moment(text, now) for text in ("25:00", "12:60", "noon", "")] == [None] * 4


def test_wait_prints_the_id_and_how_it_ended(desk: Desk) -> None:
    """The id alone on stdout, the rest on stderr; exit 1 when it has not ended in time."""
    assert desk.remote_id
    told = desk.run("submit", "echo", "pacs1", "--wait", "--timeout", "0", code=1)
    assert told.stdout == "1\n" and "job 1 has not ended" in told.stderr
    told = desk.run("submit", "echo", "pacs1", "--wait", "--timeout", "0", "--json", code=1)
    assert json.loads(told.stdout)["id"] == 2

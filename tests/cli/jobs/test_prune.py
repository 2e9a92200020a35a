"""`dicomferry jobs prune`: what would go, the question, what went, and the space that it took."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import sqlalchemy as sa

from dicomferry.models.record import presence
from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.rules.state import ItemState
from support.desk import Desk

ALL = ("jobs", "prune", "--older-than", "0d")


def _jobs(desk: Desk, number: int) -> None:
    for _ in range(number):
        desk.store_job([(ItemState.SUCCEEDED, None, 0)] * 3)


def test_it_says_what_would_go_and_leaves_it(desk: Desk) -> None:
    """`--dry-run` counts; without a terminal and without --yes it is refused with the same numbers."""
    _jobs(desk, 2)
    waits = desk.echo_job()
    assert "this would remove 2 jobs and 6 items, all from before" in desk.run(*ALL, "--dry-run").stdout
    refused = desk.run(*ALL, code=2)
    assert "this would remove 2 jobs and 6 items" in refused.stderr and "--yes" in refused.stderr
    assert [job["id"] for job in desk.json("jobs", "list")] == [waits, 2, 1]


def test_what_is_old_goes(desk: Desk) -> None:
    """Jobs that ended longer ago, and no others; a second time nothing is that old."""
    _jobs(desk, 2)
    year_ago = sa.text("datetime('now', '-365 days')")
    old = sa.update(JobRow).where(JobRow.id == 1).values(finished_at=year_ago)
    desk.database.write(lambda connection: connection.execute(old))
    desk.echo_job()
    assert desk.run("jobs", "prune", "--older-than", "90d", "--yes").stdout == "removed 1 job and 3 items\n"
    assert [job["id"] for job in desk.json("jobs", "list")] == [3, 2]
    assert "no job 1" in desk.run("jobs", "show", 1, code=2).stderr
    assert "nothing is that old" in desk.run("jobs", "prune", "--older-than", "12h").stdout


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1)])
def test_a_terminal_is_asked(desk: Desk, answer: bytes, code: int, left: int) -> None:
    """Only yes removes."""
    _jobs(desk, 1)
    ours, theirs = os.openpty()
    os.write(ours, answer)
    done = subprocess.run(
        [sys.executable, "-m", "dicomferry.cli.main", *ALL], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
        timeout=60, env={**os.environ, "DICOMFERRY_HOME": str(desk.home)},
    )  # fmt: skip
    asked = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, asked
    assert "remove 1 job and 3 items" in asked
    assert (b"removed 1 job" in done.stdout) == (left == 0)
    assert len(desk.json("jobs", "list")) == left


@pytest.mark.parametrize("age", ["90", "d", "-1d", "90 days", "1e3d", "99999999d", ""])
def test_an_age_has_its_unit(desk: Desk, age: str) -> None:
    """Nothing is guessed where something is removed."""
    _jobs(desk, 1)
    assert "write 90d, 12h or 30m" in desk.run("jobs", "prune", f"--older-than={age}", "--yes", code=2).stderr
    assert len(desk.json("jobs", "list")) == 1


def test_where_there_is_nothing_yet(desk: Desk) -> None:
    """An empty home stays empty."""
    assert "nothing is that old" in desk.run(*ALL, "--yes").stdout
    assert not desk.file.exists()


def test_the_disk_gets_the_space_back(desk: Desk) -> None:
    """With --vacuum, while nothing runs; without, it is said what the file keeps."""
    desk.planned_job(6000)
    desk.run("jobs", "cancel", 1)
    told = desk.run(*ALL, "--yes")
    assert "removed 1 job and 6,000 items" in told.stdout
    assert "the database file keeps" in told.stderr and "--vacuum" in told.stderr
    presence.leave(desk.database, desk.worker)
    running = presence.register(desk.database, "scheduler", slots=0)
    refused = desk.run(*ALL, "--vacuum", code=2)
    assert "scheduler would lose what they do" in refused.stderr
    presence.leave(desk.database, running)
    assert "given back to the disk" in desk.run(*ALL, "--vacuum").stdout
    assert desk.database.free_bytes() == 0

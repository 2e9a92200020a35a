"""Tables and text on a narrow terminal: what gives way, in which order, and that nothing does anywhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.cli.frame import layout
from dicomferry.cli.frame.layout import Column
from dicomferry.cli.root import cli
from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules import spec
from support.desk import REFUSED, SUCCEEDED, Desk

COLUMNS = (
    Column(heading="id"),
    Column(heading="uid", rank=1, least=10, middle=True),
    Column(heading="label", rank=3, least=8),
    Column(heading="size", rank=2),
)
UID = "2.25.162340035875106486359839719823390773798"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("room", "widths"),
    [
        (90, [3, 44, 20, 6]),  # everything fits
        (70, [3, 44, 11, 6]),  # the least important gives first
        (40, [3, 17, 8, 6]),
        (30, [3, 17, 0, 6]),  # the least important goes where shortening does not do
        (20, [3, 15, 0, 0]),
        (5, [3, 0, 0, 0]),  # what matters most stays
    ],
)
def test_columns_give_way_by_importance(room: int, widths: list[int]) -> None:
    """Shortened first, from the least important on; left out in that order where it does not do."""
    assert layout.fit(COLUMNS, [3, 44, 20, 6], room) == widths


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.integers(1, 200))
def test_what_fits_fits(natural: list[int], room: int) -> None:
    """Never wider than the terminal but for the column that always stays; never wider than needed."""
    widths = layout.fit(COLUMNS, natural, room)
    shown = [width for width in widths if width]
    assert all(width <= wide for width, wide in zip(widths, natural, strict=True))
    if sum(bool(width) for width in widths[1:]):
        assert sum(shown) + layout.GAP * (len(shown) - 1) <= room
    assert widths[0] == natural[0]


def test_uids_are_cut_in_the_middle_and_text_at_its_end() -> None:
    """Both ends of a UID tell; wide characters take two places."""
    assert layout.shortened(UID, 16, middle=True) == "2.25.162…0773798"
    assert layout.shortened("connection refused", 10) == "connectio…"
    assert layout.shortened("short", 10) == "short"
    assert layout.shortened("山田太郎", 5) == "山田…" and layout.width("山田") == 4


def test_text_is_broken_between_words_and_commands_stay_whole() -> None:
    """What is copied from the screen works: a command in back quotes, a UID and a path are never broken."""
    lines = layout.wrapped(f"go on with `dicomferry jobs release 13` or look at {UID} again", 30)
    assert lines == ["go on with", "`dicomferry jobs release 13`", "or look at", UID, "again"]
    assert layout.wrapped("a b", 3) == ["a b"]
    lines = layout.wrapped(f"the StudyInstanceUID={UID}; at study level", 46)
    assert lines == ["the StudyInstanceUID=", f"{UID};", "at study level"]


def _on_a_terminal(desk: Desk, *words: str, columns: int = 80, **environment: str) -> str:
    """What a command prints on a terminal of so many columns."""
    ours, theirs = os.openpty()
    given = os.environ | {"DICOMFERRY_HOME": str(desk.home), "COLUMNS": str(columns), "TERM": "xterm"} | environment
    process = subprocess.Popen(
        [sys.executable, "-m", "dicomferry.cli.main", *words], stdout=theirs, stderr=subprocess.DEVNULL, env=given
    )
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 65536):
            told += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return told.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 100])
def test_the_longest_uids_of_a_job_are_whole(desk: Desk, columns: int) -> None:
    """A key and a UID of 64 characters (PS3.5 9.1) have no room on one line of 80 columns: it goes on behind the `=`,
    so that the terminal breaks nothing in the middle.
    """
    longest = ("1.2.840.10008." + "1234567890" * 6)[:64]
    keys = (("0020000D", longest), ("0020000E", longest[::-1]), ("00080018", longest))
    verbs.submit(desk.database, spec.MoveSpec(identifiers=((None, keys),), level="image"), desk.remote_id)
    told = ESCAPE.sub("", _on_a_terminal(desk, "jobs", "show", "1", columns=columns))
    assert all(len(line) <= columns for line in told.splitlines()), told
    assert told.count(longest) == 2 and told.count(longest[::-1]) == 1
    assert ("StudyInstanceUID=" + longest in told) is (columns == 100)


@pytest.fixture
def many(desk: Desk) -> Desk:
    """Jobs of several states with long labels."""
    desk.store_job([SUCCEEDED, REFUSED], label="the label of a job that says a good deal " * 3)
    desk.store_job([REFUSED], label="x" * 100)
    desk.planned_job(3)
    return desk


def test_a_narrow_terminal_gets_lines_that_fit(many: Desk) -> None:
    """No line is longer than the terminal, whatever the table; `--wide` and a pipe get all of it."""
    for words in (
        ("jobs",),
        ("jobs", "show", "1"),
        ("jobs", "items", "1"),
        ("jobs", "report", "1"),
        ("remote", "list"),
    ):
        for columns in (60, 80, 132):
            told = ESCAPE.sub("", _on_a_terminal(many, *words, columns=columns))
            assert told and all(len(line) <= columns for line in told.splitlines() if "/" not in line), (words, told)
    assert "x" * 100 in _on_a_terminal(many, "jobs", "list", "--wide")
    assert "x" * 100 in many.run("jobs").stdout and "age" not in many.run("jobs").stdout


def test_states_that_want_somebody_have_a_colour(many: Desk) -> None:
    """Failed and incomplete, on a terminal alone; NO_COLOR and a dumb terminal are heard."""
    told = _on_a_terminal(many, "jobs")
    assert "\x1b[31mfailed" in told and "\x1b[33mincomplete" in told and "\x1b[33mpending" not in told
    assert "\x1b[3" not in _on_a_terminal(many, "jobs", NO_COLOR="1")
    assert "\x1b" not in _on_a_terminal(many, "jobs", TERM="dumb")
    assert "\x1b" not in many.run("jobs").stdout


def test_every_list_takes_wide() -> None:
    """Whatever prints a table can print all of it."""
    for words in (("jobs", "list"), ("jobs", "matches"), ("jobs", "report"), ("archive", "list"), ("remote", "list"),
                  ("schedule", "list"), ("schedule", "show"), ("remote", "show"), ("config", "show")):  # fmt: skip
        command = cli
        for word in words:
            command = command.get_command(None, word)  # type: ignore[arg-type, assignment]
        assert any("--wide" in param.opts for param in command.params), words

"""Cells of our CSV: safe to open in a spreadsheet and to show on a terminal, and the same again when read back."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from dicomferry.cli.frame import csv_cells
from dicomferry.cli.submit import request_file
from dicomferry.models.record.jobs import matches, verbs
from dicomferry.models.record.tables.jobs import ChunkRow
from dicomferry.models.rules.spec import FindSpec
from support.desk import Desk

EVIL = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A\x1b]0;title\x07\x9b31m^B\u202e"}]},
    "00100020": {"vr": "LO", "Value": ["=1+1"]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
}


@pytest.fixture
def found(desk: Desk) -> Desk:
    """A find with a match that wants to be more than text."""
    spec = FindSpec(keys=(("00100010", ""), ("00100020", "")))
    job_id = verbs.submit(desk.database, spec, desk.remote_id)
    (item,) = desk.database.read(lambda connection: connection.exec_driver_sql("SELECT id FROM item").scalars().all())
    row = {
        "job_id": job_id, "item_id": item, "fence": 1, "number": 1, "attributes": json.dumps(EVIL),
        "character_set": "ISO_IR 192", "flaw": None, "transfer_syntax_uid": "1.2", "data": b"",
    }  # fmt: skip
    desk.database.write(lambda connection: connection.execute(update(ChunkRow).values(fence=1, matches=1)))
    desk.database.write(lambda connection: matches.add(connection, item, [row]))
    return desk


@pytest.mark.parametrize("start", list("=+-@\t\r"))
def test_what_may_be_a_formula_is_made_text(start: str) -> None:
    """A mark stands before it, once; numbers that we counted, and text that begins with anything else, have none."""
    assert str(csv_cells.written(f"{start}1+1")).lstrip("'")[:1] in (start, "\\")
    assert str(csv_cells.written(f"{start}1+1"))[0] in "'\\"
    assert csv_cells.written(-5) == -5 and csv_cells.written("A=1") == "A=1" and csv_cells.written("O'Neil") == "O'Neil"


@given(st.text(st.sampled_from("'=+-@aé1 ")))
def test_a_cell_is_read_back_as_it_was(text: str) -> None:
    """Whatever printable text it holds, marks of its own included."""
    assert csv_cells.read(str(csv_cells.written(text))) == text


def test_every_form_is_safe_for_a_terminal_and_raw_is_as_it_came(found: Desk) -> None:
    """Control characters, also those beyond ASCII, are escapes in tables, CSV and JSON; JSON says the same as before.

    `--raw` is for CSV alone.
    """
    words = ("jobs", "matches", "1")
    for form in ((), ("--csv",), ("--json",), ("--jsonl",), ("--dicom-json",)):
        told = found.run(*words, *form).stdout
        assert all(char.isprintable() or char == "\n" for char in told), form
    (line,) = found.run(*words, "--jsonl").stdout.splitlines()
    assert json.loads(line)["PatientName"] == EVIL["00100010"]["Value"][0]["Alphabetic"]  # type: ignore[index]
    (cells,) = csv.DictReader(io.StringIO(found.run(*words, "--csv").stdout))
    assert cells["PatientID"] == "'=1+1" and "\\x1b]0;title" in cells["PatientName"]
    (raw,) = csv.DictReader(io.StringIO(found.run(*words, "--csv", "--raw").stdout))
    assert raw["PatientID"] == "=1+1" and "\x1b]0;title" in raw["PatientName"]
    for others in ((), ("--json",)):
        assert "give --csv" in found.run(*words, *others, "--raw", code=2).stderr


def test_our_csv_is_input_again(found: Desk, tmp_path: Path) -> None:
    """What a list of matches says of a key is what a request file made of it asks for."""
    path = tmp_path / "matches.csv"
    path.write_text(found.run("jobs", "matches", "1", "--csv").stdout.replace("A\\x1b]0;title\\x07\\x9b31m", "A"))
    read = request_file.read(str(path), level="study", root="study", today=date(2026, 11, 22))
    assert ("00100020", "=1+1") in read.requests[0].keys

"""`dicomferry jobs matches`: one list in every form, whatever the answers held."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.record.jobs import matches
from dicomferry.models.record.tables.jobs import ChunkRow
from dicomferry.models.rules.spec import FindSpec
from support.desk import Desk

KEYS = (("00100010", "M*"), ("00080061", ""), ("00400100[0].00080060", ""), ("00201208", ""))
ANSWERS: list[tuple[dict[str, Any], str | None]] = [
    (
        {
            "00080052": {"vr": "CS", "Value": ["STUDY"]},
            "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jérôme", "Ideographic": "山田"}]},
            "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
            "00201208": {"vr": "IS", "Value": [12]},
            "00400100": {"vr": "SQ", "Value": [{"00080060": {"vr": "CS", "Value": ["CT"]}}]},
            "00091001": {"vr": "UN", "InlineBinary": "AQI="},
        },
        None,
    ),
    ({"0020000D": {"vr": "UI", "Value": ["1.2.4"]}, "00100010": {"vr": "PN"}, "00400100": {"vr": "SQ"}}, "00100010"),
]


@pytest.fixture
def found(desk: Desk) -> Desk:
    """A find with two matches, one of them with hardly anything in it."""
    from sqlalchemy import update

    from dicomferry.models.record.jobs import verbs

    job_id = verbs.submit(desk.database, FindSpec(keys=KEYS), desk.remote_id)
    (item,) = desk.database.read(lambda connection: connection.exec_driver_sql("SELECT id FROM item").scalars().all())
    rows = [
        {
            "job_id": job_id, "item_id": item, "fence": 1, "number": number, "attributes": json.dumps(attributes),
            "character_set": "ISO_IR 192", "flaw": flaw, "transfer_syntax_uid": "1.2", "data": b"",
        }
        for number, (attributes, flaw) in enumerate(ANSWERS, 1)
    ]  # fmt: skip
    desk.database.write(lambda connection: connection.execute(update(ChunkRow).values(fence=1, matches=len(rows))))
    desk.database.write(lambda connection: matches.add(connection, item, rows))
    return desk


def test_a_table_has_a_column_for_each_key(found: Desk) -> None:
    """The unique key first; a key inside of a sequence too; and a note on what could not be read."""
    done = found.run("jobs", "matches", "last")
    head, first, second = done.stdout.splitlines()
    assert head.split() == [
        "StudyInstanceUID", "PatientName", "ModalitiesInStudy", "Modality", "NumberOfStudyRelatedInstances",
    ]  # fmt: skip
    assert first.split() == ["1.2.3", "Müller^Jérôme=山田", "CT\\SR", "CT", "12"]
    assert second.split() == ["1.2.4"]
    assert "1 match with text that cannot be read" in done.stderr


def test_json_is_keyword_to_value(found: Desk) -> None:
    """One value alone, several as a list, none as null; what was asked for is never absent."""
    first, second = found.json("jobs", "matches", "last")
    assert first == {
        "StudyInstanceUID": "1.2.3", "PatientName": "Müller^Jérôme=山田", "ModalitiesInStudy": ["CT", "SR"],
        "NumberOfStudyRelatedInstances": 12, "ScheduledProcedureStepSequence": [{"Modality": "CT"}],
        "00091001": "AQI=",
    }  # fmt: skip
    assert second == {
        "StudyInstanceUID": "1.2.4", "PatientName": None, "ModalitiesInStudy": None,
        "NumberOfStudyRelatedInstances": None, "ScheduledProcedureStepSequence": [],
    }  # fmt: skip
    lines = found.run("jobs", "matches", "last", "--jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [first, second]


def test_csv_and_the_json_model(found: Desk) -> None:
    """CSV has the table's columns by their whole path; --dicom-json what PS3.18 says, as it was recorded."""
    rows = list(csv.DictReader(io.StringIO(found.run("jobs", "matches", "last", "--csv").stdout)))
    assert rows[0]["ScheduledProcedureStepSequence[0].Modality"] == "CT"
    assert rows[0]["ModalitiesInStudy"] == "CT\\SR"
    assert json.loads(found.run("jobs", "matches", "last", "--dicom-json").stdout) == [one for one, _ in ANSWERS]
    assert found.run("jobs", "matches", "last", "--csv", "--dicom-json", code=2).stdout == ""


def test_csv_names_what_a_retrieve_needs(desk: Desk, tmp_path: Path) -> None:
    """The UIDs above a series or an image stand in it, so that the list can be given to --from-csv as it is."""
    from sqlalchemy import update

    from dicomferry.models.record.jobs import verbs

    job_id = verbs.submit(desk.database, FindSpec(level="series", keys=(("00201209", ""),)), desk.remote_id)
    (item,) = desk.database.read(lambda connection: connection.exec_driver_sql("SELECT id FROM item").scalars().all())
    answer = {
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
        "00201209": {"vr": "IS", "Value": [7]},
    }
    row = {
        "job_id": job_id, "item_id": item, "fence": 1, "number": 1, "attributes": json.dumps(answer),
        "character_set": "ISO_IR 192", "flaw": None, "transfer_syntax_uid": "1.2", "data": b"",
    }  # fmt: skip
    desk.database.write(lambda connection: connection.execute(update(ChunkRow).values(fence=1, matches=1)))
    desk.database.write(lambda connection: matches.add(connection, item, [row]))
    listed = desk.run("jobs", "matches", "last", "--csv").stdout
    assert listed.splitlines() == ["SeriesInstanceUID,NumberOfSeriesRelatedInstances,StudyInstanceUID", "1.2.3,7,1.2"]
    assert "StudyInstanceUID" not in desk.run("jobs", "matches", "last").stdout
    path = tmp_path / "matches.csv"
    path.write_text(listed)
    assert desk.run("submit", "move", "pacs1", "--level", "series", "--from-csv", path).stdout.strip().isdigit()


def test_no_more_than_was_asked_for(found: Desk) -> None:
    """--limit."""
    assert len(found.run("jobs", "matches", "last", "--jsonl", "--limit", 1).stdout.splitlines()) == 1


def test_an_empty_list(desk: Desk) -> None:
    """An empty document; for people, a word on stderr."""
    from dicomferry.models.record.jobs import verbs

    verbs.submit(desk.database, FindSpec(), desk.remote_id)
    assert desk.json("jobs", "matches", "last") == []
    done = desk.run("jobs", "matches", "last")
    assert done.stdout == "" and "nothing was found" in done.stderr

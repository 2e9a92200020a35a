"""`dicomferry submit move`, `get` and `retrieve`: what is written, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.models.record.tables.jobs import JobRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.state import JobState
from support.desk import Desk

ACCESSION, STUDY, SERIES, IMAGE = "00080050", "0020000D", "0020000E", "00080018"


def _spec(desk: Desk, job_id: int = 1) -> spec.Spec:
    query = sa.select(JobRow.kind, JobRow.spec).where(JobRow.id == job_id)
    row = desk.database.read(lambda connection: connection.execute(query).one())
    return spec.from_json(row.kind, row.spec)


def test_a_move_asks_for_what_its_keys_say(desk: Desk) -> None:
    """Keys in every spelling; keys without a value say nothing and are left out."""
    assert desk.remote_id
    told = desk.run(
        "submit", "move", "pacs1", "--level", "series", "-k", "StudyInstanceUID=1.2", "-k", "0020,000E=1.2.3",
        "-k", "Modality", "--destination", "OTHER", "--refetch",
    )  # fmt: skip
    assert told.stdout == "1\n"
    assert _spec(desk) == spec.MoveSpec(
        identifiers=((None, ((STUDY, "1.2"), (SERIES, "1.2.3"))),), level="series", destination="OTHER", refetch=True
    )


def test_a_file_is_many_requests(desk: Desk, tmp_path: Path) -> None:
    """Each with its row, with the keys of the command line besides; what is no key is kept with the job."""
    assert desk.remote_id
    path = tmp_path / "a.csv"
    path.write_text("AccessionNumber;Order\n007;x\n008;\n")
    desk.run("submit", "get", "pacs1", "--from-csv", path, "-k", "StudyDate=20260101-")
    day = ("00080020", "20260101-")
    assert _spec(desk) == spec.GetSpec(
        identifiers=((2, (day, (ACCESSION, "007"))), (3, (day, (ACCESSION, "008")))),
        columns=("Order",),
        remarks=(("x",), ("",)),
        csv=str(path),
    )


def test_a_list_of_images_is_one_request(desk: Desk) -> None:
    """UIDs in one key, as in an identifier."""
    assert desk.remote_id
    desk.run(
        "submit", "move", "pacs1", "--level", "image", "-k", "StudyInstanceUID=1", "-k", "SeriesInstanceUID=1.1",
        "-k", "SOPInstanceUID=1.1.1\\1.1.2",
    )  # fmt: skip
    found = _spec(desk)
    assert isinstance(found, spec.MoveSpec) and found.identifiers[0][1][2] == (IMAGE, "1.1.1\\1.1.2")


def test_an_odd_uid_is_asked_for_and_told(desk: Desk, tmp_path: Path) -> None:
    """There are instances with letters in their UID; one that was misspelt would only come back as no match."""
    assert desk.remote_id
    path = tmp_path / "a.csv"
    path.write_text("StudyInstanceUID\n1.2\n1.2.O\n")
    told = desk.run("submit", "move", "pacs1", "--from-csv", path).stderr
    assert "no UID by the Standard (PS3.5 9.1), asked for as it is: row 3: 1.2.O" in told
    assert len(_spec(desk).identifiers) == 2  # type: ignore[union-attr]
    assert "by the Standard" not in desk.run("submit", "move", "pacs1", "-k", "StudyInstanceUID=1.2").stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "what is to be retrieved? Give -k, such as -k AccessionNumber=..., or --from-csv FILE"),
        (("-k", "PatientID"), "what is to be retrieved?"),
        (("-k", "PatientID=*"), "names no study: give StudyInstanceUID"),
        (("-k", "AccesionNumber=1"), "did you mean AccessionNumber?"),
        (("-k", "Modality=CT"), "Modality says nothing about a study: choose a lower --level"),
        (("--level", "series", "-k", "SeriesInstanceUID=1.2"), "names no study"),
        (("--level", "image", "-k", "SOPInstanceUID=1.2"), "names no study"),
        (("--level", "patient", "--root", "study", "-k", "PatientID=1"), "--root patient"),
        (("--level", "patient", "-k", "StudyDate=20260101"), "StudyDate says nothing about a patient"),
        (("-k", "StudyInstanceUID=1", "-k", "0020,000D=2"), "given twice"),
        (("-k", "StudyInstanceUID=1", "--destination", "A" * 17), "16 is the most"),
        (("--from-csv", "/nowhere/x.csv"), "/nowhere/x.csv: no such file or directory"),
        (("--level", "study", "-k", "StudyDate=@noday"), "is no day"),
    ],
)
def test_nonsense_is_refused(words: tuple[str, ...], told: str, desk: Desk) -> None:
    """Exit 2 in one line that says what to do, and no job."""
    assert desk.remote_id
    said = desk.run("submit", "move", "pacs1", *words, code=2).stderr
    assert told in said and said.count("\n") == 1
    assert desk.json("jobs") == []


def test_an_unknown_remote_is_refused(desk: Desk) -> None:
    """Exit 2 with the nearest name, whatever the method; no job is written."""
    assert desk.remote_id
    for command in ("move", "get", "retrieve"):
        told = desk.run("submit", command, "pacs2", "-k", "StudyInstanceUID=1", code=2).stderr
        assert "did you mean pacs1?" in told
    assert desk.json("jobs") == []


def test_a_row_that_asks_for_everything_is_refused(desk: Desk, tmp_path: Path) -> None:
    """With its number: one cell with a star would fetch the whole archive."""
    assert desk.remote_id
    path = tmp_path / "a.csv"
    path.write_text("AccessionNumber\n1\n*\n")
    assert "row 3: this names no study" in desk.run("submit", "move", "pacs1", "--from-csv", path, code=2).stderr
    assert desk.json("jobs") == []


def _ended(desk: Desk, kind: str, state: JobState, reason: str | None = None) -> None:
    desk.run("submit", kind, "pacs1", "-k", "StudyInstanceUID=1")
    newest = sa.select(sa.func.max(JobRow.id)).scalar_subquery()
    change = sa.update(JobRow).where(JobRow.id == newest).values(state=state, reason=reason)
    desk.database.write(lambda connection: connection.execute(change))


def test_the_method_is_the_one_that_worked(desk: Desk) -> None:
    """C-MOVE where nothing is known; what worked last; C-GET where C-MOVE could not come here. It says why."""
    assert desk.remote_id
    retrieve = ("submit", "retrieve", "pacs1", "-k", "StudyInstanceUID=1")
    assert "by C-MOVE: nothing else is known to work" in desk.run(*retrieve).stderr
    assert isinstance(_spec(desk), spec.MoveSpec)
    _ended(desk, "move", JobState.FAILED, "archive cannot reach us")
    assert "by C-GET: C-MOVE did not come here with job 2" in desk.run(*retrieve).stderr
    assert isinstance(_spec(desk, 3), spec.GetSpec)
    _ended(desk, "move", JobState.SUCCEEDED)
    assert "by C-MOVE: it worked with job 4" in desk.run(*retrieve).stderr
    assert "by C-" not in desk.run(*retrieve, "--method", "get").stderr
    assert isinstance(_spec(desk, 6), spec.GetSpec)


def test_a_store_sends_paths_or_what_a_job_brought(desk: Desk, tmp_path: Path) -> None:
    """One of both; only a retrieve brings anything."""
    assert desk.echo_job() == 1
    assert "Give PATH..., or --from-job ID" in desk.run("submit", "store", "pacs1", code=2).stderr
    assert "Give PATH..." in desk.run("submit", "store", "pacs1", tmp_path, "--from-job", "1", code=2).stderr
    assert "job 1 is no retrieve" in desk.run("submit", "store", "pacs1", "--from-job", "1", code=2).stderr
    desk.run("submit", "move", "pacs1", "-k", "StudyInstanceUID=1")
    told = desk.run("submit", "store", "pacs1", "--from-job", "last", code=2).stderr
    assert "nothing that job 2 asked for is in the archive" in told
    desk.run("submit", "store", "pacs1", tmp_path)
    assert _spec(desk, 3) == spec.StoreSpec(paths=(str(tmp_path),))


def test_lists_become_requests_of_their_own(desk: Desk, tmp_path: Path) -> None:
    """Each value is asked for by itself, with the row that it stands in and what else stands there."""
    assert desk.remote_id
    desk.run("submit", "move", "pacs1", "-k", "AccessionNumber=A\\B")
    found = _spec(desk)
    assert isinstance(found, spec.MoveSpec)
    assert found.identifiers == ((None, ((ACCESSION, "A"),)), (None, ((ACCESSION, "B"),)))
    path = tmp_path / "a.csv"
    path.write_text("StudyInstanceUID,note\n1.2\\1.3,x\n1.4,y\n")
    desk.run("submit", "get", "pacs1", "--from-csv", path)
    found = _spec(desk, 2)
    assert isinstance(found, spec.GetSpec)
    assert found.identifiers == ((2, ((STUDY, "1.2"),)), (2, ((STUDY, "1.3"),)), (3, ((STUDY, "1.4"),)))
    assert found.remarks == (("x",), ("x",), ("y",))


def test_what_is_trusted_and_what_may_be_empty(desk: Desk) -> None:
    """Keys in every spelling; a misspelt one is refused."""
    assert desk.remote_id
    what = ("submit", "retrieve", "pacs1", "-k", "StudyDate=20260101", "--allow-empty")
    desk.run(*what, "--trust-answers", "0008,0050,PatientID", "--trust-answers", "(0010,0010)")
    found = _spec(desk)
    assert isinstance(found, spec.MoveSpec)
    assert (found.allow_empty, found.trust_answers) == (True, (ACCESSION, "00100020", "00100010"))
    assert "did you mean PatientID" in desk.run(*what, "--trust-answers", "PatientIDs", code=2).stderr


@pytest.mark.parametrize(
    "key", ["StudyDate=20241301", "StudyDate=20240301-20240201", "StudyTime=2530", "StudyTime=10-09"]
)
def test_days_and_times_that_are_none(desk: Desk, key: str) -> None:
    """They would match nothing, or be an error there: refused before anything is written."""
    assert desk.remote_id
    for command in (("move",), ("find",)):
        told = desk.run("submit", *command, "pacs1", "-k", key, code=2).stderr
        assert "is no such day" in told or "ends before it begins" in told or "is no time" in told

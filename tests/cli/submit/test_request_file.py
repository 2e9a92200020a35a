"""The file of `--from-csv`: what a row becomes, and what is refused with row and column."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from dicomferry.cli.submit import request_file
from dicomferry.cli.submit.request_file import RequestFile, RequestRow
from dicomferry.models.rules.errors import UsageError

ACCESSION, PATIENT, STUDY, SERIES, DAY = "00080050", "00100020", "0020000D", "0020000E", "00080020"


def read(tmp_path: Path, content: str | bytes, *, level: str = "study", root: str = "study") -> RequestFile:
    path = tmp_path / "requests.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return request_file.read(str(path), level=level, root=root, today=date(2026, 11, 22))


def refused(tmp_path: Path, content: str | bytes, *, level: str = "study") -> str:
    with pytest.raises(UsageError) as error:
        read(tmp_path, content, level=level)
    return str(error.value)


def test_a_row_is_a_request_with_its_number(tmp_path: Path) -> None:
    """Rows count as a spreadsheet counts them, the heading being 1; blank ones are left out and counted."""
    found = read(tmp_path, "AccessionNumber,PatientID\nA1,P1\n,,\n\nA2,\n")
    assert found.requests == (
        RequestRow(2, ((ACCESSION, "A1"), (PATIENT, "P1")), ()),
        RequestRow(5, ((ACCESSION, "A2"),), ()),
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, separator: str, bom: bytes) -> None:
    """A byte order mark, semicolons or tabs, quotation marks and CR LF change nothing; leading zeros stay."""
    text = f'PatientID{separator}"AccessionNumber"\r\n007{separator}"0,;""1"\r\n'
    (request,) = read(tmp_path, bom + text.encode()).requests
    assert request.keys == ((PATIENT, "007"), (ACCESSION, '0,;"1'))


def test_more_of_what_spreadsheets_write(tmp_path: Path) -> None:
    """UTF-16, a line that names the separator, and cells written as formulas to protect them."""
    (request,) = read(tmp_path, 'AccessionNumber\n="007"\n'.encode("utf-16")).requests
    assert request.keys == ((ACCESSION, "007"),)
    found = read(tmp_path, "sep=;\nAccessionNumber;x\n1;2\n")
    assert (found.requests[0].row, found.requests[0].keys) == (2, ((ACCESSION, "1"),))


def test_headings_are_keys_in_every_spelling(tmp_path: Path) -> None:
    """Keywords, numbers with and without brackets; days such as @yesterday are resolved."""
    (request,) = read(tmp_path, '"0008,0050","(0010,0020)",StudyDate\n1,2,@yesterday\n').requests
    assert request.keys[0] == (ACCESSION, "1") and (DAY, "20261121") in request.keys


def test_other_columns_are_kept(tmp_path: Path) -> None:
    """What is no DICOM keyword is the site's own: it stays with its row."""
    found = read(tmp_path, "Order no,AccessionNumber,Row,note\n17,A1,x,\n,A2\n")
    assert found.others == ("Order no", "Row", "note")
    assert [request.others for request in found.requests] == [("17", "x", ""), ("", "", "")]


def test_uids_of_lower_levels_are_left_alone(tmp_path: Path) -> None:
    """So a report, one instance a row, may be given back at any level; what was not used is told."""
    text = "StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID,state\n1.2,1.2.3,1.2.3.4,failed\n"
    found = read(tmp_path, text)
    assert found.requests[0].keys == ((STUDY, "1.2"),)
    assert (found.unused, found.others) == (("SeriesInstanceUID", "SOPInstanceUID"), ("state",))
    found = read(tmp_path, text, level="series")
    assert found.requests[0].keys == ((STUDY, "1.2"), (SERIES, "1.2.3"))
    assert found.unused == ("SOPInstanceUID",)


def test_what_archives_only_tell_is_no_key(tmp_path: Path) -> None:
    """Numbers of related instances and the like stand in a list of matches, and would match nothing."""
    found = read(tmp_path, b"StudyInstanceUID,NumberOfStudyRelatedInstances,InstanceAvailability\n1.2,20,ONLINE\n")
    assert found.requests[0].keys == (("0020000D", "1.2"),)
    assert found.others == ("NumberOfStudyRelatedInstances", "InstanceAvailability")


@pytest.mark.parametrize(
    ("heading", "meant"),
    [
        ("AccesionNumber", "AccessionNumber"),
        ("accession numbr", "AccessionNumber"),
        ("studyinstance_uids", "StudyInstanceUID"),
    ],
)
def test_a_heading_that_is_nearly_a_keyword_is_no_remark(tmp_path: Path, heading: str, meant: str) -> None:
    """Or else everything would be asked for but for what was meant."""
    told = refused(tmp_path, f"StudyDate,{heading}\n20260101,1\n")
    assert f"row 1: column 2: {heading!r} is no DICOM keyword; did you mean {meant}?" in told


@pytest.mark.parametrize(
    "heading", ["Rows read", "row", "state", "status", "reason", "expected", "note", "Name", "bytes"]
)
def test_a_heading_of_the_sites_own_is_no_mistake(tmp_path: Path, heading: str) -> None:
    """The columns of our reports among them."""
    assert read(tmp_path, f"AccessionNumber,{heading}\n1,2\n").others == (heading,)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("AccessionNumber\n", "has a heading and no rows"),
        ("A1\nA2\n", "row 1 names no key: its columns are A1"),
        ("AccessionNumber,note\nA1,\n,x\n", "row 3: AccessionNumber: no value"),
        ("AccessionNumber\n1.23457E+12\n", "row 2, column AccessionNumber: 1.23457E+12 was rounded by a spreadsheet"),
        ("AccessionNumber\nA,B\n", "row 2: 2 cells under 1 headings"),
        ("AccessionNumber,AccessionNumber\n1,2\n", "row 1: column AccessionNumber is there twice"),
        ("AccessionNumber,Modality\n1,CT\n", "row 1: Modality says nothing about a study"),
        ("StudyInstanceUID\n1.2\n1.2 3\n", "row 3, column StudyInstanceUID: '1.2 3' is no UID"),
        ("StudyDate\n2026-01-31\n", "row 2, column StudyDate: '2026-01-31' is no date as DICOM writes it"),
        ("SeriesInstanceUID\n1.2\n", "row 1: SeriesInstanceUID names no study: choose a lower --level, or add a"),
        ("StudyDate\n@someday\n", "row 2, column StudyDate: '@someday' is no day"),
        ('AccessionNumber\n"A1\n', "row 2: "),
        (b"AccessionNumber\nA1\nM\x81ller\n", "row 3 is neither UTF-8 nor Latin-1 text"),
        ("StudyDate\n20241301\n", "row 2, column StudyDate: '20241301' is no such day"),
        ("StudyDate\n20240301-20240201\n", "the range '20240301-20240201' ends before it begins"),
        ("AccessionNumber;note\n1,23E+12;\n", "row 2, column AccessionNumber: 1,23E+12 was rounded by a spreadsheet"),
        ("AccessionNumber\n1,23E+12\n", "row 2, column AccessionNumber: 1,23E+12 was rounded by a spreadsheet"),
        ("AccessionNumber\nA1\n#N/A\n", "row 3, column AccessionNumber: #N/A is what a spreadsheet shows"),
        ("PatientID\n123456.0\n", "row 2, column PatientID: 123456.0 was made a decimal number"),
        ("PatientID\nP1\\#REF!\n", "row 2, column PatientID: #REF! is what a spreadsheet shows"),
    ],
)
def test_what_makes_no_sense_is_told_by_row_and_column(tmp_path: Path, content: str | bytes, told: str) -> None:
    """One line, and what to do."""
    assert told in refused(tmp_path, content)


def test_some_wrong_rows_are_told_at_once(tmp_path: Path) -> None:
    """Three of them, and how many more."""
    told = refused(tmp_path, "AccessionNumber,x\n" + ",y\n" * 5)
    assert "row 2" in told and "row 4" in told and "row 5" not in told and "and 2 more rows" in told


@pytest.mark.parametrize(
    "heading", ["accession number", "ACCESSIONNUMBER", "Accession_Number", " accessionNumber ", "accession-number"]
)
def test_headings_in_any_case_and_with_blanks(tmp_path: Path, heading: str) -> None:
    """People write a keyword as words; what is left without case, blanks, hyphens and underscores has to be one."""
    (request,) = read(tmp_path, f"{heading},PatientId\nA1,P1\n").requests
    assert request.keys == ((ACCESSION, "A1"), (PATIENT, "P1"))
    assert "is there twice" in refused(tmp_path, f"{heading},AccessionNumber\nA1,A2\n")


def test_latin_1_is_read_with_a_word(tmp_path: Path) -> None:
    """What spreadsheets write in Western Europe, as they call it: read, and told with the row that shows it."""
    found = read(tmp_path, b"PatientName\nDoe\nM\xfcller \x96 J\xf6rg\n")
    assert found.requests[1].keys == (("00100010", "Müller \u2013 Jörg"),)
    assert "is not UTF-8 (row 3): it was read as Latin-1" in str(found.guessed)
    assert read(tmp_path, "PatientName\nMüller\n").guessed is None


def test_what_is_protected_is_meant(tmp_path: Path) -> None:
    """A cell that the spreadsheet was told to leave alone has what was typed."""
    (request,) = read(tmp_path, 'AccessionNumber\n"=""4E12"""\n').requests
    assert request.keys == ((ACCESSION, "4E12"),)

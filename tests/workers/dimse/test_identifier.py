"""Identifiers: what is sent is lawful and in the remote's characters; what comes is read whatever it is."""

from __future__ import annotations

import json
import struct
import warnings
from datetime import date
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import encode as encode_data_set

from dicomferry.models.rules.errors import UsageError
from dicomferry.workers.dimse import identifier
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE
from dicomferry.workers.finding import keys

BOTH = pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE])
NAME = 0x00100010
TODAY = date(2026, 11, 22)


def parsed(*texts: str, charset: str | None = None) -> tuple[tuple[str, str], ...]:
    return keys.parse(texts, today=TODAY, charset=charset)


def as_pydicom(data: bytes, syntax: str) -> Dataset:
    return read_dataset(BytesIO(data), syntax == IMPLICIT_LE, True)


@BOTH
def test_another_decoder_reads_what_is_sent(syntax: str) -> None:
    """Ascending, even lengths, sequences with items, numbers in binary: pydicom reads what was asked for."""
    asked = parsed(
        "StudyInstanceUID", "PatientID=4711 ", "0028,0010=512", "StudyDate=@today-1..@today",
        "ScheduledProcedureStepSequence[0].Modality=CT", "ScheduledProcedureStepSequence[0].ScheduledStationAETitle",
        "OtherPatientIDsSequence", "0009,0010=CREATOR", "0009,1001=x", "OffendingElement=00100010",
    )  # fmt: skip
    data = identifier.encode(asked, syntax, level="study")
    assert len(data) % 2 == 0
    read = as_pydicom(data, syntax)
    tags = [int(element.tag) for element in read]
    assert tags == sorted(tags)
    assert read.QueryRetrieveLevel == "STUDY"
    assert (read.StudyInstanceUID, read.PatientID, read.Rows) == ("", "4711", 512)
    assert read.StudyDate == "20261121-20261122"
    (step,) = read.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledStationAETitle) == ("CT", "")
    assert list(read.OtherPatientIDsSequence) == []
    assert "SpecificCharacterSet" not in read


@pytest.mark.parametrize(
    ("charset", "name", "declared"),
    [
        (None, "*Jérôme*", "ISO_IR 192"),
        ("ISO_IR 100", "*Jérôme*", "ISO_IR 100"),
        ("ISO_IR 144", "Люда", "ISO_IR 144"),
        ("GB18030", "王^小东", "GB18030"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
        ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
    ],
)
@BOTH
def test_a_key_that_is_not_ascii_goes_in_the_remotes_characters(
    syntax: str, charset: str | None, name: str, declared: object
) -> None:
    """With (0008,0005), by default ISO_IR 192; pydicom reads the name that was typed, and so do we."""
    data = identifier.encode(parsed(f"PatientName={name}", charset=charset), syntax, charset=charset)
    read = as_pydicom(data, syntax)
    assert read.SpecificCharacterSet == declared
    read.decode()
    assert str(read.PatientName) == name
    answer = identifier.decode(data, syntax)
    groups = answer.attributes["00100010"]["Value"][0]
    assert "=".join(groups.values()) == name
    assert answer.flaw is None


def test_ascii_sends_no_character_set() -> None:
    """Whatever the remote's is: some archives refuse a set that they do not know."""
    data = identifier.encode(parsed("PatientName=Jerome*"), EXPLICIT_LE, charset="ISO_IR 100")
    assert "SpecificCharacterSet" not in as_pydicom(data, EXPLICIT_LE)


@pytest.mark.parametrize(
    ("text", "charset"),
    [("PatientName=山田", "ISO_IR 100"), ("Modality=Ü", None), ("Rows=many", None), ("PixelData=x", None)],
)
def test_a_value_that_cannot_be_sent_is_refused(text: str, charset: str | None) -> None:
    """Before anything is written; never sent with question marks."""
    with pytest.raises(UsageError):
        parsed(text, charset=charset)


def test_did_you_mean() -> None:
    """An unknown keyword is told with the nearest one."""
    with pytest.raises(UsageError, match="did you mean PatientName"):
        parsed("PatientNam=X")


# --- answers ----------------------------------------------------------------------------------------------------


def answer_of(syntax: str = EXPLICIT_LE, **elements: Any) -> bytes:
    values = Dataset()
    for keyword, value in elements.items():
        setattr(values, keyword, value)
    return encode_data_set(values, syntax == IMPLICIT_LE, True) or b""


@BOTH
def test_the_json_model_agrees_with_pydicoms(syntax: str) -> None:
    """PS3.18 F.2, for every kind of value that matches have; (0008,0005) says nothing there and is left out."""
    inner = Dataset()
    inner.Modality = "CT"
    inner.ScheduledStationAETitle = ["A", "B"]
    data = answer_of(
        syntax,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jérôme",
        PatientComments="a\\b\r\nc",
        ModalitiesInStudy=["CT", "SR"],
        NumberOfStudyRelatedInstances="12",
        PatientWeight="72.5",
        Rows=512,
        StudyInstanceUID="1.2.3",
        StudyDescription="",
        ScheduledProcedureStepSequence=Sequence([inner]),
        FrameIncrementPointer=[0x00181063],
        EncapsulatedDocument=b"\1\2",
        RecommendedDisplayFrameRateInFloat=1.5,
    )
    expected = as_pydicom(data, syntax).to_json_dict()
    del expected["00080005"]
    found = identifier.decode(data, syntax)
    assert found.attributes == expected
    assert (found.character_set, found.flaw) == ("ISO_IR 100", None)


def test_without_a_character_set_the_remotes_is_meant() -> None:
    """Archives forget it; and what is in it already is not read in another one."""
    raw = b"\x10\0\x10\0PN\x06\0" + "Jérôme".encode("latin-1")
    found = identifier.decode(raw, EXPLICIT_LE, charset="ISO_IR 100")
    assert found.first(NAME) == "Jérôme"
    assert found.character_set == "ISO_IR 100"
    utf8 = "Jérôme".encode()
    raw = b"\x10\0\x10\0PN" + struct.pack("<H", len(utf8)) + utf8
    assert identifier.decode(raw, EXPLICIT_LE).first(NAME) == "Jérôme"


@pytest.mark.parametrize("declared", ["", "ISO_IR 6", "ISO_IR 192", "\\ISO 2022 IR 87", "ISO_IR 999"])
def test_bytes_that_no_character_set_reads_are_kept(declared: str) -> None:
    """As \\xNN in the text, and the match says which element; never a question mark, never an exception."""
    head = b"\x08\0\x05\0CS" + struct.pack("<H", len(declared)) + declared.encode() if declared else b""
    raw = head + b"\x10\0\x10\0PN\x04\0J\xffr\xfe"
    found = identifier.decode(raw, EXPLICIT_LE)
    if declared.startswith("\\"):  # pydicom reads the first of several sets as Latin 1
        assert found.first(NAME) == "Jÿrþ"
        return
    assert found.first(NAME) == "J\\xffr\\xfe"
    assert found.flaw and "00100010" in found.flaw
    assert ("ISO_IR 999" in found.flaw) == (declared == "ISO_IR 999")


def test_a_backslash_inside_a_character_is_none() -> None:
    """GB18030 has 0x5C as second byte: text is decoded first, then taken apart."""
    data = "誠\\b".encode("gb18030")
    assert data.count(b"\\") == 2
    raw = b"\x08\0\x05\0CS\x08\0GB18030 " + b"\x08\0\x30\x10LO" + struct.pack("<H", len(data)) + data
    assert identifier.decode(raw, EXPLICIT_LE).attributes["00081030"]["Value"] == ["誠", "b"]


@pytest.mark.parametrize(
    ("vr", "value", "meant"),
    [
        (b"IS", b"12 ", [12]),
        (b"IS", b"twelve", ["twelve"]),
        (b"IS", b"1_0", ["1_0"]),
        (b"DS", b"1.50\\", [1.5, None]),
        (b"DS", b"NaN ", ["NaN"]),
        (b"DA", b"2026.1.1", ["2026.1.1"]),
        (b"UI", b"1.2\0", ["1.2"]),
        (b"UI", b"01.2 ", ["01.2"]),
        (b"US", b"\1\0\2", [1]),
        (b"LO", b" a \\ b ", ["a", "b"]),
        (b"LO", b"a\0b", ["a\0b"]),
        (b"FL", b"\0\0\xc0\x7f", ["nan"]),
    ],
)
def test_odd_values_stay_what_they_are(vr: bytes, value: bytes, meant: list[object]) -> None:
    """Archives hold what no rule allows; it is listed, and it is JSON."""
    raw = b"\x08\0\x99\x99" + vr + struct.pack("<H", len(value)) + value
    found = identifier.decode(raw, EXPLICIT_LE).attributes["00089999"]
    assert found["Value"] == meant
    json.dumps(found, allow_nan=False)


def test_an_answer_that_ends_too_early_is_kept_as_far_as_it_goes() -> None:
    """And says so."""
    data = answer_of(PatientID="4711", StudyInstanceUID="1.2.3")
    found = identifier.decode(data[:-3], EXPLICIT_LE)
    assert found.first(0x00100020) == "4711"
    assert found.first(0x0020000D) == "1.2"
    assert found.flaw and "0020000D" in found.flaw


@BOTH
def test_sequences_of_undefined_length(syntax: str) -> None:
    """Items and sequences that end with delimiters, nested."""
    deep, inner = Dataset(), Dataset()
    deep.CodeValue = "X"
    inner.ScheduledProtocolCodeSequence = Sequence([deep])
    inner.Modality = "MR"
    values = Dataset()
    values.ScheduledProcedureStepSequence = Sequence([inner])
    values["ScheduledProcedureStepSequence"].is_undefined_length = True
    inner.is_undefined_length_sequence_item = True
    values.PatientID = "1"
    values.StudyID = "2"
    data = encode_data_set(values, syntax == IMPLICIT_LE, True) or b""
    assert b"\xff\xff\xff\xff" in data
    expected = as_pydicom(data, syntax).to_json_dict()
    assert identifier.decode(data, syntax).attributes == expected


@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    """Decoding never raises, never warns, and gives JSON."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for syntax in (IMPLICIT_LE, EXPLICIT_LE):
            json.dumps(identifier.decode(data, syntax).attributes, allow_nan=False)


@given(st.data())
def test_an_answer_with_any_byte_changed_is_an_answer(data: st.DataObject) -> None:
    """The same for what is nearly right, where lengths and characters go wrong."""
    inner = Dataset()
    inner.Modality = "CT"
    raw = bytearray(
        answer_of(
            SpecificCharacterSet=["", "ISO 2022 IR 87"],
            PatientName="Yamada^Tarou=山田^太郎",
            ScheduledProcedureStepSequence=Sequence([inner]),
            NumberOfStudyRelatedInstances="3",
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    json.dumps(identifier.decode(bytes(raw), EXPLICIT_LE).attributes, allow_nan=False)

"""Keys as people write them, and which query of a walk carries which of them."""

from __future__ import annotations

from datetime import date
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules import query
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import Level, Root

TODAY = date(2026, 3, 1)


class Few:
    """A dictionary of a few words."""

    WORDS: ClassVar[dict[str, tuple[int, str]]] = {
        "PatientID": (0x00100020, "LO"),
        "StudyDate": (0x00080020, "DA"),
        "StudyInstanceUID": (0x0020000D, "UI"),
        "ScheduledProcedureStepSequence": (0x00400100, "SQ"),
        "Modality": (0x00080060, "CS"),
    }

    def tag(self, keyword: str) -> int:
        if keyword not in self.WORDS:
            raise UsageError(f"no attribute {keyword!r}")
        return self.WORDS[keyword][0]

    def vr(self, tag: int) -> str:
        return next((vr for known, vr in self.WORDS.values() if known == tag), "UN")


def parse(text: str) -> query.Key:
    return query.parse_key(text, Few(), today=TODAY)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("0010,0020=X", ("00100020", "X")),
        ("10,20=X", ("00100020", "X")),
        ("(0010,0020)=X", ("00100020", "X")),
        ("(10, 20)=X", ("00100020", "X")),
        ("00100020=X", ("00100020", "X")),
        ("PatientID=X", ("00100020", "X")),
        ("PatientID", ("00100020", "")),
        ("PatientID=", ("00100020", "")),
        ("PatientID=a=b", ("00100020", "a=b")),
        ("0009,10ff=x", ("000910FF", "x")),
        ("ScheduledProcedureStepSequence", ("00400100", "")),
        ("ScheduledProcedureStepSequence[0].Modality=CT", ("00400100[0].00080060", "CT")),
        ("00400100/00080060=CT", ("00400100[0].00080060", "CT")),
        ("(0040,0100)[0].(0008,0060)=CT", ("00400100[0].00080060", "CT")),
        ("40,100[1]/8,60=CT", ("00400100[1].00080060", "CT")),
    ],
)
def test_every_spelling_of_a_key(text: str, key: query.Key) -> None:
    """Keywords, tags with and without brackets and zeros, and paths into sequences mean one and the same."""
    assert parse(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "", "=X", "PatientId=X", "10=3", "0010,00200=X", "PatientID.Modality=CT", "PatientID[0]=X", "0000,0100=1",
        "0002,0010=1", "0010,0000=1", "ScheduledProcedureStepSequence=CT", "PatientID =\n", "Modality Modality=1",
        "ScheduledProcedureStepSequence[x].Modality=1",
    ],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    """What is no key is told so, before anything is written."""
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("@today", "20260301"),
        ("@yesterday", "20260228"),
        ("@today-7", "20260222"),
        ("@today+1", "20260302"),
        ("@today-7..@today-1", "20260222-20260228"),
        ("@today-7..", "20260222-"),
        ("..@today", "-20260301"),
        ("20260101..@today", "20260101-20260301"),
        ("20260101-20260201", "20260101-20260201"),
        ("", ""),
    ],
)
def test_days(value: str, meant: str) -> None:
    """Days by name become days of PS3.5, and ranges of them its ranges."""
    assert parse(f"StudyDate={value}") == ("00080020", meant)


@pytest.mark.parametrize(
    "value",
    [
        "@tomorrow", "@today-", "@today..@yesterday", "@", "@today-99999999", "x@today", "2026-01-31", "31.01.2026",
        "202601", "20260101 - 20260131", "20241301", "20260229", "20260201-20260101", "20260101-20260231",
    ],
)  # fmt: skip
def test_what_is_no_day(value: str) -> None:
    """A day that cannot be meant is refused, not sent."""
    with pytest.raises(UsageError):
        parse(f"StudyDate={value}")


@pytest.mark.parametrize("value", ["", "*", '""', "202601*", "2026????", "2026.01.31", "-20260131"])
def test_what_archives_may_match_of_days(value: str) -> None:
    """Universal and empty matching, wildcards and the days of ACR-NEMA go out as they are."""
    assert parse(f"StudyDate={value}") == ("00080020", value)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("1.2.3", "1.2.3"),
        (" 1.2.3 ", "1.2.3"),
        ("1.2.3 \\ 1.2.4", "1.2.3\\1.2.4"),
        ("01.2.x-3", "01.2.x-3"),
        ("1.2.*", "1.2.*"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_uids_lose_the_blanks_around_them(value: str, meant: str) -> None:
    """Each of a list; odd ones stay as they are, because there are instances with such."""
    assert parse(f"StudyInstanceUID={value}") == ("0020000D", meant)


@pytest.mark.parametrize(
    "value", ["1.2.3 4", "1.2,1.3", "1.2;1.3", "1.2\\", "\\1.2", "1.2\\ \\1.3", "1.2.\N{EN DASH}3"]
)
def test_what_is_no_uid(value: str) -> None:
    """It would match nothing, so it is refused with what is wrong and how several are written."""
    with pytest.raises(UsageError, match=r"key StudyInstanceUID: .*UID.*joined by a backslash"):
        parse(f"StudyInstanceUID={value}")


def test_odd_uids_are_told_apart() -> None:
    """Letters, leading zeros and great length, in the unique keys of study, series and image alone."""
    keys = (("0020000D", "1.2.3\\1.02"), ("0020000E", "1.2.x"), ("00080018", "1." + "2" * 63), ("00100020", "x"))
    assert query.odd_uids(keys) == ["1.02", "1.2.x", "1." + "2" * 63]
    assert query.odd_uids((("0020000D", "1.2.*"), ("0020000E", ""))) == []


def test_an_at_sign_elsewhere_is_one() -> None:
    """Only dates have days by name."""
    assert parse("PatientID=@today") == ("00100020", "@today")


@given(st.text(max_size=40))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    """Nothing but UsageError, whatever is typed; and what is taken is a path that can be read back."""
    try:
        path, _ = parse(text)
    except UsageError:
        return
    assert query.steps_of(path)


@given(st.lists(st.integers(0x00080001, 0xFFFC0000).filter(lambda tag: tag & 0xFFFF), min_size=1, max_size=4))
def test_paths_are_read_back(tags: list[int]) -> None:
    """A path says which elements it goes through."""
    assert [tag for tag, _ in query.steps_of("[0].".join(f"{tag:08X}" for tag in tags))] == tags


# --- levels -----------------------------------------------------------------------------------------------------

STUDY, SERIES, IMAGE, PATIENT = "0020000D", "0020000E", "00080018", "00100020"


def walked(level: str, root: str, *keys: query.Key) -> list[tuple[str, tuple[query.Key, ...]]]:
    return [(step.level.value, step.keys) for step in query.steps(level, root, keys)]


def test_the_unique_key_is_always_asked_for() -> None:
    """Without it no match could be told from another."""
    assert walked("study", "study") == [("study", ((STUDY, ""),))]
    assert walked("study", "study", (STUDY, "1.2")) == [("study", ((STUDY, "1.2"),))]


def test_one_value_of_a_unique_key_above_needs_no_walk() -> None:
    """PS3.4 C.4.1.2.2.1: it goes along instead."""
    keys = ((STUDY, "1.2"), (SERIES, "1.3"), ("00080016", ""))
    assert walked("image", "study", *keys) == [("image", (("00080016", ""), (IMAGE, "")))]
    assert query.above("image", "study", keys) == ((STUDY, "1.2"), (SERIES, "1.3"))


def test_what_is_left_open_above_is_walked() -> None:
    """Each key goes with the level that it is an attribute of, the patient's with the study in Study Root."""
    found = walked("image", "study", (PATIENT, "4711"), ("00080060", "MR"), ("00200013", "1"))
    assert found == [
        ("study", ((PATIENT, "4711"), (STUDY, ""))),
        ("series", (("00080060", "MR"), (SERIES, ""))),
        ("image", (("00200013", "1"), (IMAGE, ""))),
    ]
    assert [level for level, _ in walked("series", "patient", (PATIENT, "47*"))] == ["patient", "study", "series"]


@pytest.mark.parametrize("value", ["", "1.2*", "1.2\\1.3", "1.?"])
def test_a_unique_key_that_names_several_is_walked(value: str) -> None:
    """A list or a wildcard above the level is no single value."""
    assert [level for level, _ in walked("series", "study", (STUDY, value))] == ["study", "series"]


def test_another_key_of_a_level_above_makes_it_walked() -> None:
    """The hierarchical model allows none but unique keys of the levels above."""
    found = walked("series", "study", (STUDY, "1.2"), ("00080020", ""))
    assert found == [("study", ((STUDY, "1.2"), ("00080020", ""))), ("series", ((SERIES, ""),))]


def test_a_study_named_by_its_uid_needs_no_patient() -> None:
    """Otherwise Patient Root would list every patient there is."""
    assert [level for level, _ in walked("study", "patient", (STUDY, "1.2"))] == ["study"]


def test_one_query_for_a_remote_that_takes_it() -> None:
    """Relational queries: everything at once."""
    (step,) = query.steps("image", "study", ((PATIENT, "4711"),), whole=True)
    assert step == query.Step(Level.IMAGE, ((PATIENT, "4711"), (IMAGE, "")))


@pytest.mark.parametrize(
    ("level", "root", "keys", "words"),
    [
        ("patient", "study", (), "--root patient"),
        ("study", "study", ((STUDY, ""), (STUDY, "1")), "twice"),
        ("study", "study", (("00080052", "STUDY"),), "--level"),
        ("study", "study", (("00080005", "ISO_IR 100"),), "--charset"),
        ("study", "study", (("00400100", ""), ("00400100[0].00080060", "CT")), "whole sequence"),
    ],
)
def test_what_makes_no_query(level: str, root: str, keys: tuple[query.Key, ...], words: str) -> None:
    """Refused with what to write instead."""
    with pytest.raises(UsageError, match=words):
        query.check(level, root, keys)


def test_the_models() -> None:
    """PS3.4 C.6.1.3, C.6.2.3, K.6.1.4."""
    assert query.find_model("patient") == "1.2.840.10008.5.1.4.1.2.1.1"
    assert query.find_model(Root.STUDY) == "1.2.840.10008.5.1.4.1.2.2.1"
    assert query.find_model("study", worklist=True) == "1.2.840.10008.5.1.4.31"
    assert (query.move_model("study"), query.get_model("patient")) == (
        "1.2.840.10008.5.1.4.1.2.2.2",
        "1.2.840.10008.5.1.4.1.2.1.3",
    )

"""Whether an answer has what was asked for: by hand for each value representation, and against a small oracle."""

from __future__ import annotations

import fnmatch
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules import matching
from dicomferry.models.rules.matching import AGREES, CONTRADICTS, UNDECIDED, Comparison, PreparedKeys
from dicomferry.workers.dimse.identifier import vr_of

STUDY, SERIES, ACCESSION, PATIENT, NAME = "0020000D", "0020000E", "00080050", "00100020", "00100010"
DATE, TIME, ZONE = "00080020", "00080030", "00080201"
STEP, MODALITY, STATION = "00400100", "00080060", "00400001"


def name(*groups: str) -> dict[str, str]:
    return dict(zip(("Alphabetic", "Ideographic", "Phonetic"), groups, strict=False))


@pytest.mark.parametrize(
    ("vr", "asked", "answered", "expected"),
    [
        # Single value (C.2.2.2.1); blanks around a value and NULs say nothing (PS3.5 6.2).
        ("SH", "A1", ["A1"], AGREES),
        ("SH", " A1 ", ["A1 \0"], AGREES),
        ("SH", "A1", ["A2"], CONTRADICTS),
        ("SH", "A1", ["A1", "A2"], AGREES),
        ("SH", "A1", ["A2", "A3"], CONTRADICTS),
        ("SH", "abc", ["ABC"], UNDECIDED),
        ("LO", "4711", ["0004711"], UNDECIDED),
        ("LO", "A-07", ["A-7"], UNDECIDED),
        ("LO", "4711", ["47 11"], UNDECIDED),
        ("LO", "4711", ["47110"], CONTRADICTS),
        ("CS", "CT", ["MR", "CT"], AGREES),
        ("CS", "CT", ["MR"], CONTRADICTS),
        ("LT", "a\\b", ["a\\b"], AGREES),
        ("LT", "a\\b", ["a"], CONTRADICTS),
        ("UN", "X", ["X"], AGREES),
        # Without a value nothing is known.
        ("SH", "A1", [], UNDECIDED),
        ("SH", "A1", [None], UNDECIDED),
        ("SH", "A1", ["  "], UNDECIDED),
        ("SH", "A1", None, UNDECIDED),
        ("PN", "Doe", [{}], UNDECIDED),
        # List of UIDs (C.2.2.2.2).
        ("UI", "1.2\\1.3", ["1.3"], AGREES),
        ("UI", "1.2\\1.3", ["1.4"], CONTRADICTS),
        ("UI", "1.2", ["1.2\0"], AGREES),
        ("UI", "1.2.*", ["1.2.7"], AGREES),
        ("UI", "1.2.*", ["1.3.7"], CONTRADICTS),
        # Universal (C.2.2.2.3) and empty (C.2.2.2.7).
        ("SH", "", ["A1"], AGREES),
        ("SH", "*", ["A1"], AGREES),
        ("SH", "*", None, AGREES),
        ("DA", "**", [], AGREES),
        ("SH", '""', [], AGREES),
        ("SH", '""', ["A1"], CONTRADICTS),
        ("SH", '""', None, UNDECIDED),
        # Wildcards (C.2.2.2.4).
        ("LO", "A*1", ["A-7-1"], AGREES),
        ("LO", "A?1", ["AB1"], AGREES),
        ("LO", "A?1", ["A1"], CONTRADICTS),
        ("LO", "a*", ["ABC"], UNDECIDED),
        ("LO", "A[1]*", ["A1"], CONTRADICTS),
        ("LO", "A[1]*", ["A[1]7"], AGREES),
        ("LO", "a" + "*a" * 40, ["a" * 60 + "b"], CONTRADICTS),
        ("DA", "202402*", ["20240229"], AGREES),
        # Dates (C.2.2.2.1, C.2.2.2.5).
        ("DA", "20240229", ["20240229"], AGREES),
        ("DA", "20240229", ["2024.02.29"], AGREES),
        ("DA", "2024.02.29", ["20240229"], AGREES),
        ("DA", "20240229", ["20240301"], CONTRADICTS),
        ("DA", "20240229", ["yesterday"], UNDECIDED),
        ("DA", "20240229", ["20241301"], UNDECIDED),
        ("DA", "20240201-20240229", ["20240229"], AGREES),
        ("DA", "20240201-20240229", ["20240301"], CONTRADICTS),
        ("DA", "20240201-", ["20240131"], CONTRADICTS),
        ("DA", "-20240201", ["19991231"], AGREES),
        # Times: a value covers what it leaves open.
        ("TM", "0830", ["083012"], AGREES),
        ("TM", "083012", ["08:30:12"], AGREES),
        ("TM", "083012", ["0830"], UNDECIDED),
        ("TM", "083000", ["0830"], UNDECIDED),
        ("TM", "083012.5", ["083012"], UNDECIDED),
        ("TM", "083012", ["0831"], CONTRADICTS),
        ("TM", "080000-083000", ["0830"], AGREES),
        ("TM", "080000-083000", ["083001"], CONTRADICTS),
        ("TM", "2200-", ["235959.999999"], AGREES),
        ("TM", "-0600", ["0600"], AGREES),
        # Date-times, with a zone or without one.
        ("DT", "20240229", ["20240229101500"], AGREES),
        ("DT", "202402", ["20240301"], CONTRADICTS),
        ("DT", "20240229101500", ["20240229"], UNDECIDED),
        ("DT", "20240229120000+0100", ["20240229110000+0000"], AGREES),
        ("DT", "20240229120000+0100", ["20240229120000+0000"], CONTRADICTS),
        ("DT", "20240229120000+0100", ["20240229120000"], UNDECIDED),
        ("DT", "20240229120000+0100", ["20240303120000"], CONTRADICTS),
        ("DT", "20240201-20240229", ["20240229235959"], AGREES),
        ("DT", "2024-2025", ["20260101"], CONTRADICTS),
        ("DT", "20240229100000-0500-20240229110000-0500", ["20240229153000+0000"], AGREES),
        # Names: any component group, case and accents folded.
        ("PN", "MULLER^JORG", [name("Müller^Jörg")], AGREES),
        ("PN", "müller^jörg", [name("MULLER^JORG^^")], AGREES),
        ("PN", "Sørensen", [name("SORENSEN")], AGREES),
        ("PN", "山田^太郎", [name("Yamada^Tarou", "山田^太郎", "やまだ^たろう")], AGREES),
        ("PN", "Yamada^Tarou=山田^太郎", [name("", "山田^太郎")], AGREES),
        ("PN", "かわ", [name("がわ")], CONTRADICTS),
        ("PN", "Doe*", [name("DOE^JANE")], AGREES),
        ("PN", "Doe^*", [name("DOE")], AGREES),
        ("PN", "*JANE", [name("DOE^JANE")], AGREES),
        ("PN", "Doe*", [name("ROE^JANE")], CONTRADICTS),
        ("PN", "Doe", [name("DOE^JANE")], UNDECIDED),
        ("PN", "Jane Doe", [name("DOE^JANE")], UNDECIDED),
        ("PN", "Mueller^Jörg", [name("Müller^Jörg")], UNDECIDED),
        ("PN", "Doe^John", [name("DOE^JANE")], CONTRADICTS),
        # Numbers are compared as such.
        ("IS", "007", [7], AGREES),
        ("IS", "7", [8], CONTRADICTS),
        ("DS", "1.50", [1.5], AGREES),
        ("DS", "1.5", ["one"], UNDECIDED),
        ("US", "512", [512], AGREES),
        ("FD", "0.5", [0.25], CONTRADICTS),
        ("AT", "(0010,0020)", ["00100020"], AGREES),
        ("AT", "00100020", ["00100010"], CONTRADICTS),
        ("OB", "AB", ["AB"], UNDECIDED),
    ],
)
def test_a_value(vr: str, asked: str, answered: list[Any] | None, expected: Comparison) -> None:
    """What a value of this representation says about a key, by the kind of matching that the key asks for."""
    assert matching.outcome(vr, asked, answered) is expected


def test_what_cannot_be_read_decides_nothing() -> None:
    """Text that could not be decoded, and dates in a zone of the answer's own, never contradict."""
    assert matching.outcome("LO", "A1", ["\\xfc"], readable=False) is UNDECIDED
    assert matching.outcome("LO", "A1", ["A1"], readable=False) is AGREES
    assert matching.outcome("DA", "20240229", ["20240301"], zoned=True) is UNDECIDED
    assert matching.outcome("LO", "A1", ["A2"], zoned=True) is CONTRADICTS


def judged(*keys: tuple[str, str], **answer: Any) -> list[tuple[str, Comparison, bool]]:
    attributes = {path.lstrip("_"): {"vr": vr_of(int(path.lstrip("_"), 16)), **one} for path, one in answer.items()}
    return [(one.path, one.outcome, one.wants_value) for one in PreparedKeys(keys, vr_of).judge(attributes)]


def values(*given: Any) -> dict[str, Any]:
    return {"Value": list(given)}


def test_each_key_is_judged_by_itself() -> None:
    """Keys that ask for nothing are left out; one without a value in the answer says so."""
    keys = ((ACCESSION, "A1"), (PATIENT, "P1"), (STUDY, ""), (NAME, "*"), (MODALITY, "CT"))
    assert judged(*keys, _00080050=values("A1"), _00100020=values("P2"), _00080060={}) == [
        (ACCESSION, AGREES, False),
        (PATIENT, CONTRADICTS, False),
        (MODALITY, UNDECIDED, True),
    ]
    assert matching.together([AGREES, UNDECIDED, CONTRADICTS]) is CONTRADICTS
    assert matching.together([AGREES, UNDECIDED]) is UNDECIDED
    assert matching.together([]) is AGREES


def test_what_a_value_came_to_is_kept_only_where_it_alone_decides() -> None:
    """Answers to one query one after the other: a zone, text that cannot be read, and bytes count each time anew."""
    keys = PreparedKeys(((DATE, "20240229"), (ACCESSION, "A1")), vr_of)
    plain = {DATE: values("20240301"), ACCESSION: values("A2", "A3")}

    def came_to(attributes: dict[str, Any], *unreadable: int) -> list[Comparison]:
        return [one.outcome for one in keys.judge(attributes, unreadable=frozenset(unreadable))]

    for _ in range(2):
        assert came_to(plain) == [CONTRADICTS, CONTRADICTS]
        assert came_to({**plain, ZONE: values("+0900")}) == [UNDECIDED, CONTRADICTS]
        assert came_to(plain, 0x00080050) == [CONTRADICTS, UNDECIDED]
        assert came_to({**plain, ACCESSION: {"InlineBinary": "QQ=="}}) == [CONTRADICTS, UNDECIDED]
        assert came_to({**plain, ACCESSION: values("A1")}) == [CONTRADICTS, AGREES]
        assert came_to({}) == [UNDECIDED, UNDECIDED]


def test_a_zone_in_the_answer() -> None:
    """(0008,0201): the answer's dates and times are not those of the question (PS3.3 C.12.1.1.8)."""
    told = {"_00080020": values("20240301"), "_00080201": values("+0900")}
    assert judged((DATE, "20240229"), **told) == [(DATE, UNDECIDED, False)]
    inside = {"_00400100": values({"00400002": {"vr": "DA", "Value": ["20240301"]}}), "_00080201": values("+0900")}
    assert judged((f"{STEP}[0].00400002", "20240229"), **inside) == [(f"{STEP}[0].00400002", UNDECIDED, False)]


def test_a_range_of_days_and_a_range_of_times() -> None:
    """Some archives take both for one range of date-times (PS3.4 C.2.2.2.5): a time outside of its own is no proof."""
    keys = ((DATE, "20240201-20240203"), (TIME, "1000-1800"))
    told = {"_00080020": values("20240202"), "_00080030": values("0500")}
    assert judged(*keys, **told) == [(DATE, AGREES, False), (TIME, UNDECIDED, False)]
    one_day = ((DATE, "20240202"), (TIME, "1000-1800"))
    assert judged(*one_day, **told)[1] == (TIME, CONTRADICTS, False)


def item(modality: str | None, station: str | None) -> dict[str, Any]:
    found = {MODALITY: ("CS", modality), STATION: ("AE", station)}
    return {tag: {"vr": vr, **values(one)} for tag, (vr, one) in found.items() if one is not None}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([item("CT", "CT1")], (AGREES, False)),
        ([item("MR", "MR1"), item("CT", "CT1")], (AGREES, False)),
        ([item("CT", "MR1"), item("MR", "CT1")], (CONTRADICTS, False)),
        ([item("CT", None), item("MR", "CT1")], (UNDECIDED, True)),
        ([item("CT", "ct1")], (UNDECIDED, False)),
        ([], (UNDECIDED, True)),
    ],
)
def test_a_sequence(items: list[dict[str, Any]], expected: tuple[Comparison, bool]) -> None:
    """One item that has all that is asked of an item is enough (PS3.4 C.2.2.2.6)."""
    keys = ((f"{STEP}[0].{MODALITY}", "CT"), (f"{STEP}[0].{STATION}", "CT1"))
    ((_, outcome, wants),) = judged(*keys, _00400100=values(*items))
    assert (outcome, wants) == expected


def test_the_key_of_a_sequence_that_stands_against_it_is_named() -> None:
    """The path tells which key of an item it is."""
    keys = ((f"{STEP}[0].{MODALITY}", "CT"), (f"{STEP}[0].{STATION}", "CT1"))
    ((path, outcome, _),) = judged(*keys, _00400100=values(item("CT", "MR1")))
    assert (path, outcome) == (f"{STEP}[0].{STATION}", CONTRADICTS)


# --- against an oracle ------------------------------------------------------------------------------------------------

letters = st.text("AB1[.-", min_size=1, max_size=6)
patterns = st.text("AB1[*?", min_size=1, max_size=6).filter(lambda text: text.strip("*"))


@given(patterns, letters)
def test_wildcards_agree_with_the_shell(pattern: str, value: str) -> None:
    """`*` and `?` as everywhere, a bracket as itself; what differs in nothing but zeros or blanks is not in here."""
    expected = fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))
    assert (matching.outcome("LO", pattern, [value]) is AGREES) is expected


days = st.dates(date(1900, 1, 1), date(2100, 1, 1))


@given(days, st.integers(0, 1000), days, st.booleans(), st.booleans())
def test_ranges_of_days(first: date, length: int, value: date, open_start: bool, open_end: bool) -> None:
    """Both ends are part of a range, and one that is left out is no bound (PS3.4 C.2.2.2.5)."""
    last = first + timedelta(days=length)
    expected = (open_start or first <= value) and (open_end or value <= last)
    asked = f"{'' if open_start else first.strftime('%Y%m%d')}-{'' if open_end else last.strftime('%Y%m%d')}"
    if asked == "-":
        return
    found = matching.outcome("DA", asked, [value.strftime("%Y%m%d")])
    assert found is (AGREES if expected else CONTRADICTS)


seconds = st.integers(0, 86_399)


def clock(second: int) -> str:
    return f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"


@given(seconds, seconds, seconds)
def test_ranges_of_times(one: int, other: int, value: int) -> None:
    """Of seconds, both ends included."""
    first, last = sorted((one, other))
    found = matching.outcome("TM", f"{clock(first)}-{clock(last)}", [clock(value)])
    assert found is (AGREES if first <= value <= last else CONTRADICTS)


@given(st.lists(letters, min_size=1, max_size=3), st.lists(letters, max_size=3))
def test_lists_of_values(asked: list[str], answered: list[str]) -> None:
    """One value that agrees is enough, on both sides; without any it is open."""
    found = matching.outcome("UI", "\\".join(asked), answered)
    if set(asked) & set(answered):
        assert found is AGREES
    else:
        assert found is not AGREES and (answered or found is UNDECIDED)


kinds = st.sampled_from(
    ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "TM", "UI", "UN", "US")
)
words = st.text(max_size=12)
groups = st.dictionaries(st.sampled_from(("Alphabetic", "Phonetic", "x")), words)
anything = st.one_of(st.none(), words, st.integers(), st.floats(), groups)


@given(kinds, words, st.lists(anything, max_size=3))
def test_nothing_that_comes_makes_it_fail(vr: str, asked: str, answered: list[Any]) -> None:
    """Whatever an archive answers is judged, and a value agrees with itself or is open."""
    assert matching.outcome(vr, asked, answered) in set(Comparison)
    assert matching.outcome(vr, asked, [asked]) is not CONTRADICTS or "\\" in asked or asked == matching.EMPTY

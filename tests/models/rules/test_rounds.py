"""What a retrieve asks for next, and what an identifier names by itself."""

from __future__ import annotations

import pytest

from dicomferry.models.rules import rounds, target
from dicomferry.models.rules.query import Key, Level
from dicomferry.models.rules.rounds import LISTS, SINGLY, WHOLE, Capabilities, Missing
from dicomferry.models.rules.target import Target

STUDY = Target(patient_id="P", study="1")


def series(number: int, count: int, *, first: int = 1, charged: tuple[int, ...] = ()) -> list[Missing]:
    """Instances of a series of study 1."""
    return [
        Missing(100 * number + one, "1", f"1.{number}", f"1.{number}.{one}", 1 if one in charged else 0)
        for one in range(first, first + count)
    ]


def shapes(asks: list[rounds.Ask]) -> list[tuple[str, str | None, int, int]]:
    """(level, series, UIDs, items) of each."""
    return [(ask.target.level.value, ask.target.series, len(ask.target.images), len(ask.items)) for ask in asks]


TOTALS: dict[rounds.Series, int] = {("1", "1.1"): 4, ("1", "1.2"): 6}


@pytest.mark.parametrize(
    ("missing", "fineness", "limits", "expected"),
    [
        (series(1, 4) + series(2, 6), WHOLE, Capabilities(), [("study", None, 0, 10)]),
        (series(1, 3) + series(2, 6), WHOLE, Capabilities(), [("image", "1.1", 3, 3), ("series", "1.2", 0, 6)]),
        (series(1, 3) + series(2, 6), WHOLE, Capabilities(images=False),
         [("series", "1.1", 0, 3), ("series", "1.2", 0, 6)]),
        (series(1, 3), WHOLE, Capabilities(images=False, series=False), [("study", None, 0, 3)]),
        (series(1, 4) + series(2, 6), LISTS, Capabilities(),
         [("image", "1.1", 4, 4), ("image", "1.2", 4, 4), ("image", "1.2", 2, 2)]),
        (series(1, 2), LISTS, Capabilities(lists=False), [("image", "1.1", 1, 1)] * 2),
        (series(1, 2), SINGLY, Capabilities(), [("image", "1.1", 1, 1)] * 2),
        (series(1, 4, charged=(2,)), LISTS, Capabilities(), [("image", "1.1", 3, 3), ("image", "1.1", 1, 1)]),
    ],
)  # fmt: skip
def test_what_is_asked_for(
    missing: list[Missing], fineness: int, limits: Capabilities, expected: list[tuple[str, str | None, int, int]]
) -> None:
    """As coarse as the round and the archive allow; what broke an association alone, and last."""
    asks = rounds.asks([STUDY], missing, TOTALS, fineness=fineness, max_uids=4, limits=limits)
    assert shapes(asks) == expected
    assert sorted(item for ask in asks for item in ask.items) == sorted(one.item_id for one in missing)
    assert {ask.target.patient_id for ask in asks} == {"P"}


def test_a_request_for_images_asks_for_no_more() -> None:
    """That all of a list is missing does not mean that all of the series was asked for."""
    asked = Target(study="1", series="1.1", images=("1.1.1", "1.1.2"))
    asks = rounds.asks([asked], series(1, 2), {("1", "1.1"): 2}, fineness=WHOLE, max_uids=100, limits=Capabilities())
    assert shapes(asks) == [("image", "1.1", 2, 2)]


def test_a_patient_is_asked_for_study_by_study() -> None:
    """One study per request."""
    missing = [*series(1, 1), Missing(9, "2", "2.1", "2.1.1")]
    totals: dict[rounds.Series, int] = {("1", "1.1"): 1, ("2", "2.1"): 1}
    asks = rounds.asks([Target(patient_id="P")], missing, totals, fineness=WHOLE, max_uids=100, limits=Capabilities())
    assert [(ask.target.patient_id, ask.target.study) for ask in asks] == [("P", "1"), ("P", "2")]


def test_the_limits_end() -> None:
    """An archive that refuses everything is not asked for ever."""
    limits: Capabilities | None = Capabilities()
    tried = []
    for one in (Target(study="1", series="2", images=("3", "4")), Target(study="1", series="2", images=("3",)),
                Target(study="1", series="2"), Target(study="1")):  # fmt: skip
        assert limits is not None
        limits = limits.after(one)
        tried.append(limits)
    assert tried == [
        Capabilities(lists=False),
        Capabilities(lists=False, images=False),
        Capabilities(False, False, False),
        None,
    ]


PATIENT, S, E, I = ("00100020", "P"), ("0020000D", "1"), ("0020000E", "2"), ("00080018", "3")  # noqa: E741


@pytest.mark.parametrize(
    ("level", "keys", "expected"),
    [
        ("patient", (PATIENT,), [Target(patient_id="P")]),
        ("study", (S,), [Target(study="1")]),
        ("study", (PATIENT, S), [Target(patient_id="P", study="1")]),
        ("study", (("0020000D", "1\\2\\1"),), [Target(study="1"), Target(study="2")]),
        ("series", (S, E), [Target(study="1", series="2")]),
        ("image", (S, E, ("00080018", "3\\4")), [Target(study="1", series="2", images=("3", "4"))]),
        ("study", (("00080050", "A"),), None),
        ("study", (S, ("00080060", "MR")), None),
        ("study", (S, ("00080060", "")), [Target(study="1")]),
        ("study", (("0020000D", "1.*"),), None),
        ("series", (E,), None),
        ("image", (S, I), None),
        ("study", (S, E), None),
    ],
)
def test_what_an_identifier_names_by_itself(level: str, keys: tuple[Key, ...], expected: list[Target] | None) -> None:
    """Unique keys alone, single above the level; whatever else is there has to be asked for."""
    assert target.from_keys(level, keys) == expected


def test_the_keys_of_a_target() -> None:
    """The level's own unique key and those above it; the patient's in Patient Root alone."""
    one = Target(patient_id="P", study="1", series="2", images=("3", "4"))
    assert one.keys("study") == (S, E, ("00080018", "3\\4"))
    assert one.keys("patient") == (PATIENT, S, E, ("00080018", "3\\4"))
    assert one.level is Level.IMAGE
    assert target.from_json(one.to_json()) == one

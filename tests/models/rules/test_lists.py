"""Lists of values: for UIDs alone in one request (PS3.4 C.2.2.2.2), and what is absent has an answer of its own."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.lists import MOST_ALTERNATIVES, alternatives
from dicomferry.models.rules.query import Key
from dicomferry.workers.dimse.identifier import vr_of

STUDY, SERIES, IMAGE, PATIENT, ACCESSION = "0020000D", "0020000E", "00080018", "00100020", "00080050"
CLASSES, COMMENTS = "00080062", "00104000"


def values(*keys: Key, level: str = "study", root: str = "study") -> list[tuple[str, ...]]:
    return [tuple(value for _, value in one) for one in alternatives(keys, level, root, vr_of)]


def test_a_request_for_each_value() -> None:
    """In their order, each once, without blanks around it and without empty ones."""
    assert values((ACCESSION, "A\\B \\A\\\\C")) == [("A",), ("B",), ("C",)]
    assert values((ACCESSION, "A")) == [("A",)]
    assert values((PATIENT, "P\\Q"), (ACCESSION, "A\\B")) == [("P", "A"), ("P", "B"), ("Q", "A"), ("Q", "B")]
    assert values((PATIENT, "P\\Q"), level="patient", root="patient") == [("P",), ("Q",)]


def test_each_study_and_series_by_itself() -> None:
    """They are moved one by one in any case; one that is not there is a request that failed."""
    assert values((STUDY, "1\\2")) == [("1",), ("2",)]
    assert values((STUDY, "1"), (SERIES, "3\\4"), level="series") == [("1", "3"), ("1", "4")]
    assert values((STUDY, "1\\2"), ("00080060", "CT"), level="series") == [("1", "CT"), ("2", "CT")]


def test_what_stays_together() -> None:
    """Instances; UIDs that are not unique keys; those above a unique key that is given; text with a backslash in it."""
    assert values((STUDY, "1"), (SERIES, "2"), (IMAGE, "3\\4"), level="image") == [("1", "2", "3\\4")]
    assert values((STUDY, "1\\2"), (SERIES, "3\\4"), level="series") == [("1\\2", "3"), ("1\\2", "4")]
    assert values((CLASSES, "1\\2")) == [("1\\2",)]
    assert values((COMMENTS, "a\\b")) == [("a\\b",)]


def test_a_list_in_a_sequence() -> None:
    """By the value representation of what is asked for in it."""
    path = "00400100[0].00080060"
    assert values((path, "CT\\MR")) == [("CT",), ("MR",)]


def test_too_many() -> None:
    """Lists multiply."""
    with pytest.raises(UsageError, match="10,201 requests"):
        values((ACCESSION, "\\".join(map(str, range(101)))), (PATIENT, "\\".join(map(str, range(101)))))
    assert MOST_ALTERNATIVES == 10_000

"""Text from peers is made fit for a row in one place, for either database: no row takes others with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from dicomferry.models.record.archive import calls as recorded_calls
from dicomferry.models.record.archive import index, unindexed
from dicomferry.models.record.archive.calls import Call
from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import CallRow
from dicomferry.models.rules import peer_text

from ..record.archive.test_index import received

NOW = datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ARCHIVE", "ARCHIVE"), ("PACS\0garbage", "PACS"), ("\0", ""), ("A\x1b[31mB", "A\\x1B[31mB"), ("Ä", "Ä"),
        ("A\tB", "A\\x09B"), ("x" * 40, "x" * 16), ("\ud800", "\\uD800"),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_title(text: str, kept: str) -> None:
    """To its first NUL, control characters escaped, no longer than its column."""
    assert peer_text.short(text, 16) == kept


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"ARCHIVE         ", "ARCHIVE"),
        (b"ARCHIVE\0ABPACS\0\0", "ARCHIVE"), (b"\0\0ARCHIVE", "ARCHIVE"),
        (b"\0" * 16, ""),
        (b"  A B  ", "A B"), (b"A \0B", "A"),
    ],
)  # fmt: skip
def test_a_title_ends_at_its_first_nul(raw: bytes, title: str) -> None:
    """What a C program left behind it is no part of the title (PS3.5 6.2: AE)."""
    assert peer_text.title(raw) == title


def test_sentences_keep_their_lines() -> None:
    """Only what no database takes is escaped in them."""
    assert peer_text.words("one\n\ttwo\0three") == "one\n\ttwo\\x00three"


def test_an_arrival_with_any_titles_has_its_row(database: Database) -> None:
    """A NUL, a control character, a title, UID or flaw that is too long: the rows of all are there."""
    odd = received(2)
    assert odd.arrival is not None
    odd.arrival = replace(
        odd.arrival, calling_ae_title="PACS\0garbage", called_ae_title="\x1b" * 30, originator_ae_title="X\0Y",
        address="a" * 100,
    )  # fmt: skip
    long = replace(received(3), sop_class_uid="1." * 100, study_instance_uid="2\0", flaw="why\0" + "y" * 300)
    index.record(database, [received(1), odd, long])
    assert index.count(database)[0] == 3
    titles = database.read(
        lambda connection: connection.execute(
            sa.select(ArrivalRow.calling_ae_title, ArrivalRow.originator_ae_title).order_by(ArrivalRow.number)
        ).all()
    )
    assert [tuple(row) for row in titles] == [("ME", None), ("PACS", "X"), ("ME", None)]
    rows = list(index.listing(database))
    assert (rows[2]["sop_class_uid"], rows[2]["study_instance_uid"], rows[2]["flaw"]) == (
        ("1." * 100)[:128],
        "2",
        "why",
    )


def test_a_call_with_any_titles_takes_no_other_with_it(database: Database) -> None:
    """Those of other remotes in the same batch are on record."""
    calls = [
        Call(association=f"{number:032}", calling_ae_title=title, called_ae_title="FERRY", address="127.0.0.1", at=NOW,
             accepted=number != 1, why="no \0 remote", refused=("1.2\0", "9" * 300))
        for number, title in enumerate(["PACS1", "BAD\0TITLE", "PACS2" + "x" * 30])
    ]  # fmt: skip
    recorded_calls.record(database, calls)
    found = database.read(
        lambda connection: connection.execute(
            sa.select(CallRow.calling_ae_title, CallRow.why, CallRow.refused).order_by(CallRow.association)
        ).all()
    )
    assert [row.calling_ae_title for row in found] == ["PACS1", "BAD", ("PACS2" + "x" * 30)[:16]]
    assert {row.why for row in found} == {"no \\x00 remote"} and found[0].refused == ["1.2", "9" * 128]


def test_files_without_a_row_are_counted_until_they_have_one(database: Database) -> None:
    """Noted twice is noted once; whatever gives one its row, it is no more among them."""
    unindexed.note(database, [("1/2/1.dcm", "refused"), ("1/2/2.dcm", "x\0" * 300)])
    unindexed.note(database, [("1/2/1.dcm", "refused again")])
    assert unindexed.count(database) == 2
    index.record(database, [received(1)])
    assert unindexed.count(database) == 1
    unindexed.forget(database, ["1/2/2.dcm"])
    assert unindexed.count(database) == 0

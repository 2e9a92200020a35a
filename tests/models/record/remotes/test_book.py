"""The address book, and remotes that are given as an address."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from dicomferry.models.record.database import Database
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import RemoteRow
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.remote import Timeouts
from support.record_site import Site, together


def _add(database: Database, name: str = "pacs1", address: str = "PACS1@10.0.0.5:104", **options: object) -> int:
    book.add(database, name, address, **options)
    return book.resolve_id(database, name)


def test_a_remote_as_it_was_added(database: Database) -> None:
    """Every option comes back; what was not given has its default."""
    _add(database, calling_ae_title=" ME ", max_associations=7, timeouts={"connect": 3.0}, also_from=["10.0.0.0/8"])
    assert book.show(database, "pacs1") == {
        "name": "pacs1",
        "ae_title": "PACS1",
        "host": "10.0.0.5",
        "port": 104,
        "calling_ae_title": "ME",
        "store_address": None,
        "also_from": ["10.0.0.0/8"],
        "charset": None,
        "max_associations": 7,
        "max_moves": 1,
        "max_uids": 100,
        "find_cap": None,
        "relational": False,
        "numbers": "used",
        "prefer_syntax": None,
        "timeouts": {"connect": 3.0},
        "quirks": [],
        "coerces": None,
        "trust_answers": [],
        "window": None,
        "max_requests_per_minute": None,
        "max_instances_per_second": None,
        "max_bytes_per_second": None,
    }


def test_the_book_is_listed_by_name(database: Database) -> None:
    """Only the book: addresses of jobs do not appear."""
    for name in ("b", "a"):
        _add(database, name)
    book.resolve_id(database, "X@host:104")
    assert book.names(database) == ["a", "b"]
    assert [document["name"] for document in book.listing(database)] == ["a", "b"]


def test_a_name_is_taken_once(database: Database) -> None:
    """The message says how to change it."""
    _add(database)
    with pytest.raises(UsageError, match="dicomferry remote set pacs1"):
        _add(database)


@pytest.mark.parametrize(
    ("name", "address", "options"),
    [
        ("a@b", "PACS1@host:104", {}),
        ("a", "PACS1@host", {}),
        ("a", "PACS1@host:104", {"calling_ae_title": "x" * 17}),
        ("a", "PACS1@host:104", {"store_address": "nonsense"}),
        ("a", "PACS1@host:104", {"max_associations": 0}),
        ("a", "PACS1@host:104", {"max_moves": -1}),
        ("a", "PACS1@host:104", {"max_uids": 0}),
        ("a", "PACS1@host:104", {"max_associations": 2**31}),
        ("a", "PACS1@host:104", {"timeouts": {"connect": float("nan")}}),
        ("a", "PACS1@host:104", {"timeouts": {"connect": float("inf")}}),
        ("a", "PACS1@host:104", {"timeouts": {"connect": -1.0}}),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    database: Database, name: str, address: str, options: dict[str, object]
) -> None:
    """The book stays empty."""
    with pytest.raises(UsageError):
        book.add(database, name, address, **options)
    assert book.listing(database) == []


def test_change_what_was_given(database: Database) -> None:
    """Nothing else; its row, and so its jobs, stay the same."""
    key = _add(database, max_moves=3)
    book.change(database, "pacs1", "NEW@host2:105", max_associations=2)
    document = book.show(database, "pacs1")
    assert (document["ae_title"], document["host"], document["port"]) == ("NEW", "host2", 105)
    assert (document["max_associations"], document["max_moves"]) == (2, 3)
    assert book.resolve_id(database, "pacs1") == key
    book.change(database, "pacs1", None)
    assert book.show(database, "pacs1") == document


def test_timeouts_are_merged(database: Database) -> None:
    """One more is added, one is replaced, zero takes it away so that the installation's holds."""
    _add(database, timeouts={"connect": 3.0, "acse": 4.0})
    book.change(database, "pacs1", None, timeouts={"acse": 5.0, "progress": 6.0, "connect": 0})
    assert book.show(database, "pacs1")["timeouts"] == {"acse": 5.0, "progress": 6.0}


def test_remove_frees_the_name_and_keeps_the_jobs(site: Site) -> None:
    """History stays readable; the name may be given again, to another row."""
    database = site.database
    job = site.echo()
    book.remove(database, "PACS1")
    assert book.names(database) == []
    assert site.job(job).remote_id == site.remote_id
    assert _add(database, "PACS1") != site.remote_id
    book.remove(database, "PACS1")
    for call in (book.remove, book.show):
        with pytest.raises(NotFound):
            call(database, "PACS1")


def test_an_unknown_name_gets_the_nearest(database: Database) -> None:
    """Did you mean; else where to look."""
    _add(database, "radiology")
    with pytest.raises(NotFound, match="did you mean radiology"):
        book.resolve_id(database, "radiolgy")
    with pytest.raises(NotFound, match="remote list"):
        book.resolve_id(database, "zzz")


def test_an_address_gets_one_row(database: Database) -> None:
    """However often it is used and however it is written; limits count per address."""
    key = book.resolve_id(database, "PACS1@host:104")
    assert book.resolve_id(database, " PACS1@host:104 ") == key
    assert book.resolve_id(database, "PACS1@host:0104") == key
    assert book.resolve_id(database, "pacs1@host:104") != key
    assert book.resolve_id(database, "PACS1@[::1]:104") != key


def test_one_address_from_many_commands_at_once(database: Database) -> None:
    """All of them get the same row; none fails because another was faster."""
    for number in range(5):
        keys = together(*[lambda number=number: book.resolve_id(database, f"A{number}@host:104")] * 6)
        assert len(set(map(str, keys))) == 1 and isinstance(keys[0], int), keys


def test_one_name_from_many_commands_at_once(database: Database) -> None:
    """One adds it, the others are told that it is there."""
    results = together(*[lambda: book.add(database, "pacs1", "PACS1@host:104")] * 6)
    assert results.count(None) == 1
    assert all(result is None or isinstance(result, UsageError) for result in results), results
    assert len(database.read(lambda connection: connection.execute(sa.select(RemoteRow.id)).all())) == 1


def test_a_remote_is_loaded_ready_for_use(database: Database) -> None:
    """The installation's AE title and timeouts where the remote has none of its own."""
    plain = book.load(database, _add(database), ae_title="HOUSE", timeouts=Timeouts(connect=1, acse=2))
    assert (plain.calling_ae_title, plain.timeouts, plain.address) == (
        "HOUSE",
        Timeouts(connect=1, acse=2),
        "10.0.0.5:104",
    )
    key = _add(database, "pacs2", calling_ae_title="GUEST", timeouts={"acse": 9.0}, max_associations=2, max_moves=5)
    own = book.load(database, key, ae_title="HOUSE", timeouts=Timeouts(connect=1, acse=2))
    assert (own.calling_ae_title, own.timeouts) == ("GUEST", Timeouts(connect=1, acse=9))
    assert (own.max_associations, own.max_moves) == (2, 5)

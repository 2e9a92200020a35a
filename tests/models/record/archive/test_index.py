"""The archive's index: rows once, the right file current, history kept; on either database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.record.archive import identity, index
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.record.bulk import insert_unless_there
from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow

NOW = datetime(2024, 2, 29, tzinfo=UTC)


def received(
    number: int, path: str = "", *, relation: str = "first", uid: str = "", outcome: str = "stored"
) -> Received:
    """The `number`-th C-STORE of one association."""
    return Received(
        path=path or f"1/2/{number}.dcm",
        size=100 + number,
        sop_instance_uid=uid or f"1.2.{number}",
        sop_class_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2",
        study_instance_uid="1",
        series_instance_uid="2",
        relation=relation,
        flaw=None,
        stored_at=NOW,
        arrival=Arrival(
            association="a" * 32,
            number=number,
            outcome=outcome,
            calling_ae_title="ME",
            called_ae_title="YOU",
            address="127.0.0.1",
            message_id=number,
            originator_ae_title=None,
            originator_message_id=None,
            at=NOW,
        ),
    )


def remove(database: Database, path: str) -> None:
    """The file at this path is no more."""
    identity.make_history(database, identity.files_at(database, [path]))


def counts(database: Database) -> tuple[int, int]:
    """(instance rows, arrival rows)."""

    def work(connection: sa.Connection) -> tuple[int, int]:
        number = [
            connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
            for t in (InstanceRow, ArrivalRow)
        ]
        return number[0], number[1]

    return database.read(work)


def current(database: Database) -> list[str]:
    """Paths of the files that count."""
    return [row["path"] for row in index.listing(database) if row["current"]]


def test_a_batch_written_twice_is_there_once(database: Database) -> None:
    """A commit whose answer was lost is repeated: nothing doubles."""
    batch = [received(number) for number in range(1, 1201)]
    index.record(database, batch)
    index.record(database, batch)
    assert counts(database) == (1200, 1200)
    assert index.count(database) == (1200, sum(100 + number for number in range(1, 1201)))


def test_duplicates_are_arrivals_of_one_instance(database: Database) -> None:
    """In one batch or in the next."""
    again = [received(n, "1/2/1.dcm", uid="1.2.1", outcome="duplicate") for n in (2, 3)]
    index.record(database, [received(1), again[0]])
    index.record(database, [again[1]])
    (row,) = index.listing(database)
    assert (row["arrivals"], row["current"], row["relation"]) == (3, True, "first")


def test_the_newest_of_a_conflict_is_current(database: Database) -> None:
    """Both are kept."""
    index.record(database, [received(1)])
    index.record(database, [received(2, "1/2/1~2.dcm", relation="conflict", uid="1.2.1")])
    assert current(database) == ["1/2/1~2.dcm"]
    assert counts(database)[0] == 2


def test_an_alternate_is_not(database: Database) -> None:
    """The first transfer syntax that came stays current."""
    index.record(database, [received(1), received(2, "1/2/1~2.dcm", relation="alternate", uid="1.2.1")])
    assert current(database) == ["1/2/1.dcm"]


def test_one_uid_in_two_studies_is_a_conflict(database: Database) -> None:
    """No name was taken, so only the index can see it; each is current in its own study."""
    index.record(database, [received(1)])
    index.record(database, [replace(received(2, "9/2/1.dcm", uid="1.2.1"), study_instance_uid="9")])
    found = {row["path"]: (row["relation"], row["current"]) for row in index.listing(database)}
    assert found == {"1/2/1.dcm": ("first", True), "9/2/1.dcm": ("conflict", True)}
    outcomes = database.read(lambda connection: connection.execute(sa.select(ArrivalRow.outcome)).scalars().all())
    assert list(outcomes) == ["stored", "conflict"]


def test_a_flawed_file_never_takes_the_place_of_a_good_one(database: Database) -> None:
    """However new it is; among flawed ones a truncated one comes first, and a good one that comes later takes over."""
    index.record(database, [received(1)])
    for number, flaw in ((2, "unreadable: garbage"), (3, "truncated: in (7FE0,0010)"), (4, "odd uid")):
        one = received(number, f"1/2/1~{number}.dcm", relation="conflict", uid="1.2.1", outcome="conflict")
        index.record(database, [replace(one, flaw=flaw)])
        assert current(database) == ["1/2/1~4.dcm" if number == 4 else "1/2/1.dcm"]
    remove(database, "1/2/1.dcm")
    remove(database, "1/2/1~4.dcm")
    assert current(database) == ["1/2/1~3.dcm"]


def test_a_file_that_is_published_where_a_row_is_makes_that_history(database: Database) -> None:
    """The file of the row was gone, or its name would have been taken; written twice, it changes nothing."""
    index.record(database, [received(1)])
    anew = replace(received(2), path="1/2/1.dcm", sop_instance_uid="1.2.1", size=7, stored_at=NOW + timedelta(days=1))
    for _ in range(2):
        index.record(database, [anew])
        assert [(row["path"], row["size"]) for row in index.listing(database)] == [("1/2/1.dcm", 7)]
        assert counts(database) == (2, 2)
    duplicate = replace(received(3, outcome="duplicate"), path="1/2/1.dcm", sop_instance_uid="1.2.1", size=9)
    index.record(database, [duplicate])
    assert [row["size"] for row in index.listing(database)] == [7]


def test_history_is_made_by_row(database: Database) -> None:
    """Not of a path that has another row by now, nor of a file that came again since it was looked at."""
    index.record(database, [received(1), received(2)])
    old = identity.files_at(database, ["1/2/1.dcm", "1/2/2.dcm"])
    remove(database, "1/2/1.dcm")
    index.record(database, [replace(received(3), path="1/2/1.dcm", sop_instance_uid="1.2.1")])
    index.record(database, [replace(received(4, outcome="duplicate"), path="1/2/2.dcm")])
    assert identity.make_history(database, old) == set()
    assert current(database) == ["1/2/1.dcm", "1/2/2.dcm"]


def test_what_was_removed_is_history_and_may_come_again(database: Database) -> None:
    """The old row stays, with its arrivals; the new file has a row of its own."""
    index.record(database, [received(1)])
    remove(database, "1/2/1.dcm")
    assert list(index.listing(database)) == []
    index.record(database, [replace(received(2), path="1/2/1.dcm", sop_instance_uid="1.2.1")])
    assert counts(database) == (2, 2)
    assert current(database) == ["1/2/1.dcm"]


def test_when_the_current_one_goes_another_counts(database: Database) -> None:
    """Of a conflict, the one that is left."""
    index.record(database, [received(1)])
    index.record(database, [received(2, "1/2/1~2.dcm", relation="conflict", uid="1.2.1")])
    remove(database, "1/2/1~2.dcm")
    assert current(database) == ["1/2/1.dcm"]


def test_what_a_study_holds(database: Database) -> None:
    """Paths by study, and which paths have no row."""
    index.record(database, [received(1), received(2)])
    assert index.paths(database, study="1") == ["1/2/1.dcm", "1/2/2.dcm"]
    assert index.paths(database, study="2") == []
    assert index.unknown(database, ["1/2/1.dcm", "1/2/9.dcm"]) == ["1/2/9.dcm"]
    assert list(identity.sizes(database)) == [("1/2/1.dcm", 101), ("1/2/2.dcm", 102)]


def test_a_file_found_without_an_arrival(database: Database) -> None:
    """What a restart or a repair finds was received some time; by whom is not known any more."""
    index.record(database, [replace(received(1), arrival=None)])
    (row,) = index.listing(database)
    assert (row["arrivals"], row["calling_ae_title"]) == (0, None)


@pytest.mark.parametrize("off", [-3600.0, 3600.0])
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_arrivals_are_timed_by_the_clock_that_they_are_held_against(url: str, off: float) -> None:
    """The computer of the storage SCP is an hour off: what came just now came just now by the record's clock."""
    moment = datetime.now(UTC) + timedelta(seconds=off)
    own = Database(url, host_clock=lambda: datetime.now(UTC) + timedelta(seconds=off))
    came = received(1)
    assert came.arrival is not None
    found = replace(received(2), arrival=None, stored_at=moment)
    index.record(own, [replace(came, arrival=replace(came.arrival, at=moment)), found])
    now = own.read(own.now)
    times = own.read(
        lambda connection: (
            connection.execute(sa.select(ArrivalRow.at)).scalar_one(),
            connection.execute(sa.select(InstanceRow.stored_at).where(InstanceRow.path == found.path)).scalar_one(),
        )
    )
    assert all(abs((now - at).total_seconds()) < 1800 for at in times)
    own.close()


def test_two_processes_write_one_after_the_other(database: Database) -> None:
    """Of two contents of one instance that come to two of them at once one is current: the second to write waits for
    the first, and sees what that wrote.
    """
    first = received(1, uid="1.2.9")
    second = received(2, "1/2/1~2.dcm", relation="conflict", uid="1.2.9", outcome="conflict")
    begun, ended = threading.Event(), threading.Event()

    def other_process(connection: sa.Connection) -> bool:
        index.one_at_a_time(connection)
        row = {name: value for name, value in vars(first).items() if name != "arrival"}
        insert_unless_there(connection, InstanceRow, [row | {"is_current": True}])
        begun.set()
        return ended.wait(1.0)  # it is not to end before this does

    def this_process() -> None:
        index.record(database, [second])
        ended.set()

    with ThreadPoolExecutor(2) as pool:
        earlier = pool.submit(database.write, other_process)
        assert begun.wait(30)
        later = pool.submit(this_process)
        assert earlier.result() is False
        later.result()
    rows = database.read(
        lambda connection: connection.execute(sa.select(InstanceRow.path, InstanceRow.is_current)).all()
    )
    assert {row.path: row.is_current for row in rows} == {"1/2/1.dcm": False, "1/2/1~2.dcm": True}

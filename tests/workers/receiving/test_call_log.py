"""The log of calls: what was refused on each is on record, and one that cannot be written is alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.archive import calls as recorded_calls
from dicomferry.models.record.archive.calls import MOST_UIDS, Call
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply
from dicomferry.workers.receiving import call_log
from dicomferry.workers.receiving.call_log import CallLog, Refusals
from support.installation import until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path / 'record.db'}")
    schema.upgrade(found)
    yield found
    found.close()


class Came(Incoming):
    """An instance of this UID, that came for this move."""

    def __init__(self, uid: str, title: str | None = None, message_id: int | None = None) -> None:
        self.sop_instance_uid = uid
        self.originator_ae_title = title
        self.originator_message_id = message_id


FULL = StatusReply(0xA700, "disk is full to its reserve")


def begin(log: CallLog, association: str, calling: str = "PACS") -> call_log.OpenCall:
    return log.begin(association, calling=calling, called="FERRY", address="10.0.0.1", refused=())


def test_refusals_are_put_together() -> None:
    """By status, reason and move, with the first UIDs; a sender that names a new move each time fills nothing up."""
    found = Refusals()
    for number in range(MOST_UIDS + 5):
        found.add(Came(f"1.{number}", "FERRY", 7), FULL)
    found.add(Came("2.1"), StatusReply(0xA900, "differs"))
    first, second = found.all()
    assert (first.number, len(first.uids), first.originator_message_id) == (MOST_UIDS + 5, MOST_UIDS, 7)
    assert (second.status, second.why, second.uids, second.originator_ae_title) == (0xA900, "differs", ("2.1",), None)
    for number in range(10 * call_log.MOST_REFUSALS):
        found.add(Came("3.1", "FERRY", number), FULL)
    assert len(found.all()) <= call_log.MOST_REFUSALS + 1
    assert sum(one.number for one in found.all()) == MOST_UIDS + 6 + 10 * call_log.MOST_REFUSALS


def test_what_is_refused_is_on_record_while_the_call_goes_on(database: Database) -> None:
    """A retrieve that ends meanwhile has to see it."""
    log = CallLog(database)
    log.start()
    entry = begin(log, "a")
    entry.refuse(Came("1.2", "FERRY", 7), FULL)
    until(lambda: [row for row in recorded_calls.calls_after(database, 0) if row.refusals], "it is on record")
    entry.refuse(Came("1.3", "FERRY", 7), FULL)
    log.ended("a")
    log.close(20)
    (row,) = recorded_calls.calls_after(database, 0)
    assert row.ended_at is not None and [one.number for one in row.refusals] == [2]


def test_a_call_that_cannot_be_written_takes_no_other_along(database: Database) -> None:
    """The database refuses one of a batch: the others are written, and none of them twice."""

    def record(database: Database, calls: Sequence[Call]) -> None:
        if any("BAD" in call.calling_ae_title for call in calls):
            raise ValueError("a value that the database does not take")
        recorded_calls.record(database, calls)

    log = CallLog(database, record=record)
    for number, title in enumerate(("PACS1", "BAD", "PACS2")):
        begin(log, str(number), title)
    log.start()
    log.close(20)
    assert [row.calling_ae_title for row in recorded_calls.calls_after(database, 0)] == ["PACS1", "PACS2"]


def test_calls_wait_for_a_database_that_is_away(database: Database) -> None:
    """Also where it goes away while a batch is written one by one."""
    tries: list[int] = []

    def record(database: Database, calls: Sequence[Call]) -> None:
        tries.append(len(calls))
        if len(tries) == 1:
            raise ValueError("refused")
        if len(tries) == 3:
            raise OutOfReach("away")
        recorded_calls.record(database, calls)

    log = CallLog(database, record=record)
    for number in range(3):
        begin(log, str(number))
    log.start()
    until(lambda: len(recorded_calls.calls_after(database, 0)) == 3, "all are on record")
    log.close(20)

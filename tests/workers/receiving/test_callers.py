"""Who may call, and how long the door waits to find out."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.engine import Connection

from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.remotes import book
from dicomferry.models.settings import ScpSettings, Settings
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.dimse.wire import associate_as_acceptor
from dicomferry.workers.receiving import callers
from dicomferry.workers.receiving.callers import Admission, public_host, public_port
from support.installation import until

_T = TypeVar("_T")
AGES = 20.0


class Slow(Database):
    """A record whose readers wait while `stuck`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.free = threading.Event()
        self.free.set()

    def read(self, work: Callable[[Connection], _T], *rest: object, **named: object) -> _T:
        self.free.wait(60)
        return super().read(work, *rest, **named)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Slow]:
    found = Slow(f"sqlite:///{tmp_path / 'record.db'}")
    schema.upgrade(found)
    yield found
    found.free.set()
    found.close()


@pytest.fixture
def open_door(database: Slow) -> Iterator[Callable[..., Admission]]:
    opened: list[Admission] = []

    def make(
        look_up: Callable[[str], list[str] | None] = lambda _: [], *, door: float = AGES, **more: Any
    ) -> Admission:
        found = Admission(database, Names(look_up), door=door, **more)
        found.reload()
        found.start()
        opened.append(found)
        return found

    yield make
    database.free.set()
    for one in opened:
        one.close()


OpenDoor = Callable[..., Admission]


def test_a_new_remote_is_known_at_once(open_door: OpenDoor, database: Slow) -> None:
    """By its title, by its address, and, once its name is looked up, by the address of its name."""
    door = open_door(lambda host: {"pacs.example": ["10.0.0.1"]}.get(host, []), again=0.0)
    assert not door.knows("PACS", "10.0.0.1")
    book.add(database, "pacs", "PACS@pacs.example:104")
    assert door.knows("SOMEBODY", "::ffff:10.0.0.1")
    assert door.knows("PACS", "10.9.9.9")
    assert door.knows("SOMEBODY", "::1") and not door.knows("SOMEBODY", "10.9.9.9")


def test_both_may_be_asked_for(open_door: OpenDoor, database: Slow) -> None:
    """Then a title alone, an address alone, and this machine alone are not enough."""
    book.add(database, "pacs", "PACS@10.0.0.1:104", also_from=["10.2.0.0/16"])
    book.add(database, "other", "OTHER@10.0.0.2:104")
    door = open_door()
    assert door.knows("PACS", "10.0.0.1", both=True) and door.knows("PACS", "10.2.7.7", both=True)
    for title, address in (("PACS", "10.0.0.2"), ("SOMEBODY", "10.0.0.1"), ("PACS", "127.0.0.1")):
        assert not door.knows(title, address, both=True)


def test_a_mute_name_server_keeps_nobody_waiting(open_door: OpenDoor, database: Slow) -> None:
    """Neither who is known nor who is not: an unknown caller waits for a moment, and for no lock of a look-up."""
    speaks = threading.Event()
    asked = threading.Event()

    def mute(_: str) -> None:
        asked.set()
        speaks.wait(60)

    book.add(database, "mute", "MUTE@mute.example:104")
    book.add(database, "pacs", "PACS@10.0.0.1:104")
    try:
        door = open_door(mute, door=0.05)
        until(asked.is_set, "the name is asked for")
        assert door.knows("SOMEBODY", "10.0.0.1")
        assert not door.knows("SOMEBODY", "10.0.0.9")
        door.reload()
        assert door.knows("MUTE", "10.0.0.9")
    finally:
        speaks.set()


def test_a_silent_database_keeps_nobody_waiting(open_door: OpenDoor, database: Slow) -> None:
    """What is known decides after a moment; afterwards the door does not even ask for a while."""
    book.add(database, "pacs", "PACS@10.0.0.1:104", prefer_syntax="compressed")
    door = open_door(door=0.05)
    database.free.clear()
    assert door.prefer("PACS", "10.0.0.1") == "compressed"
    assert door.knows("PACS", "10.0.0.1")
    assert not door.knows("SOMEBODY", "10.0.0.9")


def test_what_is_read_is_read_after_it_was_asked_for(open_door: OpenDoor) -> None:
    """A repair that has begun just before an association is seen at that association."""
    repaired: list[book.CallerIdentity] = []
    door = open_door(repairing=lambda _: list(repaired))
    usual = door.prefer("PACS", "10.0.0.1")
    repaired.append(book.CallerIdentity("PACS", "10.0.0.1", (), None, 1))
    assert door.prefer("PACS", "10.0.0.1") == associate_as_acceptor.opposite(usual) != usual
    assert door.prefer("OTHER", "10.0.0.2") == usual


def test_calls_of_one_remote_are_its_own(database: Slow) -> None:
    """What calls under the title of another remote is not this one, though both have one address."""
    book.add(database, "first", "FIRST@10.0.0.1:104", also_from=["MOVER"])
    book.add(database, "second", "SECOND@10.0.0.1:105", also_from=["MOVER2", "10.0.0.1"])
    mine = callers.of_remote(database, book.resolve_id(database, "first"), lambda host: [host])
    assert mine.knows("FIRST", "10.0.0.1") and mine.knows("MOVER", "10.9.9.9") and mine.knows("NEITHER", "10.0.0.1")
    assert not mine.knows("SECOND", "10.0.0.1") and not mine.knows("MOVER2", "10.0.0.1")


# --- what others are told -------------------------------------------------------------------------------------------


def settings(tmp_path: Path, host: str) -> Settings:
    return Settings(home=tmp_path, scp=ScpSettings(host=host))


@pytest.mark.parametrize("host", ["10.1.2.3", "2001:db8::7", "ferry.example"])
def test_what_was_set_is_told(tmp_path: Path, host: str) -> None:
    """An address or a name of ours."""
    assert public_host(settings(tmp_path, host), "10.9.9.9") == host


def test_what_others_are_told_may_be_another_place(tmp_path: Path) -> None:
    """Behind a published port, or another translation of addresses, that place is told and not the one listened on."""
    found = Settings(home=tmp_path, scp=ScpSettings(host="172.18.0.7", port=11112, public_host="ferry.example"))
    assert (public_host(found, "10.9.9.9"), public_port(found)) == ("ferry.example", 11112)
    found = Settings(home=tmp_path, scp=ScpSettings(public_port=104))
    assert public_port(found) == 104


def test_the_address_that_is_told_is_one_that_answers(tmp_path: Path) -> None:
    """Of several networks the one towards that remote; of IPv6 only where that is listened on."""
    assert public_host(settings(tmp_path, "0.0.0.0"), "127.0.0.1") == "127.0.0.1"
    assert public_host(settings(tmp_path, "::"), "127.0.0.1") == "127.0.0.1"
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("::1", 9))
        except OSError:
            pytest.skip("this machine has no IPv6")
    assert public_host(settings(tmp_path, "::"), "::1") == "::1"
    assert ":" not in public_host(settings(tmp_path, "0.0.0.0"), "::1")

"""What a process that receives asks the role for, and what it tells: places, silence, moves in flight."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dicomferry.daemon.crew_member import AskedPlaces
from dicomferry.daemon.hatch import Handed, Talk, give
from dicomferry.daemon.places import IDLE_SECONDS

from .test_places import Guest

NOW = 1000.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        yield ours, theirs


@pytest.fixture
def role(ends: tuple[socket.socket, socket.socket]) -> Talk:
    """The role's end."""
    return Talk(ends[0])


@pytest.fixture
def places(ends: tuple[socket.socket, socket.socket]) -> Iterator[AskedPlaces]:
    """Places as a process asks for them, which hears the role in a thread of its own."""
    found = AskedPlaces(Talk(ends[1]), seconds=30, clock=lambda: NOW)
    hearing = threading.Thread(target=found.hear)
    hearing.start()
    yield found
    ends[0].shutdown(socket.SHUT_RDWR)
    hearing.join(30)
    assert not hearing.is_alive()


def words(role: Talk, number: int) -> list[dict[str, object]]:
    """The next words."""
    found: list[dict[str, object]] = []
    while len(found) < number:
        found += role.heard()
    return found


def test_a_place_is_asked_for_and_given_back(places: AskedPlaces, role: Talk) -> None:
    """The role decides; a guest that it refuses is forgotten, one that it took is given back once."""
    told: list[str | None] = []
    guests = [Guest("MR", "10.0.0.7"), Guest("CT", "10.0.0.8")]
    for guest, why in zip(guests, (None, "there is none"), strict=True):
        asking = threading.Thread(target=lambda one=guest: told.append(places.take(one)))
        asking.start()
        assert words(role, 1) == [
            {"say": "take", "of": guest.token, "ae_title": guest.caller.ae_title, "address": guest.caller.address}
        ]
        role.say("place", of=guest.token, why=why)
        asking.join(30)
    assert told == [None, "there is none"]
    for guest in (*guests, *guests):
        places.leave(guest)
    places.ended()
    assert words(role, 2) == [{"say": "leave", "of": "MR"}, {"say": "ended"}]


def test_without_an_answer_there_is_no_place(ends: tuple[socket.socket, socket.socket]) -> None:
    """And should one be given later, it is free again."""
    places = AskedPlaces(Talk(ends[1]), seconds=0)
    assert "does not say" in (places.take(Guest("MR")) or "")
    assert [word["say"] for word in words(Talk(ends[0]), 2)] == ["take", "leave"]


def test_who_is_to_go_goes(places: AskedPlaces, role: Talk) -> None:
    """Its place is another caller's; who has gone meanwhile is no trouble."""
    guest = Guest("MR")
    role.say("place", of="MR", why=None)  # heard before it was asked for: it means nothing
    asking = threading.Thread(target=places.take, args=(guest,))
    asking.start()
    words(role, 1)
    role.say("place", of="MR", why=None)
    asking.join(30)
    role.say("go", of="CT")
    role.say("go", of="MR")
    places.ended()
    words(role, 1)
    role.say("place", of="XA", why=None)
    while not guest.has_gone:
        threading.Event().wait(0.001)


def test_silence_is_told_when_it_begins_and_ends(places: AskedPlaces, role: Talk) -> None:
    """Once each, with the moment since when; and how many moves may be in flight, when that changes."""
    guest = Guest("MR", idle=IDLE_SECONDS - 1)
    asking = threading.Thread(target=places.take, args=(guest,))
    asking.start()
    words(role, 1)
    role.say("place", of="MR", why=None)
    asking.join(30)
    for idle in (IDLE_SECONDS - 1, IDLE_SECONDS + 1, IDLE_SECONDS + 1, 0.0, 0.0):
        guest.idle = idle
        places.tell(4)
    heard = words(role, 8)
    kinds = [word["say"] for word in heard]
    assert kinds == ["turn", "moves", "turn", "silent", "turn", "turn", "busy", "turn"]
    (silent,) = (word for word in heard if word["say"] == "silent")
    assert silent == {"say": "silent", "of": "MR", "since": NOW - IDLE_SECONDS - 1}


def test_a_connection_is_handed_on_with_its_address() -> None:
    """Several that wait are taken in their order, each with its own; then there is none."""
    hatch, theirs = socket.socketpair()
    with hatch, theirs:
        handed = Handed(theirs)
        handed.setblocking(False)
        near = []
        for address in ("10.0.0.7", "fe80::1%eth0"):
            here, there = socket.socketpair()
            give(hatch, there, address)
            there.close()
            near.append(here)
        for here, address in zip(near, ("10.0.0.7", "fe80::1%eth0"), strict=True):
            sock, (told, _) = handed.accept()
            with here, sock:
                assert told == address
                here.sendall(b"x")
                assert sock.recv(1) == b"x"
        with pytest.raises(BlockingIOError):
            handed.accept()


def test_what_a_dead_process_said_is_forgotten() -> None:
    """Half a word too: the next process under its number begins anew."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        talk = Talk(ours)
        theirs.sendall(b'{"say": "ready"}\n{"say": "le')
        assert list(talk.heard()) == [{"say": "ready"}]
        theirs.sendall(b'ave", "of": "MR"}\n{"say"')
        talk.forget()
        assert list(talk.heard()) == []
        theirs.sendall(b'{"say": "turn"}\n')
        assert list(talk.heard()) == [{"say": "turn"}]
        theirs.close()
        with pytest.raises(EOFError):
            list(talk.heard())

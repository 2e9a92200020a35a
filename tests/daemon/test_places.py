"""Places of the storage SCP: a share for each caller, and what is idle gives way."""

from __future__ import annotations

from dicomferry.daemon.places import IDLE_SECONDS, AssociationPlaces, Caller


class Guest:
    """An association that has been idle for so long."""

    def __init__(self, title: str, address: str = "10.0.0.1", idle: float = 0.0) -> None:
        self.token = title
        self.caller = Caller(title, address)
        self.idle = idle
        self.has_gone = False

    def idle_seconds(self) -> float:
        return self.idle

    def give_way(self) -> None:
        self.has_gone = True


def places(most: int, share: int) -> AssociationPlaces:
    return AssociationPlaces(lambda: most, lambda: share)


def test_one_caller_has_a_share() -> None:
    """One too many is refused and named; others come in, from the same address too: behind one NAT titles decide."""
    here = places(4, 2)
    held = [Guest("MR") for _ in range(2)]
    assert [here.take(one) for one in held] == [None, None]
    why = here.take(Guest("MR"))
    assert why is not None and "'MR' from 10.0.0.1" in why and "scp.per_caller" in why
    assert here.take(Guest("CT")) is None and here.take(Guest("MR", "10.0.0.2")) is None
    why = here.take(Guest("US"))
    assert why is not None and "scp.max_associations" in why
    here.leave(held[0])
    assert here.take(Guest("US")) is None


def test_an_idle_one_of_its_own_gives_way_in_a_share() -> None:
    """The longest idle one: an archive that never releases is not shut out by itself."""
    here = places(10, 3)
    held = [Guest("MR", idle=idle) for idle in (IDLE_SECONDS, 2 * IDLE_SECONDS, 0.0)]
    other = Guest("CT", idle=9 * IDLE_SECONDS)
    for one in (*held, other):
        here.take(one)
    assert here.take(Guest("MR")) is None
    assert [one.has_gone for one in (*held, other)] == [False, True, False, False]
    assert len(here) == 4


def test_the_longest_idle_one_of_the_greatest_gives_way() -> None:
    """Where all places are taken, at the cost of whoever has most; who is at work stays."""
    here = places(5, 5)
    many = [Guest(f"T{number}", "10.0.0.9", idle=IDLE_SECONDS + number) for number in range(3)]
    others = [Guest("CT", "10.0.0.2", idle=99 * IDLE_SECONDS), Guest("US", "10.0.0.3", idle=99 * IDLE_SECONDS)]
    for one in (*many, *others):
        here.take(one)
    assert here.take(Guest("PACS", "10.0.0.4")) is None
    assert [one.has_gone for one in (*many, *others)] == [False, False, True, False, False]
    here.leave(many[2])
    assert len(here) == 5


def test_who_is_at_work_keeps_its_place() -> None:
    """Nobody is idle: whoever comes now is told to come again."""
    here = places(2, 2)
    held = [Guest("A"), Guest("B", idle=IDLE_SECONDS - 0.1)]
    for one in held:
        here.take(one)
    assert here.take(Guest("C")) is not None
    assert not any(one.has_gone for one in held)

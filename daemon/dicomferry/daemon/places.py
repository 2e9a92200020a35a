"""Places for associations: so many in all, a share of them for each caller, and what is idle gives way.

A caller is an AE title at an address: behind one NAT many share the address, and the titles tell them apart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dicomferry.models.settings import ScpSettings

IDLE_SECONDS = 5.0
"""An association that has said nothing for so long may have to go when its place is needed."""


@dataclass(frozen=True)
class Caller:
    """Who has a place."""

    ae_title: str
    address: str


class Guest(Protocol):
    """An association that has a place."""

    @property
    def token(self) -> str:
        """What it is called on the record."""

    @property
    def caller(self) -> Caller:
        """Whose it is."""

    def idle_seconds(self) -> float:
        """How long it has said nothing; 0 while a message is under way."""

    def give_way(self) -> None:
        """End the association: its place is another caller's now. Never blocks."""


class PlaceKeeper(Protocol):
    """Where an association asks for a place, and gives it back."""

    def take(self, guest: Guest) -> str | None:
        """A place for one more, given back by `leave`; or why there is none."""

    def leave(self, guest: Guest) -> None:
        """The association has ended."""


class AssociationPlaces:
    """The places for associations, used by any thread: `most` in all, at most `share` of them for one caller."""

    def __init__(self, most: Callable[[], int], share: Callable[[], int]) -> None:
        self._most = most
        self._share = share
        self._lock = threading.Lock()
        self._guests: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def take(self, guest: Guest) -> str | None:
        """A place for one more, given back by `leave`; or why there is none.

        Of a caller that has its whole share its own longest idle association gives way; where all places are taken, the
        longest idle one from the address that has most.
        """
        with self._lock:
            own = [one for one in self._guests if one.caller == guest.caller]
            if len(own) >= self._share():
                leaving = _longest_idle(own)
                why = (
                    f"{len(own)} associations of {guest.caller.ae_title!r} from {guest.caller.address} are open, "
                    "the share of one caller (scp.per_caller)"
                )
            elif len(self._guests) >= self._most():
                leaving = self._of_the_greatest()
                why = f"{len(self._guests)} associations are open, the limit (scp.max_associations)"
            else:
                leaving, why = None, None
            if why is not None and leaving is None:
                return why
            if leaving is not None:
                del self._guests[leaving]
            self._guests[guest] = None
        if leaving is not None:
            leaving.give_way()
        return None

    def leave(self, guest: Guest) -> None:
        """The association has ended."""
        with self._lock:
            self._guests.pop(guest, None)

    def _of_the_greatest(self) -> Guest | None:
        numbers = Counter(one.caller.address for one in self._guests)
        for address, _ in numbers.most_common():
            found = _longest_idle([one for one in self._guests if one.caller.address == address])
            if found is not None:
                return found
        return None


def most_associations(scp: ScpSettings, moves: int) -> int:
    """How many associations are taken at once: as many as set, or four times all `moves` in flight, if that is more."""
    return max(scp.max_associations, 4 * moves)


def most_of_one(scp: ScpSettings, moves: int) -> int:
    """How many of them one caller may have: as many as set, else half of all."""
    return scp.per_caller or max(1, most_associations(scp, moves) // 2)


def _longest_idle(guests: list[Guest]) -> Guest | None:
    idle = max(guests, key=lambda one: one.idle_seconds(), default=None)
    return idle if idle is not None and idle.idle_seconds() >= IDLE_SECONDS else None

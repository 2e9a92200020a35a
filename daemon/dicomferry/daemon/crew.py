"""Several processes that receive for one storage SCP: the role takes the connections and hands each to one of them.

The role holds the port, the archive's lock and the places for associations; a process that ends is started again, and
what had been handed to it and not begun goes to another one.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from dicomferry.daemon import hatch
from dicomferry.daemon.child import CannotKeepUp, Child, python
from dicomferry.daemon.connections import Stop
from dicomferry.daemon.hatch import Handed, Talk, Word
from dicomferry.daemon.places import AssociationPlaces, Caller, most_associations, most_of_one
from dicomferry.daemon.port import take_port
from dicomferry.models import telemetry
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file

MODULE = "dicomferry.daemon.crew_member"
READY_SECONDS = 300.0
"""Before it receives it may have to index what its forerunner had published."""
KEEP_UP_SECONDS = 0.25
STILL_SECONDS = 20.0
"""A process that has not gone round its loop for so long, in which it does so every second, stands still."""
DRAIN_SECONDS = 60.0
"""What a process needs at its end beside `timeouts.progress`: for goodbyes and for its last rows."""

log = telemetry.logger(__name__)


class _FarGuest:
    """An association of another process that has a place here."""

    def __init__(self, token: str, caller: Caller, talk: Talk) -> None:
        self.token = token
        self.caller = caller
        self.silent_since: float | None = None
        self._talk = talk

    def idle_seconds(self) -> float:
        """How long it has said nothing, as its process told last."""
        return 0.0 if self.silent_since is None else time.monotonic() - self.silent_since

    def give_way(self) -> None:
        """End the association: its place is another caller's now."""
        try:
            self._talk.say("go", of=self.token)
        except OSError as error:
            log.error("a process that receives does not listen", error=str(error))


class _Member:
    """One of the processes, what it was handed, and who of its associations has a place."""

    def __init__(self, number: int, settings: Settings, lock: int, module: str) -> None:
        self.number = number
        self.guests: dict[str, _FarGuest] = {}
        self.moves = 0
        self.open = 0
        self.handed_at = 0.0
        self.turned_at = 0.0
        self.is_ready = False
        self.is_lost = False
        self._hatch, self._their_hatch = socket.socketpair()
        ours, theirs = socket.socketpair()
        self._their_talk = theirs
        self._hatch.setblocking(False)
        ours.setblocking(False)
        self.talk = Talk(ours)
        handed, told = self._their_hatch.fileno(), theirs.fileno()
        self.child = Child(
            f"receiving process {number}",
            python(module, str(number), str(handed), str(told)),
            log_file=log_file.of_role(settings),
            environment=os.environ
            | {
                "DICOMFERRY_HOME": str(settings.home),
                "DICOMFERRY_SCP__ARCHIVE": str(settings.archive),
                "DICOMFERRY_SCP__PROCESSES": str(settings.scp.processes),
            },
            # The lock as well: the archive is taken as long as one of us lives.
            pass_fds=(handed, told, lock),
        )

    @property
    def takes(self) -> bool:
        """Whether a connection may be handed to it now."""
        return self.is_ready and self.turns and self.child.is_running

    @property
    def turns(self) -> bool:
        """Whether it goes round its loop."""
        return time.monotonic() - self.turned_at < STILL_SECONDS

    def give(self, sock: socket.socket, address: str) -> None:
        """Hand it a connection. Raises OSError."""
        hatch.give(self._hatch, sock, address)
        self.open += 1
        self.handed_at = time.monotonic()

    def left(self) -> list[tuple[socket.socket, str]]:
        """It has ended: the connections that it was handed and did not take. What it said last is forgotten."""
        found = []
        handed = Handed(self._their_hatch)
        handed.setblocking(False)
        try:
            while True:
                sock, (address, _) = handed.accept()
                found.append((sock, address))
        except OSError:
            pass
        self._their_talk.setblocking(False)
        Talk(self._their_talk).forget()
        self._their_talk.setblocking(True)
        self.talk.forget()
        self.guests.clear()
        self.open = 0
        self.is_ready = False
        return found


class Crew:
    """The processes, for the one thread of the role. `lost` is told of the associations that a dead one had."""

    def __init__(
        self,
        settings: Settings,
        lock: int,
        *,
        lost: Callable[[Sequence[str]], object],
        module: str = MODULE,
    ) -> None:
        self._settings = settings
        self._listener: socket.socket | None = None
        self._lost = lost
        self._places = AssociationPlaces(lambda: self.most_associations, lambda: most_of_one(settings.scp, self._moves))
        self._members = [_Member(number, settings, lock, module) for number in range(settings.scp.processes)]
        self._kept_up = 0.0

    @property
    def _moves(self) -> int:
        return max(member.moves for member in self._members)

    @property
    def most_associations(self) -> int:
        """How many associations all processes take at once."""
        return most_associations(self._settings.scp, self._moves)

    def start(self, stop: Stop) -> bool:
        """Start all, and take the port; False when a stop was asked for before they were ready.

        Raises CannotKeepUp, ConfigurationError.
        """
        for member in self._members:
            member.child.start()
        deadline = time.monotonic() + READY_SECONDS
        while not all(member.is_ready for member in self._members):
            if stop.is_set():
                return False
            self._wait([stop], KEEP_UP_SECONDS)
            for member in self._members:
                member.child.require_running()
            if time.monotonic() > deadline:
                raise CannotKeepUp(f"processes that receive were not ready within {READY_SECONDS:g} s")
        self._listener = take_port(self._settings)
        self._listener.setblocking(False)
        return True

    def stand(self, stop: Stop, seconds: float) -> None:
        """Hand on connections for so long, or until a stop is asked for. Raises CannotKeepUp."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not stop.is_set():
            listener = self._listener if any(member.takes for member in self._members) else None
            if self._wait([stop], min(left, KEEP_UP_SECONDS), listener) and listener is not None:
                self._accept(listener, stop)
            if time.monotonic() - self._kept_up >= KEEP_UP_SECONDS:
                self._keep_up()

    @property
    def turns(self) -> bool:
        """Whether all processes go round their loops."""
        return all(member.turns for member in self._members)

    def drain(self, stop: Stop) -> None:
        """Let all of them end in good order, at once if that is urgent."""
        if self._listener is not None:
            self._listener.close()
        for member in self._members:
            member.child.terminate()
        deadline = time.monotonic() + self._settings.timeouts.progress + DRAIN_SECONDS
        pressed = False
        while any(member.child.is_running for member in self._members) and time.monotonic() < deadline:
            self._wait([], KEEP_UP_SECONDS)
            if stop.is_urgent() and not pressed:
                pressed = True
                for member in self._members:
                    member.child.terminate()

    def close(self) -> None:
        """End whatever is left of them."""
        for member in self._members:
            member.child.kill()

    def _wait(self, stops: list[Stop], seconds: float, listener: socket.socket | None = None) -> bool:
        """Hear what the processes say, for at most so long; whether there is a connection as well."""
        sources: list[Any] = [*stops, *(member.talk for member in self._members), *([listener] if listener else [])]
        found, _, _ = select.select(sources, [], [], seconds)
        for member in self._members:
            if member.talk in found:
                for word in member.talk.heard():
                    self._hear(member, word)
        return listener in found

    def _hear(self, member: _Member, word: Word) -> None:
        match word["say"]:
            case "take":
                guest = _FarGuest(word["of"], Caller(word["ae_title"], word["address"]), member.talk)
                why = self._places.take(guest)
                if why is None:
                    member.guests[guest.token] = guest
                self._say(member, "place", of=guest.token, why=why)
            case "leave":
                if (gone := member.guests.pop(word["of"], None)) is not None:
                    self._places.leave(gone)
            case "silent" | "busy":
                if (known := member.guests.get(word["of"])) is not None:
                    known.silent_since = word.get("since")
            case "moves":
                member.moves = word["number"]
            case "ended":
                member.open -= 1
            case "turn":
                member.turned_at = time.monotonic()
            case "ready":
                member.is_ready = True

    def _say(self, member: _Member, what: str, **more: object) -> None:
        try:
            member.talk.say(what, **more)
        except OSError as error:
            # It has not read for thousands of words: what comes next would make no sense to it.
            log.error("a process that receives does not listen and is ended", number=member.number, error=str(error))
            member.child.kill()

    def _accept(self, listener: socket.socket, stop: Stop) -> None:
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors, as a rule: those in use come back.
            log.error("a connection could not be accepted", error=str(error))
            stop.wait(0.1)
            return
        self._hand_on(sock, str(address[0]))

    def _hand_on(self, sock: socket.socket, address: str) -> None:
        """To the process with the fewest connections, of several to the one that has waited longest for one."""
        with sock:
            ready = sorted(
                (member for member in self._members if member.takes), key=lambda one: (one.open, one.handed_at)
            )
            for member in ready:
                try:
                    member.give(sock, address)
                    return
                except OSError as error:
                    log.error("a connection could not be handed on", number=member.number, error=str(error))
            log.error("a connection is closed, since no process takes it", address=address)

    def _keep_up(self) -> None:
        """See who has ended, and start those again whose pause is over."""
        self._kept_up = time.monotonic()
        left: list[tuple[socket.socket, str]] = []
        for member in self._members:
            if not member.child.is_running and not member.is_lost:
                member.is_lost = True
                guests = list(member.guests.values())
                left += member.left()
                for guest in guests:
                    self._places.leave(guest)
                self._lost([guest.token for guest in guests])
            change = member.child.keep_up()
            if change:
                log.error("a process that receives has changed", number=member.number, what=change)
            if member.child.is_running:
                member.is_lost = False
        for sock, address in left:
            self._hand_on(sock, address)

"""One of several processes that receive for the storage SCP: the role hands it connections and gives it places.

Run as a module by the role, which holds the port, the archive's lock and the places: `NUMBER HATCH TALK`, the last two
being descriptors of its sockets.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from dicomferry.daemon.connections import MOST_STRANGERS, Connections
from dicomferry.daemon.hatch import Handed, Talk
from dicomferry.daemon.places import IDLE_SECONDS, Guest
from dicomferry.daemon.receiving_process import ReceivingProcess, take_descriptors
from dicomferry.daemon.stop_signal import StopSignal
from dicomferry.models import settings as settings_module
from dicomferry.models import telemetry
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.settings import Settings
from dicomferry.workers import log_file, parent
from dicomferry.workers.receiving import archive_mark
from dicomferry.workers.receiving.archive import Archive

TICK_SECONDS = 1.0
ANSWER_SECONDS = 10.0
"""How long the role is waited for; it has nothing to do that takes time."""
SAME_SECONDS = 0.5
"""An association that is silent since about the same moment has said nothing meanwhile."""

log = telemetry.logger(__name__)


class AskedPlaces:
    """Places that the role gives. It hears who has been silent for long, and how many moves may be in flight."""

    def __init__(
        self, talk: Talk, *, seconds: float = ANSWER_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._talk = talk
        self._seconds = seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._guests: dict[str, Guest] = {}
        self._answers: dict[str, str | None] = {}
        self._silent: dict[str, float] = {}
        self._moves = -1

    def take(self, guest: Guest) -> str | None:
        """A place for one more, given back by `leave`; or why there is none."""
        token = guest.token
        with self._changed:
            self._guests[token] = guest
        self._talk.say("take", of=token, ae_title=guest.caller.ae_title, address=guest.caller.address)
        with self._changed:
            if self._changed.wait_for(lambda: token in self._answers, self._seconds):
                why = self._answers.pop(token)
                if why is not None:
                    del self._guests[token]
                return why
        self.leave(guest)
        return "the storage SCP does not say whether there is a place"

    def leave(self, guest: Guest) -> None:
        """The association has ended."""
        with self._changed:
            known = self._guests.pop(guest.token, None)
            self._silent.pop(guest.token, None)
        if known is not None:
            self._talk.say("leave", of=guest.token)

    def ended(self) -> None:
        """A connection that was handed to us is over."""
        self._talk.say("ended")

    def hear(self) -> None:
        """Hear the role, until it is gone."""
        try:
            while True:
                for word in self._talk.heard():
                    if word["say"] == "place":
                        with self._changed:
                            if word["of"] in self._guests:
                                self._answers[word["of"]] = word["why"]
                                self._changed.notify_all()
                    elif (guest := self._guests.get(word["of"])) is not None:
                        guest.give_way()
        except (EOFError, OSError):
            return

    def tell(self, moves: int) -> None:
        """Tell the role that we go on, and what has changed: moves that may be in flight, who is silent since when."""
        self._talk.say("turn")
        if moves != self._moves:
            self._moves = moves
            self._talk.say("moves", number=moves)
        with self._changed:
            guests = list(self._guests.items())
        for token, guest in guests:
            idle = guest.idle_seconds()
            since = self._clock() - idle if idle >= IDLE_SECONDS else None
            before = self._silent.get(token)
            if since is None and before is not None:
                del self._silent[token]
                self._talk.say("busy", of=token)
            elif since is not None and (before is None or abs(since - before) > SAME_SECONDS):
                self._silent[token] = since
                self._talk.say("silent", of=token, since=since)


def run(settings: Settings, number: int, hatch: socket.socket, talk: Talk) -> None:
    """Receive until TERM. Raises ConfigurationError, OutOfReach before it has begun."""
    parent.end_with_parent()
    log_file.configure("scp", settings)
    os.umask(0o077)
    take_descriptors()
    stop = StopSignal()
    places = AskedPlaces(talk)
    threading.Thread(target=_hear, args=(places,), name="role", daemon=True).start()
    database = Database(settings.database, patience=settings.lease_seconds)
    archive = Archive(settings.archive, reserve_bytes=settings.scp.reserve_bytes, flush=settings.scp.flush)
    archive_mark.prepare(archive, database)
    processes = settings.scp.processes
    process = ReceivingProcess(settings, archive, database, number=number, processes=processes, places=places)
    strangers = max(1, MOST_STRANGERS // processes)
    handed = Handed(hatch, lost=places.ended)
    connections = Connections(handed, process.begin, ended=places.ended, most_strangers=strangers)
    process.start()
    process.read_limits(stop)
    places.tell(process.moves)
    talk.say("ready")
    parent.tell_ready()
    log.info("a process receives", number=number)
    while not stop.is_set():
        connections.accept(stop, TICK_SECONDS)
        places.tell(process.moves)
    connections.drain(stop, process.waits.progress)
    process.close()


def _hear(places: AskedPlaces) -> None:
    """Hear the role; without it nobody counts, and another one may have the archive soon."""
    places.hear()
    os._exit(parent.ORPHANED)


def main() -> None:
    """Entry point of the process that the role starts."""
    number, hatch, talk = map(int, sys.argv[1:])
    try:
        run(settings_module.load(), number, socket.socket(fileno=hatch), Talk(socket.socket(fileno=talk)))
    except DicomferryError as error:
        print(f"dicomferry scp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

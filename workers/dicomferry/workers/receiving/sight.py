"""Looking at files of the archive before they count: here, or where the archive is out of sight, by the storage SCP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dicomferry.models import telemetry
from dicomferry.models.record.archive import calls, identity
from dicomferry.models.record.archive.identity import DAMAGED, FINE, GONE, KnownFile
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.workers.receiving.archive_mark import View

log = telemetry.logger(__name__)

BATCH = 2000
"""Files in one question to the storage SCP."""
PATIENCE_SECONDS = 20.0
"""How long it has to answer one."""
PAUSE_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often the storage SCP looks for questions."""


class OutOfSight(Exception):
    """Nobody who sees the archive answers: what lies in it is not known."""


class Sight:
    """The archive as one attempt sees it. `progress` is told that something goes on; `sleep` waits."""

    def __init__(
        self,
        root: Path,
        database: Database,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
        progress: Callable[[int], object],
    ) -> None:
        self._root = root
        self._database = database
        self._clock = clock
        self._sleep = sleep
        self._progress = progress

    def keep(self, files: Sequence[KnownFile]) -> set[int]:
        """The rows of those files that are there, whole in size; what was found of the others is written down.

        A file that is gone makes its row history, one of another size is noted as damaged. Raises OutOfSight,
        OutOfReach.
        """
        fine: set[int] = set()
        for first in range(0, len(files), BATCH):
            part = files[first : first + BATCH]
            self._progress(0)
            found = dict(zip((one.instance_id for one in part), self._look(part), strict=True))
            gone = [one for one in part if found[one.instance_id] == GONE]
            damaged = [one for one in part if found[one.instance_id] == DAMAGED]
            if gone:
                identity.make_history(self._database, gone)
            if damaged:
                how = "its size on disk is not the one that was received"
                identity.note_damage(self._database, [(one, how) for one in damaged])
            if gone or damaged:
                log.warning("files of the archive are not as they were received", gone=len(gone), damaged=len(damaged))
            fine.update(key for key, word in found.items() if word == FINE)
        return fine

    def _look(self, files: Sequence[KnownFile]) -> list[str]:
        own = look(self._root, self._database, files)
        if own is not None:
            return own
        if not calls.living_scps(self._database):
            raise OutOfSight(f"{self._root} is not the archive that the record knows, and no storage SCP is running")
        question = identity.ask(self._database, files)
        until = self._clock() + PATIENCE_SECONDS
        while self._clock() < until:
            found = identity.answered(self._database, question)
            if found is not None:
                identity.take_back(self._database, question)
                return found
            self._sleep(PAUSE_SECONDS)
            self._progress(0)
        identity.take_back(self._database, question)
        raise OutOfSight(f"{self._root} is not the archive that the record knows, and the storage SCP does not answer")


def look(root: Path, database: Database, files: Sequence[KnownFile]) -> list[str] | None:
    """What each file is; None where this process does not see the archive that the record knows. Raises OutOfReach."""
    known = identity.mark(database)
    try:
        view = View(root)
        try:
            if known is None or view.mark() != known:
                return None
            return [view.look(one) for one in files]
        finally:
            view.close()
    except OSError as error:
        log.warning("the archive cannot be looked into", error=str(error))
        return None


class StopEvent(Protocol):
    """Something that is asked for once."""

    def wait(self, seconds: float, /) -> bool:
        """Wait until it is, at most so long; whether it was."""


class Lookout(threading.Thread):
    """Answers the questions of workers that do not see the archive; for the storage SCP, which does."""

    def __init__(self, root: Path, database: Database, stop: StopEvent) -> None:
        super().__init__(name="lookout", daemon=True)
        self._root = root
        self._database = database
        self._stop_asked = stop

    def run(self) -> None:
        """Until a stop is asked for."""
        while not self._stop_asked.wait(LOOK_SECONDS):
            try:
                while self.answer():
                    pass
            except DicomferryError as error:
                log.warning("questions about files cannot be answered", error=str(error))

    def answer(self) -> int:
        """Answer what is asked now; how many were answered. Raises OutOfReach."""
        number = 0
        for key, files in identity.questions(self._database, PATIENCE_SECONDS):
            found = look(self._root, self._database, files)
            if found is not None:
                identity.answer(self._database, key, found)
                number += 1
        return number

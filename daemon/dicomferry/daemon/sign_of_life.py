"""A role's sign of life, in a thread that does nothing else: what the role waits for must not make it look dead."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dicomferry.models import telemetry
from dicomferry.models.record import presence
from dicomferry.models.rules.errors import DicomferryError

log = telemetry.logger(__name__)


class SignOfLife(threading.Thread):
    """Calls `beat` every so many seconds until `stop`; what goes wrong with one is made up for by the next."""

    def __init__(self, beat: Callable[[], object], *, seconds: float = presence.BEAT_SECONDS) -> None:
        super().__init__(name="beat", daemon=True)
        self._beat = beat
        self._seconds = seconds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """No further one; the one under way may last as long as the database lets it."""
        self._stopped.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped.is_set():
            try:
                self._beat()
            except DicomferryError as error:
                log.warning("no sign of life could be given", error=str(error))
            except Exception:
                log.exception("no sign of life could be given")
            self._stopped.wait(self._seconds)

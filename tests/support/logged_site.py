"""An archive that receives by a reception log, which is looked after when a test says so; and what a power cut does."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from dicomferry.models.settings import LEAST_LOG
from dicomferry.workers.receiving.archive import OWN
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.reception_log import recovery
from dicomferry.workers.receiving.reception_log.checkpoint import LogKeeper
from dicomferry.workers.receiving.reception_log.reception_log import Tuning
from dicomferry.workers.receiving.reception_log.record_format import FIRST
from dicomferry.workers.receiving.reception_log.recovery import Recovered
from support.receiving import Site


class LoggedSite(Site):
    """A site with the log of one process; `tuning` is the log's. Nothing is old unless a test sets `age_seconds`."""

    def __init__(self, folder: Path, *, number: int = 0, **tuning: Any) -> None:
        super().__init__(folder)
        given = {"segments": 2, "age_seconds": 10_000.0, **tuning}
        self.keeper = LogKeeper(self.archive, number, LEAST_LOG, tuning=Tuning(**given))
        self.keeper.look()
        self.log = self.keeper.log
        self.ingest = partial(Ingest, reception_log=self.log)

    def checkpoint(self) -> None:
        """What is committed is flushed as files, and the log is freed of it."""
        with self.log.lock:
            self.log._retire()
        self.keeper.look()

    def die(self) -> None:
        """The process is no more: its log is nobody's."""
        for segment in (*self.log.free, *self.log.full, *filter(None, [self.log.active])):
            segment.close()
        self.keeper._removals.close()
        for fd in (self.keeper._lock, self.keeper._root):
            os.close(fd)

    def recover(self) -> Recovered:
        """What a restart does first."""
        return recovery.recover(self.archive)

    @property
    def contents(self) -> dict[str, bytes]:
        """All instance files, by their paths."""
        return {path: (self.archive.root / path).read_bytes() for path in self.files}

    @property
    def left_in_log(self) -> bytes:
        """All that stands in the log's segments behind their heads, without zeros."""
        files = (self.archive.root / OWN).glob("log-*/*.segment")
        return b"".join(path.read_bytes()[FIRST:].replace(b"\0", b"") for path in files)

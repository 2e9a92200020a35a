"""A storage SCP of a test's own: the real process on a loopback port, its archive and its rows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.settings import LEAST_LOG
from dicomferry.workers.receiving.archive import Archive
from support.process import LOOPBACK, Server


class StorageScp(Server):
    """`dicomferry scp` with a home of its own; `settings` by keyword as in `scp__accept="any"`."""

    binary = "env"

    def __init__(
        self, *, module: str = "dicomferry.daemon.storage_scp", port: int | None = None, **settings: object
    ) -> None:
        super().__init__(port)
        self.home = self.folder / "home"
        self.home.mkdir()
        self.module = module
        self.settings = settings
        self.database = Database(f"sqlite:///{self.home / 'dicomferry.db'}")
        schema.upgrade(self.database)

    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module]

    def environment(self) -> dict[str, str]:
        # A log as small as can be: each of the many that tests start would write a large one with zeros.
        given = {"scp__host": LOOPBACK, "scp__port": self.port, "scp__reserve_bytes": 0, "scp__log_bytes": LEAST_LOG}
        given |= {"ae_title": "FERRY"} | self.settings
        named = {f"DICOMFERRY_{key.upper()}": str(value) for key, value in given.items()}
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        return {**os.environ, "DICOMFERRY_HOME": str(self.home), "PYTHONPATH": path, **named}

    def prepare(self) -> None:
        self._starts = self._listens()

    def ready(self) -> bool:
        """Whether it takes connections and is on the record, without which nothing is asked to send to it."""
        return super().ready() and self._listens() > self._starts

    def _listens(self) -> int:
        return len(self.said("storage SCP listens")) if self.log.exists() else 0

    @property
    def archive(self) -> Archive:
        return Archive(self.home / "archive")

    @property
    def files(self) -> list[Path]:
        """The instance files."""
        return [self.archive.root / path for path in self.archive.files()]

    @property
    def records(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def said(self, message: str) -> list[dict[str, Any]]:
        """Its log records with this message."""
        return [record for record in self.records if message in record["message"]]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a SELECT gives."""
        return self.database.read(lambda connection: [tuple(row) for row in connection.exec_driver_sql(query)])

    def indexed(self) -> int:
        """How many files have a row."""
        return int(self.rows("SELECT count(*) FROM instance WHERE removed_at IS NULL")[0][0])

    def remove(self) -> None:
        self.database.close()
        super().remove()


@contextmanager
def storage_scp(**settings: Any) -> Iterator[StorageScp]:
    """A running storage SCP."""
    with StorageScp(**settings) as server:
        yield server

"""A file that kills the process that reads it, for real: it alone fails, by name, and the rest of its folder goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from dicomferry.models.documents import jobs
from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import loss, verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import ChunkRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.state import FINAL_JOB_STATES, ChunkState
from support import samples
from support.bench import Bench

WORKER = """
import os, signal
from dicomferry.models import settings as settings_module
from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.workers import runner
from dicomferry.workers.attempts.environment import Environment
from dicomferry.workers.sending import entry

opens = entry.open_file

def open_file(path):
    if b"poison" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    return opens(path)

entry.open_file = open_file
loaded = settings_module.load()
database = Database(loaded.database)
worker = presence.register(database, "worker", slots=4)
runner.run_one(Environment(settings=loaded, database=database, worker=worker, ring=lambda _: None), "bulk")
"""


def test_files_that_kill_the_process_that_plans(tmp_path: Path) -> None:
    """Each worker that opens one of two files is killed by the system: five deaths later both are known, and the good
    files of the folder are at the peer.
    """
    files = tmp_path / "files"
    files.mkdir()
    good = [samples.instance(files / f"{number:02d}.dcm", number=number, size=8) for number in range(6)]
    for name in ("02-poison.dcm", "04-poison.dcm"):
        samples.instance(files / name, number=50 + len(name), size=8)
    home = tmp_path / "home"
    home.mkdir()
    database = Database(f"sqlite:///{home / 'dicomferry.db'}")
    schema.upgrade(database)
    environment = {**os.environ, "DICOMFERRY_HOME": str(home)}
    deaths = 0
    with Bench() as bench:
        remote = book.resolve_id(database, bench.address)
        job_id = verbs.submit(database, spec.StoreSpec(paths=(str(files),)), remote)
        while jobs.show(database, job_id)["state"] not in FINAL_JOB_STATES:
            done = subprocess.run([sys.executable, "-P", "-c", WORKER], env=environment, capture_output=True, text=True)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            deaths += done.returncode != 0
            assert deaths <= 6
            loss.expire(database, everything=True)
            # The pauses after deaths have tests of their own.
            due = sa.update(ChunkRow).where(ChunkRow.state == ChunkState.PENDING).values(not_before=ChunkRow.waits_from)
            database.write(lambda connection, due=due: connection.execute(due))  # type: ignore[misc]
        assert set(bench.stores) == samples.uids(good)
    failed = [row["path"] for row in jobs.items(database, job_id) if row["reason"] == "worker died twice on it"]
    assert sorted(Path(path or "").name for path in failed) == ["02-poison.dcm", "04-poison.dcm"]
    assert deaths == 5
    database.close()

"""The main job, `submit store FOLDER -r --wait`, against storescu: from typing the command until it has the answer.

Ours reads the folder, writes a row for each instance, sends it through Redis, Celery workers and the record, and ends
when the last answer is recorded. storescu reads and sends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from benchmarks import data, receivers
from benchmarks.harness import Row, interleave, sized
from benchmarks.store import PDU, THEY_DO, sent, theirs
from support.installation import Installation, Roles

FEW, MANY = 997, 9973
ROWS = ((4, 1.4), (1, 1.0))
"""Associations, and the least ratio wanted."""

DOES = "reads folder and files, a row for each, sends, records each answer durably, ends when the last one is"


def run(rounds: int) -> Iterator[Row]:
    """With four associations and with one. The sink takes several at once, as an archive does."""
    folders = data.folder("MR", FEW), data.folder("MR", MANY)
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        with receivers.sink("--fork", "-pdu", PDU) as port, installation.up():
            installation.run("remote", "add", "sink", f"ANY-SCP@127.0.0.1:{port}")
            other = sent(theirs(port), "MR", FEW, MANY)
            for associations, target in ROWS:
                installation.run("remote", "set", "sink", "--max-associations", str(associations))
                row = Row(
                    f"submit store --wait, MR, {associations} associations", "/s", "storescu", target, DOES, THEY_DO
                )
                ours = sized(partial(submitted, installation, "sink"), *folders, MANY - FEW)
                yield interleave(row, ours, other, rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def submitted(installation: Installation, remote: str, folder: Path) -> float:
    """The seconds from typing the command to its end; fails where not everything was confirmed."""
    began = time.perf_counter()
    installation.run("submit", "store", remote, os.fspath(folder), "-r", "--wait")
    return time.perf_counter() - began


def memory(roles: Roles) -> dict[str, float]:
    """Megabytes of each process; the pool's shared pages count in each."""
    pids = {"up": roles.up, "broker": roles.broker, "worker role": roles.worker, "celery": roles.celery}
    pids |= {f"pool {number}": pid for number, pid in enumerate(roles.pool)}
    return {name: round(psutil.Process(pid).memory_info().rss / 1e6, 1) for name, pid in pids.items() if pid}

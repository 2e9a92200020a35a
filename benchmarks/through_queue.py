"""The main job: a folder through submit, Redis, Celery workers and the record, against storescu alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

from benchmarks import data, receivers
from benchmarks.harness import Measured, Row, interleave, timed_process
from support.installation import Installation, Roles, Up

INSTANCES = 10_000
ROWS = ((4, 1.2), (1, 0.9))


def run(rounds: int) -> None:
    """With four associations and with one. The sink takes several at once, as an archive does."""
    folder = data.folder("MR", INSTANCES)
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        with receivers.sink("--fork", "-pdu", "16384") as port, installation.up() as up:
            argv = ["storescu", "-pdu", "16384", "-R", "+sd", "+r", "127.0.0.1", str(port), str(folder)]
            installation.run("remote", "add", "sink", f"ANY-SCP@127.0.0.1:{port}")
            for associations, target in ROWS:
                installation.run("remote", "set", "sink", "--max-associations", str(associations))
                row = Row(f"through the queue, {INSTANCES} MR, {associations} associations", "/s", "storescu", target)
                interleave(
                    row,
                    lambda: submitted(installation, up, "sink", folder, INSTANCES),
                    lambda: timed_process(argv, INSTANCES, receivers.ENVIRONMENT),
                    rounds,
                )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def submitted(installation: Installation, up: Up, remote: str, folder: Path, number: int) -> Measured:
    """The rate that `jobs show` gives, from the job's start to its end, and the memory of each process."""
    done = installation.run("submit", "store", remote, os.fspath(folder), "-r", "--wait")
    assert done.returncode == 0, done.stderr
    job = installation.json("jobs", "show", "last")
    assert job["items"]["succeeded"] == number
    return Measured(job["rate_instances_per_s"], rss_mb=memory(up.roles()))


def memory(roles: Roles) -> dict[str, float]:
    """Megabytes of each process; the pool's shared pages count in each."""
    pids = {"up": roles.up, "broker": roles.broker, "worker role": roles.worker, "celery": roles.celery}
    pids |= {f"pool {number}": pid for number, pid in enumerate(roles.pool)}
    return {name: round(psutil.Process(pid).memory_info().rss / 1e6, 1) for name, pid in pids.items() if pid}

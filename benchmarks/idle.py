"""What it costs to be there: the processor time of a command that reads, and the memory of `up` with nothing to do."""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.harness import Measured, Row, interleave
from benchmarks.receivers import sink
from support.installation import Installation

SETTLED = 5.0
"""Seconds after `up` is ready: what it does to begin with is done."""
AT_ONCE = 3


def run(rounds: int) -> Iterator[Row]:
    """`jobs list` with a job in the record, then `up` after that job."""
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        with sink("--fork") as port, installation.up():
            installation.run("remote", "add", "sink", f"ANY-SCP@127.0.0.1:{port}")
            installation.run("submit", "store", "sink", data.folder("MR", 23), "-r", "--wait")
            row = Row("jobs list, processor time", "s", "", None, "starts, reads the record, prints, ends", most=0.45)
            yield interleave(row, partial(_listing, installation), None, rounds)
        # One that has just started, as a machine has it in the morning.
        row = Row(
            "up with nothing to do, memory", "MB", "", None, "all roles and the broker, proportional set size", most=350
        )
        yield interleave(row, partial(_memory, installation), None, 1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _listing(installation: Installation) -> Measured:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(AT_ONCE):
        installation.run("jobs", "list")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Measured((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / AT_ONCE)


def _memory(installation: Installation) -> Measured:
    """Shared pages count once: each process has its share of them."""
    with installation.up():
        time.sleep(SETTLED)
        return Measured(sum(map(_pss, installation.pids())) / 1e6)


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell the memory of process {pid}")

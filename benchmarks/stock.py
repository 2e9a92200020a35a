"""DCMTK as it comes, with Nagle's algorithm on: what most sites run.

Everywhere else TCP_NODELAY is set for it. Without, it holds the end of each message back until what came before is
acknowledged, which a receiver that waits for it does after 40 ms, unless it knows better.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import receivers
from benchmarks.harness import Measured, Row, interleave, timed_process
from benchmarks.receive import shares
from support.installation import SCRIPT
from support.scp import StorageScp

NUMBER = 100
STOCK = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}


def run(rounds: int) -> Iterator[Row]:
    """To its storescp, and from its storescu."""
    (folder,) = shares("MR", NUMBER, 1)
    with receivers.sink(environment=STOCK) as port:
        argv = ["storescu", "+sd", "+r", "127.0.0.1", str(port), str(folder)]
        row = Row(f"send MR x {NUMBER}, to storescp as it comes", "/s", "storescu as it comes", None)
        ours = [*SCRIPT, "scu", "--store", "-r", "127.0.0.1", str(port), str(folder)]
        yield interleave(
            row, lambda: timed_process(ours, NUMBER, STOCK), lambda: timed_process(argv, NUMBER, STOCK), rounds
        )
    row = Row(f"SCP MR x {NUMBER}, from storescu as it comes", "/s", "storescp as it comes", None)
    yield interleave(row, lambda: _into_ours(folder), lambda: _into_storescp(folder), rounds)


def _into_ours(folder: Path) -> Measured:
    with StorageScp() as scp:
        return _store(folder, scp.port)


def _into_storescp(folder: Path) -> Measured:
    with receivers.sink(environment=STOCK) as port:
        return _store(folder, port)


def _store(folder: Path, port: int) -> Measured:
    began = time.perf_counter()
    subprocess.run(["storescu", "+sd", "+r", "127.0.0.1", str(port), str(folder)], env=STOCK, check=True)
    return Measured(NUMBER / (time.perf_counter() - began))

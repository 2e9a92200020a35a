"""`dicomferry scu --echo` as a whole process, against pynetdicom's echoscu app: the start is what counts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.harness import Measured, Row, interleave
from support.peers import StoreScp

AT_ONCE = 5
SHARE = 0.6
"""The most of echoscu's time that ours may take."""

WHOLE = "starts, associates, C-ECHO, releases, ends"


def run(rounds: int) -> Iterator[Row]:
    """Both to the same storescp."""
    with StoreScp("ANY-SCP") as scp:
        peer = ["127.0.0.1", str(scp.port)]
        ours = [str(Path(sys.executable).with_name("dicomferry")), "scu", "--echo", *peer]
        theirs = [sys.executable, "-m", "pynetdicom", "echoscu", *peer]
        row = Row("scu --echo, whole process", "/s", "pynetdicom echoscu", round(1 / SHARE, 2), WHOLE, WHOLE)
        yield interleave(row, partial(_echoes, ours), partial(_echoes, theirs), rounds)


def _echoes(argv: list[str]) -> Measured:
    began = time.perf_counter()
    for _ in range(AT_ONCE):
        subprocess.run(argv, env=receivers.ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return Measured(AT_ONCE / (time.perf_counter() - began))

"""Against what else there is: pynetdicom's own storescu and storescp apps, and gdcmscu --store.

Figures to know, without a target: they are whole programs of another kind. Each runs as a user would run it, with no
more images than it needs for a steady rate, and what arrived is counted.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import data, receivers
from benchmarks.harness import Measured, Row, Run, interleave
from benchmarks.receive import ours as our_scp
from benchmarks.receive import shares
from benchmarks.send import ours as our_sender
from support.peers import PynetdicomScp, StoreScp

PYNETDICOM = (sys.executable, "-m", "pynetdicom")
NUMBERS = {"MR": 200, "CT": 100}


def run(rounds: int) -> None:
    """Sending to the same storescp, then receiving from the same storescu."""
    for kind, number in NUMBERS.items():
        paths = data.files(kind, number)
        folder = str(paths[0].parent.parent)
        with _counting() as (scp, counted):
            port = str(scp.port)
            programs = {
                "pynetdicom storescu": [*PYNETDICOM, "storescu", "127.0.0.1", port, folder, "-r", "-cx"],
                "gdcmscu": ["gdcmscu", "--store", "127.0.0.1", port, "-r", "-i", folder],
            }
            for name, argv in programs.items():
                row = Row(f"send {kind} x {number}, one association, {name}", "/s", name, None)
                ours, theirs = partial(our_sender, paths, scp.port), partial(_program, argv, number)
                interleave(row, counted(number, ours), counted(number, theirs), rounds)
        whole = shares(kind, number, 1)
        row = Row(f"SCP {kind} 1 sender, pynetdicom storescp", "/s", "pynetdicom storescp", None)
        interleave(row, our_scp(whole, number), partial(_pynetdicom, whole[0], number), rounds)


@contextlib.contextmanager
def _counting() -> Iterator[tuple[StoreScp, Callable[[int, Run], Run]]]:
    """storescp as a sink whose log tells how many came: (it, what wraps a run so that it fails when some did not)."""
    with StoreScp("ANY-SCP", "--ignore", "-pdu", "16384") as scp:

        def counted(number: int, once: Run) -> Run:
            def checked() -> Measured:
                before = scp.stores()
                measured = once()
                if scp.stores() != before + number:
                    raise RuntimeError(f"{scp.stores() - before} of {number} arrived")
                return measured

            return checked

        yield scp, counted


def _program(argv: list[str], number: int) -> Measured:
    """Its exit code tells nothing: gdcmscu 3.0.21 aborts after every good association."""
    began = time.perf_counter()
    subprocess.run(argv, env=receivers.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Measured(number / (time.perf_counter() - began))


def _pynetdicom(folder: Path, number: int) -> Measured:
    """storescu to its storescp, which writes what it receives."""
    with PynetdicomScp() as scp:
        began = time.perf_counter()
        argv = ["storescu", "+sd", "+r", "127.0.0.1", str(scp.port), str(folder)]
        subprocess.run(argv, env=receivers.ENVIRONMENT, check=True)
        seconds = time.perf_counter() - began
        if len(scp.received()) != number:
            raise RuntimeError("pynetdicom did not keep all")
        return Measured(number / seconds)

"""Against what else there is: pynetdicom's own storescu and storescp apps, and gdcmscu --store.

Figures to know, without a target. Each runs as a user would run it, whole commands, rates between a smaller and a
larger run; what arrived is counted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from benchmarks import data, receivers
from benchmarks.harness import Measured, Row, interleave, sized
from benchmarks.receive import Load, load, send
from benchmarks.receive import ours as our_scp
from support.installation import SCRIPT
from support.peers import PynetdicomScp, StoreScp

PYNETDICOM = (sys.executable, "-m", "pynetdicom")
NUMBERS = {"MR": ((499, 4999), (43, 199)), "CT": ((97, 997), (23, 97))}
"""How many images the smaller and the larger run have, ours and theirs: their rates are the same for any number."""


def run(rounds: int) -> Iterator[Row]:
    """Sending to the same storescp, then receiving from the same storescu."""
    for kind, numbers in NUMBERS.items():
        with StoreScp("ANY-SCP", "--ignore", "-pdu", "16384") as scp:
            peer = ["127.0.0.1", str(scp.port)]
            ours = [*SCRIPT, "scu", "--store", *peer, "-r", "-i"]
            programs = {
                "pynetdicom storescu": [*PYNETDICOM, "storescu", *peer, "-r", "-cx"],
                "gdcmscu": ["gdcmscu", "--store", *peer, "-r", "-i"],
            }
            for name, argv in programs.items():
                mine, other = (
                    sized(partial(_sent, scp, words, kind), few, many, many - few)
                    for words, (few, many) in zip((ours, argv), numbers, strict=True)
                )
                yield interleave(Row(f"scu --store, {kind}, {name}", "/s", name, None), mine, other, rounds)
        row = Row(f"storage SCP, {kind}, pynetdicom storescp", "/s", "pynetdicom storescp", None)
        sent = load(kind, 1)
        yield interleave(row, our_scp(sent), partial(_pynetdicom, sent), rounds)


def _sent(scp: StoreScp, argv: list[str], kind: str, number: int) -> float:
    """The seconds of the whole command; its exit code tells nothing: gdcmscu 3.0.21 aborts after every association."""
    before = scp.stores()
    began = time.perf_counter()
    subprocess.run(
        [*argv, str(data.folder(kind, number))],
        env=receivers.ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    if scp.stores() != before + number:
        raise RuntimeError(f"{scp.stores() - before} of {number} arrived")
    return seconds


def _pynetdicom(sent: Load) -> Measured:
    """storescu to its storescp, which writes what it receives."""
    with PynetdicomScp() as scp:
        measured = send(scp.port, sent)
        if len(scp.received()) != sum(sent.numbers):
            raise RuntimeError("pynetdicom did not keep all")
        return measured

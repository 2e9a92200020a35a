"""A remote that is 20 ms away: `submit store --wait` with eight associations, against storescu's one; whole commands.

The line is a relay in a process of its own, which holds every byte back for 10 ms in either direction.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import data, receivers
from benchmarks.harness import Row, interleave, sized
from benchmarks.store import PDU, THEY_DO, sent, theirs
from benchmarks.through_queue import DOES, submitted
from support.installation import Installation
from support.relay import Relay

ASSOCIATIONS = 8
ROUND_TRIP = 0.02
ROWS = ((8, 211, 2003, 7.0), (1, 43, 397, 5.0))
"""Studies, how many images in the smaller and in the larger run, the least ratio wanted."""
THEIRS = 23, 223
"""storescu's rate is the same for any number, and so low that more would only take longer."""


def run(rounds: int) -> Iterator[Row]:
    """A job of several studies, and one study alone."""
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home, workers=ASSOCIATIONS)
        with receivers.sink("--fork", "-pdu", PDU) as sink, line(sink) as port, installation.up():
            installation.run("remote", "add", "far", f"ANY-SCP@127.0.0.1:{port}")
            installation.run("remote", "set", "far", "--max-associations", str(ASSOCIATIONS))
            other = sent(theirs(port), "MR", *THEIRS)
            for studies, few, many, target in ROWS:
                folders = data.folder("MR", few, studies=studies), data.folder("MR", many, studies=studies)
                ours = sized(partial(submitted, installation, "far"), *folders, many - few)
                what = f"{studies} studies" if studies > 1 else "one study"
                row = Row(
                    f"{ROUND_TRIP * 1000:.0f} ms away, {many} MR in {what}", "/s", "storescu", target, DOES, THEY_DO
                )
                yield interleave(row, ours, other, rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def line(port: int) -> Iterator[int]:
    """The relay's port."""
    argv = [sys.executable, "-m", "benchmarks.far", str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline())
        process.stdin.close()


if __name__ == "__main__":
    with Relay(int(sys.argv[1]), delay=ROUND_TRIP / 2) as relay:
        print(relay.port, flush=True)
        sys.stdin.read()

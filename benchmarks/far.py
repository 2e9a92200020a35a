"""A remote that is 20 ms away: eight associations of ours, through the queue, against storescu's one.

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
from pathlib import Path

from benchmarks import data, receivers
from benchmarks.harness import Row, interleave, timed_process
from benchmarks.through_queue import submitted
from support.installation import Installation
from support.relay import Relay

INSTANCES = 8000
"""Two chunks of 500 for each association."""
THEIRS = 500
"""storescu's rate is the same for any number, and so low that more would only take longer."""
ASSOCIATIONS = 8
ROUND_TRIP = 0.02


def run(rounds: int) -> None:
    """One row."""
    folder, fewer = data.folder("MR", INSTANCES), data.folder("MR", THEIRS)
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home, workers=ASSOCIATIONS)
        with receivers.sink("--fork", "-pdu", "16384") as sink, line(sink) as port, installation.up() as up:
            installation.run("remote", "add", "far", f"ANY-SCP@127.0.0.1:{port}")
            installation.run("remote", "set", "far", "--max-associations", str(ASSOCIATIONS))
            argv = ["storescu", "-pdu", "16384", "-R", "+sd", "+r", "127.0.0.1", str(port), str(fewer)]
            name = f"{ROUND_TRIP * 1000:.0f} ms away, {INSTANCES} MR, {ASSOCIATIONS} associations"
            interleave(
                Row(name, "/s", "storescu", 6.0),
                lambda: submitted(installation, up, "far", folder, INSTANCES),
                lambda: timed_process(argv, THEIRS, receivers.ENVIRONMENT),
                rounds,
            )
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

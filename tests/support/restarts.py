"""Starts the storage SCP on one folder after another, each in a process of its own: run as a module by `Restarts`.

The modules are loaded once; for each line on standard input (a JSON object: the environment, where the output goes) a
child is forked that is the role from its entry point on. It is told to end as soon as it says that it is ready.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from dicomferry.daemon import storage_scp
from dicomferry.workers import parent
from dicomferry.workers.dimse.wire import associate_as_acceptor


class Restarts:
    """A process that starts storage SCPs. A context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.restarts"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def restart(self, environment: Mapping[str, str], log: Path) -> tuple[bool, int]:
        """Let one begin, and end in good order; whether it became ready, and its exit code."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"environment": dict(environment), "log": str(log)}), file=self._process.stdin, flush=True)
        ready, code = json.loads(self._process.stdout.readline())
        return bool(ready), int(code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _restart(environment: Mapping[str, str], log: str) -> tuple[bool, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for output in (1, 2):
            os.dup2(fd, output)
        os.close(reading)
        os.environ.clear()
        os.environ.update(environment)
        os.environ[parent.READY_FD] = str(writing)
        try:
            storage_scp.main()
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        os._exit(1)
    os.close(writing)
    ready = os.read(reading, 1) == b"1"
    os.close(reading)
    if ready:
        os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return ready, os.waitstatus_to_exitcode(status)


def main() -> None:
    # What a role loads when it begins; frozen, as the role does it, so that no child walks through all of it.
    associate_as_acceptor.prepare()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_restart(order["environment"], order["log"])), flush=True)


if __name__ == "__main__":
    main()

"""DCMTK's storescp as a sink, TCP_NODELAY on: without it, it waits 40 ms a message and nothing can be compared."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator

ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


@contextlib.contextmanager
def sink(*options: str, environment: dict[str, str] | None = None) -> Iterator[int]:
    """`storescp --ignore`: the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    argv = ["storescp", "--ignore", "-dhl", "-pm", *options, str(port)]
    process = subprocess.Popen(
        argv, env=environment or ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        yield port
    finally:
        process.kill()
        process.wait()

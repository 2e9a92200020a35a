"""A profile, no receiver: what a disk allows whoever writes each instance durably, at its best.

Bare loops of write + fdatasync into a preallocated file whose blocks were written before.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

_CHUNK = bytes(1 << 20)


def seconds(shares: Sequence[Sequence[Path]]) -> float:
    """How long copies of all these files take, each share in a process of its own, all at once."""
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(len(shares) + 1)
    scratch = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        loops = [
            fork.Process(target=_loop, args=(share, scratch / str(index), start)) for index, share in enumerate(shares)
        ]
        for loop in loops:
            loop.start()
        start.wait()
        began = time.perf_counter()
        for loop in loops:
            loop.join()
        taken = time.perf_counter() - began
        if any(loop.exitcode for loop in loops):
            raise RuntimeError("a flush loop failed")
        return taken
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _loop(paths: Sequence[Path], into: Path, start: Barrier) -> None:
    contents = [path.read_bytes() for path in paths]
    fd = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for _ in range(sum(map(len, contents)) // len(_CHUNK) + 1):
        os.write(fd, _CHUNK)
    os.fsync(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    start.wait()
    for content in contents:
        os.write(fd, content)
        os.fdatasync(fd)
    os.close(fd)

"""What a disk allows whoever makes each file durable: bare loops of write + fdatasync + link + fsync of the folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

left: list[Path] = []
"""What `remove` is for: ext4 finds a new file's inode slowly among those freed within minutes."""


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
        left.append(scratch)


def remove() -> None:
    """Delete what the loops wrote."""
    while left:
        shutil.rmtree(left.pop(), ignore_errors=True)


def _loop(paths: Sequence[Path], into: Path, start: Barrier) -> None:
    contents = [path.read_bytes() for path in paths]
    into.mkdir()
    place = os.open(into, os.O_RDONLY)
    start.wait()
    for index, content in enumerate(contents):
        temporary = str(into / f"t{index}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, content)
        os.fdatasync(fd)
        os.close(fd)
        os.link(temporary, into / f"{index}.dcm")
        os.fsync(place)
        os.unlink(temporary)

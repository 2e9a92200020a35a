"""The inventory of a tree, against reading the first 4 KB of each file in Python."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import data
from benchmarks.harness import Measured, Row, Run, interleave
from dicomferry.workers.sending.inventory import inventory

FILES = 10_000
DOES = "walks the tree, reads and checks each header; in this process"
THEY_DO = "has the list, opens, stats and reads 4 KB of each; in this process"


def run(rounds: int) -> Iterator[Row]:
    """Warm, and cold (each file's pages dropped from the cache first)."""
    folder = data.folder("MR", FILES)
    paths = data.files("MR", FILES)
    yield interleave(
        Row("inventory, warm", "/s", "reading 4 KB", None, DOES, THEY_DO),
        lambda: _ours(folder),
        lambda: _reading(paths),
        rounds,
    )
    yield interleave(
        Row("inventory, cold", "/s", "reading 4 KB", round(1 / 1.5, 3), DOES, THEY_DO),
        lambda: _cold(paths, lambda: _ours(folder)),
        lambda: _cold(paths, lambda: _reading(paths)),
        rounds,
    )


def _ours(folder: Path) -> Measured:
    began = time.perf_counter()
    number = sum(found.header is not None for found in inventory([os.fsencode(folder)], recursive=True))
    assert number == FILES
    return Measured(number / (time.perf_counter() - began))


def _reading(paths: list[Path]) -> Measured:
    began = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fstat(fd)
        os.read(fd, 4096)
        os.close(fd)
    return Measured(len(paths) / (time.perf_counter() - began))


def _cold(paths: list[Path], measure: Run) -> Measured:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    return measure()

"""The storage SCP against Orthanc, against storescp, and against what the disk and the stream allow.

Both sides receive from the same storescu, first a smaller and then a larger folder, and the rate is that of the
difference, as the sender sees it. Ours makes each file durable before it answers, and indexes it; Orthanc writes and
indexes; storescp writes.

What a run leaves is deleted after the last one: ext4 looks for a new file's inode slowly among those that were freed
within seconds, and whoever runs next would pay for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import psutil

from benchmarks import data, flushing
from benchmarks.harness import WORK, Measured, Row, Run, interleave, marginal
from benchmarks.receivers import ENVIRONMENT, sink
from dicomferry.models.settings import ScpSettings
from support.peers import Orthanc, StoreScp
from support.process import Server
from support.scp import StorageScp

NUMBERS = {"MR": (199, 1999), "CT": (97, 499)}
"""How many images the smaller and the larger run have."""
SENDERS = 4
LOG_BYTES = ScpSettings().log_bytes
"""That of the settings: tests have a smaller one."""
TARGETS = {"MR": {1: 3.0, SENDERS: 2.2}, "CT": {1: 2.3, SENDERS: 2.0}}
"""The least ratio wanted, by kind and number of senders."""
DOES = "writes, makes durable before each answer, indexes, looks for duplicates"


def run(rounds: int) -> Iterator[Row]:
    """All rows, for images of 32 KB and of 0.5 MB."""
    left: list[Path] = []
    with mock.patch.object(Server, "remove", lambda server: left.append(server.folder)):
        try:
            yield from _durable(rounds)
            yield from _limits(rounds)
            yield from _not_flushed(rounds)
        finally:
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)


def _durable(rounds: int) -> Iterator[Row]:
    for kind, targets in TARGETS.items():
        for senders, target in targets.items():
            sent = load(kind, senders)
            for processes in _processes(senders):
                row = Row(_name(kind, sent, processes), "/s", "Orthanc", target, DOES, "writes, indexes; no flush")
                yield interleave(row, ours(sent, processes), partial(_orthanc, sent), rounds)


def _limits(rounds: int) -> Iterator[Row]:
    against = "storescp --ignore, then a bare loop"
    they_do = "throws the stream away; then each image is written and flushed into a preallocated file; no index"
    sent = load("MR", 1)
    row = Row(f"{_name('MR', sent, 1)}, limit", "/s", against, 0.8, DOES, they_do)
    yield interleave(row, ours(sent), partial(_limit, sent), rounds)


def _not_flushed(rounds: int) -> Iterator[Row]:
    does, they_do = "writes, indexes, looks for duplicates; no flush", "writes the stream as it comes; no flush"
    for senders, target in ((1, 1.0), (SENDERS, 0.8)):
        sent = load("MR", senders)
        for processes in _processes(senders):
            row = Row(f"{_name('MR', sent, processes)}, flush off", "/s", "storescp +B +xa", target, does, they_do)
            yield interleave(row, ours(sent, processes, flush=False), partial(storescp, sent), rounds)


def _name(kind: str, sent: Load, processes: int) -> str:
    return f"storage SCP, {kind}, {sent}" + f", {processes} processes" * (processes > 1)


def _processes(senders: int) -> tuple[int, ...]:
    """One process as it comes, and as many as there are cores where several send."""
    cores = os.cpu_count() or 1
    return (1,) if senders == 1 or cores == 1 else (1, cores)


@dataclass(frozen=True)
class Load:
    """What is sent, a folder for each sender: first `few`, then `many`, whose numbers of images are `numbers`."""

    few: list[Path]
    many: list[Path]
    numbers: tuple[int, int]

    def __str__(self) -> str:
        return f"{len(self.many)} sender{'s' * (len(self.many) > 1)}"


def load(kind: str, senders: int) -> Load:
    """The images of a kind, shared among senders."""
    few, many = NUMBERS[kind]
    return Load(shares(kind, few, senders), shares(kind, many, senders), (few, many))


def shares(kind: str, number: int, senders: int) -> list[Path]:
    """The same images as one folder for each sender."""
    files = data.files(kind, number)
    folders = [WORK / f"{kind}-{number}-share{n}of{senders}" for n in range(senders)]
    for n, folder in enumerate(folders):
        if not folder.exists():
            folder.mkdir()
            for file in files[n::senders]:
                (folder / f"{file.parent.name}-{file.name}").symlink_to(file)
    return folders


def send(port: int, load: Load, pid: int | None = None) -> Measured:
    """All folders at once, a storescu each, the small ones and then the large ones; the receiver's processor time."""
    # Its port may be there before it is ready: what it does to begin with is not receiving.
    subprocess.run(["echoscu", "-aec", "ANY", "127.0.0.1", str(port)], env=ENVIRONMENT, check=True)
    few = _seconds(port, load.few)
    before = _used(pid) if pid else 0.0
    many = _seconds(port, load.many)
    rate = marginal(few, many, load.numbers[1] - load.numbers[0])
    return Measured(rate, _used(pid) - before) if pid else Measured(rate)


def _used(pid: int) -> float:
    """Processor seconds of a receiver and of the processes that receive for it."""
    role = psutil.Process(pid)
    times = [process.cpu_times() for process in (role, *role.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _seconds(port: int, folders: list[Path]) -> float:
    argv = ["storescu", "-aec", "ANY", "+sd", "+r", "127.0.0.1", str(port)]
    began = time.perf_counter()
    senders = [subprocess.Popen([*argv, str(folder)], env=ENVIRONMENT) for folder in folders]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"storescu ended with {codes}")
    return seconds


def ours(load: Load, processes: int = 1, *, flush: bool = True) -> Run:
    """Our storage SCP with an archive of its own, started anew for each run."""

    def once() -> Measured:
        with StorageScp(scp__flush=flush, scp__processes=processes, scp__log_bytes=LOG_BYTES) as scp:
            measured = send(scp.port, load, scp.pid)
            deadline = time.monotonic() + 10
            while scp.indexed() < sum(load.numbers):
                if time.monotonic() > deadline:
                    raise RuntimeError("the index is more than ten seconds behind")
                time.sleep(0.02)
            return measured

    return once


def _orthanc(load: Load) -> Measured:
    with Orthanc() as orthanc:
        measured = send(orthanc.port, load, orthanc.pid)
        if orthanc.count() != sum(load.numbers):
            raise RuntimeError("Orthanc did not keep all")
        return measured


def storescp(load: Load) -> Measured:
    """DCMTK's, which forks for each association, so that its processor time is not to be had."""
    with StoreScp() as scp:
        measured = send(scp.port, load)
        if len(scp.files()) != sum(load.numbers):
            raise RuntimeError("storescp did not keep all")
        return measured


def _limit(load: Load) -> Measured:
    """The streams into a sink, then a bare write + fdatasync into a preallocated file: one after the other.

    As many streams at once, and as many processes that flush, as there are folders.
    """
    number = load.numbers[1]
    with sink("--fork") as port:
        streamed = load.numbers[1] / send(port, load).rate
    return Measured(number / (streamed + flushing.seconds([sorted(folder.rglob("*.dcm")) for folder in load.many])))

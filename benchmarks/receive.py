"""The storage SCP against Orthanc, against storescp, and against what the disk and the stream allow.

Both sides receive from the same storescu, first a smaller and then a larger folder, and the rate is that of the
difference, as the sender sees it. Ours makes each file durable before it answers, and indexes it; Orthanc writes and
indexes; storescp writes.

What a run leaves is deleted after the last one: ext4 looks for a new file's inode slowly among those that were freed
within seconds, and whoever runs next would pay for it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
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


def run(rounds: int) -> None:
    """All rows, for images of 32 KB and of 0.5 MB."""
    left: list[Path] = []
    with mock.patch.object(Server, "remove", lambda server: left.append(server.folder)):
        try:
            _run(rounds)
        finally:
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
            flushing.remove()


def _run(rounds: int) -> None:
    for kind in NUMBERS:
        whole, parted = load(kind, 1), load(kind, SENDERS)
        for senders, target in ((whole, 3.0 if kind == "MR" else 2.3), (parted, 2.2 if kind == "MR" else 2.0)):
            row = Row(f"storage SCP, {kind}, {senders}", "/s", "Orthanc", target)
            interleave(row, ours(senders), lambda senders=senders: _orthanc(senders), rounds)  # type: ignore[misc]
            row = Row(f"storage SCP, {kind}, {senders}, limit", "/s", "stream + flush loop", None)
            interleave(row, ours(senders), lambda senders=senders: _limit(senders), rounds)  # type: ignore[misc]
            row = Row(f"storage SCP, {kind}, {senders}, flush off", "/s", "storescp +B +xa", None)
            interleave(row, ours(senders, flush=False), lambda senders=senders: storescp(senders), rounds)  # type: ignore[misc]


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
    process = psutil.Process(pid) if pid else None
    before = process.cpu_times() if process else None
    many = _seconds(port, load.many)
    rate = marginal(few, many, load.numbers[1] - load.numbers[0])
    if process is None or before is None:
        return Measured(rate)
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Measured(rate, cpu, {"receiver": process.memory_info().rss / 1e6})


def _seconds(port: int, folders: list[Path]) -> float:
    argv = ["storescu", "-aec", "ANY", "+sd", "+r", "127.0.0.1", str(port)]
    began = time.perf_counter()
    senders = [subprocess.Popen([*argv, str(folder)], env=ENVIRONMENT) for folder in folders]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"storescu ended with {codes}")
    return seconds


def ours(load: Load, *, flush: bool = True) -> Run:
    """Our storage SCP with an archive of its own, started anew for each run."""

    def once() -> Measured:
        with StorageScp(scp__flush=flush, scp__log_bytes=LOG_BYTES) as scp:
            measured = send(scp.port, load, scp.pid)
            deadline = time.monotonic() + 2
            while scp.indexed() < sum(load.numbers):
                if time.monotonic() > deadline:
                    raise RuntimeError("the index is more than two seconds behind")
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
    """The streams into a sink, then a bare write + fdatasync + link + fsync of the folder: one after the other.

    As many streams at once, and as many processes that flush, as there are folders.
    """
    number = load.numbers[1]
    with sink("--fork") as port:
        streamed = load.numbers[1] / send(port, load).rate
    return Measured(number / (streamed + flushing.seconds([sorted(folder.rglob("*.dcm")) for folder in load.many])))

"""The storage SCP against Orthanc, against storescp, and against what the disk and the stream allow.

What a run leaves is deleted after the last one: ext4 looks for a new file's inode slowly among those that were freed
within seconds, and whoever runs next would pay for it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import psutil

from benchmarks import data, flushing
from benchmarks.harness import WORK, Measured, Row, Run, interleave
from benchmarks.receivers import ENVIRONMENT, sink
from support.peers import Orthanc, StoreScp
from support.process import Server
from support.scp import StorageScp

NUMBERS = {"MR": 800, "CT": 300}
SENDERS = 4


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
    for kind, number in NUMBERS.items():
        folders = shares(kind, number, SENDERS)
        whole = shares(kind, number, 1)
        interleave(
            Row(f"SCP {kind} 1 sender", "/s", "Orthanc", 2.5), ours(whole, number), _orthanc(whole, number), rounds
        )
        row = Row(f"SCP {kind} {SENDERS} senders", "/s", "Orthanc", 3.0)
        interleave(row, ours(folders, number), _orthanc(folders, number), rounds)
        for share, target in ((whole, 0.8), (folders, None)):
            row = Row(f"SCP {kind} {_senders(len(share))}, limit", "/s", "stream + flush loop", target)
            interleave(row, ours(share, number), lambda share=share, number=number: _limit(share, number), rounds)  # type: ignore[misc]
        row = Row(f"SCP {kind} 1 sender, flush off", "/s", "storescp +B +xa", 1.0)
        interleave(row, ours(whole, number, flush=False), _storescp(whole, number), rounds)


def _senders(number: int) -> str:
    return f"{number} sender{'s' * (number > 1)}"


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


def _send(port: int, folders: list[Path], number: int, pid: int) -> Measured:
    """All folders at once, a storescu each; the receiver's processor time."""
    process = psutil.Process(pid)
    # Its port may be there before it is ready: what it does to begin with is not receiving.
    subprocess.run(["echoscu", "-aec", "ANY", "127.0.0.1", str(port)], env=ENVIRONMENT, check=True)
    before = process.cpu_times()
    argv = ["storescu", "-aec", "ANY", "+sd", "+r", "127.0.0.1", str(port)]
    began = time.perf_counter()
    senders = [subprocess.Popen([*argv, str(folder)], env=ENVIRONMENT) for folder in folders]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"storescu ended with {codes}")
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Measured(number / seconds, cpu, {"receiver": process.memory_info().rss / 1e6})


def ours(folders: list[Path], number: int, *, flush: bool = True) -> Run:
    """Our storage SCP with an archive of its own, started anew for each run."""

    def once() -> Measured:
        with StorageScp(scp__flush=flush) as scp:
            measured = _send(scp.port, folders, number, scp.pid)
            deadline = time.monotonic() + 2
            while scp.indexed() < number:
                if time.monotonic() > deadline:
                    raise RuntimeError("the index is more than two seconds behind")
                time.sleep(0.02)
            return measured

    return once


def _orthanc(folders: list[Path], number: int):  # type: ignore[no-untyped-def]
    def once() -> Measured:
        with Orthanc() as orthanc:
            measured = _send(orthanc.port, folders, number, orthanc.pid)
            if orthanc.count() != number:
                raise RuntimeError("Orthanc did not keep all")
            return measured

    return once


def _storescp(folders: list[Path], number: int):  # type: ignore[no-untyped-def]
    def once() -> Measured:
        with StoreScp() as scp:
            # It forks for each association, so its processor time is not to be had.
            return replace(_send(scp.port, folders, number, scp.pid), cpu_seconds=None)

    return once


def _limit(folders: list[Path], number: int) -> Measured:
    """The streams into a sink, then a bare write + fdatasync + link + fsync of the folder: one after the other.

    As many streams at once, and as many processes that flush, as there are folders.
    """
    with sink("--fork") as port:
        argv = ["storescu", "+sd", "+r", "127.0.0.1", str(port)]
        began = time.perf_counter()
        streams = [subprocess.Popen([*argv, str(folder)], env=ENVIRONMENT) for folder in folders]
        if any([stream.wait() for stream in streams]):
            raise RuntimeError("storescu failed")
        streamed = time.perf_counter() - began
    return Measured(number / (streamed + flushing.seconds([sorted(folder.rglob("*.dcm")) for folder in folders])))

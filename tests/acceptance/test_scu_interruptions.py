"""Ctrl-C and TERM at any moment of `dicomferry scu`: what the peer hears of it, and what is left behind."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import dcmread

from support import samples
from support.compare import assert_same_object
from support.peers import DcmQrScp
from support.process import LOOPBACK, free_port
from support.samples import Sample
from support.scripted_peer import ABORT, RELEASE_RQ
from support.scu import Command

MODES = ("echo", "find", "store", "get", "move")
MOST_PDUS = {"echo": 6, "find": 7, "store": 60, "get": 60, "move": 10}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
READY = "ready\n"
# How Python itself takes an interruption while it starts is not ours to decide, so it is told what to do until we are
# there; and it says when it is.
PROGRAM = f"""
import os, signal
def end(*_):
    os.write(2, b"interrupted\\n")
    os._exit(130)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
os.write(1, {READY.encode()!r})
from dicomferry.cli.main import main
main()
"""


@dataclass
class Line:
    """What one connection has carried from the requestor: kinds of PDU, and the bytes of one that is not whole."""

    kinds: list[int] = field(default_factory=list)
    rest: bytes = b""

    @property
    def end(self) -> str:
        """How the requestor left it."""
        if not self.kinds and not self.rest:
            return "nothing said"
        if self.rest:
            return "cut"
        return {ABORT: "aborted", RELEASE_RQ: "released"}.get(self.kinds[-1], f"closed after PDU {self.kinds[-1]}")


class Tap:
    """A relay that takes PDUs apart, and calls `passed(n)` when the n-th one of all has come to it, in either
    direction, before it goes on.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.start(lambda _: None)
        threading.Thread(target=self._accept, daemon=True).start()

    def start(self, passed: Callable[[int], None]) -> None:
        """Begin to count anew."""
        self.lines: list[Line] = []
        self._count = 0
        self._passed = passed

    def settle(self) -> list[str]:
        """How each connection ended; all have."""
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        self._threads.clear()
        while self._sockets:
            self._sockets.pop().close()
        return [line.end for line in self.lines]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection((LOOPBACK, self._target))
                self._sockets += [near, far]
                line = Line()
                self.lines.append(line)
                for ends in ((near, far, line), (far, near, Line())):
                    thread = threading.Thread(target=self._pump, args=ends, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, line: Line) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                line.rest += piece
                while len(line.rest) >= 6 and len(line.rest) >= (size := 6 + int.from_bytes(line.rest[2:6])):
                    line.kinds.append(line.rest[0])
                    line.rest = line.rest[size:]
                    with self._lock:
                        self._count += 1
                        self._passed(self._count)
                with suppress(OSError):  # what comes after the peer has gone is of interest all the same
                    sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


@dataclass
class Bench:
    """An archive behind a tap, and what it holds."""

    held: list[Sample]
    archive: DcmQrScp
    tap: Tap

    def words(self, mode: str, out: Path) -> list[str]:
        """The command line of a run of this mode."""
        words = [f"--{mode}", LOOPBACK, str(self.tap.port), "--call", self.archive.aet]
        if mode == "store":
            words += [str(one.path) for one in self.held]
        elif mode != "echo":
            words += ["--studyroot", "--study", "-k", f"20,d={self.held[0].study_instance_uid}"]
        if mode in ("get", "move"):
            words += ["-o", str(out)]
        if mode == "move":
            words += ["--port-scp", str(self.archive.destinations["GDCMSCU"])]
        return words


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Twelve images of one study."""
    folder = tmp_path_factory.mktemp("bench")
    held = samples.ct_series(folder / "held", 12, 64)
    with DcmQrScp(destinations={"GDCMSCU": free_port()}) as archive, Tap(archive.port) as tap:
        bench = Bench(held, archive, tap)
        done = Command(folder).run(*bench.words("store", folder))
        assert (done.code, done.err) == (0, [])
        tap.settle()
        yield bench


def interrupt(bench: Bench, folder: Path, mode: str, number: int, moment: float | int) -> str:
    """Send the signal at this moment of a run, in seconds after its start or when so many PDUs have passed; check how
    it ended, and return that.
    """
    out = folder / "out"
    tap, words = bench.tap, bench.words(mode, out)
    began = threading.Event()
    process: subprocess.Popen[str]

    def passed(count: int) -> None:
        if count == moment:
            began.wait(30)
            with suppress(ProcessLookupError):
                process.send_signal(number)

    tap.start(passed if isinstance(moment, int) else lambda _: None)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "scu", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=Command(folder).environment,
        cwd=folder,
    )
    assert process.stdout is not None and process.stdout.readline() == READY
    began.set()
    if isinstance(moment, float):
        time.sleep(moment)
        process.send_signal(number)
    printed, told = process.communicate(timeout=60)
    ends = tap.settle()
    told_all = (mode, number, moment, process.returncode, printed[-200:], told, ends)
    assert process.returncode in (0, 130), told_all
    assert told == ("interrupted\n" if process.returncode else ""), told_all
    assert all(end in ("nothing said", "aborted", "released", "cut") for end in ends), told_all
    by_uid = {one.sop_instance_uid: one for one in bench.held}
    for path in out.iterdir() if out.is_dir() else ():
        assert path.name.removesuffix(".dcm") in by_uid, told_all
        assert_same_object(by_uid[str(dcmread(path).SOPInstanceUID)].path, path)
        path.unlink()
    if process.returncode == 0:
        return "over before"
    return ends[-1] if ends else "nobody called"


@pytest.mark.parametrize("mode", MODES)
def test_an_interruption_at_every_step(mode: str, bench: Bench, tmp_path: Path) -> None:
    """When any of the first PDUs passes, in either direction, the peer hears an A-ABORT, or an A-RELEASE-RQ if it was
    all over; one line is printed, and the exit status is 130.
    """
    for step in range(1, 5):
        folder = tmp_path / str(step)
        folder.mkdir()
        assert interrupt(bench, folder, mode, SIGNALS[step % 2], step) in ("aborted", "released")


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_an_interruption_at_any_moment(mode: str, bench: Bench, tmp_path: Path) -> None:
    """From the start on, imports included, to the end: aborted, released, or nothing opened; no file half written, no
    traceback. The moments are drawn anew each time; a failure names its own.
    """
    draw = random.Random()
    for number in range(200):
        moment = draw.uniform(0.0, 0.5) if number % 2 else draw.randint(1, MOST_PDUS[mode])
        folder = tmp_path / str(number)
        folder.mkdir()
        interrupt(bench, folder, mode, draw.choice(SIGNALS), moment)

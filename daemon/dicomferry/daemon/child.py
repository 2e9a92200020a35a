"""A child process of a standing service: started in a group of its own, restarted with growing pauses, ended whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from dicomferry.models.rules.errors import DicomferryError
from dicomferry.workers import parent

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 10.0
"""A child that lived this long starts with a clean slate when it ends."""
MAX_QUICK_ENDS = 3
"""A child that ended this often, each time before it was steady, cannot be kept up."""
_PR_SET_PDEATHSIG = 1


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module, without the current folder on Python's path: what lies there is none of ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


class CannotKeepUp(DicomferryError):
    """A role ends again and again; the message holds the last lines of its log."""


class Child:
    """One child process; its output goes to `log_file`, or without one where ours goes.

    To be used from one thread: on Linux a child's life is tied to the thread that started it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_file: Path | None,
        environment: Mapping[str, str] | None = None,
        is_ready: Callable[[], bool] | None = None,
        pass_fds: Sequence[int] = (),
        dies_with_us: bool = False,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._environment = environment
        self._log_file = log_file
        self._is_ready = is_ready
        self._pass_fds = tuple(pass_fds)
        self._dies_with_us = dies_with_us
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._ready_fd: int | None = None
        self._started = 0.0
        self._log_start = 0
        self._quick_ends = 0
        self._start_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None while there is none."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it. Raises OSError."""
        reading, writing = os.pipe()
        environment = dict(self._environment if self._environment is not None else os.environ)
        environment |= {parent.PARENT: str(os.getpid()), parent.READY_FD: str(writing)}
        environment.pop("NOTIFY_SOCKET", None)  # the service manager listens to whoever it started
        environment |= {parent.OUTPUT: "file" if self._log_file else "inherited"}
        try:
            with self._output() as log:
                self._log_start = log.tell() if log else 0
                self._process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=(*self._pass_fds, writing),
                    process_group=0,
                    preexec_fn=_die_with_parent if self._dies_with_us and sys.platform == "linux" else None,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._close_ready()
        self._killed = False
        self._ready_fd = reading
        self._started = time.monotonic()
        self._start_at = None

    def _output(self) -> contextlib.AbstractContextManager[BinaryIO | None]:
        if self._log_file is None:
            return contextlib.nullcontext()
        return open(self._log_file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))

    def wait_ready(self, seconds: float, stop: Callable[[], bool]) -> bool:
        """Wait until it is ready; False when `stop()` says so. Raises CannotKeepUp when it ends or is late."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if stop():
                return False
            if self._says_ready():
                return True
            self.require_running()
        raise CannotKeepUp(f"{self.name} was not ready within {seconds:g} s\n{self.last_lines()}")

    def require_running(self) -> None:
        """Raises CannotKeepUp when it has ended."""
        if not self.is_running:
            raise CannotKeepUp(f"{self.name} ended at once\n{self.last_lines()}".rstrip())

    def _says_ready(self) -> bool:
        if self._is_ready is not None:
            time.sleep(0.02)
            return self._is_ready()
        assert self._ready_fd is not None
        readable, _, _ = select.select([self._ready_fd], [], [], 0.1)
        return bool(readable) and os.read(self._ready_fd, 1) == b"1"

    def keep_up(self) -> str | None:
        """Restart it if it has ended, after a pause; what happened now, if anything. Raises CannotKeepUp."""
        if self.is_running:
            if self._quick_ends and time.monotonic() - self._started >= STEADY_SECONDS:
                self._quick_ends = 0
            return None
        now = time.monotonic()
        if self._start_at is None:
            self.kill()  # what it left behind in its group
            self._quick_ends = self._quick_ends + 1 if now - self._started < STEADY_SECONDS else 0
            if self._quick_ends >= MAX_QUICK_ENDS:
                raise CannotKeepUp(f"{self.name} ended {self._quick_ends} times in a row\n{self.last_lines()}")
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._quick_ends)
            self._start_at = now + pause
            return f"ended ({self._how()}); starting it again in {pause:g} s"
        if now < self._start_at:
            return None
        self.start()
        return f"was started again, process {self.pid}"

    def _how(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def terminate(self) -> None:
        """Ask it to end in good order."""
        if self._process and self.is_running:
            self._process.send_signal(signal.SIGTERM)

    def wait_end(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Wait for its end; False when it is still there after that time, or when `stop()` says so."""
        deadline = time.monotonic() + seconds
        while self.is_running:
            if time.monotonic() > deadline or stop():
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._process is not None
                self._process.wait(0.1)
        return True

    def kill(self) -> None:
        """End it and everything in its process group at once."""
        # Once only: after that the number may belong to somebody else's group.
        if self._process is not None and not self._killed:
            self._killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._close_ready()

    def last_lines(self, number: int = 15) -> str:
        """The end of what it wrote since it was started; empty where that was not to a file."""
        if self._log_file is None:
            return ""
        with contextlib.suppress(OSError), self._log_file.open("rb") as log:
            # Of a log that was begun anew meanwhile, all.
            log.seek(self._log_start if log.seek(0, os.SEEK_END) >= self._log_start else 0)
            lines = log.read()[-20_000:].decode(errors="replace").splitlines()
            return "\n".join(f"  {line}" for line in lines[-number:])
        return ""

    def _close_ready(self) -> None:
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None


def _die_with_parent() -> None:
    """On Linux: be killed when the thread that started us ends, even by kill -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

"""A whole installation in a temporary home: the real console script, its processes by role, its rows."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from dicomferry.workers.doorbell.lanes import embedded_note
from support.process import LOOPBACK, free_port

SCRIPT = (sys.executable, "-P", "-m", "dicomferry.cli.main")
READY = "ready;"
MARK = "FERRY_TEST_INSTALLATION"
PATIENCE = 120.0
"""Seconds for whatever should take one or two: machines that run tests are busy."""


def until(predicate: Callable[[], Any], what: str, seconds: float = PATIENCE, pause: float = 0.05) -> Any:
    """What `predicate` returns once that is true; the test fails with `what` when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


@dataclass(frozen=True)
class Roles:
    """The processes of a running `up`, as they are now."""

    up: int
    broker: int | None
    worker: int | None
    celery: int | None
    pool: tuple[int, ...]


class Up:
    """One running `dicomferry up`; leads a process group, as it does when a shell starts it."""

    def __init__(self, argv: list[str], environment: Mapping[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
        self._ended.set()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        """Until it says that it is ready; fails with its output when it ends before that."""
        until(lambda: self.said(READY) or self._ended.is_set(), f"`up` is ready\n{self.output}", seconds)
        if not self.said(READY):
            raise AssertionError(f"`up` ended with {self.process.wait()}:\n{self.output}")

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code; the test fails when it does not end."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"`up` did not end within {seconds:g} s:\n{self.output}") from None
        self._reader.join(5)
        return code

    def terminate(self) -> None:
        self.process.terminate()

    def interrupt(self) -> None:
        """As Ctrl-C does: to everything in the foreground group."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill -9 of `up` alone, not of what it started."""
        self.process.kill()
        self.process.wait()

    def roles(self) -> Roles:
        """Who is who among its processes; None for a role that is away at this moment."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children()
            worker = _by_command(children, "dicomferry.daemon.worker_role")
            broker = _by_command(children, "valkey-server", "redis-server")
            celery = _by_command(worker.children() if worker else [], "dicomferry.workers.doorbell.tasks")
            pool = tuple(sorted(child.pid for child in celery.children())) if celery else ()
            return Roles(self.pid, _pid(broker), _pid(worker), _pid(celery), pool)
        return Roles(self.pid, None, None, None, ())


def _by_command(processes: list[psutil.Process], *words: str) -> psutil.Process | None:
    for process in processes:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(word in " ".join(process.cmdline()) for word in words):
                return process
    return None


def _pid(process: psutil.Process | None) -> int | None:
    return process.pid if process else None


class Installation:
    """A home and its settings, by keyword as in `lease_seconds=4, retry__first_delay=0.5`.

    A context manager: at its end, whatever of it still runs is killed.
    """

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        # Another checkout's console script, where two are compared.
        self.script: tuple[str, ...] = SCRIPT
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DICOMFERRY_")}
        # By the mark its processes are told from a peer's, which may inherit the home of the test's own environment.
        self.mark = uuid.uuid4().hex
        self.environment |= {"DICOMFERRY_HOME": str(home), "PYTHONUNBUFFERED": "1", MARK: self.mark}
        self.environment |= {"DICOMFERRY_SCP__HOST": LOOPBACK, "DICOMFERRY_SCP__PORT": str(free_port())}
        self.environment |= {f"DICOMFERRY_{key.upper()}": str(value) for key, value in settings.items()}
        self.cwd = home.parent
        self.cwd.mkdir(parents=True, exist_ok=True)

    # --- the console script ---

    def start(self, *arguments: object, **kwargs: Any) -> "subprocess.Popen[str]":
        """The console script, not waited for."""
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [*self.script, *self._encoded(arguments)],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.cwd,
            **(given | kwargs),
        )

    def run(
        self, *arguments: object, code: int | None = 0, seconds: float = 300.0
    ) -> "subprocess.CompletedProcess[str]":
        """The console script's result; the test fails on another exit code than `code` (None: any will do)."""
        done = subprocess.run(
            [*self.script, *self._encoded(arguments)],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if code is not None and done.returncode != code:
            words = " ".join(map(str, arguments))
            raise AssertionError(f"`{words}` ended with {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}")
        return done

    def json(self, *arguments: object, code: int | None = 0) -> Any:
        """The document that a command prints with --json."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    @staticmethod
    def _encoded(arguments: tuple[object, ...]) -> list[str]:
        return [os.fspath(argument) if isinstance(argument, Path) else str(argument) for argument in arguments]

    # --- jobs ---

    def submit(self, *arguments: object, code: int | None = 0) -> int:
        """Submit a job and give its id, which is all that stdout holds."""
        return int(self.run("submit", *arguments, code=code).stdout)

    def show(self, job_id: int) -> dict[str, Any]:
        shown: dict[str, Any] = self.json("jobs", "show", job_id)
        return shown

    def items(self, job_id: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("jobs", "items", job_id)
        return found

    def wait_job(self, job_id: int, seconds: float = PATIENCE) -> dict[str, Any]:
        """The job's document once it has ended or is held; the test fails when that does not come."""
        self.run("jobs", "wait", job_id, "--timeout", seconds, code=None, seconds=seconds + 60)
        job = self.show(job_id)
        if job["state"] in ("pending", "running"):
            raise AssertionError(f"job {job_id} goes on after {seconds:g} s: {json.dumps(job, indent=1)}\n{self.log()}")
        return job

    def broker_url(self) -> str:
        """Where the embedded broker of the running `up` listens."""
        return str(json.loads(embedded_note(self.home).read_text())["url"])

    # --- processes ---

    def start_up(self) -> Up:
        """`dicomferry up`, not waited for."""
        return Up([*self.script, "up"], self.environment, self.cwd)

    @contextmanager
    def up(self, *, urgent: bool = True) -> Iterator[Up]:
        """`dicomferry up`, ready. At the end it is stopped, with `urgent` as by a second Ctrl-C."""
        running = self.start_up()
        try:
            running.wait_ready()
            yield running
        finally:
            if running.process.poll() is None:
                for pid in self.pids():  # a frozen process hears nothing
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                running.terminate()
                if urgent:
                    until(lambda: running.said("stopping") or running.process.poll() is not None, "it is stopping")
                    running.terminate()
                try:
                    running.wait()
                finally:
                    self.kill_all()

    def pids(self) -> list[int]:
        """Every process on this machine that this installation started, whoever its parent is now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found.append(process.pid)
        return found

    def describe(self, pids: list[int]) -> str:
        lines = []
        for pid in pids:
            with suppress(psutil.Error):
                lines.append(f"{pid} {psutil.Process(pid).cmdline()}")
        return "\n".join(lines)

    def wait_gone(self, seconds: float = 30.0) -> None:
        """Until no process of it is left."""
        try:
            until(lambda: not self.pids(), "no process is left", seconds)
        except AssertionError:
            raise AssertionError(f"still there after {seconds:g} s:\n{self.describe(self.pids())}") from None

    def kill_all(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def log(self, lines: int = 60) -> str:
        """The end of the roles' log."""
        path = self.home / "log" / "dicomferry.log"
        if not path.exists():
            return "(no log)"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

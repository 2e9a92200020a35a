"""A server of a test's own: on a loopback port, ready once it takes a connection, killed at the end."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

LOOPBACK = "127.0.0.1"
START_SECONDS = 30.0

# Binary -> the Debian package that brings it, as tests/support/install-peers installs it.
PACKAGES = {
    "storescp": "dcmtk",
    "dcmqrscp": "dcmtk",
    "storescu": "dcmtk",
    "echoscu": "dcmtk",
    "movescu": "dcmtk",
    "findscu": "dcmtk",
    "getscu": "dcmtk",
    "dcmsend": "dcmtk",
    "dcmcjpeg": "dcmtk",
    "gdcmscu": "libgdcm-tools",
    "Orthanc": "orthanc",
    "redis-server": "redis-server",
    "postgres": "postgresql",
    "initdb": "postgresql",
}


def find(name: str) -> str | None:
    """The path of a peer's binary, also where Debian keeps it off a plain user's PATH."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"]
    if PACKAGES.get(name) == "postgresql":
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        places += [str(folder) for folder in sorted(versions, key=lambda p: -float(p.parent.name))]
    names = [name, "valkey-server"] if name == "redis-server" else [name]
    found = (shutil.which(candidate, path=os.pathsep.join(places)) for candidate in names)
    return next((path for path in found if path), None)


def require(name: str) -> str:
    """The path of a peer's binary; without it the test skips by name, or fails in CI."""
    path = find(name)
    if path:
        return path
    message = f"{name} is not installed (Debian package: {PACKAGES.get(name, name)})"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    """A free port below the range from which the kernel takes the ports of outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(15000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


class Server:
    """One child process with a port and a folder of its own (`self.folder`), and its output in `self.log`.

    A context manager. It can be stopped, killed, frozen and started again on the same port meanwhile.
    """

    binary: str

    def __init__(self, port: int | None = None) -> None:
        self.program = require(self.binary)
        self._fixed_port = port
        self.port = port or free_port()
        # Short, because unix sockets may lie in it; /tmp itself, because a server may run as another user.
        self.folder = Path(tempfile.mkdtemp(prefix="df-"))
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return LOOPBACK

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.binary} is not running")
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        # DCMTK (Orthanc uses it too) otherwise waits 40 ms for acknowledgements that are delayed.
        return {**os.environ, "TCP_NODELAY": "1", "HOME": str(self.folder)}

    def prepare(self) -> None:
        """What has to lie in the folder before a start; called at every start."""

    def ready(self) -> bool:
        """Whether the server takes connections."""
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def start(self) -> None:
        """Comes back when the server is ready. A port that someone else took meanwhile: another one."""
        for attempt in range(3):
            if attempt and not self._fixed_port:
                self.port = free_port()
            self.prepare()
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=self.environment(),
                    start_new_session=True,
                )
            deadline = time.monotonic() + START_SECONDS
            while self.process.poll() is None and time.monotonic() < deadline:
                if self.ready():
                    return
                time.sleep(0.01)
            ended = self.process.poll()
            self.kill()
        tail = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.binary} did not start (exit code {ended}):\n{tail}")

    def stop(self, timeout: float = 10.0) -> None:
        """The orderly end; killed when it takes too long."""
        if self.process is not None:
            self.thaw()
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """The end at once, of the server and all its children."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stops the processes without ending them: connections stay open and mute."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """To the whole process group: the server leads a session of its own."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

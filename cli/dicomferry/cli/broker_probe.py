"""Whether the broker answers: one PING over a plain socket, so that asking costs no library and at most a second."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dicomferry.models.database import hide_password
from dicomferry.models.settings import Settings

SECONDS = 1.0
_PORT = 6379


def broker(settings: Settings) -> dict[str, Any]:
    """`url` (password hidden, or `embedded`) and `reachable`: null where there is nothing to ask."""
    if settings.broker_url:
        return {"url": hide_password(settings.broker_url), "reachable": _url_answers(settings.broker_url)}
    try:
        noted = json.loads((settings.home / "run" / "broker.json").read_text(encoding="utf-8"))
        path = noted.get("socket")
        url = str(noted["url"])
    except (OSError, ValueError, KeyError, AttributeError):
        return {"url": "embedded", "reachable": None}
    return {"url": "embedded", "reachable": _socket_answers(Path(path)) if path else _url_answers(url)}


def _url_answers(url: str) -> bool | None:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("redis+socket", "unix"):
            return _socket_answers(Path(unquote(parts.netloc + parts.path)))
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            return None
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        return None
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as plain:
            if parts.scheme == "redis":
                return _ping(plain)
            context = ssl.create_default_context()
            # Nothing secret is sent, so whose certificate it is does not matter here.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=host) as secured:
                return _ping(secured)
    except (OSError, UnicodeError):
        return False


def _socket_answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(path))
            return _ping(connection)
    except OSError:
        return False


def _ping(connection: socket.socket) -> bool:
    """A server that asks for a password first is there as well."""
    connection.settimeout(SECONDS)
    connection.sendall(b"PING\r\n")
    return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))

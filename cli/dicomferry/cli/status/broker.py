"""Whether the broker can be rung: one write over a plain socket, so that asking costs no library and little time.

A broker that answers PING may still refuse every message: one that is full (maxmemory without eviction), a replica, one
that cannot write its file. So what is tried is a key of a second's life.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from dicomferry.models.documents.status_shapes import BrokerDocument
from dicomferry.models.record.database import hide_password
from dicomferry.models.settings import Settings

SECONDS = 1.0
_PORT = 6379
_MOST_REPLY = 512
PROBE = (b"SET", b"dicomferry.probe", b"1", b"PX", b"1000")


def broker(settings: Settings) -> BrokerDocument:
    """The broker that the settings name, or the embedded one that runs, asked whether it takes a write."""
    if settings.broker:
        return _asked(hide_password(settings.broker), urlsplit(settings.broker))
    try:
        noted = json.loads((settings.home / "run" / "broker.json").read_text(encoding="utf-8"))
        path = noted.get("socket")
        parts = urlsplit(f"unix://{path}" if path else str(noted["url"]))
    except (OSError, ValueError, KeyError, AttributeError):
        return {"url": "embedded", "reachable": None, "why": None}
    return _asked("embedded", parts)


def _asked(url: str, parts: SplitResult) -> BrokerDocument:
    try:
        with _connection(parts) as connection:
            why = _refusal(connection, list(_login(parts)))
    except ssl.SSLCertVerificationError as error:
        return {"url": url, "reachable": False, "why": f"its certificate is not trusted: {error.verify_message}"}
    except (OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or "no answer"
    return {"url": url, "reachable": why is None, "why": why}


def _connection(parts: SplitResult) -> socket.socket:
    """Raises OSError, UnicodeError, ValueError."""
    if parts.scheme in ("redis+socket", "unix"):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(SECONDS)
        try:
            made.connect(unquote(parts.netloc.rpartition("@")[2] + parts.path))
        except BaseException:
            made.close()
            raise
        return made
    host = parts.hostname or "localhost"
    plain = socket.create_connection((host, parts.port or _PORT), timeout=SECONDS)
    if parts.scheme != "rediss":
        return plain
    try:
        return _tls(parse_qs(parts.query)).wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _tls(options: dict[str, list[str]]) -> ssl.SSLContext:
    """The TLS context by the URL's options; without any, the server is verified before a password is sent."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs", [None])[0])
    if options.get("ssl_cert_reqs", [""])[0].lower() in ("none", "cert_none"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"][0], options.get("ssl_keyfile", [None])[0])
    return context


def _login(parts: SplitResult) -> Iterator[tuple[bytes, ...]]:
    """What has to be said before the write: the password, and which of its databases."""
    user, password = (unquote(text).encode() if text else b"" for text in (parts.username, parts.password))
    if password:
        yield (b"AUTH", user, password) if user else (b"AUTH", password)
    number = parts.path.strip("/") if parts.scheme in ("redis", "rediss") else ""
    if number.isdecimal() and int(number):
        yield b"SELECT", number.encode()


def _refusal(connection: socket.socket, login: list[tuple[bytes, ...]]) -> str | None:
    """Why it does not take the write; None where it does. Raises OSError."""
    connection.settimeout(SECONDS)
    for command in (*login, PROBE):
        words = [b"$%d\r\n%s\r\n" % (len(word), word) for word in command]
        connection.sendall(b"*%d\r\n%s" % (len(words), b"".join(words)))
        reply = _line(connection)
        # Who may not touch our key may still be allowed to ring: then it has answered, and that is all that is known.
        if not reply.startswith((b"+", b"-NOPERM")):
            return "".join(char if char.isprintable() else " " for char in reply[1:].decode(errors="replace")).strip()
    return None


def _line(connection: socket.socket) -> bytes:
    reply = b""
    while not reply.endswith(b"\r\n") and len(reply) < _MOST_REPLY:
        more = connection.recv(_MOST_REPLY - len(reply))
        if not more:
            raise OSError("it hung up")
        reply += more
    return reply

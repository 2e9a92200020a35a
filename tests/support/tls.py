"""Certificates of a test's own, and both ends of a TLS connection."""

from __future__ import annotations

import socket
import ssl
import threading
from functools import cache
from pathlib import Path

import trustme


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a client that trusts one authority, and for a server on loopback that has a certificate of it."""
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    return client, server


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A server's key and certificate as files, for programs."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    return key, certificate


def secured(near: socket.socket, far: socket.socket) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Both ends of a connection after the handshake: client, server."""
    client, server = contexts()
    done: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: done.append(server.wrap_socket(far, server_side=True)))
    thread.start()
    wrapped = client.wrap_socket(near, server_hostname="127.0.0.1")
    thread.join()
    return wrapped, done[0]

"""The port that the storage SCP listens on; apart from it, because who only tries the port needs nothing of DICOM."""

from __future__ import annotations

import errno
import os
import socket
import time

from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.rules.remote import host_and_port
from dicomferry.models.settings import Settings

ORPHAN_SECONDS = 3.0
"""A port in use is tried for so long: the storage SCP of an `up` that was killed ends within a second."""

_ANOTHER_PORT = "set scp.port (DICOMFERRY_SCP__PORT), or end what is using it"
_ADVICE = {
    errno.EADDRNOTAVAIL: "set scp.host (DICOMFERRY_SCP__HOST) to an address of this machine; what archives are told to "
    "send to is scp.public_host (DICOMFERRY_SCP__PUBLIC_HOST)",
    errno.EACCES: "set scp.port (DICOMFERRY_SCP__PORT) to 1024 or more, or give it the right to that one "
    "(CAP_NET_BIND_SERVICE)",
}


def take_port(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say; raises ConfigurationError."""
    host, port = settings.scp.host, settings.scp.port
    try:
        return _listen(host, port)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        text = f"the storage SCP cannot listen on {host_and_port(host, port)}: {why}"
        raise ConfigurationError(f"{text}; {_ADVICE.get(error.errno or 0, _ANOTHER_PORT)}") from None


def _listen(host: str, port: int) -> socket.socket:
    """`::` is every address of this machine, those of IPv4 as well (RFC 3493 5.3), whatever the system's default is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = host == "::" and socket.has_dualstack_ipv6()
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=256, dualstack_ipv6=dual)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
        time.sleep(0.1)

"""A storage SCP on a machine whose name server says nothing: started as a module, like the real one.

A look-up of a name under `.example` never ends; all else is looked up as usual.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from dicomferry.daemon import storage_scp

_real = socket.getaddrinfo


def _mute(host: Any, *rest: Any, **named: Any) -> Any:
    if str(host).endswith(".example"):
        threading.Event().wait()
    return _real(host, *rest, **named)


if __name__ == "__main__":
    socket.getaddrinfo = _mute
    storage_scp.main()

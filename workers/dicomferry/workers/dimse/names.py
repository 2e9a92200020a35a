"""Host names, looked up without anybody having to wait for a name server: beside, bounded, the last answer kept.

The system's resolver takes what time it likes (with two mute servers 20 s and more), cannot be interrupted, and is
asked from threads of its own for that reason.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable

from dicomferry.models.rules.callers import canonical, parse_address

MOST_AT_ONCE = 8
"""Look-ups that are under way at once, at most; further ones wait for their turn."""
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

LookUp = Callable[[str], "list[str] | None"]


def look_up(host: str) -> list[str] | None:
    """The addresses of a host, none where it has none; None where nobody could say. Waits for the name server."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return [] if error.errno in _NO_SUCH_NAME else None
    except UnicodeError:
        return []
    except OSError:
        return None
    return sorted({canonical(str(entry[4][0])) for entry in found})


class Names:
    """What is known of host names. For any thread; `changed` is called, from another one, when something new is."""

    def __init__(self, look_up: LookUp = look_up, *, changed: Callable[[], object] = lambda: None) -> None:
        self.changed = changed
        self._look_up = look_up
        self._lock = threading.Condition()
        self._known: dict[str, tuple[str, ...]] = {}
        self._waiting: deque[str] = deque()
        self._under_way: set[str] = set()
        self._threads = 0

    def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses that a host had at the last answer; never waits. An address is its own."""
        if parse_address(host) is not None:
            return (canonical(host),)
        return self._known.get(host, ())

    def refresh(self, hosts: Iterable[str]) -> None:
        """Look these up again, beside; what is being looked up already is not asked for twice."""
        with self._lock:
            for host in dict.fromkeys(hosts):
                if parse_address(host) is None and host not in self._under_way:
                    self._under_way.add(host)
                    self._waiting.append(host)
            for _ in range(min(len(self._waiting), MOST_AT_ONCE - self._threads)):
                self._threads += 1
                threading.Thread(target=self._run, name="look-up", daemon=True).start()

    def within(self, host: str, seconds: float) -> tuple[str, ...]:
        """The addresses of a host, after a look-up that is waited for at most `seconds`."""
        if parse_address(host) is None:
            self.refresh([host])
            with self._lock:
                self._lock.wait_for(lambda: host not in self._under_way, seconds)
        return self.addresses(host)

    def is_looking(self) -> bool:
        """Whether any answer is still due."""
        return bool(self._under_way)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                host = self._waiting.popleft()
            found = self._look_up(host)
            new = found is not None and tuple(found) != self._known.get(host)
            if found is not None:
                self._known[host] = tuple(found)
            with self._lock:
                self._under_way.discard(host)
                self._lock.notify_all()
            if new:
                self.changed()

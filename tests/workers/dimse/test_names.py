"""Host names: nobody waits for a name server, and the last answer is kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dicomferry.models.rules.errors import RemoteUnreachable
from dicomferry.models.rules.remote import Remote, Timeouts
from dicomferry.workers.dimse import names
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.dimse.requestor import open_association
from dicomferry.workers.dimse.wire.contexts import Proposal
from support.installation import until


class Server:
    """A name server: `answers` by host, and mute for those that are in `mute` until `speak`."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str] | None] = {}
        self.mute: set[str] = set()
        self.asked: list[str] = []
        self._speaks = threading.Event()

    def __call__(self, host: str) -> list[str] | None:
        self.asked.append(host)
        if host in self.mute:
            self._speaks.wait(60)
        return self.answers.get(host, [])

    def speak(self) -> None:
        self._speaks.set()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.speak()


def test_what_is_looked_up_is_known_afterwards(server: Server) -> None:
    """An address is its own, without anybody being asked; whoever has to know something new is told."""
    heard: list[bool] = []
    known = Names(server, changed=lambda: heard.append(True))
    server.answers["pacs"] = ["10.0.0.1"]
    assert (known.addresses("pacs"), known.addresses("::ffff:10.0.0.2")) == ((), ("10.0.0.2",))
    assert known.within("pacs", 20) == ("10.0.0.1",) == known.addresses("pacs")
    until(lambda: heard, "it is told")
    assert known.within("10.0.0.3", 0) == ("10.0.0.3",) and server.asked == ["pacs"]


def test_the_last_answer_is_kept_while_nobody_can_say(server: Server) -> None:
    """A name server that fails changes nothing; a name that is gone has no address any more."""
    known = Names(server)
    server.answers["pacs"] = ["10.0.0.1"]
    known.within("pacs", 20)
    server.answers["pacs"] = None
    assert known.within("pacs", 20) == ("10.0.0.1",)
    server.answers["pacs"] = []
    assert known.within("pacs", 20) == ()


def test_mute_names_keep_no_other_waiting(server: Server) -> None:
    """Some at once; what is being looked up is not asked for twice; a wait ends when it was to end."""
    server.mute = {f"mute{number}" for number in range(names.MOST_AT_ONCE - 1)}
    server.answers["pacs"] = ["10.0.0.1"]
    known = Names(server)
    for _ in range(3):
        known.refresh(sorted(server.mute))
    assert known.within("pacs", 20) == ("10.0.0.1",)
    assert known.within("mute0", 0.01) == () and known.is_looking()
    assert sorted(server.asked) == sorted([*server.mute, "pacs"])
    server.speak()
    until(lambda: not known.is_looking(), "all have answered")


def test_no_more_look_ups_at_once_than_that(server: Server) -> None:
    """The rest waits for its turn, and has it."""
    server.mute = {f"mute{number}" for number in range(names.MOST_AT_ONCE)}
    server.answers["pacs"] = ["10.0.0.1"]
    known = Names(server)
    known.refresh([*sorted(server.mute), "pacs"])
    until(lambda: len(server.asked) == names.MOST_AT_ONCE, "as many as may are asked")
    assert "pacs" not in server.asked
    server.speak()
    assert known.within("pacs", 20) == ("10.0.0.1",)


def test_the_systems_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not exist has no address; where nobody could say, that is no answer."""
    assert "127.0.0.1" in (names.look_up("localhost") or [])

    def failing(code: int) -> None:
        def fail(*_: object, **__: object) -> None:
            raise socket.gaierror(code, "told so")

        monkeypatch.setattr(socket, "getaddrinfo", fail)

    failing(socket.EAI_NONAME)
    assert names.look_up("pacs.example") == []
    failing(socket.EAI_AGAIN)
    assert names.look_up("pacs.example") is None


def test_a_connection_waits_for_a_name_no_longer_than_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeouts.connect` bounds the look-up too; an address needs none."""
    speaks = threading.Event()
    real = socket.getaddrinfo

    def mute(host: str, *rest: object, **named: object) -> object:
        if host == "pacs.example":
            speaks.wait(60)
        return real(host, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", mute)
    remote = Remote(
        name="x", ae_title="X", host="pacs.example", port=104, calling_ae_title="Y", timeouts=Timeouts(connect=0.05)
    )
    try:
        with pytest.raises(RemoteUnreachable, match="name service") as caught:
            open_association(remote, [Proposal("1.2.840.10008.1.1", ("1.2.840.10008.1.2",))])
        assert caught.value.why == "name"
    finally:
        speaks.set()

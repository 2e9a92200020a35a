"""A Query/Retrieve SCP at PDU level: answers C-FIND at every level of both roots, C-MOVE by real associations to the
destination, C-GET on the association itself; and misbehaves on demand (see `misbehaviour`).

    with QrPeer(Catalogue(samples), destinations={"FERRY": port}, manners=misbehaviour.NAMED["..."]) as peer: ...

It encodes with pynetdicom and pydicom, not with the code under test, and holds every identifier against the rules of
PS3.4: one that breaks them is refused with 0xA900 and fails the test at the end of the block.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset

from support import scripted_peer as peer
from support.bench import play
from support.qr_catalogue import LEVELS, Catalogue, Unlawful
from support.qr_messages import (
    CANCEL_RQ,
    DONE,
    ECHO_RQ,
    FIND_RQ,
    GET_RQ,
    MOVE_RQ,
    PENDING,
    REFUSED_IDENTIFIER,
    UNKNOWN_DESTINATION,
    Message,
    QrLine,
    Released,
    read_message,
    respond,
)
from support.qr_retrieval import Retrieval
from support.samples import Sample
from support.scripted_peer import Choose, Step, take_first

_ROOTS = {"1": LEVELS, "2": LEVELS[1:]}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One C-MOVE or C-GET request, for a test to look at; `wanted` are the instances that it names."""

    level: str
    uids: tuple[str, ...]
    message_id: int
    destination: str
    wanted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How a peer behaves. `find` gives the answers to a query, or the status of a refusal; `retrieve` carries out one
    C-MOVE or C-GET; `greet(n)` gives the steps played for the n-th association, None to accept it with `choose`.
    `roles` tells whether it grants the roles that a C-GET needs; with `one_syntax` it knows one context for each class,
    the first that it finds, and cannot send what is in another transfer syntax.
    """

    retrieve: Callable[[Retrieval], None] = Retrieval.well
    find: Callable[[QrPeer, str, list[Dataset]], list[Dataset] | int] = lambda _, __, answers: answers
    greet: Callable[[int], Sequence[Step] | None] = lambda _: None
    choose: Choose = take_first
    roles: bool = True
    one_syntax: bool = False


GOOD = Manners()


class QrPeer:
    """Listens on loopback, a thread for each connection; `destinations` (AE title -> port) are those it moves to."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        manners: Manners = GOOD,
        destinations: Mapping[str, int] | None = None,
        aet: str = "ARCHIVE",
        later: Sequence[Sample] = (),
    ) -> None:
        self.catalogue, self.manners, self.aet = catalogue, manners, aet
        self.later = later
        """What is to come into the catalogue while the peer runs, if it behaves so."""
        self.destinations = dict(destinations or {})
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.queries: list[Dataset] = []
        self.retrieves: list[Asked] = []
        self.cancels = 0
        self.stores: list[str] = []
        """SOP Instance UID of each C-STORE that was tried, in order."""
        self.associations = 0
        self.most_at_once = 0
        self._at_once = 0
        self.failure: BaseException | None = None
        self._lock = threading.Lock()
        self._message_id = 0
        self._lines: list[QrLine] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """What a job names as its remote."""
        return f"{self.aet}@127.0.0.1:{self.port}"

    def count_store(self, uid: str) -> None:
        with self._lock:
            self.stores.append(uid)

    def next_message_id(self) -> int:
        with self._lock:
            self._message_id = self._message_id % 65535 + 1
            return self._message_id

    def beside(self, work: Callable[[], None]) -> None:
        """Run something in a thread of its own, joined at the end."""
        thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
        except OSError:
            pass
        except BaseException as error:
            self.failure = error

    # --- connections

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line = QrLine(self._listener.accept()[0])
                self._lines.append(line)
                self.beside(lambda line=line: self._converse(line))  # type: ignore[misc]

    def _converse(self, line: QrLine) -> None:
        with line.socket:
            line.expect(peer.RQ)
            with self._lock:
                self.associations += 1
                number = self.associations
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                self._talk(line, number)
            finally:
                with self._lock:
                    self._at_once -= 1

    def _talk(self, line: QrLine, number: int) -> None:
        steps = self.manners.greet(number)
        if steps is not None:
            play(line, steps)
            return
        self._open(line)
        with contextlib.suppress(Released):
            while True:
                self._serve(line, read_message(line))
        line.socket.sendall(peer.release_pdu(peer.RELEASE_RP))

    def _open(self, line: QrLine) -> None:
        accepted: dict[int, tuple[str, str]] = {}
        asked = iter(line.request.presentation_context_definition_list)

        def choose(abstract: str, syntaxes: list[str]) -> peer.Answer | None:
            answer = self.manners.choose(abstract, syntaxes)
            context_id = int(next(asked).context_id or 0)
            if answer is not None and answer[0] == 0:
                accepted[context_id] = (abstract, answer[1])
            return answer

        line.socket.sendall(peer.acceptance(line, choose, roles=self.manners.roles))
        line.contexts = accepted

    def _serve(self, line: QrLine, message: Message) -> None:
        kind = int(message.command.CommandField)
        if kind == ECHO_RQ:
            respond(line, message, DONE)
        elif kind == FIND_RQ:
            self._find(line, message)
        elif kind in (MOVE_RQ, GET_RQ):
            self._retrieve(line, message)
        elif kind == CANCEL_RQ:
            self.cancels += 1  # of something that has ended
        else:
            raise AssertionError(f"command {kind:#06x}")

    def _find(self, line: QrLine, message: Message) -> None:
        identifier, levels = line.data_set(message), _levels(line, message)
        with self._lock:
            self.queries.append(identifier)
        try:
            found = self.manners.find(self, str(identifier.QueryRetrieveLevel), self.catalogue.find(identifier, levels))
        except Unlawful as error:
            self.failure = error
            found = REFUSED_IDENTIFIER
        if isinstance(found, int):
            respond(line, message, found)
            return
        for answer in found:
            respond(line, message, PENDING, answer)
        respond(line, message, DONE)

    def _retrieve(self, line: QrLine, message: Message) -> None:
        identifier, levels = line.data_set(message), _levels(line, message)
        level = str(identifier.QueryRetrieveLevel)
        try:
            wanted = self.catalogue.select(identifier, levels)
        except Unlawful as error:
            self.failure = error
            respond(line, message, REFUSED_IDENTIFIER)
            return
        calling = str(line.request.calling_ae_title).strip()
        with self._lock:
            nth = len(self.retrieves) + 1
            retrieval = Retrieval(self, line, message, identifier, level, wanted, nth, calling)
            self.retrieves.append(
                Asked(
                    level=level,
                    uids=tuple(retrieval.uids),
                    message_id=retrieval.message_id,
                    destination=retrieval.destination,
                    wanted=tuple(sample.sop_instance_uid for sample in wanted),
                )
            )
        if not retrieval.is_get and retrieval.destination not in self.destinations:
            retrieval.final(UNKNOWN_DESTINATION, completed=None, failed=None, warning=None)
            return
        try:
            self.manners.retrieve(retrieval)
        finally:
            self.cancels += retrieval.cancelled
            retrieval.hang_up()

    # --- life

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(peer.PATIENCE)
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(peer.PATIENCE)
        if kind is None and self.failure is not None:
            raise AssertionError(f"the peer failed: {self.failure!r}") from self.failure


def _levels(line: QrLine, message: Message) -> tuple[str, ...]:
    """The levels of the root that a message's SOP class belongs to."""
    return _ROOTS[line.contexts[message.context_id][0].split(".")[-2]]

"""One C-MOVE or C-GET of a Query/Retrieve peer: its parts, of which a good peer is made and each kind of bad one."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from support import caller
from support import scripted_peer as peer
from support.bench import Hung
from support.compare import body
from support.qr_catalogue import values_of
from support.qr_messages import (
    CANCEL_RQ,
    CANCELLED,
    DONE,
    GET_RQ,
    NOTHING_DONE,
    PENDING,
    WARNING,
    Message,
    QrLine,
    read_message,
    respond,
)
from support.samples import Sample

if TYPE_CHECKING:
    from support.qr_peer import QrPeer


class Unreachable(Exception):
    """The destination of a C-MOVE takes no association, or not this one."""


@dataclass
class Retrieval:
    """One C-MOVE or C-GET as it is carried out; what a piece of misbehaviour plays with.

    `nth` counts the retrieves of this peer from 1. Counters are what the peer would say if it told the truth.
    """

    peer: QrPeer
    line: QrLine
    request: Message
    identifier: Dataset
    level: str
    wanted: list[Sample]
    nth: int
    calling: str
    completed: int = 0
    failed_uids: list[str] = field(default_factory=list)
    cancelled: bool = False
    ended: bool = False
    oddities: dict[str, object] = field(default_factory=dict)
    """Elements of its responses' command sets beside, or instead of, the usual ones."""
    _calls: dict[str, caller.Caller] = field(default_factory=dict)
    _contexts: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)

    @property
    def is_get(self) -> bool:
        return int(self.request.command.CommandField) == GET_RQ

    @property
    def destination(self) -> str:
        return str(self.request.command.get("MoveDestination", "")).strip()

    @property
    def message_id(self) -> int:
        return int(self.request.command.MessageID)

    @property
    def uids(self) -> list[str]:
        """The values of the unique key at the level of the retrieve."""
        names = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}
        return values_of(self.identifier, names.get(self.level, "SOPInstanceUID"))

    @property
    def remaining(self) -> int:
        return max(len(self.wanted) - self.completed - len(self.failed_uids), 0)

    # --- sub-operations

    def store(
        self,
        samples: Sequence[Sample] | None = None,
        *,
        calling: str | None = None,
        originator: bool = True,
        report: bool = True,
        **command: object,
    ) -> None:
        """Hand these over (all that is wanted, unless named), one C-STORE each, with a pending response after each if
        `report`; stops at a C-CANCEL. One that cannot be handed over counts as failed.
        """
        for sample in self.wanted if samples is None else samples:
            if self.cancelled:
                return
            try:
                status = self._store(sample, calling or self.peer.aet, originator, command)
            except Unreachable:
                status = 0xC000
            if status == 0:
                self.completed += 1
            else:
                self.failed_uids.append(sample.sop_instance_uid)
            if report:
                self.pending()

    def _store(self, sample: Sample, calling: str, originator: bool, command: dict[str, object]) -> int:
        self.peer.count_store(sample.sop_instance_uid)
        key = (sample.sop_class_uid, sample.transfer_syntax_uid)
        data = body(sample.path)
        if self.is_get:
            return self._store_here(sample, key, data, command)
        there = self._call(calling)
        context = self._contexts[calling].get(key)
        if context is None:
            raise Unreachable("no presentation context")
        told = {
            "MoveOriginatorApplicationEntityTitle": self.calling,
            "MoveOriginatorMessageID": self.message_id,
        }
        number = self.peer.next_message_id()
        given: dict[str, Any] = {
            "message_id": number,
            "sop_class": sample.sop_class_uid,
            **(told if originator else {}),
            **command,
        }
        try:
            return int(there.store(sample.sop_instance_uid, data, context_id=context, **given).Status)
        except (OSError, AssertionError):
            self._calls.pop(calling).socket.close()
            raise Unreachable("the association broke") from None

    def _store_here(self, sample: Sample, key: tuple[str, str], data: bytes, command: dict[str, object]) -> int:
        contexts = self.line.contexts
        of_class = [(number, accepted) for number, accepted in contexts.items() if accepted[0] == key[0]]
        if self.peer.manners.one_syntax:
            of_class = of_class[:1]
        context = next((number for number, accepted in of_class if accepted == key), None)
        if context is None:
            raise Unreachable("no presentation context")
        uid, number = sample.sop_instance_uid, self.peer.next_message_id()
        head = caller.store_command(uid, number, sample.sop_class_uid, **command)
        self.line.socket.sendall(peer.p_data(peer.pdv(head, 3, context)) + caller.data_pdus(data, 16378, context))
        while True:
            answer = read_message(self.line)
            if int(answer.command.CommandField) == CANCEL_RQ:
                self.cancelled = True
                continue
            return int(answer.command.Status)

    def _call(self, calling: str) -> caller.Caller:
        """The association to the destination, opened when the first instance goes there."""
        if calling not in self._calls:
            port = self.peer.destinations.get(self.destination)
            if port is None:
                raise Unreachable(self.destination)
            kinds = {(one.sop_class_uid, one.transfer_syntax_uid) for one in self.peer.catalogue.samples}
            kinds |= {(one.sop_class_uid, one.transfer_syntax_uid) for one in self.wanted}
            proposals: list[tuple[str, tuple[str, ...]]] = [(one, (syntax,)) for one, syntax in sorted(kinds)]
            if self.peer.manners.one_syntax:
                classes = sorted({sop_class for sop_class, _ in kinds})
                proposals = [(one, tuple(syntax for own, syntax in sorted(kinds) if own == one)) for one in classes]
            try:
                there = caller.Caller(port)
                accepted = there.associate(proposals, calling=calling, called=self.destination)
            except (OSError, AssertionError):
                raise Unreachable(self.destination) from None
            self._calls[calling] = there
            self._contexts[calling] = {
                (proposals[(one.context_id - 1) // 2][0], one.transfer_syntax): one.context_id
                for one in accepted
                if one.result == 0
            }
        return self._calls[calling]

    def hang_up(self) -> None:
        """Release the associations to the destination."""
        for there in self._calls.values():
            with contextlib.suppress(OSError, AssertionError):
                there.release()
            there.socket.close()
        self._calls.clear()

    # --- responses

    def pending(self, **counters: int | None) -> None:
        """A pending response, with these counters where they are not the true ones (None leaves one out). Then a
        C-CANCEL is heard if one came.
        """
        self._respond(PENDING, self._counters(counters), None)
        self.listen()

    def final(self, status: int | None = None, *, failed_list: bool = True, **counters: int | None) -> None:
        """The final response; its status follows from the counters unless it is given."""
        if status is None:
            honest = DONE if not self.failed_uids else WARNING if self.completed else NOTHING_DONE
            status = CANCELLED if self.cancelled else honest
        numbers = self._counters({"remaining": None if status != CANCELLED else self.remaining, **counters})
        data = None
        if failed_list and self.failed_uids and status != DONE:
            data = Dataset()
            data.FailedSOPInstanceUIDList = self.failed_uids
        self._respond(status, numbers, data)
        self.ended = True

    def _counters(self, given: Mapping[str, int | None]) -> dict[str, object]:
        true = {
            "remaining": self.remaining,
            "completed": self.completed,
            "failed": len(self.failed_uids),
            "warning": 0,
        }
        numbers = {**true, **given}
        return {
            f"NumberOf{name.capitalize()}Suboperations": value for name, value in numbers.items() if value is not None
        }

    def _respond(self, status: int, counters: Mapping[str, object], data: Dataset | None) -> None:
        respond(self.line, self.request, status, data, **counters, **self.oddities)

    def listen(self, seconds: float = 0.0) -> bool:
        """Whether a C-CANCEL has come, waiting for one at most so long; raises Hung when the other side is gone."""
        while not self.cancelled and select.select([self.line.socket], [], [], seconds)[0]:
            self.cancelled = int(read_message(self.line).command.CommandField) == CANCEL_RQ
        return self.cancelled

    def abort(self) -> None:
        """A-ABORT, and nothing more."""
        self.line.socket.sendall(peer.abort_pdu())
        raise Hung

    def silence(self) -> None:
        """Not a word more, whatever comes."""
        peer.until_end(self.line)
        raise Hung

    def afterwards(self, work: Callable[[Retrieval], None]) -> None:
        """Go on beside this association, which may end meanwhile, with associations of its own."""
        late = replace(self, _calls={}, _contexts={})
        self.peer.beside(lambda: work(late))

    def well(self) -> None:
        """As a good archive does it."""
        self.store()
        self.hang_up()
        self.final()

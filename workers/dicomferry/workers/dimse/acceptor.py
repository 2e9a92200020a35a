"""Associations as acceptor: negotiation, C-ECHO and C-STORE, release and abort, for one thread an association.

What to admit and where the data go is the `Service`'s business. Nothing of it runs while the peer is silent, and no
wait is without bound.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dicomferry.models.rules.errors import AssociationAborted, DimseError, ProtocolViolation
from dicomferry.workers.dimse.wire import message, store_message, upper_layer
from dicomferry.workers.dimse.wire.associate_as_acceptor import (
    MOST_REQUEST,
    VERIFICATION,
    AssociateRequest,
    Rejection,
    decode_request,
    encode_acceptance,
    negotiate,
)
from dicomferry.workers.dimse.wire.contexts import Context
from dicomferry.workers.dimse.wire.message import CommandSet, fragment_size, fragments
from dicomferry.workers.dimse.wire.pdu_reader import Inlet
from dicomferry.workers.dimse.wire.upper_layer import Pdu, UpperLayer

SUCCESS = 0x0000
UNRECOGNISED_OPERATION = 0x0211
C_CANCEL_RQ = 0x0FFF
_MOVE_ORIGINATOR_AE_TITLE = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID = 0x1031
_MOST_FRAGMENT = 16 * 1024
ANNOUNCED_SECONDS = 2.0
"""How long the data set is waited for that a request announces which needs none."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Seconds: for A-ASSOCIATE-RQ (ARTIM), between messages, and without a byte inside one."""

    acse: float = 30.0
    idle: float = 600.0
    progress: float = 60.0


@dataclass(slots=True, kw_only=True)
class Incoming:
    """A C-STORE request as its command says it; UIDs and AE titles without trailing NUL and blanks."""

    request: AssociateRequest
    number: int
    context: Context
    sop_class_uid: str
    sop_instance_uid: str
    message_id: int
    originator_ae_title: str | None
    originator_message_id: int | None


class StatusReply(NamedTuple):
    """A DIMSE status, and a few words for the person who reads the sender's log."""

    status: int
    comment: str = ""


class Sink(Protocol):
    """Where one data set goes. None of its methods raises for want of disk or database: `finish` tells."""

    def take(self, spans: list[memoryview]) -> None:
        """More bytes of the data set; the views are good until this returns."""

    def finish(self) -> StatusReply:
        """All bytes were given: the answer. Success promises that they survive a power cut."""

    def discard(self) -> None:
        """The rest will not come: leave nothing behind. Harmless after `finish`."""


class Service(Protocol):
    """What an acceptor serves."""

    def admit(self, request: AssociateRequest) -> Rejection | None:
        """None to take the association, which then counts until `leave`."""

    def prefer(self, request: AssociateRequest) -> str | None:
        """What to take of several transfer syntaxes in one context."""

    def store(self, incoming: Incoming) -> Sink:
        """The place for an instance that is about to come."""

    def look_ahead(self) -> None:
        """A message is answered, and the peer is at work: time for what the next one will need. Raises nothing."""

    def leave(self, request: AssociateRequest) -> None:
        """An admitted association has ended, however."""


class Acceptor:
    """One connection from A-ASSOCIATE-RQ to its end; `serve` is for one thread, the rest for any."""

    def __init__(self, layer: UpperLayer, service: Service, waits: Waits) -> None:
        self.request: AssociateRequest | None = None
        """Set once the association is established."""
        self.busy = False
        """Whether a message is being received or answered."""
        self._layer = layer
        self._service = service
        self._waits = waits
        self._inlet = Inlet(layer)
        self._contexts: dict[int, Context] = {}
        self._number = 0
        self._ending = threading.Event()
        self._why = ""
        self._quiet_since = time.monotonic()

    def end(self, why: str, *, at_once: bool = False) -> None:
        """Abort now, or after the answer to the message that is coming in; `why` is for the log."""
        self._why = why
        self._ending.set()
        if at_once or not self.busy:
            self._layer.abort()

    def idle_seconds(self) -> float:
        """How long no message has come or gone; 0 while one does."""
        return 0.0 if self.busy else time.monotonic() - self._quiet_since

    def serve(self) -> None:
        """Until the association has ended in good order. Raises DimseError when it did not."""
        try:
            request = self._associate()
            if request is None:
                return
            try:
                while self._serve_message(request):
                    if self._ending.is_set():
                        self._layer.abort()
                        raise AssociationAborted(self._layer.peer)
            finally:
                self._service.leave(request)
        except BaseException as error:
            self._layer.abort(upper_layer.BY_SERVICE_PROVIDER)
            if self._ending.is_set() and isinstance(error, DimseError):
                raise AssociationAborted(f"{self._layer.peer}: aborted here, since {self._why}") from error
            raise
        finally:
            self._layer.close()

    def _associate(self) -> AssociateRequest | None:
        """Receive the request and answer it; None when it was rejected (PS3.8 9.2, AE-6)."""
        waits = self._waits
        pdu = self._layer.receive("acse", waits.acse, MOST_REQUEST)
        if pdu.kind != upper_layer.A_ASSOCIATE_RQ:
            # AA-1: whatever else comes first.
            self._layer.abort()
            raise ProtocolViolation(f"{self._layer.peer}: a PDU of type {pdu.kind} where A-ASSOCIATE-RQ was to come")
        try:
            request = decode_request(pdu.body)
        except ProtocolViolation as error:
            self._layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.INVALID_PARAMETER)
            raise ProtocolViolation(f"{self._layer.peer}: {error}") from error
        rejection = request.unusable or self._service.admit(request)
        if rejection is not None:
            with contextlib.suppress(DimseError):
                self._layer.send([rejection.encode()], seconds=waits.acse)
            return None
        try:
            contexts = negotiate(request.contexts, self._service.prefer(request))
            self._contexts = {context.context_id: context for context in contexts if context.accepted}
            self._layer.send([encode_acceptance(request, contexts)], seconds=waits.acse)
        except BaseException:
            self._service.leave(request)
            raise
        self._quiet_since = time.monotonic()
        self.request = request
        return request

    def _serve_message(self, request: AssociateRequest) -> bool:
        """Receive one message and answer it; False after a release."""
        found = self._inlet.command(self._waits.idle, self._waits.progress)
        if isinstance(found, Pdu):
            if found.kind == upper_layer.A_RELEASE_RQ:
                with contextlib.suppress(DimseError):
                    self._layer.send([upper_layer.RELEASE_RP], seconds=self._waits.acse)
                return False
            raise self._inlet.violation(f"a PDU of type {found.kind} on an established association")
        self.busy = True
        try:
            self._answer(request, *found)
        finally:
            self._quiet_since = time.monotonic()
            self.busy = False
        self._service.look_ahead()
        return True

    def _answer(self, request: AssociateRequest, context_id: int, raw: bytes) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            raise self._inlet.violation(f"a message in context {context_id}, which was not accepted")
        try:
            command = CommandSet.decode(raw)
        except ProtocolViolation as error:
            raise self._inlet.violation(str(error), upper_layer.INVALID_PARAMETER) from error
        field = command.number(message.COMMAND_FIELD)
        message_id = command.number(message.MESSAGE_ID)
        if field == C_CANCEL_RQ:
            return
        if field is None or field & message.RESPONSE:
            raise self._inlet.violation("a response, or no command at all, where a request was to come")
        if message_id is None:
            raise self._inlet.violation("a request without a message id", upper_layer.INVALID_PARAMETER)
        if field == message.C_STORE_RQ and context.abstract_syntax != VERIFICATION and command.has_data_set:
            answer = self._receive(request, context, command, message_id)
        else:
            waits = self._waits
            if command.has_data_set and self._inlet.begins_data(context_id, ANNOUNCED_SECONDS, waits.progress):
                self._inlet.data_set(context_id, _ignore, waits.progress)
            is_echo = field == message.C_ECHO_RQ and context.abstract_syntax == VERIFICATION
            answer = StatusReply(SUCCESS) if is_echo else StatusReply(UNRECOGNISED_OPERATION, "this is a storage SCP")
        self._respond(request, context_id, command, field, message_id, answer)

    def _receive(
        self, request: AssociateRequest, context: Context, command: CommandSet, message_id: int
    ) -> StatusReply:
        self._number += 1
        sink = self._service.store(
            Incoming(
                request=request,
                number=self._number,
                context=context,
                sop_class_uid=command.text(message.AFFECTED_SOP_CLASS_UID) or "",
                sop_instance_uid=command.text(message.AFFECTED_SOP_INSTANCE_UID) or "",
                message_id=message_id,
                originator_ae_title=command.title(_MOVE_ORIGINATOR_AE_TITLE),
                originator_message_id=command.number(_MOVE_ORIGINATOR_MESSAGE_ID),
            )
        )
        try:
            self._inlet.data_set(context.context_id, sink.take, self._waits.progress)
            return sink.finish()
        finally:
            sink.discard()

    def _respond(
        self,
        request: AssociateRequest,
        context_id: int,
        command: CommandSet,
        field: int,
        message_id: int,
        answer: StatusReply,
    ) -> None:
        try:
            size = fragment_size(request.peer_max_pdu, _MOST_FRAGMENT)
        except ProtocolViolation as error:
            raise self._inlet.violation(str(error), upper_layer.INVALID_PARAMETER) from error
        encoded = fragments(context_id, _response(command, field, message_id, answer), size, command=True)
        self._layer.send([encoded], seconds=self._waits.progress)


def _response(command: CommandSet, field: int, message_id: int, answer: StatusReply) -> bytes:
    """The command set that answers a request."""
    if field == message.C_STORE_RQ and not answer.status and not answer.comment:
        # Nearly all are this one.
        sop_class = command.values.get(message.AFFECTED_SOP_CLASS_UID)
        sop_instance = command.values.get(message.AFFECTED_SOP_INSTANCE_UID)
        if sop_class is not None and sop_instance is not None:
            return store_message.response(sop_class, sop_instance, message_id)
    return command.response(field, message_id, answer.status, answer.comment).encode()


def _ignore(spans: Sequence[memoryview]) -> None:
    """A data set that nobody asked for."""

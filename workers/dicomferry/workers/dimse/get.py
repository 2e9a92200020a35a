"""C-GET as SCU (PS3.4 C.4.3, PS3.7 9.1.3): the instances come back on the association on which they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dicomferry.models.rules import query
from dicomferry.models.rules.errors import DimseTimeout, ProtocolViolation, ReleasedEarly
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.workers.dimse.acceptor import Incoming, Sink
from dicomferry.workers.dimse.reports import Report, encode, read_report
from dicomferry.workers.dimse.requestor import Association, Progress, open_with
from dicomferry.workers.dimse.storage_classes import CLASSES, RARER, SYNTAXES, WITHOUT_PIXELS
from dicomferry.workers.dimse.wire import message, upper_layer
from dicomferry.workers.dimse.wire.associate_as_acceptor import AssociateRequest
from dicomferry.workers.dimse.wire.contexts import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    MOST_PROPOSALS,
    UNCOMPRESSED,
    Pair,
    Proposal,
    is_proposable,
)
from dicomferry.workers.dimse.wire.inbox import ANNOUNCED_AGAIN_SECONDS
from dicomferry.workers.dimse.wire.message import CommandSet, number_value, text_value
from dicomferry.workers.dimse.wire.pdu_reader import Inlet
from dicomferry.workers.dimse.wire.upper_layer import Pdu

Receive = Callable[[Incoming], Sink]
_UNRECOGNISED = 0x0211


def proposals_for(
    model: str, classes: Iterable[str], part: int = 0, *, compressed_first: bool = False, only: Sequence[str] = ()
) -> list[Proposal]:
    """The contexts of one association: the model, then one for each (SOP class, transfer syntax).

    Every class in the first syntaxes before any in the last ones; classes that find no place come another time. What
    there is no room for is proposed where `part` is 1, 2 and so on, each class in the first syntax besides. So are
    rarer classes, where nobody knows which there are.

    `compressed_first`: for an archive that takes the first context of a class for all that it has of it. `only` are the
    transfer syntaxes that are proposed, where not all of them are to be.
    """
    known = [one for one in dict.fromkeys(classes) if is_proposable((one, EXPLICIT_LE))]
    if only:
        chosen = [(one, syntax) for syntax in only for one in known or CLASSES][:_ROOM]
    else:
        chosen = _compressed_first(known) if compressed_first else _plain_first(known, part)
    storage = [Proposal(one, (syntax,), as_scp=True) for one, syntax in chosen]
    return [Proposal(model, (EXPLICIT_LE, IMPLICIT_LE)), *storage]


_ROOM = MOST_PROPOSALS - 1


def _plain_first(known: Sequence[str], part: int) -> list[Pair]:
    some = (known or list(CLASSES))[: _ROOM // 2]
    first = [(one, EXPLICIT_LE) for one in some]
    # Nobody compresses what has no pixels.
    others = [
        (one, syntax)
        for syntax in SYNTAXES[1:]
        for one in some
        if known or one not in WITHOUT_PIXELS or syntax == IMPLICIT_LE
    ]
    size = _ROOM - len(first)
    if part and not known:
        others = others[size:] + others[:size]
        first += [(one, EXPLICIT_LE) for one in RARER]
        size, part = _ROOM - len(first), part - 1
    start = part * size % (-(-len(others) // size) * size)
    return [*first, *others[start : start + size]]


def _compressed_first(known: Sequence[str]) -> list[Pair]:
    some = known or [one for one in CLASSES if one not in WITHOUT_PIXELS]
    syntaxes = sorted(SYNTAXES, key=lambda syntax: syntax in UNCOMPRESSED)
    return [(one, syntax) for syntax in syntaxes for one in some][:_ROOM]


def open_for(
    remote: Remote,
    root: str,
    classes: Sequence[str],
    *,
    part: int = 0,
    compressed_first: bool = False,
    only: Sequence[str] = (),
    progress: Progress | None = None,
) -> Association:
    """An association for C-GET that takes these classes. Raises what `open_association` raises, ContextNotAccepted."""
    model = query.get_model(root)
    proposals = proposals_for(model, classes, part, compressed_first=compressed_first, only=only)
    return open_with(remote, proposals, model, progress=progress)


def narrowed(prefer: str | None) -> tuple[str, ...]:
    """The transfer syntaxes to propose to a remote of which this is preferred; none of them is all of them.

    `prefer` is explicit, implicit, compressed, plain (both uncompressed little endian ones) or a UID.
    """
    named = {
        "explicit": (EXPLICIT_LE,),
        "implicit": (IMPLICIT_LE,),
        "plain": (EXPLICIT_LE, IMPLICIT_LE),
        "compressed": tuple(one for one in SYNTAXES if one not in UNCOMPRESSED),
    }
    return named.get(prefer, (prefer,)) if prefer else ()


class Gets:
    """C-GETs on one association, one after the other, and what comes back. For one thread."""

    def __init__(self, association: Association, root: str) -> None:
        self.association = association
        self.stores = 0
        self._patience = association.remote.timeouts.announced
        self._root = root
        self._model = query.get_model(root)
        self._inlet = Inlet(association.layer)
        self._contexts = {context.context_id: context for context in association.contexts if context.accepted}
        remote = association.remote
        # Who sends is the remote, although it was us who called.
        self._request = AssociateRequest(
            protocol_version=1,
            called_ae_title=remote.calling_ae_title,
            calling_ae_title=remote.ae_title,
            application_context="",
            contexts=(),
            peer_max_pdu=association.peer_max_pdu,
            fixed=b"",
        )

    def ask(self, one: Target, message_id: int, receive: Receive) -> CGet:
        """Ask for it; `receive` gives the place for each instance that comes."""
        association = self.association
        syntax = association.context_for(self._model).transfer_syntax
        return self.ask_for(encode(association.remote, self._root, one, syntax), message_id, receive)

    def ask_for(self, identifier: bytes, message_id: int, receive: Receive) -> CGet:
        """Ask by C-GET with an identifier that is encoded for the transfer syntax of the model's context."""
        association = self.association
        context = association.context_for(self._model)
        command = CommandSet(
            {
                message.AFFECTED_SOP_CLASS_UID: text_value(self._model),
                message.COMMAND_FIELD: number_value(message.C_GET_RQ),
                message.MESSAGE_ID: number_value(message_id),
                message.PRIORITY: number_value(message.PRIORITY_LOW),
                message.COMMAND_DATA_SET_TYPE: number_value(message.DATA_SET_FOLLOWS),
            }
        )
        association.send(context.context_id, command, identifier)
        return CGet(self, message_id, context.context_id, context.transfer_syntax, receive)

    def next(self, seconds: float) -> tuple[int, CommandSet] | None:
        """The next command and its context; None when none has begun within `seconds`."""
        progress = self.association.remote.timeouts.progress
        try:
            found = self._inlet.command(seconds, progress)
        except DimseTimeout as error:
            if error.seconds != seconds:
                raise
            return None
        if isinstance(found, Pdu):
            if found.kind == upper_layer.A_RELEASE_RQ:
                raise ReleasedEarly(f"{self.association.peer}: released the association instead of answering")
            raise self._inlet.violation(f"a PDU of type {found.kind} where an answer was to come")
        context_id, raw = found
        try:
            command = CommandSet.decode(raw)
        except ProtocolViolation as error:
            raise self._inlet.violation(str(error)) from error
        self.association.inbox.note_strays(command)
        return context_id, command

    def data_set_of(self, context_id: int, command: CommandSet) -> bytes | None:
        """The data set that an answer announces; None where none comes, which is waited for a little while."""
        progress = self.association.remote.timeouts.progress
        if self._inlet.begins_data(context_id, self._patience, progress):
            return self.data_set(context_id)
        self._patience = ANNOUNCED_AGAIN_SECONDS
        self.association.inbox.note("its answers announce a data set and send none: the status is the answer")
        return None

    def data_set(self, context_id: int) -> bytes:
        """The data set of a message."""
        parts: list[bytes] = []

        def take(spans: list[memoryview]) -> None:
            parts.append(b"".join(spans))
            if sum(map(len, parts)) > message.MAX_MESSAGE:
                raise self.violation("an answer that is too long")

        self._inlet.data_set(context_id, take, self.association.remote.timeouts.progress)
        return b"".join(parts)

    def violation(self, text: str) -> ProtocolViolation:
        """Abort, and the error to raise."""
        return self._inlet.violation(text)

    def store(self, context_id: int, command: CommandSet, receive: Receive) -> None:
        """Take one instance and answer for it (PS3.7 9.1.1)."""
        context, message_id = self._contexts.get(context_id), command.number(message.MESSAGE_ID)
        if context is None or message_id is None or not command.has_data_set:
            raise self.violation("a C-STORE request that cannot be answered")
        self.stores += 1
        incoming = Incoming(
            request=self._request,
            number=self.stores,
            context=context,
            sop_class_uid=command.text(message.AFFECTED_SOP_CLASS_UID) or "",
            sop_instance_uid=command.text(message.AFFECTED_SOP_INSTANCE_UID) or "",
            message_id=message_id,
            originator_ae_title=None,
            originator_message_id=None,
        )
        sink = receive(incoming)
        try:
            self._inlet.data_set(context_id, sink.take, self.association.remote.timeouts.progress)
            answer = sink.finish()
        finally:
            sink.discard()
        response = command.response(message.C_STORE_RQ, message_id, answer.status, answer.comment)
        self.association.send(context_id, response)

    def refuse(self, context_id: int, command: CommandSet) -> None:
        """Answer a request that makes no sense here, and drain its data set."""
        field, message_id = command.number(message.COMMAND_FIELD), command.number(message.MESSAGE_ID)
        if field is None or message_id is None:
            raise self.violation("a request that cannot be answered")
        if command.has_data_set:
            self.data_set(context_id)
        self.association.send(context_id, command.response(field, message_id, _UNRECOGNISED))


class CGet:
    """One C-GET that was asked for. See `Retrieval`."""

    def __init__(self, gets: Gets, message_id: int, context_id: int, transfer_syntax: str, receive: Receive) -> None:
        self._gets = gets
        self._message_id = message_id
        self._context_id = context_id
        self._transfer_syntax = transfer_syntax
        self._receive = receive
        self._before = gets.stores

    @property
    def stores(self) -> int:
        """How many instances have come for it."""
        return self._gets.stores - self._before

    def poll(self, seconds: float) -> Report | None:
        """The next answer; None when there is none within `seconds`, or when an instance came instead.

        Raises AssociationAborted, ProtocolViolation, DimseTimeout("progress") within a message.
        """
        gets = self._gets
        found = gets.next(seconds)
        if found is None:
            return None
        context_id, command = found
        field = command.number(message.COMMAND_FIELD)
        if field == message.C_STORE_RQ:
            gets.store(context_id, command, self._receive)
            return None
        if field is not None and not field & 0x8000:
            gets.refuse(context_id, command)
            return None
        status = command.number(message.STATUS)
        if field != message.C_GET_RSP or context_id != self._context_id or status is None:
            raise gets.violation(f"command 0x{field or 0:04X} in context {context_id} where an answer was to come")
        answered = command.number(message.MESSAGE_ID_BEING_RESPONDED_TO)
        if answered != self._message_id:
            raise gets.violation(f"an answer to message {answered}, message {self._message_id} was asked")
        data = gets.data_set_of(context_id, command) if command.has_data_set else None
        return read_report(command, status, data, self._transfer_syntax)

    def cancel(self) -> None:
        """Ask the peer to end it; its final answer is still due."""
        self._gets.association.cancel(self._context_id, self._message_id)

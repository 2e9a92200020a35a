"""C-MOVE as SCU (PS3.4 C.4.2, PS3.7 9.1.4): asked on an open association, answered while the instances travel."""

from __future__ import annotations

from dicomferry.models.rules import query
from dicomferry.models.rules.errors import DimseTimeout
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.workers.dimse.reports import Report, encode, read_report
from dicomferry.workers.dimse.requestor import Association, Progress, open_with
from dicomferry.workers.dimse.wire import message
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE, Proposal
from dicomferry.workers.dimse.wire.message import CommandSet, number_value, text_value


def open_for(remote: Remote, root: str, *, progress: Progress | None = None) -> Association:
    """An association for C-MOVE in this model. Raises what `open_association` raises, ContextNotAccepted."""
    model = query.move_model(root)
    return open_with(remote, [Proposal(model, (EXPLICIT_LE, IMPLICIT_LE))], model, progress=progress)


def ask(association: Association, root: str, target: Target, *, destination: str, message_id: int) -> CMove:
    """Ask for a target by its unique keys."""
    model = query.move_model(root)
    identifier = encode(association.remote, root, target, association.context_for(model).transfer_syntax)
    return CMove(association, model, identifier, destination=destination, message_id=message_id)


class CMove:
    """One C-MOVE; asked for when it is made. See `Retrieval`."""

    stores = 0

    def __init__(
        self,
        association: Association,
        model: str,
        identifier: bytes,
        *,
        destination: str,
        message_id: int,
        priority: int = message.PRIORITY_LOW,
    ) -> None:
        """`identifier` is encoded for the transfer syntax of `association.context_for(model)`."""
        self._association = association
        self._message_id = message_id
        self._context = association.context_for(model)
        command = CommandSet(
            {
                message.AFFECTED_SOP_CLASS_UID: text_value(model),
                message.COMMAND_FIELD: number_value(message.C_MOVE_RQ),
                message.MESSAGE_ID: number_value(message_id),
                message.MOVE_DESTINATION: _ae_title(destination),
                message.PRIORITY: number_value(priority),
                message.COMMAND_DATA_SET_TYPE: number_value(message.DATA_SET_FOLLOWS),
            }
        )
        association.send(self._context.context_id, command, identifier)

    def poll(self, seconds: float) -> Report | None:
        """The next answer, None when there is none within `seconds`. Raises AssociationAborted, ProtocolViolation."""
        association = self._association
        try:
            received, status = association.receive_response(self._message_id, message.C_MOVE_RSP, "progress", seconds)
        except DimseTimeout:
            return None
        if received.context_id != self._context.context_id:
            raise association.violation(f"an answer in context {received.context_id}")
        return read_report(received.command, status, received.data, self._context.transfer_syntax)

    def cancel(self) -> None:
        """Ask the peer to end it; its final answer is still due."""
        self._association.cancel(self._context.context_id, self._message_id)


def _ae_title(text: str) -> bytes:
    """An AE title as command value, padded to even length with a blank (PS3.5 6.2)."""
    raw = text.encode("ascii", "replace")
    return raw + b" " if len(raw) % 2 else raw

"""C-FIND as SCU (PS3.4 C.4.1, PS3.7 9.1.2): one query on an open association, its matches one by one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.errors import DimseError, DimseFailure
from dicomferry.models.rules.query import Key, Level
from dicomferry.workers.dimse.identifier import DecodedIdentifier
from dicomferry.workers.dimse.requestor import Association, Stop
from dicomferry.workers.dimse.wire import message
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE, Proposal
from dicomferry.workers.dimse.wire.message import CommandSet, Message, number_value, text_value

CANCELLED = 0xFE00
CANCEL_SECONDS = 30.0
"""How long the last answer to a query that we cancelled is waited for."""


@dataclass(frozen=True)
class Match:
    """One pending answer. `data` is its identifier as received, in `transfer_syntax`.

    `unsure`: the peer did not match on all keys (status FF01).
    """

    data: bytes
    transfer_syntax: str
    unsure: bool


class FindStopped(DimseError):
    """The query was broken off because `stop` said so; no fault of the peer."""


def proposal(model_uid: str) -> Proposal:
    """The presentation context of a query model."""
    return Proposal(model_uid, (EXPLICIT_LE, IMPLICIT_LE))


def never() -> bool:
    """The `stop` of a query that nobody breaks off."""
    return False


def find(
    association: Association,
    model_uid: str,
    identifier: bytes,
    *,
    stop: Stop = never,
    cancel_seconds: float = CANCEL_SECONDS,
    priority: int = message.PRIORITY_MEDIUM,
) -> Generator[Match, None, None]:
    """The matches of one query; the iterator ends with the peer's success.

    `identifier` is encoded for the transfer syntax of `association.context_for(model_uid)`. The first answer is waited
    for `timeouts.first_answer` seconds, each other one `timeouts.progress`. Once `stop()` is true the query is
    cancelled. A consumer that closes the iterator early cancels it as well; the association can be used again then.

    Raises DimseFailure for every other final status, FindStopped, ContextNotAccepted, DimseTimeout("first_answer" or
    "progress"), AssociationAborted, and ProtocolViolation for a match without an identifier or in another context.
    """
    context = association.context_for(model_uid)
    message_id = association.next_message_id()
    command = CommandSet(
        {
            message.AFFECTED_SOP_CLASS_UID: text_value(model_uid),
            message.COMMAND_FIELD: number_value(message.C_FIND_RQ),
            message.MESSAGE_ID: number_value(message_id),
            message.PRIORITY: number_value(priority),
            message.COMMAND_DATA_SET_TYPE: number_value(message.DATA_SET_FOLLOWS),
        }
    )
    association.send(context.context_id, command, identifier)
    timeouts = association.remote.timeouts
    phase, seconds = "first_answer", timeouts.first_answer
    while True:
        answer = association.await_response(message_id, message.C_FIND_RSP, phase, seconds, stop)
        if answer is None:
            _cancel(association, context.context_id, message_id, cancel_seconds)
            raise FindStopped(f"{association.peer}: the query was broken off")
        received, status = answer
        if received.context_id != context.context_id:
            raise association.violation(f"an answer in context {received.context_id}")
        if not lookup.is_pending(status):
            _check(association, received, status)
            return
        if received.data is None:
            raise association.violation("a match without an identifier")
        phase, seconds = "progress", timeouts.progress
        try:
            yield Match(received.data, context.transfer_syntax, status == 0xFF01)
        except GeneratorExit:
            _cancel(association, context.context_id, message_id, cancel_seconds)
            raise


def _check(association: Association, received: Message, status: int) -> None:
    if lookup.for_status("find", status).rule is not Rule.DONE:
        raise DimseFailure(status, received.command.text(message.ERROR_COMMENT) or "")


def _cancel(association: Association, context_id: int, message_id: int, seconds: float) -> None:
    """C-CANCEL, then read on to the last answer, whatever it says; abort where it does not come. Never raises."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(DimseError):
        association.cancel(context_id, message_id)
        while (left := deadline - time.monotonic()) > 0:
            _, status = association.receive_response(message_id, message.C_FIND_RSP, "progress", left)
            if not lookup.is_pending(status):
                return
    association.abort()


Ask = Callable[[Level | None, Sequence[Key]], Iterable[tuple[Match, DecodedIdentifier]]]
"""One query: level (None for a worklist) and keys; its matches, decoded."""

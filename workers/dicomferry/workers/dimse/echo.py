"""C-ECHO (PS3.7 9.1.5): is the peer there, and how long does each step take?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.requestor import Association, Progress, open_association
from dicomferry.workers.dimse.wire import message
from dicomferry.workers.dimse.wire.associate_items import OUR_MAX_PDU
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE, Proposal
from dicomferry.workers.dimse.wire.message import CommandSet, number_value, text_value

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True, kw_only=True)
class EchoResult:
    """What an echo found out; times in milliseconds."""

    status: int
    tcp_ms: float
    association_ms: float
    echo_ms: float
    peer_max_pdu: int
    peer_implementation_name: str


def echo(
    remote: Remote,
    *,
    progress: Progress | None = None,
    syntaxes: tuple[str, ...] = (IMPLICIT_LE, EXPLICIT_LE),
    max_pdu: int = OUR_MAX_PDU,
) -> EchoResult:
    """Open an association that offers these transfer syntaxes, send one C-ECHO, release.

    Raises what `open_association` raises, ContextNotAccepted, and for a missing answer
    DimseTimeout("progress", s).
    """
    proposals = [Proposal(VERIFICATION, syntaxes)]
    with open_association(remote, proposals, progress=progress, max_pdu=max_pdu) as association:
        began = time.perf_counter()
        status = _ask(association)
        return EchoResult(
            status=status,
            tcp_ms=association.tcp_seconds * 1000,
            association_ms=association.negotiation_seconds * 1000,
            echo_ms=(time.perf_counter() - began) * 1000,
            peer_max_pdu=association.peer_max_pdu,
            peer_implementation_name=association.peer_implementation_version_name,
        )


def _ask(association: Association) -> int:
    context = association.context_for(VERIFICATION)
    message_id = association.next_message_id()
    command = CommandSet(
        {
            message.AFFECTED_SOP_CLASS_UID: text_value(VERIFICATION),
            message.COMMAND_FIELD: number_value(message.C_ECHO_RQ),
            message.MESSAGE_ID: number_value(message_id),
            message.COMMAND_DATA_SET_TYPE: number_value(message.NO_DATA_SET),
        }
    )
    association.send(context.context_id, command)
    seconds = association.remote.timeouts.progress
    _, status = association.receive_response(message_id, message.C_ECHO_RSP, "progress", seconds)
    return status

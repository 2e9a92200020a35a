"""`scu --move`: C-MOVE to ourselves, received in this process and judged by what arrived."""

from __future__ import annotations

import time

from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import MAX_PDU, Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.cli.scu.output_files import OutputFolder
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.query import Query, prepare
from dicomferry.cli.scu.receiver import Receiver
from dicomferry.cli.scu.recording import keeping
from dicomferry.cli.scu.retrieving import RetrieveEnd, describe, follow_or_cancel, judge
from dicomferry.workers.dimse.move import CMove
from dicomferry.workers.dimse.requestor import open_with
from dicomferry.workers.dimse.wire.contexts import IMPLICIT_LE, Proposal
from dicomferry.workers.dimse.wire.message import PRIORITY_MEDIUM

LOOK_SECONDS = 0.02


@raising()
def run(invocation: Invocation, say: Messages) -> int:
    """Fetch what the keys name into the output folder; 1 where that is not all that there is.

    Raises Refused before anything is asked, and DimseError.
    """
    query = prepare(invocation, say)
    describe(invocation, query, say)
    assert invocation.port_scp is not None
    progress = Progress(say, doing="receiving", quiet=invocation.verbose or invocation.debug)
    output = OutputFolder(invocation.output, invocation.called, progress)
    output.prepare()
    try:
        with keeping(invocation, say) as journal:
            try:
                with Receiver(invocation.port_scp, output, invocation.dimse_seconds) as receiver:
                    ended = _move(invocation, query, receiver, progress)
                    _await(receiver, output, ended.sent, invocation.quiet_seconds, progress)
            finally:
                journal.received(output.files)
            judge(invocation, ended, output.stored, receiver.associations > 0, progress, journal)
    finally:
        progress.close("received")
        output.close()
    return int(say.failed)


def _move(invocation: Invocation, query: Query, receiver: Receiver, progress: Progress) -> RetrieveEnd:
    """Ask for it and wait for the last answer. Raises DimseError."""
    # gdcmscu offers C-FIND as well, and some archives expect both.
    proposals = [Proposal(model, (IMPLICIT_LE,)) for model in (query.find_model, query.move_model)]
    with open_with(invocation.remote, proposals, query.move_model, max_pdu=MAX_PDU) as association:
        asked = CMove(
            association,
            query.move_model,
            query.identifier,
            destination=invocation.calling,
            message_id=association.next_message_id(),
            priority=PRIORITY_MEDIUM,
        )
        return follow_or_cancel(asked, lambda: receiver.moved, association.peer, invocation, progress)


def _await(receiver: Receiver, output: OutputFolder, sent: int, quiet: float, progress: Progress) -> None:
    """Until as many have come as were sent, or nothing comes for `quiet` seconds."""
    last, since = receiver.moved, time.monotonic()
    while output.stored + output.refused < sent or receiver.is_busy:
        progress.tick()
        now = time.monotonic()
        if receiver.moved != last:
            last, since = receiver.moved, now
        elif now - since >= quiet:
            return
        time.sleep(LOOK_SECONDS)

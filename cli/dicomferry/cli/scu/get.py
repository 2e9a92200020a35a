"""`scu --get`: C-GET; what comes back on the association becomes files in the output folder."""

from __future__ import annotations

from dataclasses import replace

from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.cli.scu.output_files import OutputFolder
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.query import Query, prepare
from dicomferry.cli.scu.recording import keeping
from dicomferry.cli.scu.retrieving import DONE, SOME_FAILED, RetrieveEnd, describe, follow_or_cancel, judge
from dicomferry.workers.dimse.get import Gets, proposals_for
from dicomferry.workers.dimse.requestor import open_with
from dicomferry.workers.dimse.wire.contexts import IMPLICIT_LE, Proposal

MOST_ROUNDS = 4
"""Which SOP classes there are, nobody tells beforehand: what failed is asked for with other contexts so often."""


@raising()
def run(invocation: Invocation, say: Messages) -> int:
    """Fetch what the keys name into the output folder; 1 where that is not all that there is.

    Raises Refused before anything is asked, and DimseError.
    """
    query = prepare(invocation, say)
    describe(invocation, query, say)
    progress = Progress(say, doing="receiving", quiet=invocation.verbose or invocation.debug)
    output = OutputFolder(invocation.output, invocation.called, progress)
    output.prepare()
    try:
        with keeping(invocation, say) as journal:
            try:
                ended, came = _get_all(invocation, query, output, progress)
            finally:
                journal.received(output.files)
            judge(invocation, ended, came, True, progress, journal)
    finally:
        progress.close("received")
        output.close()
    return int(say.failed)


def _get_all(invocation: Invocation, query: Query, output: OutputFolder, progress: Progress) -> tuple[RetrieveEnd, int]:
    """Ask as often as that brings more: how it ended, and how many instances came. Raises DimseError."""
    ended = _get(invocation, query, output, progress, 0)
    for part in range(1, MOST_ROUNDS):
        before, refused = len(output.files), output.refused
        if not ended.failed or refused:
            return ended, output.stored
        there = ended.sent + ended.failed
        ended = _get(invocation, query, output, progress, part)
        came = len(output.files)
        if came >= there and ended.final.status in (DONE, SOME_FAILED):
            # What failed one time came another time.
            return RetrieveEnd(replace(ended.final, status=DONE, failed_uids=()), there, 0), came
        if came == before:
            break
    return ended, output.stored


def _get(invocation: Invocation, query: Query, output: OutputFolder, progress: Progress, part: int) -> RetrieveEnd:
    """One C-GET on an association of its own. Raises DimseError."""
    assert invocation.root is not None
    proposals = [Proposal(query.get_model, (IMPLICIT_LE,)), *proposals_for(query.get_model, (), part)[1:]]
    with open_with(invocation.remote, proposals, query.get_model) as association:
        gets = Gets(association, invocation.root)
        asked = gets.ask_for(query.identifier, association.next_message_id(), output.receive)
        return follow_or_cancel(asked, lambda: gets.stores, association.peer, invocation, progress)

"""`scu --get`: C-GET; what comes back on the association becomes files in the output folder."""

from __future__ import annotations

from dicomferry.cli.scu.files import Output
from dicomferry.cli.scu.interruption import terminable
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.query import Query, prepare
from dicomferry.cli.scu.retrieving import Ended, follow_or_cancel, why_not
from dicomferry.workers.dimse.association import open_with
from dicomferry.workers.dimse.contexts import IMPLICIT_LE, Proposal
from dicomferry.workers.dimse.get import Gets, proposals_for

MOST_ROUNDS = 4
"""Which SOP classes there are, nobody tells beforehand: what failed is asked for with other contexts so often."""


@terminable()
def run(invocation: Invocation, say: Messages) -> int:
    """Fetch what the keys name into the output folder; 1 where that is not all that there is.

    Raises Refused before anything is asked, and DimseError.
    """
    query = prepare(invocation, say)
    progress = Progress(say, doing="receiving", quiet=invocation.verbose or invocation.debug)
    output = Output(invocation.output, invocation.called, progress)
    output.prepare()
    try:
        _get_all(invocation, query, output, progress)
    finally:
        progress.close("received")
        output.close()
    return int(say.failed)


def _get_all(invocation: Invocation, query: Query, output: Output, progress: Progress) -> None:
    """Ask as often as that brings more, and say what is wrong in the end."""
    wrong: str | None = None
    for part in range(MOST_ROUNDS):
        before, refused = len(output.uids), output.refused
        ended = _get(invocation, query, output, progress, part)
        came = len(output.uids)
        wrong = why_not("get", invocation, ended, output.stored, True)
        if ended.failed and came >= ended.sent + ended.failed:
            wrong = None  # what failed this time came another time
        if not ended.failed or wrong is None or output.refused > refused or (part and came == before):
            break
    if wrong:
        progress.failed = max(progress.failed, ended.failed)
        progress.failure(wrong)


def _get(invocation: Invocation, query: Query, output: Output, progress: Progress, part: int) -> Ended:
    """One C-GET on an association of its own. Raises DimseError."""
    assert invocation.root is not None
    proposals = [Proposal(query.get_model, (IMPLICIT_LE,)), *proposals_for(query.get_model, (), part)[1:]]
    with open_with(invocation.remote, proposals, query.get_model) as association:
        gets = Gets(association, invocation.root)
        asked = gets.ask_for(query.identifier, association.next_message_id(), output.receive)
        return follow_or_cancel(asked, lambda: gets.stores, association.peer, invocation, progress)

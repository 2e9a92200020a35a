"""`dicomferry scu --find` and `--worklist`: one C-FIND, its matches printed as gdcmscu prints them."""

from __future__ import annotations

from dicomferry.cli.scu import dump, query
from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import MAX_PDU, Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.models.rules.errors import DimseFailure
from dicomferry.workers.dimse import find
from dicomferry.workers.dimse.requestor import open_with
from dicomferry.workers.dimse.wire.contexts import IMPLICIT_LE, Proposal
from dicomferry.workers.dimse.wire.message import PRIORITY_LOW


def run(invocation: Invocation, say: Messages) -> int:
    """0, also where nothing matches. Raises Refused before anything is connected to, and DimseError.

    What came before a failure has been printed.
    """
    asked = query.prepare(invocation, say)
    title = "WL Find Response" if invocation.worklist else "Find Response"
    proposals = [Proposal(asked.find_model, (IMPLICIT_LE,))]
    say.detail(f"C-FIND {asked.find_model} with\n{dump.text(asked.identifier, asked.charset)}")
    failure: DimseFailure | None = None
    with raising(), open_with(invocation.remote, proposals, asked.find_model, max_pdu=MAX_PDU) as association:
        # Named, so that an interruption ends the association before it ends this iterator, which would wait for the
        # peer's answer to a C-CANCEL.
        matches = find.find(association, asked.find_model, asked.identifier, priority=PRIORITY_LOW)
        try:
            for number, match in enumerate(matches, 1):
                say.record(f"{title}: {number}\n{dump.text(match.data, asked.charset)}")
        except DimseFailure as error:
            failure = error  # an answer like any other: the association is released
    if failure:
        raise failure
    say.note("Find was successful.")
    return 0

"""`dicomferry scu --echo`: one C-ECHO; silent when it succeeds."""

from __future__ import annotations

from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import MAX_PDU, Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.models.rules.errors import DimseFailure
from dicomferry.workers.dimse import echo
from dicomferry.workers.dimse.wire.contexts import IMPLICIT_LE


def run(invocation: Invocation, say: Messages) -> int:
    """0, or 1 for any status but success. Raises DimseError."""
    with raising():
        result = echo.echo(invocation.remote, syntaxes=(IMPLICIT_LE,), max_pdu=MAX_PDU)
    if result.status != 0:
        raise DimseFailure(result.status)
    say.detail(
        f"C-ECHO answered by {invocation.called} at {invocation.address} ({result.peer_implementation_name}): "
        f"connection {result.tcp_ms:.1f} ms, association {result.association_ms:.1f} ms, echo {result.echo_ms:.1f} ms"
    )
    return 0

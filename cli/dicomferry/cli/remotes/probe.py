"""One C-ECHO right now, without the queue, told step by step."""

from __future__ import annotations

from typing import TypedDict

from dicomferry.cli.frame import installation, render, words
from dicomferry.models.record.remotes import book
from dicomferry.models.rules import remote as grammar
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import (
    ConfigurationError,
    ContextNotAccepted,
    DimseError,
    OutOfReach,
    RemoteUnreachable,
)
from dicomferry.models.rules.remote import Remote
from dicomferry.models.settings import Settings
from dicomferry.workers.dimse.echo import echo

STEPS = ("TCP", "association", "C-ECHO")


class ProbeDocument(TypedDict):
    """What came of a C-ECHO; `step` names the one that failed, times are in milliseconds."""

    remote: str
    address: str
    calling_ae_title: str
    ok: bool
    step: str | None
    tcp_ms: float | None
    association_ms: float | None
    echo_ms: float | None
    status: str | None
    reason: str | None
    detail: str | None
    advice: str | None
    peer_implementation_name: str | None
    peer_max_pdu: int | None


def probe(text: str) -> ProbeDocument:
    """Send a C-ECHO to REMOTE, a name or an address, and tell what came of it. Raises NotFound, UsageError."""
    remote = _resolve(installation.settings(), text)
    by_address = grammar.looks_like_address(text)
    found: ProbeDocument = {
        "remote": remote.name,
        "address": f"{remote.ae_title}@{remote.address}",
        "calling_ae_title": remote.calling_ae_title,
        "ok": False,
        "step": None,
        "tcp_ms": None,
        "association_ms": None,
        "echo_ms": None,
        "status": None,
        "reason": None,
        "detail": None,
        "advice": None,
        "peer_implementation_name": None,
        "peer_max_pdu": None,
    }
    try:
        result = echo(remote)
    except DimseError as error:
        answer = lookup.for_error(error, remote.quirks)
        return found | {
            "step": _step(error),
            "reason": answer.reason,
            "detail": " ".join(str(error).split()),
            "advice": _advice(answer, by_address),
        }
    answer = lookup.for_status("echo", result.status, remote.quirks)
    ok = answer.rule is lookup.Rule.DONE
    return found | {
        "ok": ok,
        "step": None if ok else STEPS[2],
        "tcp_ms": round(result.tcp_ms, 1),
        "association_ms": round(result.association_ms, 1),
        "echo_ms": round(result.echo_ms, 1),
        "status": f"0x{result.status:04X}",
        "reason": answer.reason,
        "advice": _advice(answer, by_address),
        "peer_implementation_name": result.peer_implementation_name or None,
        "peer_max_pdu": result.peer_max_pdu,
    }


def tell_the_record(found: ProbeDocument) -> bool:
    """The remote answers: whoever waited for that goes on; whether its breaker was open. Raises OutOfReach."""
    from dicomferry.models.record.remotes import breaker

    by_address = grammar.looks_like_address(found["remote"])
    try:
        database = installation.for_reading(installation.settings()) if found["ok"] else None
        return database is not None and breaker.answers(database, found["address" if by_address else "remote"])
    except (OutOfReach, ConfigurationError):
        if by_address:  # a look at an address needs no record
            return False
        raise


def tell(found: ProbeDocument) -> None:
    """One line for each step, the failed one with its advice."""
    render.line(f"{found['address']}, called as {found['calling_ae_title']}")
    failed = STEPS.index(found["step"]) if found["step"] else len(STEPS)
    times = found["tcp_ms"], found["association_ms"], found["echo_ms"]
    for index, (step, milliseconds) in enumerate(zip(STEPS, times, strict=True)):
        if index < failed:
            took = f", {milliseconds:g} ms" if milliseconds is not None else ""
            render.line(f"  {step:<12} ok{took}")
        elif index == failed:
            reason = words.printable(found["detail"] or f"{found['reason']} ({found['status']})")
            render.line(f"  {step:<12} failed: {reason}; {found['advice']}")
        else:
            render.line(f"  {step:<12} not reached")


def _resolve(settings: Settings, text: str) -> Remote:
    """REMOTE as a value; an address needs no database. Raises NotFound, UsageError."""
    timeouts = settings.timeouts.value()
    if grammar.looks_like_address(text):
        ae_title, host, port = grammar.parse_address(text)
        return Remote(
            name=text,
            ae_title=ae_title,
            host=host,
            port=port,
            calling_ae_title=settings.ae_title,
            timeouts=timeouts,
        )
    database = installation.for_reading(settings)
    if database is None:
        raise installation.no_remote(text)
    remote_id = book.resolve_id(database, text)
    return book.load(database, remote_id, ae_title=settings.ae_title, timeouts=timeouts)


def _advice(answer: lookup.Answer, by_address: bool) -> str | None:
    return lookup.without_entry(answer.advice) if answer.advice and by_address else answer.advice


def _step(error: DimseError) -> str:
    """Which step an error belongs to."""
    if isinstance(error, RemoteUnreachable) and not error.closed:
        return STEPS[0]
    phase = getattr(error, "phase", "acse")
    return STEPS[2] if isinstance(error, ContextNotAccepted) or phase != "acse" else STEPS[1]

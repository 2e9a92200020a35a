"""What each answer of a peer means: all DIMSE statuses, rejections, aborts and time-outs are looked up here alone.

The rows are in `statuses`, `connections` and `reasons`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from dicomferry.models.rules import errors
from dicomferry.models.rules.answers import connections, quirks, reasons, statuses
from dicomferry.models.rules.answers.answer import Answer as Answer
from dicomferry.models.rules.answers.answer import Rule as Rule
from dicomferry.models.rules.answers.quirks import Quirks
from dicomferry.models.rules.reason import Reason

_NONE: Quirks = {}


def for_status(service: str, status: int, own: Quirks = _NONE) -> Answer:
    """The row for a final DIMSE status of `service`; one that is not listed is a failure with one retry.

    `own` are the quirks of the remote.
    """
    row = statuses.find(service, status)
    answer = row.answer if row else statuses.unlisted(status)
    return quirks.applied(own, quirks.status_key(service, status), answer)


def is_pending(status: int) -> bool:
    """Whether a response to C-FIND, C-MOVE or C-GET is not the last one (PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""
    return status in statuses.PENDING


def for_error(error: errors.DimseError, own: Quirks = _NONE) -> Answer:
    """The row for whatever kept an association from opening, or ended it; `own` are the quirks of the remote."""
    match error:
        case errors.AssociationRejected(result=result, source=source, reason=reason):
            answer = connections.for_rejection(result, source, reason)
            return quirks.applied(own, connections.rejection_key(result, source, reason), answer)
        case errors.ConnectionLost():
            key = "connection lost"
        case errors.ReleasedEarly():
            key = "connection released"
        case errors.AssociationAborted(source=source, reason=reason):
            return connections.for_abort(source, reason)
        case errors.RemoteUnreachable(closed=closed, why=why):
            key = "connect closed" if closed else "timeout connect" if why == "timeout" else f"connect {why}"
        case errors.DimseTimeout(phase=phase):
            key = f"timeout {phase}"
        case errors.NoDicomAnswer(tls=tls):
            key = "connect TLS" if tls else "connect not DICOM"
        case errors.ProtocolViolation():
            key = "protocol violation"
        case errors.ContextNotAccepted():
            key = "context refused"
        case _:
            key = "failure"
    return connections.CONNECTIONS[key]


def reasons_of(*rules: Rule) -> frozenset[str]:
    """The reasons of all ways in which a connection fails that have one of these rules."""
    return frozenset(
        answer.reason for answer in connections.CONNECTIONS.values() if answer.rule in rules and answer.reason
    )


def local(reason: Reason, advice: str | None = None) -> Answer:
    """An answer that no peer gave, by its reason; with `advice` in place of the row's where more is known."""
    answer = _OF_REASONS[reason]
    return replace(answer, advice=advice) if advice else answer


_OF_REASONS: dict[str | None, Answer] = {
    answer.reason: answer for answer in reversed((*reasons.REASONS.values(), *connections.CONNECTIONS.values()))
}
_MENDED = frozenset(
    {Reason.UNREADABLE, Reason.VANISHED, Reason.NO_DECODER, Reason.WORKER_DIED_TWICE_ON_IT, Reason.NOT_VERIFIED}
)
"""Reasons of ours that are gone once somebody has done what the advice says."""


def retry_helps(service: str, status: int | None, reason: str | None) -> bool:
    """Whether trying the same item again may end otherwise, without another file or another archive."""
    if status is not None:
        return for_status(service, status).rule is not Rule.FINAL
    answer = _OF_REASONS.get(reason)
    return reason in _MENDED or (answer is not None and answer.rule is Rule.BROKEN)


def without_entry(advice: str) -> str:
    """An advice for a remote that is in no address book, where `remote set` has nothing to set."""
    entry = re.sub(r"\(remote set (--[a-z-]+)\)", r"(in the address book: remote add \1)", advice)
    return entry.replace("(remote set)", "(submit again with another AET@host:port)")


def advice_for(service: str, status: int | None, reason: str | None) -> str | None:
    """The advice that belongs to a recorded item: by its status where a peer gave one, else by its reason.

    The reason has the last word where it is another one than the status's, such as `not found after success`.
    """
    said = for_status(service, status) if status is not None else None
    told = for_reason(service, reason) if reason is not None and (said is None or said.reason != reason) else None
    answer = told or said
    return answer.advice if answer else None


def for_reason(service: str, reason: str) -> Answer | None:
    """The row that a recorded reason word stands for, of a job of this service; None for an unknown word."""
    if reason in _OF_REASONS:
        return _OF_REASONS[reason]
    code = re.fullmatch(r"status 0x([0-9A-F]{4})", reason)
    if code:
        return statuses.unlisted(int(code[1], 16))
    # A retrieve asks by C-FIND first.
    rows = (row for name in (service, "find") for row in statuses.SERVICES.get(name, ()))
    return next((row.answer for row in rows if row.answer.reason == reason), None)

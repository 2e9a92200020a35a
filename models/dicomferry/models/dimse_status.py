"""One table: what each answer of a peer means, what happens next, and what a person can do about it.

Every DIMSE status, association result, abort and time-out is looked up here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dicomferry.models import errors


class Rule(StrEnum):
    """What happens next; `retry` turns it into a decision."""

    DONE = "done"
    WARNING = "warning"
    FINAL = "final"
    AGAIN = "again"
    """The item is tried once more, then its failure is final."""
    LATER = "later"
    """Not settled yet: the item comes back at the end of its chunk."""
    CONGESTED = "congested"
    """The remote has no room or no time: slow down, try again."""
    BROKEN = "broken"
    """The association is gone; the item in flight is charged."""
    AWAY = "away"
    """The remote cannot be used now; no item is charged."""
    SUSPECT = "suspect"
    """As AWAY, but held after three tries in a row."""
    DOUBTFUL = "doubtful"
    """As AWAY for this chunk alone, but held after two tries in a row."""
    HOLD = "hold"
    """A person has to change something first."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One row: the rule, a stable reason word, advice for people, and the Standard's clause."""

    rule: Rule
    reason: str | None
    advice: str | None
    clause: str


@dataclass(frozen=True)
class _Row:
    first: int
    last: int
    answer: Answer


def _row(first: int, last: int, rule: Rule, reason: str | None, advice: str | None, clause: str) -> _Row:
    return _Row(first, last, Answer(rule=rule, reason=reason, advice=advice, clause=clause))


# Rows are searched top down, the special before the general.
# fmt: off
_STORE: Sequence[_Row] = (
    _row(0x0000, 0x0000, Rule.DONE, None, None, "PS3.4 B.2.3"),
    _row(0xB000, 0xB000, Rule.WARNING, "coercion of data elements", "the archive changed attributes; compare there if that matters", "PS3.4 B.2.3"),
    _row(0xB006, 0xB006, Rule.WARNING, "elements discarded", "the archive dropped attributes it does not keep", "PS3.4 B.2.3"),
    _row(0xB007, 0xB007, Rule.WARNING, "data set does not match SOP class", "stored all the same; the object breaks its SOP class's definition", "PS3.4 B.2.3"),
    _row(0xB000, 0xBFFF, Rule.WARNING, "warning", "stored; the archive's log says what it minded", "PS3.7 C.4"),
    _row(0x0001, 0x0001, Rule.WARNING, "warning", "stored; the archive's log says what it minded", "PS3.7 C.4"),
    _row(0x0107, 0x0107, Rule.WARNING, "attribute list error", "stored; the archive did not know some attributes", "PS3.7 C.4.1"),
    _row(0x0111, 0x0111, Rule.WARNING, "already there", "the archive has this SOP Instance UID already; contents were not compared", "PS3.7 C.5.6"),
    _row(0x0116, 0x0116, Rule.WARNING, "attribute value out of range", "stored; the archive found a value out of range", "PS3.7 C.4.1"),
    _row(0xA700, 0xA7FF, Rule.CONGESTED, "out of resources", "the archive has no room or no time: check its disk and its limits; some answer so to an object that lacks an attribute which they need (such as Patient ID): their log says which", "PS3.4 B.2.3"),
    _row(0xA900, 0xA9FF, Rule.FINAL, "data set does not match SOP class", "the archive refuses this object as malformed; check it with a validator", "PS3.4 B.2.3"),
    _row(0xC000, 0xCFFF, Rule.FINAL, "cannot understand", "the archive cannot parse this object; its log says which attribute", "PS3.4 B.2.3"),
    _row(0x0105, 0x0106, Rule.FINAL, "invalid attribute", "the archive refuses an attribute or value of this object", "PS3.7 C.5.11"),
    _row(0x0110, 0x0110, Rule.AGAIN, "processing failure", "the archive failed inside; look into its log", "PS3.7 C.5.17"),
    _row(0x0112, 0x0112, Rule.FINAL, "no such SOP instance", "the archive says that it has no such SOP Instance UID, which makes no sense for a store; its log says more", "PS3.7 C.5"),
    _row(0x0117, 0x0117, Rule.FINAL, "invalid SOP instance", "the archive refuses this SOP Instance UID as malformed", "PS3.7 C.5.13"),
    _row(0x0118, 0x0118, Rule.FINAL, "no such SOP class", "the archive does not know this SOP class", "PS3.7 C.5.15"),
    _row(0x0122, 0x0122, Rule.FINAL, "SOP class not supported", "the archive does not take this SOP class; ask for it to be enabled", "PS3.7 C.5.22"),
    _row(0x0124, 0x0124, Rule.HOLD, "not authorized", "the archive refuses us: ask its administrator to allow our AE title to store", "PS3.7 C.5.19"),
    _row(0x0210, 0x0210, Rule.AGAIN, "duplicate invocation", "the archive mistook this for a message it is working on", "PS3.7 C.5.8"),
    _row(0x0211, 0x0211, Rule.FINAL, "unrecognized operation", "this service is not a storage SCP: check host, port and AE title", "PS3.7 C.5.23"),
    _row(0x0212, 0x0212, Rule.FINAL, "mistyped argument", "the archive found the request malformed; please report this", "PS3.7 C.5.16"),
    _row(0x0213, 0x0213, Rule.CONGESTED, "resource limitation", "the archive is at a limit of its own: fewer associations may help", "PS3.7 C.5.20"),
    _row(0xFE00, 0xFE00, Rule.AGAIN, "cancelled by the peer", "the archive cancelled a request that we did not cancel", "PS3.7 C.3"),
)
# fmt: on
# fmt: off
_ECHO: Sequence[_Row] = (
    _row(0x0000, 0x0000, Rule.DONE, None, None, "PS3.7 9.1.5.1.4"),
    _row(0x0122, 0x0122, Rule.FINAL, "SOP class not supported", "the peer does not offer Verification", "PS3.7 9.1.5.1.4"),
    _row(0x0124, 0x0124, Rule.HOLD, "not authorized", "the peer refuses us: ask its administrator to allow our AE title", "PS3.7 C.5.19"),
    _row(0x0210, 0x0210, Rule.AGAIN, "duplicate invocation", "the peer mistook this for a message it is working on", "PS3.7 9.1.5.1.4"),
    _row(0x0211, 0x0211, Rule.FINAL, "unrecognized operation", "the peer does not offer Verification: check host, port and AE title", "PS3.7 9.1.5.1.4"),
    _row(0x0212, 0x0212, Rule.FINAL, "mistyped argument", "the peer found the request malformed; please report this", "PS3.7 9.1.5.1.4"),
)
# fmt: on
# fmt: off
_FIND: Sequence[_Row] = (
    _row(0x0000, 0x0000, Rule.DONE, None, None, "PS3.4 C.4.1.1.4"),
    _row(0xA700, 0xA7FF, Rule.CONGESTED, "out of resources", "the archive finds too much or has no room: narrow the keys, or give --split", "PS3.4 C.4.1.1.4"),
    _row(0xA900, 0xA9FF, Rule.FINAL, "identifier does not match SOP class", "the archive does not take these keys at this level: leave out keys of other levels, or try the other --root", "PS3.4 C.4.1.1.4"),
    _row(0xC000, 0xCFFF, Rule.AGAIN, "unable to process", "the archive cannot process this query; its log says which key it minds", "PS3.4 C.4.1.1.4"),
    _row(0xFE00, 0xFE00, Rule.AGAIN, "cancelled by the peer", "the archive cancelled a query that we did not cancel", "PS3.4 C.4.1.1.4"),
    _row(0x0110, 0x0110, Rule.AGAIN, "processing failure", "the archive failed inside; look into its log", "PS3.7 C.5.17"),
    _row(0x0122, 0x0122, Rule.FINAL, "SOP class not supported", "the archive does not take this query model: try the other --root", "PS3.7 C.5.22"),
    _row(0x0124, 0x0124, Rule.HOLD, "not authorized", "the archive refuses us: ask its administrator to allow our AE title to query, then release", "PS3.7 C.5.19"),
    _row(0x0210, 0x0210, Rule.AGAIN, "duplicate invocation", "the archive mistook this for a message it is working on", "PS3.7 C.5.8"),
    _row(0x0211, 0x0211, Rule.FINAL, "unrecognized operation", "this service answers no queries: check host, port and AE title", "PS3.7 C.5.23"),
    _row(0x0212, 0x0212, Rule.FINAL, "mistyped argument", "the archive found the request malformed; please report this", "PS3.7 C.5.16"),
    _row(0x0213, 0x0213, Rule.CONGESTED, "resource limitation", "the archive is at a limit of its own: fewer associations may help", "PS3.7 C.5.20"),
)
# fmt: on

# fmt: off
_MOVE: Sequence[_Row] = (
    _row(0x0000, 0x0000, Rule.DONE, None, None, "PS3.4 C.4.2.1.5"),
    _row(0xB000, 0xB000, Rule.WARNING, "sub-operations failed", "the archive could not send some of it; what is missing is asked for again", "PS3.4 C.4.2.1.5"),
    _row(0xA701, 0xA701, Rule.CONGESTED, "cannot count matches", "the archive is out of resources before it has begun: smaller requests may help, or fewer at once", "PS3.4 C.4.2.1.5"),
    _row(0xA702, 0xA702, Rule.CONGESTED, "cannot perform sub-operations", "the archive could not send what it has: can it reach our storage SCP, and is that one allowed to take more?", "PS3.4 C.4.2.1.5"),
    _row(0xA700, 0xA7FF, Rule.CONGESTED, "out of resources", "the archive has no room or no time: smaller requests may help, or fewer at once", "PS3.4 C.4.2.1.5"),
    _row(0xA801, 0xA801, Rule.HOLD, "move destination unknown", "the archive does not know the AE title that it is to send to: give its administrator that AE title with host and port, then release", "PS3.4 C.4.2.1.5"),
    _row(0xA900, 0xA9FF, Rule.FINAL, "identifier does not match SOP class", "the archive does not retrieve by these keys at this level: try another --level, or the other --root", "PS3.4 C.4.2.1.5"),
    _row(0xC000, 0xCFFF, Rule.AGAIN, "unable to process", "the archive cannot process this retrieve; its log says why", "PS3.4 C.4.2.1.5"),
    _row(0xFE00, 0xFE00, Rule.AGAIN, "cancelled by the peer", "the archive cancelled a retrieve that we did not cancel", "PS3.4 C.4.2.1.5"),
    _row(0x0110, 0x0110, Rule.AGAIN, "processing failure", "the archive failed inside; look into its log", "PS3.7 C.5.17"),
    _row(0x0112, 0x0112, Rule.FINAL, "no such SOP instance", "the archive says that it has no such object; its log says more", "PS3.7 C.5"),
    _row(0x0117, 0x0117, Rule.FINAL, "invalid SOP instance", "the archive takes a UID of this request for malformed", "PS3.7 C.5.13"),
    _row(0x0118, 0x0118, Rule.FINAL, "no such SOP class", "the archive does not know this retrieve model: try the other --root", "PS3.7 C.5.15"),
    _row(0x0122, 0x0122, Rule.FINAL, "SOP class not supported", "the archive does not take this retrieve model: try the other --root, or get instead", "PS3.7 C.5.22"),
    _row(0x0124, 0x0124, Rule.HOLD, "not authorized", "the archive refuses us: ask its administrator to allow our AE title to retrieve, then release", "PS3.7 C.5.19"),
    _row(0x0210, 0x0210, Rule.AGAIN, "duplicate invocation", "the archive mistook this for a message it is working on", "PS3.7 C.5.8"),
    _row(0x0211, 0x0211, Rule.FINAL, "unrecognized operation", "this service offers no such retrieve: check host, port and AE title, or try get", "PS3.7 C.5.23"),
    _row(0x0212, 0x0212, Rule.FINAL, "mistyped argument", "the archive found the request malformed; please report this", "PS3.7 C.5.16"),
    _row(0x0213, 0x0213, Rule.CONGESTED, "resource limitation", "the archive is at a limit of its own: fewer retrieves at once may help (remote set --max-moves)", "PS3.7 C.5.20"),
)
# fmt: on
# fmt: off
_GET: Sequence[_Row] = (
    _row(0x0000, 0x0000, Rule.DONE, None, None, "PS3.4 C.4.3.1.4"),
    _row(0xB000, 0xB000, Rule.WARNING, "sub-operations failed", "the archive could not send some of it; what is missing is asked for again", "PS3.4 C.4.3.1.4"),
    _row(0xA701, 0xA701, Rule.CONGESTED, "cannot count matches", "the archive is out of resources before it has begun: smaller requests may help, or fewer at once", "PS3.4 C.4.3.1.4"),
    _row(0xA702, 0xA702, Rule.CONGESTED, "cannot perform sub-operations", "the archive could not send what it has: its log says why", "PS3.4 C.4.3.1.4"),
    _row(0xA700, 0xA7FF, Rule.CONGESTED, "out of resources", "the archive has no room or no time: smaller requests may help, or fewer at once", "PS3.4 C.4.3.1.4"),
    _row(0xA900, 0xA9FF, Rule.FINAL, "identifier does not match SOP class", "the archive does not retrieve by these keys at this level: try another --level, or the other --root", "PS3.4 C.4.3.1.4"),
    _row(0xC000, 0xCFFF, Rule.AGAIN, "unable to process", "the archive cannot process this retrieve; its log says why", "PS3.4 C.4.3.1.4"),
    _row(0xFE00, 0xFE00, Rule.AGAIN, "cancelled by the peer", "the archive cancelled a retrieve that we did not cancel", "PS3.4 C.4.3.1.4"),
    _row(0x0110, 0x0110, Rule.AGAIN, "processing failure", "the archive failed inside; look into its log", "PS3.7 C.5.17"),
    _row(0x0112, 0x0112, Rule.FINAL, "no such SOP instance", "the archive says that it has no such object; its log says more", "PS3.7 C.5"),
    _row(0x0117, 0x0117, Rule.FINAL, "invalid SOP instance", "the archive takes a UID of this request for malformed", "PS3.7 C.5.13"),
    _row(0x0118, 0x0118, Rule.FINAL, "no such SOP class", "the archive does not know this retrieve model: try the other --root", "PS3.7 C.5.15"),
    _row(0x0122, 0x0122, Rule.FINAL, "SOP class not supported", "the archive does not take this retrieve model: try the other --root, or move instead", "PS3.7 C.5.22"),
    _row(0x0124, 0x0124, Rule.HOLD, "not authorized", "the archive refuses us: ask its administrator to allow our AE title to retrieve, then release", "PS3.7 C.5.19"),
    _row(0x0210, 0x0210, Rule.AGAIN, "duplicate invocation", "the archive mistook this for a message it is working on", "PS3.7 C.5.8"),
    _row(0x0211, 0x0211, Rule.FINAL, "unrecognized operation", "this service offers no such retrieve: check host, port and AE title, or try move", "PS3.7 C.5.23"),
    _row(0x0212, 0x0212, Rule.FINAL, "mistyped argument", "the archive found the request malformed; please report this", "PS3.7 C.5.16"),
    _row(0x0213, 0x0213, Rule.CONGESTED, "resource limitation", "the archive is at a limit of its own: fewer retrieves at once may help (remote set --max-moves)", "PS3.7 C.5.20"),
)
# fmt: on
_SERVICES = {"store": _STORE, "echo": _ECHO, "find": _FIND, "move": _MOVE, "get": _GET}
_PENDING = (0xFF00, 0xFF01)
_UNLISTED = "a status that the Standard does not list here; the peer's log says what it means"


def for_status(service: str, status: int) -> Answer:
    """The row for a final DIMSE status of `service`, a job's kind; a status not listed is a failure with one retry."""
    for row in _SERVICES[service]:
        if row.first <= status <= row.last:
            return row.answer
    return Answer(rule=Rule.AGAIN, reason=f"status 0x{status:04X}", advice=_UNLISTED, clause="PS3.7 C")


def is_pending(status: int) -> bool:
    """Whether a response to C-FIND, C-MOVE or C-GET is not the last one (PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""
    return status in _PENDING


# fmt: off
_REJECTED: dict[tuple[int, int, int], Answer] = {
    (1, 1, 1): Answer(rule=Rule.SUSPECT, reason="rejected without a reason", advice="their side: is our address allowed there? their log says why", clause="PS3.8 9.3.4"),
    (1, 1, 2): Answer(rule=Rule.HOLD, reason="application context not supported", advice="this port does not speak DICOM as a PACS does: check host and port", clause="PS3.8 9.3.4"),
    (1, 1, 3): Answer(rule=Rule.HOLD, reason="calling AE title not recognized", advice="their side must add our AE title, or ours must be the one they know us by (remote set --calling)", clause="PS3.8 9.3.4"),
    (1, 1, 7): Answer(rule=Rule.HOLD, reason="called AE title not recognized", advice="our side: they answer to another AE title than the one of this remote (remote set)", clause="PS3.8 9.3.4"),
    (1, 2, 2): Answer(rule=Rule.HOLD, reason="protocol version not supported", advice="this port does not speak DICOM as a PACS does: check host and port", clause="PS3.8 9.3.4"),
}
_CONGESTION = Answer(rule=Rule.AWAY, reason="rejected for now", advice="they are at a limit: fewer associations (remote set --max-associations) may help", clause="PS3.8 9.3.4")
_FOR_GOOD = Answer(rule=Rule.HOLD, reason="rejected", advice="their log says why", clause="PS3.8 9.3.4")
_HANGS_UP = Answer(rule=Rule.SUSPECT, reason="connection closed", advice="their side: they hang up before any answer; is our address allowed there?", clause="PS3.8 9.1")
_UNREACHABLE = Answer(rule=Rule.AWAY, reason="unreachable", advice="is the host up, the port right, and the firewall open from here?", clause="PS3.8 9.1")
_ABORTED = Answer(rule=Rule.BROKEN, reason="aborted", advice="the connection broke in mid-transfer; their log says why", clause="PS3.8 9.3.8")
_MUTE = Answer(rule=Rule.AWAY, reason="no answer", advice="they accept connections and say nothing: is it a DICOM port, is the service healthy?", clause="PS3.8 9.1.4")
_SILENT = Answer(rule=Rule.BROKEN, reason="went silent", advice="they stopped answering in mid-transfer: is the service healthy? timeouts.store_answer bounds the wait", clause="PS3.7 9")
_VIOLATION = Answer(rule=Rule.BROKEN, reason="protocol violation", advice="they answered what the Standard does not allow here; please report it to their vendor", clause="PS3.7 9")
_REFUSED = Answer(rule=Rule.FINAL, reason="context refused", advice="they do not take this SOP class in this transfer syntax; ask them to, or submit a compressed file with --transcode", clause="PS3.8 9.3.3.2")
_FAILURE = Answer(rule=Rule.BROKEN, reason="failure", advice="their log says why", clause="PS3.7 C")
# fmt: on


def for_error(error: errors.DimseError) -> Answer:
    """The row for whatever kept an association from opening, or ended it."""
    match error:
        case errors.RemoteUnreachable(closed=closed):
            return _HANGS_UP if closed else _UNREACHABLE
        case errors.AssociationRejected(result=result, source=source, reason=reason):
            # Reasons 1 and 2 of the presentation provider are congestion and local limit, whatever the result says.
            if result == 2 or (source == 3 and reason in (1, 2)):
                return _CONGESTION
            return _REJECTED.get((result, source, reason), _FOR_GOOD)
        case errors.AssociationAborted():
            return _ABORTED
        case errors.DimseTimeout(phase=phase):
            return _MUTE if phase == "acse" else _SILENT
        case errors.ProtocolViolation():
            return _VIOLATION
        case errors.ContextNotAccepted():
            return _REFUSED
        case _:
            return _FAILURE


_LOCAL: dict[str, str] = {
    "no match": "the archive has nothing of that: are the keys right, and is it the right archive?",
    "not delivered": "the archive was asked three times and did not send it: its log says why; then retry",
    "gone at source": "the archive listed it before and does not any more; nothing to do, unless it should be there",
    "incomplete": "see its instances for what is missing; `dicomferry jobs retry` asks for that once more",
    "nothing delivered": "the archive says that it is done and has sent nothing: its log says why",
    "not delivered yet": "the archive gets time before it is asked once more for what is missing",
    "nearline": "the archive has it on slow media and was asked for it, which recalls it; it is looked for again by itself",
    "unavailable": "the archive lists it and says that it cannot be retrieved: ask its administrator where it is",
    "storage SCP is not running": "start it with `dicomferry up` or `dicomferry scp`; the retrieve goes on by itself",
    "storage SCP was restarted": "what may have been lost meanwhile is asked for again",
    "archive cannot reach us": "give its administrator our AE title, host and port, and open the firewall from there; then release",
    "archive was rejected here": "our storage SCP rejected the association: its log says why and how to allow it; then release",
    "context refused here": "our storage SCP does not take this SOP class or transfer syntax",
    "already here": "it was in the archive before; --refetch asks for it all the same",
    "arrived late": "nothing to do",
    "grew at source": "more came to the archive while it was retrieved; that was fetched as well",
    "not verified": "it was confirmed, but nobody could be asked whether it is there: the destination answers no such query, or is no remote of the address book",
    "not at the destination": "the archive said that it was sent, and the destination does not list it: look there",
    "not found after success": "the archive took it and does not list it: look there, then retry",
    "nothing to do": "no DICOM file was found there: is the path right, and is -r given for the folders inside?",
    "unreadable folder": "give the user that runs the workers the right to read it, then submit it again",
    "not DICOM": "left out; nothing to do",
    "DICOMDIR": "left out; its files are sent by themselves",
    "duplicate": "left out; the same object is sent once",
    "link loop": "left out; the folder is being walked already",
    "not a file": "left out; sockets, pipes and devices are not read",
    "unreadable": "give the user that runs the workers the right to read it, then retry",
    "vanished": "put the file back, then retry",
    "dangling link": "mend or remove the link, then submit again",
    "truncated": "the file ends too early: fetch it again from where it came",
    "changed": "the file now holds another object: submit again",
    "conflict": "two files of one SOP Instance UID differ: decide which is right, submit that one",
    "meta mismatch": "file meta group and data set name different objects: repair the file",
    "syntax mismatch": "the data set is not in the transfer syntax that the file declares: repair the file",
    "bad uid": "a UID has characters that no UID may have, or is too long to be kept: repair the file",
    "no uid": "the data set names no SOP class or no SOP instance: repair the file",
    "odd length": "the data set has an odd length, which no encoding allows: repair the file",
    "context refused": "they do not take this SOP class in this transfer syntax; ask them to, or submit a compressed file with --transcode",
    "no decoder": "install what decompresses it where the workers run (`pip install 'dicomferry[transcode]'`), start them anew, then retry",
    "not transcodable": "they take another transfer syntax only, and the file cannot be converted: convert it by hand",
    "query not offered": "they do not take this query model: try the other --root",
    "not encodable": "name a character set that they know (remote set --charset), or leave the key out",
    "maybe truncated": "the number looks like a limit of theirs: submit again with --split, or with narrower keys",
    "slice still capped": "they hold more in one minute than they list: narrow the keys, or ask for a higher limit",
    "split not possible": "they do not match on StudyDate: narrow the keys in another way",
    "worker died twice on it": "sending this file ended a worker process twice: look at the file and the worker's log",
}


_MENDED = frozenset({"unreadable", "vanished", "no decoder", "worker died twice on it"})
"""Reasons of ours that are gone once somebody has done what the advice says."""


def retry_helps(service: str, status: int | None, reason: str | None) -> bool:
    """Whether trying the same item again may end otherwise, without another file or another archive."""
    if status is not None:
        return for_status(service, status).rule is not Rule.FINAL
    return reason in _MENDED or reason in _BY_REASON


def without_entry(advice: str) -> str:
    """The same advice for a remote that is in no address book: there is nothing that `remote set` could change."""
    entry = re.sub(r"\(remote set (--[a-z-]+)\)", r"(in the address book: remote add \1)", advice)
    return entry.replace("(remote set)", "(submit again with another AET@host:port)")


def for_local(reason: str) -> str | None:
    """Advice for a reason that arose on our side, before any peer was asked; None where there is none."""
    return _LOCAL.get(reason)


def local(rule: Rule, reason: str, advice: str | None = None) -> Answer:
    """An answer that no peer gave: `advice`, or else what belongs to the reason."""
    return Answer(rule=rule, reason=reason, advice=advice or for_local(reason), clause="")


def advice_for(service: str, status: int | None, reason: str | None) -> str | None:
    """The advice that belongs to a recorded item: by its status where a peer gave one, else by its reason."""
    if status is not None:
        return for_status(service, status).advice
    if reason is None:
        return None
    known = (row.answer for row in _SERVICES.get(service, ()))
    of_status = next((answer.advice for answer in known if answer.reason == reason), None)
    unlisted = _UNLISTED if reason.startswith("status 0x") else None
    return for_local(reason) or _BY_REASON.get(reason) or of_status or unlisted


_BY_REASON = {row.reason: row.advice for row in (_ABORTED, _SILENT, _VIOLATION, _FAILURE)}

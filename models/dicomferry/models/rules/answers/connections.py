"""The rows for what keeps an association from opening, or ends it: rejections, aborts, time-outs, sockets.

A row's key is what happened, as `explain` takes it: `reject 1/1/7`, `abort 2/1`, `timeout acse`, `connect refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from dicomferry.models.rules.answers.answer import Answer, Category, Rule
from dicomferry.models.rules.reason import Reason


def _answer(rule: Rule, category: Category, reason: Reason, clause: str, advice: str) -> Answer:
    return Answer(rule=rule, reason=reason, advice=advice, category=category, clause=clause)


_RJ, _ABORT, _TCP = "PS3.8 9.3.4", "PS3.8 9.3.8", "PS3.8 9.1.2"
_BUSY = "they are at a limit: fewer associations (remote set --max-associations) may help"
_NOT_A_PACS = "this port does not speak DICOM as a PACS does: check host and port"

# fmt: off
# By source and reason: what is said for good. Reasons 1 and 2 of the presentation provider are congestion and local
# limit, whatever the result says.
_PERMANENT: Mapping[tuple[int, int], Answer] = {
    (1, 1): _answer(Rule.SUSPECT, Category.PERMISSION, Reason.REJECTED_WITHOUT_A_REASON, _RJ, "their side: is our address allowed there? their log says why"),
    (1, 2): _answer(Rule.HOLD, Category.PROTOCOL, Reason.APPLICATION_CONTEXT_NOT_SUPPORTED, _RJ, _NOT_A_PACS),
    (1, 3): _answer(Rule.HOLD, Category.PERMISSION, Reason.CALLING_AE_TITLE_NOT_RECOGNIZED, _RJ, "their side must add our AE title, or ours must be the one they know us by (remote set --calling)"),
    (1, 7): _answer(Rule.HOLD, Category.PERMISSION, Reason.CALLED_AE_TITLE_NOT_RECOGNIZED, _RJ, "our side: they answer to another AE title than the one of this remote (remote set)"),
    (2, 1): _answer(Rule.HOLD, Category.PROTOCOL, Reason.REJECTED, _RJ, "their DICOM layer rejects us and gives no reason: their log says why"),
    (2, 2): _answer(Rule.HOLD, Category.PROTOCOL, Reason.PROTOCOL_VERSION_NOT_SUPPORTED, _RJ, _NOT_A_PACS),
    (3, 1): _answer(Rule.AWAY, Category.RESOURCES, Reason.REJECTED_FOR_NOW, _RJ, _BUSY),
    (3, 2): _answer(Rule.AWAY, Category.RESOURCES, Reason.REJECTED_FOR_NOW, _RJ, _BUSY),
}
_FOR_NOW: Mapping[tuple[int, int], str] = {
    (1, 2): "they refuse the application context, and say that this will pass: is it a DICOM service, and is it up?",
    (1, 3): "they do not know our AE title, and say that this will pass: if it does not, their side must add it",
    (1, 7): "they do not answer to the AE title of this remote, and say that this will pass: is the service still starting?",
    (2, 2): "they refuse the protocol version, and say that this will pass: is it a DICOM service, and is it up?",
}
_RESERVED = _answer(Rule.HOLD, Category.PROTOCOL, Reason.REJECTED, _RJ, "they reject us with numbers that the Standard gives no meaning to: their log says why")
_RESERVED_FOR_NOW = _answer(Rule.AWAY, Category.RESOURCES, Reason.REJECTED_FOR_NOW, _RJ, _BUSY)

_BROKEN_OFF = _answer(Rule.BROKEN, Category.FAULT, Reason.ABORTED, _ABORT, "they broke it off in mid-transfer; their log says why")
_ABORTS: Mapping[str, Answer] = {
    "abort 0": _BROKEN_OFF,
    "abort 2/0": _BROKEN_OFF,
    "abort 2/1": _answer(Rule.BROKEN, Category.PROTOCOL, Reason.ABORTED_UNRECOGNIZED_PDU, _ABORT, "their DICOM layer did not know what it received: something between us changes the data, or their software is at fault"),
    "abort 2/2": _answer(Rule.BROKEN, Category.PROTOCOL, Reason.ABORTED_UNEXPECTED_PDU, _ABORT, "their DICOM layer was not in the state for what it received: their log says what it waited for"),
    "abort 2/4": _answer(Rule.BROKEN, Category.PROTOCOL, Reason.ABORTED_UNRECOGNIZED_PDU_PARAMETER, _ABORT, "their DICOM layer did not know a parameter of what it received; please report this, with their log"),
    "abort 2/5": _answer(Rule.BROKEN, Category.PROTOCOL, Reason.ABORTED_UNEXPECTED_PDU_PARAMETER, _ABORT, "their DICOM layer did not expect a parameter of what it received; please report this, with their log"),
    "abort 2/6": _answer(Rule.BROKEN, Category.PROTOCOL, Reason.ABORTED_INVALID_PDU_PARAMETER, _ABORT, "their DICOM layer minds the value of a parameter, often the length of a PDU; please report this, with their log"),
}

_TIMEOUTS: Mapping[str, Answer] = {
    "timeout connect": _answer(Rule.AWAY, Category.NETWORK, Reason.UNREACHABLE, _TCP, "nothing answers there: is the host up, the address right, and does a firewall drop what we send? timeouts.connect bounds the wait"),
    "timeout acse": _answer(Rule.AWAY, Category.SILENCE, Reason.NO_ANSWER, "PS3.8 9.1.4", "they accept connections and say nothing: is it a DICOM port, is the service healthy? timeouts.acse bounds the wait"),
    "timeout first_answer": _answer(Rule.BROKEN, Category.SILENCE, Reason.NO_FIRST_ANSWER, "PS3.7 9.1.2", "they took the request and never began to answer: is the service healthy? a broad query or a slow medium may take longer than timeouts.first_answer (remote set --first-answer)"),
    "timeout store_answer": _answer(Rule.BROKEN, Category.SILENCE, Reason.NO_ANSWER_TO_A_STORE, "PS3.7 9.1.1", "they took an object and never said what became of it: is the service healthy? timeouts.store_answer bounds the wait (remote set --store-answer)"),
    "timeout progress": _answer(Rule.BROKEN, Category.SILENCE, Reason.WENT_SILENT, "PS3.8 9.1.3", "nothing moved any more in mid-transfer: is the service healthy? timeouts.progress bounds the wait (remote set --progress)"),
    "timeout release": _answer(Rule.DONE, Category.SILENCE, Reason.NO_GOODBYE, "PS3.8 7.2", "nothing is lost: every answer was in before the association was to end"),
}

_CONNECTIONS: Mapping[str, Answer] = {
    "connect other": _answer(Rule.AWAY, Category.NETWORK, Reason.UNREACHABLE, _TCP, "is the host up, the port right, and the firewall open from here?"),
    "connect refused": _answer(Rule.AWAY, Category.NETWORK, Reason.UNREACHABLE, _TCP, "the host is there and nothing listens on that port, or a firewall refuses us: is their service running, and is the port right?"),
    "connect no route": _answer(Rule.AWAY, Category.NETWORK, Reason.UNREACHABLE, _TCP, "no way leads there from here: is the address right, is the VPN up, are both networks connected?"),
    "connect name": _answer(Rule.AWAY, Category.NETWORK, Reason.UNREACHABLE, _TCP, "the host name is not known here: is it spelt right (remote set), and does the name service of this machine work?"),
    "connect closed": _answer(Rule.SUSPECT, Category.PERMISSION, Reason.CONNECTION_CLOSED, "PS3.8 9.1.4", "their side: they hang up before any answer; is our address allowed there?"),
    "connect TLS": _answer(Rule.HOLD, Category.PROTOCOL, Reason.TLS_EXPECTED, "PS3.15 B.1", "this port wants TLS, which dicomferry does not speak to remotes yet: ask for a port without TLS, or put a TLS proxy in between, then release"),
    "connect not DICOM": _answer(Rule.SUSPECT, Category.PROTOCOL, Reason.NO_DICOM_ANSWER, "PS3.8 9.3", "what answers there is no DICOM service, or one that breaks the Standard: check host and port"),
    "connection lost": _answer(Rule.BROKEN, Category.NETWORK, Reason.CONNECTION_LOST, "PS3.8 9.1.4", "the connection ended in mid-transfer without a word: did their service end, or does a firewall cut what takes long?"),
    "connection released": _answer(Rule.BROKEN, Category.FAULT, Reason.RELEASED_EARLY, "PS3.8 7.2", "they ended the association in good order where an answer was due; their log says why"),
    "protocol violation": _answer(Rule.BROKEN, Category.PROTOCOL, Reason.PROTOCOL_VIOLATION, "PS3.7 9.3", "they answered what the Standard does not allow here; please report it to their vendor"),
    "context refused": _answer(Rule.FINAL, Category.CAPABILITY, Reason.CONTEXT_REFUSED, "PS3.8 9.3.3.2", "they do not take this SOP class in this transfer syntax: ask them to; where a converted copy can be sent, the item's detail says how"),
    "failure": _answer(Rule.BROKEN, Category.FAULT, Reason.FAILURE, "PS3.7 C.5", "their log says why"),
}
# fmt: on


def for_rejection(result: int, source: int, reason: int) -> Answer:
    """The row for the three numbers of an A-ASSOCIATE-RJ."""
    return CONNECTIONS.get(rejection_key(result, source, reason)) or (_RESERVED_FOR_NOW if result == 2 else _RESERVED)


def rejection_key(result: int, source: int, reason: int) -> str:
    """`reject 1/1/7`."""
    return f"reject {result}/{source}/{reason}"


def for_abort(source: int, reason: int) -> Answer:
    """The row for source and reason of an A-ABORT; the reason of a service user means nothing."""
    return CONNECTIONS.get(f"abort {source}/{reason}" if source else "abort 0", _BROKEN_OFF)


def _rejections() -> Mapping[str, Answer]:
    rows = {}
    for result, (numbers, answer) in product((1, 2), _PERMANENT.items()):
        if result == 2 and answer.rule is not Rule.AWAY:
            answer = _answer(Rule.AWAY, answer.category, Reason.REJECTED_FOR_NOW, _RJ, _FOR_NOW.get(numbers, _BUSY))
        rows[rejection_key(result, *numbers)] = answer
    return rows


CONNECTIONS: Mapping[str, Answer] = {**_CONNECTIONS, **_TIMEOUTS, **_rejections(), **_ABORTS}
"""Every row by its key. Of several with one reason word the first is the most general."""

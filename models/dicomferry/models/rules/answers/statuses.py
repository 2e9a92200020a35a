"""The rows for DIMSE statuses: those of every service (PS3.7 Annex C), and those of each (PS3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from dicomferry.models.rules.answers.answer import Answer, Category, Rule
from dicomferry.models.rules.reason import Reason

PENDING = range(0xFF00, 0xFF02)
"""Not the last answer to a C-FIND, C-MOVE or C-GET (PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """One row: the statuses from `first` to `last`."""

    first: int
    last: int
    answer: Answer

    @property
    def name(self) -> str:
        """`0xA700`, or `0xA700-0xA7FF`."""
        return f"0x{self.first:04X}" + (f"-0x{self.last:04X}" if self.last > self.first else "")


@dataclass(frozen=True, kw_only=True)
class _Words:
    """How the rows that all services share speak of one of them."""

    content: str
    """What an attribute may be wrong in."""
    verb: str
    model: str
    """What the SOP class stands for."""
    instead: str
    """What else may work where they do not take the SOP class."""
    lacks: str
    """What a service that does not know the operation is not."""
    fewer: str = "fewer associations (remote set --max-associations)"
    missing: str = ", which makes no sense here"


@dataclass(frozen=True, kw_only=True)
class _General:
    """A row of every service, with blanks for the words of one."""

    first: int
    last: int
    rule: Rule
    category: Category
    reason: str
    advice: str
    clause: str


def _general(
    code: int, rule: Rule, category: Category, reason: str, clause: str, advice: str, last: int = 0
) -> _General:
    return _General(
        first=code, last=last or code, rule=rule, category=category, reason=reason, advice=advice, clause=clause
    )


def _row(
    code: int, rule: Rule, category: Category, reason: str, advice: str, last: int = 0
) -> tuple[int, int, Rule, Category, str, str]:
    return code, last or code, rule, category, reason, advice


_NONSENSE = "the answer belongs to another kind of message; their log says what they took ours for"

# fmt: off
_GENERAL: Sequence[_General] = (
    _general(0x0001, Rule.WARNING, Category.REMARK, "warning", "PS3.7 C.4.1", "done all the same; their log says what they minded"),
    _general(0x0105, Rule.FINAL, Category.OBJECT, "no such attribute", "PS3.7 C.5.17", "they do not know an attribute of {content}: their log says which"),
    _general(0x0106, Rule.FINAL, Category.OBJECT, "invalid attribute value", "PS3.7 C.5.11", "they refuse the value of an attribute of {content}: their log says which"),
    _general(0x0107, Rule.WARNING, Category.REMARK, "attribute list error", "PS3.7 C.4.2", "done all the same; they did not know some attributes of {content}"),
    _general(0x0110, Rule.AGAIN, Category.FAULT, "processing failure", "PS3.7 C.5.21", "they failed inside: their log says why"),
    _general(0x0111, Rule.AGAIN, Category.FAULT, "duplicate SOP instance", "PS3.7 C.5.8", _NONSENSE),
    _general(0x0112, Rule.FINAL, Category.REQUEST, "no such SOP instance", "PS3.7 C.5.19", "they say that they have no such object{missing}; their log says more"),
    _general(0x0113, Rule.AGAIN, Category.FAULT, "no such event type", "PS3.7 C.5.18", _NONSENSE),
    _general(0x0114, Rule.AGAIN, Category.FAULT, "no such argument", "PS3.7 C.5.16", _NONSENSE),
    _general(0x0115, Rule.AGAIN, Category.FAULT, "invalid argument value", "PS3.7 C.5.10", _NONSENSE),
    _general(0x0116, Rule.WARNING, Category.REMARK, "attribute value out of range", "PS3.7 C.4.3", "done all the same; they found a value of {content} out of range"),
    _general(0x0117, Rule.FINAL, Category.OBJECT, "invalid SOP instance", "PS3.7 C.5.12", "they take a UID of {content} for malformed: compare it with PS3.5 9.1"),
    _general(0x0118, Rule.FINAL, Category.CAPABILITY, "no such SOP class", "PS3.7 C.5.20", "they do not know this {model}: {instead}"),
    _general(0x0119, Rule.FINAL, Category.OBJECT, "class-instance conflict", "PS3.7 C.5.7", "they know this SOP Instance UID under another SOP class: one of both objects has a wrong UID"),
    _general(0x0120, Rule.FINAL, Category.OBJECT, "missing attribute", "PS3.7 C.5.13", "they want an attribute that {content} does not have: their log says which"),
    _general(0x0121, Rule.FINAL, Category.OBJECT, "missing attribute value", "PS3.7 C.5.14", "they want a value where {content} has none: their log says of which attribute"),
    _general(0x0122, Rule.FINAL, Category.CAPABILITY, "SOP class not supported", "PS3.7 C.5.6", "they do not take this {model}: {instead}"),
    _general(0x0123, Rule.AGAIN, Category.FAULT, "no such action type", "PS3.7 C.5.24", _NONSENSE),
    _general(0x0124, Rule.HOLD, Category.PERMISSION, "not authorized", "PS3.7 C.5.25", "they refuse us: ask their administrator to allow our AE title to {verb}, then release"),
    _general(0x0210, Rule.AGAIN, Category.PROTOCOL, "duplicate invocation", "PS3.7 C.5.9", "they mistook this for a message that they are working on"),
    _general(0x0211, Rule.FINAL, Category.CAPABILITY, "unrecognized operation", "PS3.7 C.5.23", "this service {lacks}: check host, port and AE title"),
    _general(0x0212, Rule.FINAL, Category.PROTOCOL, "mistyped argument", "PS3.7 C.5.15", "they found the request malformed; please report this"),
    _general(0x0213, Rule.CONGESTED, Category.RESOURCES, "resource limitation", "PS3.7 C.5.22", "they are at a limit of their own: {fewer} may help"),
    _general(0xB000, Rule.WARNING, Category.REMARK, "warning", "PS3.7 C.4.1", "done all the same; their log says what they minded", last=0xBFFF),
    _general(0xFE00, Rule.AGAIN, Category.FAULT, "cancelled by the peer", "PS3.7 C.3.1", "they cancelled what we did not ask to cancel"),
)

_STORE = (
    _row(0xA700, Rule.CONGESTED, Category.RESOURCES, "out of resources", "the archive has no room or no time: check its disk and its limits; some answer so to an object that lacks an attribute which they need (such as Patient ID): their log says which", last=0xA7FF),
    _row(0xA900, Rule.FINAL, Category.OBJECT, "data set does not match SOP class", "the archive refuses this object as malformed; check it with a validator", last=0xA9FF),
    _row(0xB000, Rule.WARNING, Category.REMARK, "coercion of data elements", "the archive changed attributes; compare there if that matters"),
    _row(0xB006, Rule.WARNING, Category.REMARK, "elements discarded", "the archive dropped attributes it does not keep"),
    _row(0xB007, Rule.WARNING, Category.REMARK, "stored against its SOP class", "stored all the same; the object breaks its SOP class's definition"),
    _row(0xC000, Rule.FINAL, Category.OBJECT, "cannot understand", "the archive cannot parse this object; its log says which attribute", last=0xCFFF),
)
_OF_QUERIES = (
    _row(0xA700, Rule.CONGESTED, Category.RESOURCES, "out of resources", "the archive finds too much or has no room: narrow the keys, or give --split", last=0xA7FF),
    _row(0xA900, Rule.FINAL, Category.REQUEST, "identifier does not match SOP class", "the archive does not take these keys at this level: leave out keys of other levels, or try the other --root", last=0xA9FF),
    _row(0xC000, Rule.AGAIN, Category.REQUEST, "unable to process", "the archive cannot process this query; its log says which key it minds", last=0xCFFF),
)
_FIND = (
    _row(0xA710, Rule.FINAL, Category.REQUEST, "invalid prior record key", "the archive does not know where this inventory is to go on: ask for it from the beginning"),
    _row(0xB001, Rule.WARNING, Category.RESOURCES, "response limit reached", "the archive holds more than it lists: submit again with --split, or with narrower keys"),
    *_OF_QUERIES,
)
_WORKLIST = (
    _row(0xA700, Rule.CONGESTED, Category.RESOURCES, "out of resources", "the worklist is too long for one answer: narrow the keys, such as date or station", last=0xA7FF),
    _row(0xA900, Rule.FINAL, Category.REQUEST, "identifier does not match SOP class", "the worklist does not take these keys: leave out those that it does not know", last=0xA9FF),
    _row(0xC000, Rule.AGAIN, Category.REQUEST, "unable to process", "the worklist cannot process this query; its log says which key it minds", last=0xCFFF),
)
_OF_RETRIEVES = (
    _row(0xA701, Rule.CONGESTED, Category.RESOURCES, "cannot count matches", "the archive is out of resources before it has begun: smaller requests may help, or fewer at once"),
    _row(0xA900, Rule.FINAL, Category.REQUEST, "identifier does not match SOP class", "the archive does not retrieve by these keys at this level: try another --level, or the other --root", last=0xA9FF),
    _row(0xB000, Rule.WARNING, Category.REMARK, "sub-operations failed", "the archive could not send some of it; what is missing is asked for again"),
    _row(0xC000, Rule.AGAIN, Category.FAULT, "unable to process", "the archive cannot process this retrieve; its log says why", last=0xCFFF),
)
_SHORT = _row(0xA700, Rule.CONGESTED, Category.RESOURCES, "out of resources", "the archive has no room or no time: smaller requests may help, or fewer at once", last=0xA7FF)
_MOVE = (
    _row(0xA702, Rule.CONGESTED, Category.RESOURCES, "cannot perform sub-operations", "the archive could not send what it has: can it reach our storage SCP, and is that one allowed to take more?"),
    _row(0xA801, Rule.HOLD, Category.PERMISSION, Reason.MOVE_DESTINATION_UNKNOWN, "the archive does not know the AE title that it is to send to: give its administrator that AE title with host and port, then release"),
    *_OF_RETRIEVES,
    _SHORT,
)
_GET = (
    _row(0xA702, Rule.CONGESTED, Category.RESOURCES, "cannot perform sub-operations", "the archive could not send what it has: its log says why"),
    *_OF_RETRIEVES,
    _SHORT,
)
# Of retrieves that name frames (PS3.4 Annex Y), which we never send: an archive that says so mistook the request.
_FRAMES = tuple(
    _row(code, Rule.FINAL, Category.REQUEST, reason, f"{words}, which we did not ask for: the archive mistook the request")
    for code, reason, words in (
        (0xAA00, "frames not found", "none of the frames are there"),
        (0xAA01, "no object for frames", "frames of this SOP class make no new object"),
        (0xAA02, "frames not extracted", "the frames could not be taken out"),
        (0xAA03, "not time-based", "a span of time means nothing in this object"),
        (0xAA04, "invalid frame request", "the list of frames is malformed"),
    )
)

_WORDS: Mapping[str, _Words] = {
    "store": _Words(content="this object", verb="store", model="SOP class", instead="ask for it to be enabled", lacks="is not a storage SCP"),
    "find": _Words(content="this query", verb="query", model="query model", instead="try the other --root", lacks="answers no queries"),
    "worklist": _Words(content="this query", verb="query the worklist", model="worklist model", instead="ask for it to be enabled", lacks="offers no worklist"),
    "move": _Words(content="this request", verb="retrieve", model="retrieve model", instead="try the other --root, or get instead", lacks="offers no such retrieve (get may work)", fewer="fewer retrieves at once (remote set --max-moves)", missing=""),
    "get": _Words(content="this request", verb="retrieve", model="retrieve model", instead="try the other --root, or move instead", lacks="offers no such retrieve (move may work)", fewer="fewer retrieves at once (remote set --max-moves)", missing=""),
    "echo": _Words(content="this request", verb="associate", model="service (Verification)", instead="ask for it to be enabled", lacks="does not offer Verification"),
}
# fmt: on

TITLES: Mapping[str, str] = {
    "store": "C-STORE",
    "find": "C-FIND",
    "worklist": "C-FIND of a worklist",
    "move": "C-MOVE",
    "get": "C-GET",
    "echo": "C-ECHO",
}
"""The services, as people call them."""

_Rows = Sequence[tuple[int, int, Rule, Category, str, str]]


def _of(
    service: str, clause: str, rows: _Rows = (), *, frames: str = "", more: Sequence[Status] = ()
) -> Sequence[Status]:
    """All rows of a service: success, its own, and those of every service that its own leave room for."""
    success = Answer(rule=Rule.DONE, reason=None, advice=None, category=Category.SUCCESS, clause=clause)
    own = [Status(first=0, last=0, answer=success), *more]
    for listed, where in ((rows, clause), (_FRAMES if frames else (), frames)):
        for first, last, rule, category, reason, advice in listed:
            answer = Answer(rule=rule, reason=reason, advice=advice, category=category, clause=where)
            own.append(Status(first=first, last=last, answer=answer))
    words = asdict(_WORDS[service])
    shared = [
        Status(
            first=row.first,
            last=row.last,
            answer=Answer(
                rule=row.rule,
                reason=row.reason,
                advice=row.advice.format(**words),
                category=row.category,
                clause=row.clause,
            ),
        )
        for row in _GENERAL
        if not any(one.first <= row.first and row.last <= one.last for one in own)
    ]
    return (*own, *shared)


def _pending(clause: str, *, keys: bool) -> Iterator[Status]:
    """The answers that are not the last one; only a query has one that tells of keys."""
    # fmt: off
    told = {0xFF00: "more answers follow"} | ({0xFF01: "more answers follow; the archive did not look at some of the keys"} if keys else {})
    # fmt: on
    for code, words in told.items():
        answer = Answer(rule=Rule.LATER, reason="pending", advice=words, category=Category.SUCCESS, clause=clause)
        yield Status(first=code, last=code, answer=answer)


# fmt: off
_THERE = Status(first=0x0111, last=0x0111, answer=Answer(rule=Rule.WARNING, reason=Reason.ALREADY_THERE, advice="the archive has this SOP Instance UID already; contents were not compared", category=Category.REMARK, clause="PS3.7 C.5.8"))
SERVICES: Mapping[str, Sequence[Status]] = {
    "store": _of("store", "PS3.4 B.2.3", _STORE, more=(_THERE,)),
    "find": _of("find", "PS3.4 C.4.1.1.4", _FIND, more=tuple(_pending("PS3.4 C.4.1.1.4", keys=True))),
    "worklist": _of("worklist", "PS3.4 K.4.1.1.4", _WORKLIST, more=tuple(_pending("PS3.4 K.4.1.1.4", keys=True))),
    "move": _of("move", "PS3.4 C.4.2.1.5", _MOVE, frames="PS3.4 Y.4.1.1.4", more=tuple(_pending("PS3.4 C.4.2.1.5", keys=False))),
    "get": _of("get", "PS3.4 C.4.3.1.4", _GET, frames="PS3.4 Y.4.2.1.4", more=tuple(_pending("PS3.4 C.4.3.1.4", keys=False))),
    "echo": _of("echo", "PS3.7 9.1.5.1.4"),
}
"""The rows of each service. They are searched top down: the special stands before the general."""

_CLASSES: Sequence[tuple[range, str]] = (
    (range(0xA000, 0xB000), "a failure that this service or their software defines, and the Standard does not list here; their log says what it means"),
    (range(0xC000, 0xD000), "a failure that this service or their software defines, and the Standard does not list here; their log says what it means"),
    (range(0x0100, 0x0300), "a failure of a kind that the Standard keeps to itself and does not list here; their log says what it means"),
    (range(0x0000, 0x10000), "a number that the Standard gives no meaning to: taken for a failure; their log says what it means"),
)
# fmt: on


def unlisted(status: int) -> Answer:
    """The row for a status that a service does not list: by its class (PS3.7 Annex C), a failure with one retry."""
    advice = next(words for numbers, words in _CLASSES if status in numbers)
    return Answer(
        rule=Rule.AGAIN, reason=f"status 0x{status:04X}", advice=advice, category=Category.FAULT, clause="PS3.7 C"
    )


def find(service: str, status: int) -> Status | None:
    """The row that holds a status of a service; None where it is not listed."""
    return next((row for row in SERVICES[service] if row.first <= status <= row.last), None)

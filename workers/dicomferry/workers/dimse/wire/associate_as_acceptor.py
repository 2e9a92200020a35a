"""A-ASSOCIATE as acceptor: the request we read, what we take of it, and the answer (PS3.8 9.3.2 to 9.3.4, 7.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from dicomferry.models.rules.errors import ProtocolViolation
from dicomferry.models.rules.peer_text import title
from dicomferry.workers.dimse.wire import associate_items
from dicomferry.workers.dimse.wire.associate_items import APPLICATION_CONTEXT, ASSUMED_MAX_PDU, OUR_MAX_PDU, items, text
from dicomferry.workers.dimse.wire.contexts import EXPLICIT_LE, IMPLICIT_LE, UNCOMPRESSED, Context
from dicomferry.workers.dimse.wire.upper_layer import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

VERIFICATION = "1.2.840.10008.1.1"
MOST_REQUEST = 1024 * 1024
"""Bytes of the longest request: 128 contexts, each with every syntax there is, need a third of it."""

# Results of a presentation context (PS3.8 table 9-18).
ACCEPTED, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 3, 4

# Data sets in these hold a reference to their pixels, which would never arrive.
JPIP_REFERENCED = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (94, 95, 204, 205))

# The media directory cannot be sent; Storage Commitment has "Storage" in its name and stores nothing.
_NOT_STORED = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source and reason (PS3.8 table 9-21), and why in words for the log."""

    result: int
    source: int
    reason: int
    text: str

    def encode(self) -> bytes:
        """The PDU."""
        return associate_items.pdu(A_ASSOCIATE_RJ, bytes((0, self.result, self.source, self.reason)))


@dataclass(frozen=True)
class ProposedContext:
    """One presentation context as it was proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ. AE titles are without surrounding NUL and blanks; `fixed` are the octets that we echo."""

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context: str
    contexts: tuple[ProposedContext, ...]
    peer_max_pdu: int
    fixed: bytes

    @property
    def unusable(self) -> Rejection | None:
        """What keeps any acceptor from taking it (PS3.8 9.3.4)."""
        if not self.protocol_version & 1:
            return Rejection(1, 2, 2, f"protocol version {self.protocol_version} is not supported")
        if self.application_context != APPLICATION_CONTEXT:
            return Rejection(1, 1, 2, f"application context {self.application_context!r} is not DICOM's")
        return None


def decode_request(body: bytes) -> AssociateRequest:
    """The request in a PDU's body; raises ProtocolViolation for what cannot be read."""
    if len(body) < associate_items.FIXED.size:
        raise ProtocolViolation(f"an A-ASSOCIATE-RQ of {len(body)} bytes")
    version, _, called, calling, _ = associate_items.FIXED.unpack_from(body)
    application = ""
    maximum = ASSUMED_MAX_PDU
    contexts: dict[int, ProposedContext] = {}
    for kind, value in items(body[associate_items.FIXED.size :]):
        if kind == associate_items.APPLICATION_CONTEXT_ITEM:
            application = text(value)
        elif kind == associate_items.PROPOSED_CONTEXT:
            asked = _context(value)
            contexts.setdefault(asked.context_id, asked)
        elif kind == associate_items.USER_INFORMATION:
            for inner, content in items(value):
                if inner == associate_items.MAXIMUM_LENGTH and len(content) == 4:
                    maximum = int.from_bytes(content)
    return AssociateRequest(
        protocol_version=version,
        called_ae_title=title(called),
        calling_ae_title=title(calling),
        application_context=application,
        contexts=tuple(contexts.values()),
        peer_max_pdu=maximum,
        fixed=body[4 : associate_items.FIXED.size],
    )


def _context(value: bytes) -> ProposedContext:
    if len(value) < 4:
        raise ProtocolViolation("a presentation context without an id")
    abstract = ""
    syntaxes: list[str] = []
    for kind, content in items(value[4:]):
        if kind == associate_items.ABSTRACT_SYNTAX:
            abstract = text(content)
        elif kind == associate_items.TRANSFER_SYNTAX:
            syntaxes.append(text(content))
    return ProposedContext(value[0], abstract, tuple(syntaxes))


def negotiate(asked: tuple[ProposedContext, ...], prefer: str | None = None) -> tuple[Context, ...]:
    """Our answer to each context: Verification and all that is storage, in any syntax that brings its pixels.

    `prefer` is what to take of several syntaxes: explicit, implicit, compressed, or a UID; `plain` takes no others than
    the uncompressed little endian ones.
    """
    return tuple(_judge(context, prefer) for context in asked)


def _judge(asked: ProposedContext, prefer: str | None) -> Context:
    if asked.abstract_syntax != VERIFICATION and not is_storage(asked.abstract_syntax):
        return Context(asked.context_id, asked.abstract_syntax, asked.transfer_syntaxes, NO_ABSTRACT_SYNTAX)
    usable = [syntax for syntax in asked.transfer_syntaxes if syntax and syntax not in JPIP_REFERENCED]
    if prefer == "plain":
        usable = [syntax for syntax in usable if syntax in (EXPLICIT_LE, IMPLICIT_LE)]
    if not usable:
        return Context(asked.context_id, asked.abstract_syntax, asked.transfer_syntaxes, NO_TRANSFER_SYNTAX)
    chosen = _choose(usable, prefer)
    return Context(asked.context_id, asked.abstract_syntax, asked.transfer_syntaxes, ACCEPTED, chosen)


def _choose(usable: list[str], prefer: str | None) -> str:
    wanted = {"explicit": EXPLICIT_LE, "implicit": IMPLICIT_LE}.get(prefer or "", prefer)
    if prefer == "compressed":
        wanted = next((syntax for syntax in usable if syntax not in UNCOMPRESSED), None)
    for candidate in (wanted, EXPLICIT_LE, IMPLICIT_LE):
        if candidate in usable:
            return candidate
    return usable[0]


def opposite(prefer: str | None) -> str:
    """What to prefer where the usual choice brought not everything."""
    compressed = prefer == "compressed" or prefer not in (None, "explicit", "implicit", *UNCOMPRESSED)
    return "explicit" if compressed else "compressed"


@lru_cache(maxsize=4096)
def is_storage(abstract_syntax: str) -> bool:
    """Whether instances of this class are to be taken: all but those that the Standard knows to be no storage."""
    from pydicom.uid import UID_dictionary
    from pynetdicom import sop_class

    known = UID_dictionary.get(abstract_syntax)
    if known is None:
        others = (
            classes.values()
            for name, classes in vars(sop_class).items()
            if name.endswith("_CLASSES") and name not in ("_STORAGE_CLASSES", "_NON_PATIENT_OBJECT_CLASSES")
        )
        return bool(abstract_syntax) and not any(abstract_syntax in classes for classes in others)
    return known[1] == "SOP Class" and "Storage" in known[0] and abstract_syntax not in _NOT_STORED


def prepare() -> None:
    """Load the tables of the Standard's UIDs: half a second that the first caller need not wait for."""
    is_storage(VERIFICATION)
    is_storage("")


def encode_acceptance(request: AssociateRequest, contexts: tuple[Context, ...]) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). A refused context carries a transfer syntax that nobody is to look at."""
    parts = [struct.pack(">HH", 1, 0), request.fixed]
    parts.append(associate_items.uid(associate_items.APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT))
    for context in contexts:
        syntax = context.transfer_syntax or (context.proposed[0] if context.proposed else IMPLICIT_LE)
        head = bytes((context.context_id, 0, context.result or 0, 0))
        parts.append(
            associate_items.item(
                associate_items.ANSWERED_CONTEXT, head + associate_items.uid(associate_items.TRANSFER_SYNTAX, syntax)
            )
        )
    parts.append(associate_items.user_information(OUR_MAX_PDU))
    return associate_items.pdu(A_ASSOCIATE_AC, b"".join(parts))

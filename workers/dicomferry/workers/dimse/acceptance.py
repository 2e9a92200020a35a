"""A-ASSOCIATE as acceptor: the request we read, what we take of it, and the answer (PS3.8 9.3.2 to 9.3.4, 7.1).

The codec is our own: pynetdicom's refuses a whole request for one UID that breaks PS3.5 9.1, and needs 20 ms for
128 contexts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from dicomferry.models.errors import ProtocolViolation
from dicomferry.workers.dimse.contexts import EXPLICIT_LE, IMPLICIT_LE, UNCOMPRESSED, Context
from dicomferry.workers.dimse.negotiation import (
    ASSUMED_MAX_PDU,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    OUR_MAX_PDU,
)
from dicomferry.workers.dimse.upper_layer import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MOST_REQUEST = 1024 * 1024
"""Bytes of the longest request: 128 contexts, each with every syntax there is, need a third of it."""

# Results of a presentation context (PS3.8 table 9-18).
ACCEPTED, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 3, 4

# Data sets in these hold a reference to their pixels, which would never arrive.
JPIP_REFERENCED = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (94, 95, 204, 205))

# The media directory cannot be sent; Storage Commitment has "Storage" in its name and stores nothing.
_NOT_STORED = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})

_FIXED = struct.Struct(">HH16s16s32s")
_ITEM = struct.Struct(">BxH")


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source and reason (PS3.8 table 9-21), and why in words for the log."""

    result: int
    source: int
    reason: int
    text: str

    def encode(self) -> bytes:
        """The PDU."""
        return struct.pack(">BxLxBBB", A_ASSOCIATE_RJ, 4, self.result, self.source, self.reason)


@dataclass(frozen=True)
class Asked:
    """One presentation context as it was proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """A-ASSOCIATE-RQ. AE titles are without surrounding NUL and blanks; `fixed` are the octets that we echo."""

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context: str
    contexts: tuple[Asked, ...]
    peer_max_pdu: int
    implementation_version_name: str
    fixed: bytes

    @property
    def unusable(self) -> Rejection | None:
        """What keeps any acceptor from taking it (PS3.8 9.3.4)."""
        if not self.protocol_version & 1:
            return Rejection(1, 2, 2, f"protocol version {self.protocol_version} is not supported")
        if self.application_context != APPLICATION_CONTEXT:
            return Rejection(1, 1, 2, f"application context {self.application_context!r} is not DICOM's")
        return None


def decode_request(body: bytes) -> Request:
    """The request in a PDU's body; raises ProtocolViolation for what cannot be read."""
    if len(body) < _FIXED.size:
        raise ProtocolViolation(f"an A-ASSOCIATE-RQ of {len(body)} bytes")
    version, _, called, calling, _ = _FIXED.unpack_from(body)
    application = name = ""
    maximum = ASSUMED_MAX_PDU
    contexts: dict[int, Asked] = {}
    for kind, value in _items(body[_FIXED.size :]):
        if kind == 0x10:
            application = _text(value)
        elif kind == 0x20:
            asked = _context(value)
            contexts.setdefault(asked.context_id, asked)
        elif kind == 0x50:
            for inner, content in _items(value):
                if inner == 0x51 and len(content) == 4:
                    maximum = int.from_bytes(content)
                elif inner == 0x55:
                    name = _text(content)
    return Request(
        protocol_version=version,
        called_ae_title=_text(called),
        calling_ae_title=_text(calling),
        application_context=application,
        contexts=tuple(contexts.values()),
        peer_max_pdu=maximum,
        implementation_version_name=name,
        fixed=body[4 : _FIXED.size],
    )


def _context(value: bytes) -> Asked:
    if len(value) < 4:
        raise ProtocolViolation("a presentation context without an id")
    abstract = ""
    syntaxes: list[str] = []
    for kind, content in _items(value[4:]):
        if kind == 0x30:
            abstract = _text(content)
        elif kind == 0x40:
            syntaxes.append(_text(content))
    return Asked(value[0], abstract, tuple(syntaxes))


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of the items in `data`; raises ProtocolViolation where one does not fit."""
    offset = 0
    while offset < len(data):
        if offset + 4 > len(data):
            raise ProtocolViolation("A-ASSOCIATE-RQ ends inside an item's head")
        kind, length = _ITEM.unpack_from(data, offset)
        offset += 4
        if offset + length > len(data):
            raise ProtocolViolation(f"an item of type 0x{kind:02X} and length {length} does not fit A-ASSOCIATE-RQ")
        yield kind, data[offset : offset + length]
        offset += length


def _text(raw: bytes) -> str:
    return raw.strip(b" \0").decode("latin-1")


def negotiate(asked: tuple[Asked, ...], prefer: str | None = None) -> tuple[Context, ...]:
    """Our answer to each context: Verification and all that is storage, in any syntax that brings its pixels.

    `prefer` is what to take of several syntaxes: explicit, implicit, compressed, or a UID.
    """
    return tuple(_judge(context, prefer) for context in asked)


def _judge(asked: Asked, prefer: str | None) -> Context:
    if asked.abstract_syntax != VERIFICATION and not is_storage(asked.abstract_syntax):
        return Context(asked.context_id, asked.abstract_syntax, asked.transfer_syntaxes, NO_ABSTRACT_SYNTAX)
    usable = [syntax for syntax in asked.transfer_syntaxes if syntax and syntax not in JPIP_REFERENCED]
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


def encode_acceptance(request: Request, contexts: tuple[Context, ...]) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). A refused context carries a transfer syntax that nobody is to look at."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for context in contexts:
        syntax = context.transfer_syntax or (context.proposed[0] if context.proposed else IMPLICIT_LE)
        head = struct.pack(">BxBx", context.context_id, context.result or 0)
        items.append(_item(0x21, head + _item(0x40, syntax.encode("latin-1"))))
    user = (
        _item(0x51, OUR_MAX_PDU.to_bytes(4)),
        _item(0x52, IMPLEMENTATION_CLASS_UID.encode()),
        _item(0x55, IMPLEMENTATION_VERSION_NAME.encode()),
    )
    items.append(_item(0x50, b"".join(user)))
    body = struct.pack(">HH", 1, 0) + request.fixed + b"".join(items)
    return struct.pack(">BxL", A_ASSOCIATE_AC, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value

"""A-ASSOCIATE as requestor: the request we send and the answer we read (PS3.8 9.3.2 to 9.3.4, PS3.7 D.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicomferry.models.rules.errors import AssociationRejected, ProtocolViolation
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.wire import associate_items, upper_layer
from dicomferry.workers.dimse.wire.associate_items import ASSUMED_MAX_PDU, item, items, text, uid
from dicomferry.workers.dimse.wire.contexts import Context, Proposal
from dicomferry.workers.dimse.wire.upper_layer import Pdu, UpperLayer, named

_PROTOCOL_VERSION = 1
# Accepted in a syntax that nobody proposed is unusable, and nearest to "transfer syntaxes not supported".
_NO_TRANSFER_SYNTAX = 4


@dataclass(frozen=True)
class Negotiated:
    """What A-ASSOCIATE-AC said."""

    contexts: tuple[Context, ...]
    peer_max_pdu: int
    peer_implementation_class_uid: str
    peer_implementation_version_name: str
    scp_roles: frozenset[str] = frozenset()
    """The SOP classes in which we may receive."""


def encode_request(remote: Remote, proposals: Sequence[Proposal], max_pdu: int = associate_items.OUR_MAX_PDU) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2); the contexts' ids are the odd numbers from 1 (PS3.8 9.3.2.2)."""
    titles = (remote.ae_title.encode("ascii").ljust(16), remote.calling_ae_title.encode("ascii").ljust(16))
    parts = [
        associate_items.FIXED.pack(_PROTOCOL_VERSION, 0, *titles, bytes(32)),
        uid(associate_items.APPLICATION_CONTEXT_ITEM, associate_items.APPLICATION_CONTEXT),
    ]
    for context_id, proposal in _numbered(proposals):
        syntaxes = (uid(associate_items.TRANSFER_SYNTAX, syntax) for syntax in proposal.transfer_syntaxes)
        abstract = uid(associate_items.ABSTRACT_SYNTAX, proposal.abstract_syntax)
        parts.append(
            item(associate_items.PROPOSED_CONTEXT, b"".join((bytes((context_id, 0, 0, 0)), abstract, *syntaxes)))
        )
    parts.append(associate_items.user_information(max_pdu, *_roles(proposals)))
    return associate_items.pdu(upper_layer.A_ASSOCIATE_RQ, b"".join(parts))


def _numbered(proposals: Sequence[Proposal]) -> list[tuple[int, Proposal]]:
    return [(2 * number + 1, proposal) for number, proposal in enumerate(proposals)]


def _roles(proposals: Sequence[Proposal]) -> list[bytes]:
    """The role of SCP, once for each class that we are to receive (PS3.7 D.3.3.4)."""
    classes = dict.fromkeys(proposal.abstract_syntax for proposal in proposals if proposal.as_scp)
    raw = [sop_class.encode("latin-1") for sop_class in classes]
    return [item(associate_items.ROLE_SELECTION, len(name).to_bytes(2) + name + b"\0\1") for name in raw]


def read_answer(layer: UpperLayer, pdu: Pdu, proposals: Sequence[Proposal]) -> Negotiated:
    """What the answer to A-ASSOCIATE-RQ says; raises AssociationRejected, or ProtocolViolation for no answer
    at all.
    """
    if pdu.kind == upper_layer.A_ASSOCIATE_RJ and len(pdu.body) >= 4:
        raise named(layer.peer, AssociationRejected(*pdu.body[1:4]))
    if pdu.kind == upper_layer.A_ASSOCIATE_AC and len(pdu.body) >= associate_items.FIXED.size:
        try:
            return decode_acceptance(pdu.body, proposals)
        except ProtocolViolation as error:
            layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.INVALID_PARAMETER)
            raise ProtocolViolation(f"{layer.peer}: its A-ASSOCIATE answer cannot be read ({error})") from error
    layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.UNEXPECTED_PDU)
    kind = f"a PDU of type {pdu.kind} and {len(pdu.body)} bytes in answer to A-ASSOCIATE-RQ"
    raise ProtocolViolation(f"{layer.peer}: {kind}")


def decode_acceptance(body: bytes, proposals: Sequence[Proposal]) -> Negotiated:
    """A-ASSOCIATE-AC's body (PS3.8 9.3.3), of at least its fixed fields; raises ProtocolViolation.

    What else the peer says of itself (asynchronous operations, user identity) we have not asked for.
    """
    answers: dict[int, tuple[int, str]] = {}
    maximum = ASSUMED_MAX_PDU
    class_uid = version = ""
    roles: set[str] = set()
    for kind, value in items(body[associate_items.FIXED.size :]):
        if kind == associate_items.ANSWERED_CONTEXT:
            if len(value) < 4:
                raise ProtocolViolation("a presentation context without a result")
            syntaxes = [
                text(content) for inner, content in items(value[4:]) if inner == associate_items.TRANSFER_SYNTAX
            ]
            answers[value[0]] = (value[2], syntaxes[0] if syntaxes else "")
        elif kind == associate_items.USER_INFORMATION:
            for inner, content in items(value):
                if inner == associate_items.MAXIMUM_LENGTH and len(content) == 4:
                    maximum = int.from_bytes(content)
                elif inner == associate_items.IMPLEMENTATION_CLASS:
                    class_uid = text(content)
                elif inner == associate_items.IMPLEMENTATION_VERSION:
                    version = text(content)
                elif inner == associate_items.ROLE_SELECTION:
                    roles |= _scp_role(content)
    return Negotiated(
        contexts=tuple(_context(number, proposal, answers.get(number)) for number, proposal in _numbered(proposals)),
        peer_max_pdu=maximum,
        peer_implementation_class_uid=class_uid,
        peer_implementation_version_name=version,
        scp_roles=frozenset(roles),
    )


def _context(number: int, proposal: Proposal, answer: tuple[int, str] | None) -> Context:
    asked = (number, proposal.abstract_syntax, proposal.transfer_syntaxes)
    if answer is None:
        return Context(*asked, None)
    result, syntax = answer
    if result != 0:
        return Context(*asked, result)
    if syntax not in proposal.transfer_syntaxes:
        return Context(*asked, _NO_TRANSFER_SYNTAX)
    return Context(*asked, 0, syntax)


def _scp_role(content: bytes) -> set[str]:
    """The SOP class of a role selection (PS3.7 D.3.3.4) that lets us be SCP, if it does."""
    length = int.from_bytes(content[:2])
    if len(content) < length + 4:
        raise ProtocolViolation("a role selection that ends too soon")
    return {text(content[2 : 2 + length])} if content[length + 3] == 1 else set()

"""A-ASSOCIATE as requestor: the request we send and the answer we read (PS3.8 9.3.2 to 9.3.4, PS3.7 D.3).

Codecs and the rules of negotiation are pynetdicom's; its threads, sockets and state machine are not used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_requestor

from dicomferry.models.errors import AssociationRejected, DimseError, ProtocolViolation
from dicomferry.models.remote import Remote
from dicomferry.workers.dimse import upper_layer
from dicomferry.workers.dimse.contexts import Context, Proposal
from dicomferry.workers.dimse.upper_layer import Pdu, UpperLayer, named

# From a random UUID made once for this product (PS3.5 B.2); the version name has at most 16 characters (PS3.7
# D.3.3.2).
IMPLEMENTATION_CLASS_UID = "2.25.251161368073582324203139574406959787422"
IMPLEMENTATION_VERSION_NAME = "DICOMFERRY_1"

OUR_MAX_PDU = 128 * 1024
# What a peer that names no maximum can be trusted to take; PS3.7 D.3.3.1 makes the item mandatory.
ASSUMED_MAX_PDU = 16 * 1024

# Octets of A-ASSOCIATE-AC between its length and its items (PS3.8 table 9-17).
_FIXED_FIELDS = 68

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


@dataclass(frozen=True)
class Negotiated:
    """What A-ASSOCIATE-AC said."""

    contexts: tuple[Context, ...]
    peer_max_pdu: int
    peer_implementation_class_uid: str
    peer_implementation_version_name: str
    scp_roles: frozenset[str] = frozenset()
    """The SOP classes in which we may receive."""


def encode_request(remote: Remote, proposals: Sequence[Proposal]) -> tuple[bytes, list[PresentationContext]]:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2) and the contexts in it; their ids are the odd numbers from 1 (PS3.8
    9.3.2.2).
    """
    primitive = A_ASSOCIATE()
    primitive.application_context_name = _APPLICATION_CONTEXT
    primitive.calling_ae_title = remote.calling_ae_title
    primitive.called_ae_title = remote.ae_title
    longest = MaximumLengthNotification()
    longest.maximum_length_received = OUR_MAX_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    contexts: list[PresentationContext] = []
    # pydicom warns of UIDs that are in use although they break PS3.5 9.1; we are to pass them on, not to
    # judge them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, proposal in enumerate(proposals):
            context = build_context(proposal.abstract_syntax, list(proposal.transfer_syntaxes))
            context.context_id = 2 * number + 1
            contexts.append(context)
        primitive.presentation_context_definition_list = contexts
        primitive.user_information = [longest, implementation, version, *_roles(proposals)]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(primitive)
        return pdu.encode(), contexts


def _roles(proposals: Sequence[Proposal]) -> list[SCP_SCU_RoleSelectionNegotiation]:
    """The role of SCP, once for each class that we are to receive (PS3.7 D.3.3.4)."""
    roles = []
    for sop_class in dict.fromkeys(proposal.abstract_syntax for proposal in proposals if proposal.as_scp):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = sop_class
        role.scu_role, role.scp_role = False, True
        roles.append(role)
    return roles


def read_answer(layer: UpperLayer, pdu: Pdu, proposed: list[PresentationContext]) -> Negotiated:
    """What the answer to A-ASSOCIATE-RQ says; raises AssociationRejected, or ProtocolViolation for no answer
    at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pdu.kind == upper_layer.A_ASSOCIATE_RJ:
                rejection = A_ASSOCIATE_RJ()
                rejection.decode(pdu.encode())
                numbers = (rejection.result, rejection.source, rejection.reason_diagnostic)
                raise named(layer.peer, AssociationRejected(*(int(number or 0) for number in numbers)))
            # pynetdicom decodes one that ends too soon as one without contexts.
            if pdu.kind == upper_layer.A_ASSOCIATE_AC and len(pdu.body) >= _FIXED_FIELDS:
                acceptance = A_ASSOCIATE_AC()
                acceptance.decode(pdu.encode())
                return _read_acceptance(acceptance.to_primitive(), proposed)
    except DimseError:
        raise
    except Exception as error:
        # pynetdicom's decoders raise whatever malformed bytes lead them to.
        layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.INVALID_PARAMETER)
        raise ProtocolViolation(f"{layer.peer}: its A-ASSOCIATE answer cannot be read ({error})") from error
    layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.UNEXPECTED_PDU)
    text = f"a PDU of type {pdu.kind} and {len(pdu.body)} bytes in answer to A-ASSOCIATE-RQ"
    raise ProtocolViolation(f"{layer.peer}: {text}")


def _read_acceptance(answer: A_ASSOCIATE, proposed: list[PresentationContext]) -> Negotiated:
    answered = answer.presentation_context_definition_results_list
    mentioned = {context.context_id for context in answered}
    contexts: list[Context] = []
    for asked, context in zip(proposed, negotiate_as_requestor(proposed, answered), strict=True):
        syntaxes = tuple(str(syntax) for syntax in asked.transfer_syntax)
        result = context.result if context.context_id in mentioned else None
        chosen = str(context.transfer_syntax[0]) if context.transfer_syntax and result == 0 else ""
        if result == 0 and chosen not in syntaxes:
            # Accepted in a syntax that nobody proposed: unusable, and nearest to "transfer syntaxes not
            # supported".
            result, chosen = 4, ""
        contexts.append(Context(int(asked.context_id or 0), str(asked.abstract_syntax), syntaxes, result, chosen))
    maximum = class_uid = version = None
    roles: set[str] = set()
    for item in answer.user_information:
        if isinstance(item, MaximumLengthNotification):
            maximum = item.maximum_length_received
        elif isinstance(item, ImplementationClassUIDNotification):
            class_uid = item.implementation_class_uid
        elif isinstance(item, ImplementationVersionNameNotification):
            version = item.implementation_version_name
        elif isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.scp_role:
            roles.add(str(item.sop_class_uid))
    return Negotiated(
        contexts=tuple(contexts),
        peer_max_pdu=ASSUMED_MAX_PDU if maximum is None else maximum,
        peer_implementation_class_uid=str(class_uid or ""),
        peer_implementation_version_name=(version or "").strip(),
        scp_roles=frozenset(roles),
    )

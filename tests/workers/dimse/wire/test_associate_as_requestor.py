"""A-ASSOCIATE as requestor: our codec against pynetdicom's, and against what is no answer."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context

from dicomferry.models.rules.errors import ProtocolViolation
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.wire import associate_items
from dicomferry.workers.dimse.wire.associate_as_requestor import decode_acceptance, encode_request
from dicomferry.workers.dimse.wire.contexts import Proposal
from dicomferry.workers.dimse.wire.upper_layer import A_ASSOCIATE_AC as AC
from dicomferry.workers.dimse.wire.upper_layer import A_ASSOCIATE_RQ as RQ

pytestmark = pytest.mark.filterwarnings("ignore")

UIDS = st.lists(st.integers(0, 99999), min_size=2, max_size=8).map(lambda parts: ".".join(map(str, parts)))
TITLES = st.text("ABC xyz0_-", min_size=1, max_size=16).filter(str.strip).map(str.strip)
PROPOSALS = st.lists(
    st.builds(Proposal, UIDS, st.lists(UIDS, min_size=1, max_size=4, unique=True).map(tuple), st.booleans()),
    min_size=1,
    max_size=20,
    unique_by=lambda proposal: proposal.abstract_syntax,
)


def remote(called: str = "CALLED", calling: str = "CALLING") -> Remote:
    return Remote(name="x", ae_title=called, host="127.0.0.1", port=104, calling_ae_title=calling)


def primitive(*user_information: Any) -> A_ASSOCIATE:
    made = A_ASSOCIATE()
    made.application_context_name = associate_items.APPLICATION_CONTEXT
    made.called_ae_title, made.calling_ae_title = "CALLED", "CALLING"
    made.user_information = list(user_information)
    return made


def about_us(max_pdu: int) -> list[Any]:
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = associate_items.IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = associate_items.IMPLEMENTATION_VERSION_NAME
    return [longest, implementation, version]


def role(sop_class: str, *, scu: bool, scp: bool) -> SCP_SCU_RoleSelectionNegotiation:
    made = SCP_SCU_RoleSelectionNegotiation()
    made.sop_class_uid, made.scu_role, made.scp_role = sop_class, scu, scp
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROPOSALS, TITLES, TITLES, st.integers(0, 2**32 - 1))
def test_a_request_is_byte_for_byte_what_pynetdicom_writes(
    proposals: list[Proposal], called: str, calling: str, max_pdu: int
) -> None:
    """PS3.8 9.3.2: titles, contexts, roles and what we say of ourselves."""
    expected = primitive(*about_us(max_pdu))
    expected.called_ae_title, expected.calling_ae_title = called, calling
    contexts = []
    for number, proposal in enumerate(proposals):
        context = build_context(proposal.abstract_syntax, list(proposal.transfer_syntaxes))
        context.context_id = 2 * number + 1
        contexts.append(context)
    expected.presentation_context_definition_list = contexts
    roles = [role(proposal.abstract_syntax, scu=False, scp=True) for proposal in proposals if proposal.as_scp]
    expected.user_information.extend(roles)
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(expected)
    assert encode_request(remote(called, calling), proposals, max_pdu) == pdu.encode()
    assert pdu.encode()[0] == RQ


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROPOSALS, st.data(), st.integers(0, 2**32 - 1))
def test_an_answer_of_pynetdicom_is_read_as_it_was_meant(
    proposals: list[Proposal], data: st.DataObject, max_pdu: int
) -> None:
    """PS3.8 9.3.3: a result and a syntax for each context that it mentions, roles, and who answers. What was not asked
    for (asynchronous operations, user identity) is passed over.
    """
    answered = answers_to(proposals, data)
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    identity = UserIdentityNegotiation()
    identity.server_response = b"token"
    granted = {p.abstract_syntax for p in proposals if data.draw(st.booleans())}
    given_roles = [role(p.abstract_syntax, scu=True, scp=p.abstract_syntax in granted) for p in proposals]
    meant = primitive(*about_us(max_pdu), window, identity, *given_roles)
    meant.result, meant.result_source = 0, 1
    results = []
    for context_id, (result, syntax) in answered.items():
        context = PresentationContext()
        context.context_id, context.result = context_id, result
        context.add_transfer_syntax(syntax)
        results.append(context)
    meant.presentation_context_definition_results_list = results
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(meant)
    raw = pdu.encode()
    assert raw[0] == AC
    read = decode_acceptance(raw[6:], proposals)
    for number, (proposal, found) in enumerate(zip(proposals, read.contexts, strict=True)):
        said = answered.get(2 * number + 1)
        foreign = said is not None and said[0] == 0 and said[1] not in proposal.transfer_syntaxes
        assert found.abstract_syntax == proposal.abstract_syntax
        assert found.result == (4 if foreign else said[0] if said else None)
        assert found.transfer_syntax == (said[1] if said and found.accepted else "")
    assert read.peer_max_pdu == max_pdu
    assert read.scp_roles == granted
    assert read.peer_implementation_class_uid == associate_items.IMPLEMENTATION_CLASS_UID
    assert read.peer_implementation_version_name == associate_items.IMPLEMENTATION_VERSION_NAME


def answers_to(proposals: list[Proposal], data: st.DataObject) -> dict[int, tuple[int, str]]:
    """For some of the contexts a result, and a syntax that was proposed or (rarely) was not."""
    answers = {}
    for number, proposal in enumerate(proposals):
        if data.draw(st.integers(0, 4)):
            syntax = data.draw(st.sampled_from([*proposal.transfer_syntaxes, "1.2.840.99999"]))
            answers[2 * number + 1] = (data.draw(st.integers(0, 4)), syntax)
    return answers


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_answer_are_a_violation_and_nothing_else(items: bytes) -> None:
    """Whatever comes behind the fixed fields is read or refused; nothing else is raised."""
    with contextlib.suppress(ProtocolViolation):
        decode_acceptance(bytes(68) + items, [Proposal("1.2.3", ("1.2.840.10008.1.2",))])


def test_an_answer_without_user_information_is_taken_with_care() -> None:
    """No maximum length: as much as any peer takes. A context that is not mentioned has no result."""
    read = decode_acceptance(bytes(68), [Proposal("1.2.3", ("1.2.840.10008.1.2",))])
    assert (read.peer_max_pdu, read.contexts[0].result) == (associate_items.ASSUMED_MAX_PDU, None)
    with pytest.raises(ProtocolViolation, match="role"):
        user = associate_items.item(
            associate_items.USER_INFORMATION, associate_items.item(associate_items.ROLE_SELECTION, b"\0\5abc")
        )
        decode_acceptance(bytes(68) + user, [])

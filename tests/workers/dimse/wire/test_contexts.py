"""Which contexts are proposed and which one carries a file."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.errors import ContextNotAccepted
from dicomferry.workers.dimse.wire import contexts
from dicomferry.workers.dimse.wire.contexts import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    Context,
    Convert,
    Proposal,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_an_uncompressed_file_proposes_its_own_syntax_apart(syntax: str) -> None:
    """Its own syntax alone in one context, what it can be re-encoded to in another."""
    assert contexts.proposals_for((CT, syntax)) == (
        Proposal(CT, (syntax,)),
        Proposal(CT, (EXPLICIT_LE, IMPLICIT_LE)),
    )


def test_a_compressed_file_proposes_nothing_but_its_own_syntax() -> None:
    """Nothing is decompressed unasked, so nothing else is worth a context."""
    assert contexts.proposals_for((CT, JPEG)) == (Proposal(CT, (JPEG,)),)


@pytest.mark.parametrize("pair", [("", JPEG), (CT, ""), ("1." * 40, JPEG), ("1.2 3", JPEG), ("1.2\u00e9", JPEG)])
def test_a_uid_that_fits_no_request_is_not_proposed(pair: tuple[str, str]) -> None:
    """One impossible UID must not spoil the A-ASSOCIATE-RQ for all other files."""
    assert not contexts.is_proposable(pair)
    assert contexts.group([pair]) == []


@pytest.mark.parametrize("syntax", [EXPLICIT_BE, JPEG])
def test_a_file_that_goes_as_it_is_or_not_at_all_proposes_its_own_syntax(syntax: str) -> None:
    """With Convert.NOTHING no other context is asked for, and one that is there all the same is not used."""
    assert contexts.proposals_for((CT, syntax), convert=Convert.NOTHING) == (Proposal(CT, (syntax,)),)
    other = contexts.Context(1, CT, (EXPLICIT_LE, IMPLICIT_LE), 0, EXPLICIT_LE)
    with pytest.raises(ContextNotAccepted):
        contexts.choose([other], (CT, syntax), convert=Convert.NOTHING)


def test_a_compressed_file_to_be_transcoded_proposes_what_it_may_become() -> None:
    """With Convert.ALL the second context is asked for as well, and it is chosen where the own syntax is refused."""
    asked = (Proposal(CT, (JPEG,)), Proposal(CT, (EXPLICIT_LE, IMPLICIT_LE)))
    assert contexts.proposals_for((CT, JPEG), convert=Convert.ALL) == asked
    assert contexts.group([(CT, JPEG), (CT, EXPLICIT_LE)], convert=Convert.ALL) == [
        (*asked, Proposal(CT, (EXPLICIT_LE,)))
    ]
    assert not contexts.serves(asked[:1], (CT, JPEG), convert=Convert.ALL)
    answered = _answered(((JPEG,), 4, ""), (BOTH, 0, IMPLICIT_LE))
    assert contexts.choose(answered, (CT, JPEG), convert=Convert.ALL).transfer_syntax == IMPLICIT_LE
    with pytest.raises(ContextNotAccepted):
        contexts.choose(answered, (CT, JPEG))
    both = _answered((BOTH, 0, IMPLICIT_LE), ((JPEG,), 0, JPEG))
    assert contexts.choose(both, (CT, JPEG), convert=Convert.ALL).transfer_syntax == JPEG


def test_pairs_share_the_proposals_of_their_class() -> None:
    """The context for re-encoding is made once a class; order is that of first appearance."""
    (group,) = contexts.group([(CT, EXPLICIT_LE), (MR, JPEG), (CT, IMPLICIT_LE), (CT, EXPLICIT_LE)])
    assert group == (
        Proposal(CT, (EXPLICIT_LE,)),
        Proposal(CT, (EXPLICIT_LE, IMPLICIT_LE)),
        Proposal(MR, (JPEG,)),
        Proposal(CT, (IMPLICIT_LE,)),
    )


def test_300_contexts_need_three_associations() -> None:
    """At most 128 contexts each; the pairs stay in order and none is split."""
    pairs = [(f"1.2.3.{n}", JPEG) for n in range(300)]
    groups = contexts.group(pairs)
    assert [len(group) for group in groups] == [128, 128, 44]
    assert [proposal.abstract_syntax for group in groups for proposal in group] == [pair[0] for pair in pairs]
    odd = contexts.group([(f"1.2.3.{n}", EXPLICIT_BE) for n in range(100)], most=7)
    assert [len(group) for group in odd] == [6] * 33 + [2]


def test_a_group_serves_the_pairs_that_it_was_made_for() -> None:
    """`serves` tells whether the open association settles a pair; `extended` adds one, alone where it is too
    much.
    """
    (group,) = contexts.group([(CT, EXPLICIT_LE)])
    assert contexts.serves(group, (CT, EXPLICIT_LE))
    assert not contexts.serves(group, (CT, JPEG))
    assert contexts.extended(group, (CT, JPEG)) == (*group, Proposal(CT, (JPEG,)))
    assert contexts.extended(group, (CT, JPEG), most=2) == (Proposal(CT, (JPEG,)),)


def _answered(*answers: tuple[tuple[str, ...], int | None, str]) -> list[Context]:
    return [Context(2 * n + 1, CT, proposed, result, syntax) for n, (proposed, result, syntax) in enumerate(answers)]


BOTH = (EXPLICIT_LE, IMPLICIT_LE)


def test_the_own_syntax_is_chosen_whatever_else_is_accepted() -> None:
    """The peer's choice in the other context never forces a change."""
    answered = _answered((BOTH, 0, IMPLICIT_LE), ((EXPLICIT_BE,), 0, EXPLICIT_BE))
    assert contexts.choose(answered, (CT, EXPLICIT_BE)).context_id == 3


@pytest.mark.parametrize("accepted", BOTH)
def test_an_uncompressed_file_falls_back_to_what_is_accepted(accepted: str) -> None:
    """Own syntax refused: the uncompressed one that the peer took is the syntax to re-encode to."""
    answered = _answered(((EXPLICIT_BE,), 4, ""), (BOTH, 0, accepted))
    assert contexts.choose(answered, (CT, EXPLICIT_BE)).transfer_syntax == accepted


@pytest.mark.parametrize("result", [1, 2, 3, 4, None])
def test_a_refusal_carries_the_result_for_the_own_syntax(result: int | None) -> None:
    """ContextNotAccepted names class, syntax and the peer's number; a compressed file has no fall-back."""
    answered = _answered((BOTH, 0, EXPLICIT_LE), ((JPEG,), result, ""))
    with pytest.raises(ContextNotAccepted) as caught:
        contexts.choose(answered, (CT, JPEG))
    assert (caught.value.sop_class_uid, caught.value.transfer_syntax_uid, caught.value.result) == (
        CT,
        JPEG,
        result,
    )

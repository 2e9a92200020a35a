"""Which presentation contexts a set of files needs, and which accepted one carries a file (PS3.8 7.1.1.13).
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from dicomferry.models.rules.errors import ContextNotAccepted

# Their ids are the odd numbers from 1 to 255 (PS3.8 9.3.2.2).
MOST_PROPOSALS = 128

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

# What a data set without encapsulated pixel data may be re-encoded to, on a copy and without loss.
REENCODABLE = (EXPLICIT_LE, IMPLICIT_LE)
UNCOMPRESSED = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})

# What fits an abstract syntax or transfer syntax item at all (PS3.5 9.1 bounds the length; odd ones are in
# use).
_PROPOSABLE = re.compile(r"[0-9A-Za-z.\-]{1,64}")

# (SOP class UID, transfer syntax UID) of a file.
Pair = tuple[str, str]


class Convert(Enum):
    """Which files may be sent in another transfer syntax than their own, where the peer does not take that."""

    NOTHING = "nothing"
    UNCOMPRESSED = "uncompressed"
    """Conversions that lose nothing and need no decoder."""
    ALL = "all"
    """Compressed ones as well: they are decompressed."""


@dataclass(frozen=True)
class Proposal:
    """One presentation context as we ask for it; `as_scp`: we are to receive in it (PS3.7 D.3.3.4)."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    as_scp: bool = False


@dataclass(frozen=True)
class Context:
    """One presentation context as the peer answered it.

    `result` is the Standard's (PS3.8 table 9-18: 0 accepted, 3 abstract syntax, 4 transfer syntaxes not
    supported), None where the peer did not mention the context. `transfer_syntax` is empty unless it was
    accepted.
    """

    context_id: int
    abstract_syntax: str
    proposed: tuple[str, ...]
    result: int | None
    transfer_syntax: str = ""

    @property
    def accepted(self) -> bool:
        """Whether messages may be sent in this context."""
        return self.result == 0


def is_proposable(pair: Pair) -> bool:
    """Whether both UIDs can stand in an A-ASSOCIATE-RQ; one that cannot must not spoil the association for
    the rest.
    """
    return all(_PROPOSABLE.fullmatch(uid) for uid in pair)


def convertible(syntax: str, convert: Convert) -> bool:
    """Whether a file in this syntax may be sent in another one."""
    return convert is Convert.ALL or (convert is Convert.UNCOMPRESSED and syntax in UNCOMPRESSED)


def proposals_for(pair: Pair, *, convert: Convert = Convert.UNCOMPRESSED) -> tuple[Proposal, ...]:
    """The file's own syntax alone, and a second context with what it may be re-encoded to.

    Apart from each other, because a peer that is offered both in one context may choose the other one and so
    force a change of what it would have taken as it is.
    """
    sop_class, syntax = pair
    if not is_proposable(pair):
        return ()
    own = Proposal(sop_class, (syntax,))
    return (own, Proposal(sop_class, REENCODABLE)) if convertible(syntax, convert) else (own,)


def group(
    pairs: Iterable[Pair], most: int = MOST_PROPOSALS, *, convert: Convert = Convert.UNCOMPRESSED
) -> list[tuple[Proposal, ...]]:
    """The proposals of one association after the other, at most `most` each, pairs in order of first
    appearance.

    All proposals of a pair lie in one group; a proposal that two pairs share is made once a group.
    """
    groups: list[tuple[Proposal, ...]] = []
    current: dict[Proposal, None] = {}
    for pair in dict.fromkeys(pairs):
        wanted = proposals_for(pair, convert=convert)
        new = [proposal for proposal in wanted if proposal not in current]
        if len(current) + len(new) > most:
            groups.append(tuple(current))
            current = {}
            new = list(wanted)
        current.update(dict.fromkeys(new))
    if current:
        groups.append(tuple(current))
    return groups


def serves(proposals: Iterable[Proposal], pair: Pair, *, convert: Convert = Convert.UNCOMPRESSED) -> bool:
    """Whether an association with these proposals settles how (or that not) a file of this pair is sent."""
    return set(proposals_for(pair, convert=convert)) <= set(proposals)


def extended(
    proposals: Sequence[Proposal], pair: Pair, most: int = MOST_PROPOSALS, *, convert: Convert = Convert.UNCOMPRESSED
) -> tuple[Proposal, ...]:
    """`proposals` and what a pair that was not planned needs as well, or that alone where both are too
    many.
    """
    new = proposals_for(pair, convert=convert)
    both = tuple(dict.fromkeys((*proposals, *new)))
    return both if len(both) <= most else new


def choose(contexts: Sequence[Context], pair: Pair, *, convert: Convert = Convert.UNCOMPRESSED) -> Context:
    """The accepted context for a file: its own syntax first, else one to re-encode to where that is allowed (see
    `proposals_for`).

    The file is to be re-encoded when the returned context's syntax is not its own. Raises ContextNotAccepted
    with the peer's result for the file's own syntax, None where it was never proposed or never answered.
    """
    sop_class, syntax = pair
    of_class = [context for context in contexts if context.abstract_syntax == sop_class]
    accepted = {context.transfer_syntax: context for context in reversed(of_class) if context.accepted}
    wanted = (syntax, *REENCODABLE) if convertible(syntax, convert) else (syntax,)
    for candidate in wanted:
        if candidate in accepted:
            return accepted[candidate]
    result = next((context.result for context in of_class if syntax in context.proposed), None)
    raise ContextNotAccepted(sop_class, syntax, result)

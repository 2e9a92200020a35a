"""What proves a retrieve: the one rule that turns what was listed, said, sent and seen into `uids`, `counts` or `none`.

Pure. Whoever asks it brings facts; nobody else decides what is called proven. Retrieves that come here, moves that go
elsewhere, `--verify`, `--split` and `--from-job` ask it.

A number that an archive gives of a patient, study or series binds that entity alone, and only where all of it was asked
for. It is held against the list of the same moment: `listed_at`. A proof tells of that moment and of no later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dicomferry.models.rules import query
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.models.rules.reason import Reason

NOT_WHOLE = Reason.LISTING_NOT_WHOLE
"""The archive gives a sign of more than it lists, and more is not here."""
TRUNCATED = Reason.MAYBE_TRUNCATED
"""As many matches came as the archive lists at most, and nothing says that these are all."""
NO_KEY = Reason.NO_UNIQUE_KEY
"""A match came without the unique key of its level, so nobody can ask for it."""
UNVERIFIED = Reason.NOT_VERIFIED
"""What was to be seen where it went, and could not be looked for."""

WANTING = (NOT_WHOLE, TRUNCATED, NO_KEY)
"""What keeps a request from being called done though all that it names is here; no arrival makes it good."""


class Verified(StrEnum):
    """How sure it is that all is where it should be. Only `uids` is called proven."""

    NONE = "none"
    COUNTS = "counts"
    UIDS = "uids"


class Depth(StrEnum):
    """What an archive told of what is to come, from nothing to all of it."""

    UNKNOWN = "unknown"
    COUNTS = "counts"
    IMAGES = "images"


class Basis(StrEnum):
    """What a proof rests on, the weakest first."""

    SET_ASIDE = "set aside"
    """The list: the archive gives numbers, and the address book says that they are wrong."""
    LIST = "list"
    """The list alone: the archive gives no number."""
    NUMBER = "number"
    """The list, and the archive's own number of the same entity; or UIDs that were asked for one by one."""


class Way(StrEnum):
    """How it is known what came."""

    HERE = "here"
    SHOWN = "shown"
    """The instance went to another AE, and that AE lists it."""
    BELIEVED = "believed"
    """The instance went to another AE, and the archive's word is all there is."""


@dataclass(frozen=True)
class Part:
    """A patient (no UID), study or series that was asked for whole, as the archive told of it when it was listed.

    `said` is the archive's own number of its instances, None where it gives none; `listed` how many it listed.
    """

    study: str | None = None
    series: str | None = None
    said: int | None = None
    listed: int = 0
    depth: str = Depth.IMAGES


def depth_of(*, listed: int, said: int | None, refused: bool, mute: bool = False) -> Depth:
    """How far an entity was listed that the archive has shown as a match.

    `refused`: a query below it was refused; `mute`: something of it lists nothing below and has no number. Nothing
    below and no number is unknown, never empty: empty is what the archive says is 0.
    """
    if refused:
        return Depth.UNKNOWN if said is None else Depth.COUNTS
    if said is not None and listed >= said:
        return Depth.IMAGES
    if mute or not listed:
        return Depth.UNKNOWN if said is None else Depth.COUNTS
    return Depth.IMAGES


@dataclass(frozen=True)
class PartSeen:
    """What became of a part. `missing` are listed instances that did not come, `others` instances of it that are here
    without being listed, `surplus` those of them that came for this request.

    `told` are the sub-operations that one answer to a request for all of the part told of, what came twice counted
    once; `refused` are those of them that the archive calls failed.
    """

    part: Part
    missing: int = 0
    others: int = 0
    surplus: int = 0
    told: int = 0
    refused: int = 0

    def said(self, ignored: bool) -> int | None:
        """The number that is held against the list."""
        return None if ignored else self.part.said

    def short(self, ignored: bool) -> int:
        """How many instances the archive gives a sign of beyond those that are listed or here; `ignored`: its numbers
        are set aside, and what it says it could not send is left as a sign.
        """
        listed = self.part.listed
        unsaid = (self.said(ignored) or 0) - listed - self.others
        unseen = self.told - listed - self.surplus
        if ignored:
            unseen = min(unseen, self.refused)
        return max(0, unsaid, unseen)

    def is_unlisted(self, ignored: bool) -> bool:
        """Whether the archive says more than it lists, whatever is here."""
        return (self.said(ignored) or 0) > self.part.listed

    def word(self, ignored: bool) -> Verified:
        """How sure it is that all of it is there, where nothing is missing."""
        if self.part.depth == Depth.UNKNOWN:
            return Verified.NONE
        if self.part.depth == Depth.COUNTS:
            return Verified.COUNTS
        return Verified.COUNTS if self.short(ignored) or self.is_unlisted(ignored) else Verified.UIDS


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of a request when it is judged.

    `targets` are what its identifier came to, `inner` the studies and series below them that have a number of their
    own. `strangers` are the instances that the archive names as failed, and that are neither listed nor here.
    `is_outlived` tells that an answer to a request that is younger than the list is silent of more that an earlier one
    told of: it may have been there when the list was made. `capped` tells that a list of targets may be cut,
    `nameless` counts matches without a unique key.
    """

    targets: Sequence[PartSeen]
    inner: Sequence[PartSeen] = ()
    strangers: int = 0
    is_outlived: bool = False
    capped: bool = False
    nameless: int = 0
    ignored: bool = False
    by_uid: bool = False
    way: Way = Way.HERE


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the rule says. `wanting` is the reason word where the request may not be called done, `detail` the sentence
    for it; `short` is what is to be listed again, and asked for whole once; `is_short` tells that there is a sign of
    more than is listed, even if as much is here; `is_outlived` that a newer list may prove what this one does not.
    `notes` changed nothing.
    """

    word: Verified
    basis: Basis
    wanting: Reason | None = None
    detail: str | None = None
    short: tuple[Part, ...] = ()
    is_short: bool = False
    is_outlived: bool = False
    notes: tuple[str, ...] = field(default=())


def judge(facts: Facts) -> Finding:
    """The rule, of a request of which nothing is under way any more."""
    everything = (*facts.targets, *facts.inner)
    short = [one for one in everything if one.part.depth == Depth.IMAGES and one.short(facts.ignored)]
    # What is short of its series is asked for by series, the study around them not besides.
    finest = _each_once(one.part for one in short if not any(_is_inside(other.part, one.part) for other in short))
    if not finest and facts.strangers:
        finest = tuple(one.part for one in facts.targets if one.part.depth == Depth.IMAGES)
    word = min((one.word(facts.ignored) for one in everything), key=list(Verified).index, default=Verified.NONE)
    wanting, detail = _wanting(facts, short)
    if wanting and word is Verified.UIDS:
        word = Verified.COUNTS if wanting == NOT_WHOLE else Verified.NONE
    if facts.is_outlived and word is Verified.UIDS:
        word = Verified.COUNTS
    if facts.way is Way.BELIEVED:
        word = Verified.NONE
    unlisted = [one for one in everything if one.part.depth == Depth.IMAGES and one.is_unlisted(facts.ignored)]
    return Finding(
        word=word,
        basis=_basis(facts),
        wanting=wanting,
        detail=detail,
        short=finest,
        is_short=bool(finest or unlisted),
        is_outlived=facts.is_outlived,
        notes=tuple(_notes(facts)),
    )


def _each_once(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple({(one.study, one.series): one for one in parts}.values())


def _is_inside(inner: Part, outer: Part) -> bool:
    """Whether one part is a smaller one of the other."""
    if inner == outer or (inner.study, inner.series) == (outer.study, outer.series):
        return False
    return outer.study in (None, inner.study) and outer.series is None


def _basis(facts: Facts) -> Basis:
    if facts.by_uid:
        return Basis.NUMBER
    said = [one.part.said for one in facts.targets]
    if facts.ignored and any(number is not None for number in said):
        return Basis.SET_ASIDE
    return Basis.LIST if any(number is None for number in said) else Basis.NUMBER


def _wanting(facts: Facts, short: Sequence[PartSeen]) -> tuple[Reason | None, str | None]:
    """The word for what is wanting, and the sentence."""
    if facts.nameless:
        return NO_KEY, nameless_sentence(facts.nameless)
    if facts.capped:
        return TRUNCATED, "as many were listed as the archive lists at most, so there may be more that nobody named"
    if not (short or facts.strangers):
        return None, None
    listed = sum(one.part.listed for one in facts.targets)
    here = listed - sum(one.missing for one in facts.targets)
    seen = "at the destination" if facts.way is Way.SHOWN else "sent" if facts.way is Way.BELIEVED else "here"
    told = f"{here:,} of {listed:,} listed are {seen}"
    why = "hidden or rejected objects, or a stale count; ask its administrator"
    by_number = [one for one in short if (one.said(facts.ignored) or 0) - one.part.listed - one.others > 0]
    if by_number:
        return NOT_WHOLE, f"{told}, the archive says {_said(facts, by_number):,}: {why}"
    if short:
        more = sum(one.short(facts.ignored) for one in _outermost(short))
        failed = sum(one.refused for one in _outermost(short))
        tail = f", of which {failed:,} failed" if failed else ""
        return NOT_WHOLE, f"{told}, and the archive's answer tells of {more:,} more{tail}: {why}"
    return NOT_WHOLE, f"{told}, and the archive names {facts.strangers:,} more that it could not send: {why}"


def _outermost(short: Sequence[PartSeen]) -> list[PartSeen]:
    return [one for one in short if not any(_is_inside(one.part, other.part) for other in short)]


def _said(facts: Facts, short: Sequence[PartSeen]) -> int:
    """The archive's number of the whole request: of each target its own, or what its short series make of it."""
    total = 0
    for one in facts.targets:
        more = sum((other.part.said or 0) - other.part.listed for other in short if _is_inside(other.part, one.part))
        total += max(one.part.listed + more, one.said(facts.ignored) or 0)
    return total


def _notes(facts: Facts) -> Iterable[str]:
    """What is told and changes nothing."""
    for one in facts.targets:
        said = one.part.said
        if said is not None and said < one.part.listed:
            name = one.part.series or one.part.study or "the patient"
            yield f"the archive says {said:,} of {name} and lists {one.part.listed:,}: what it lists is what counts"


def nameless_sentence(number: int) -> str:
    """What to say of matches that nobody can ask for."""
    many = "1 match" if number == 1 else f"{number:,} matches"
    it = "it" if number == 1 else "they"
    return f"{many} without a unique key: {it} cannot be retrieved by this archive's answer; ask its administrator"


# --- what others ask --------------------------------------------------------------------------------------------------


def weakest(words: Iterable[str | None]) -> Verified:
    """How sure a job is of what it has: as the request that is least so; of none, not at all."""
    return min((Verified(word or "none") for word in words), key=list(Verified).index, default=Verified.NONE)


def weakest_basis(found: Iterable[str | None]) -> Basis | None:
    """What a job's proof rests on: what the weakest of its requests rests on."""
    return min((Basis(one) for one in found if one), key=list(Basis).index, default=None)


def of_store(*, delivered: int, unverified: bool) -> Verified:
    """How sure a store is: the receiver's answer to each instance, and none where some were to be looked for and could
    not be.
    """
    return Verified.UIDS if delivered and not unverified else Verified.NONE


def is_pinned(level: Level | None, keys: Iterable[Key]) -> bool:
    """Whether a unique key of a query names one study or series, so that a round number of matches means nothing."""
    found = tuple(keys)
    return level is not None and any(
        query.is_single(query.value_of(found, UNIQUE[upper])) for upper in (Level.STUDY, Level.SERIES, Level.IMAGE)
    )


def looks_capped(count: int, cap: int | None) -> bool:
    """Whether so many matches may be all that the remote lists and not all that there are.

    Without a known cap, a number that people configure as one: 100, 200, 250 or 500, and these with zeros.
    """
    if cap is not None:
        return count >= cap
    text = str(count)
    return count >= 100 and text.rstrip("0") in ("1", "2", "25", "5")


def is_capped(
    count: int, cap: int | None, level: Level | None, keys: Iterable[Key], *, confirmed: bool = False
) -> bool:
    """Whether the answers to a query count as cut: no unique key names a study or series, no number confirms them."""
    return looks_capped(count, cap) and not confirmed and not is_pinned(level, keys)

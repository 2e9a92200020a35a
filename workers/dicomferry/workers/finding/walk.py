"""Walks down the levels on one association (PS3.4 C.4.1.2.2.1), and what a retrieve may expect to receive."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dicomferry.models.rules import query
from dicomferry.models.rules.errors import ContextNotAccepted, DimseFailure
from dicomferry.models.rules.proof import Depth, Part, depth_of, is_capped, nameless_sentence
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.workers.dimse import find, identifier
from dicomferry.workers.dimse.find import Ask, Match, never
from dicomferry.workers.dimse.identifier import Attributes, DecodedIdentifier
from dicomferry.workers.dimse.requestor import Association, Stop
from dicomferry.workers.finding.judged import LeftOut, heeding_keys

_AVAILABILITY = f"{query.INSTANCE_AVAILABILITY:08X}"
MOST_NUMBER = 2**31 - 1
"""The greatest value of VR IS (PS3.5 6.2)."""
_INTEGER = re.compile(r"\+?[0-9]{1,12}", re.ASCII)
_Entity = tuple[str | None, str | None]
"""A study, or a series of it."""


@dataclass(frozen=True)
class DecodedMatch:
    """A match, decoded. `uppers` are the unique keys of the levels above that the query asked with, by level;
    `inherited` is what was asked of those levels and answered there.
    """

    match: Match
    answer: DecodedIdentifier
    uppers: Mapping[Level, str]
    inherited: Mapping[str, Any]

    def unique(self, level: Level) -> str | None:
        """The match's unique key of a level, its own or the one that it was asked with."""
        return self.answer.first(UNIQUE[level]) or self.uppers.get(level)

    def attributes(self) -> Attributes:
        """The match's attributes, and those of the levels above that it does not repeat, in ascending order."""
        if not self.uppers and not self.inherited:
            return self.answer.attributes
        own = {tag: element for tag, element in self.answer.attributes.items() if len(element) > 1}
        asked = {
            f"{UNIQUE[level]:08X}": {"vr": identifier.vr_of(UNIQUE[level]), "Value": [value]}
            for level, value in self.uppers.items()
        }
        return dict(sorted({**self.answer.attributes, **asked, **self.inherited, **own}.items()))


def asker(association: Association, model_uid: str, *, stop: Stop = never) -> Ask:
    """Queries of a model on an association, keys and answers in the remote's character set. Raises what `find` does."""
    charset = association.remote.charset

    def ask(level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        syntax = association.context_for(model_uid).transfer_syntax
        encoded = identifier.encode(keys, syntax, charset=charset, level=level)
        # Whoever closes it early cancels the query.
        with contextlib.closing(find.find(association, model_uid, encoded, stop=stop)) as matches:
            for match in matches:
                yield match, identifier.decode(match.data, match.transfer_syntax, charset=charset)

    return ask


Passing = Callable[[Level, DecodedMatch], object]
"""Told of each match of a level that is walked through, with or without its unique key."""


def walk(
    ask: Ask, root: str, level: Level, keys: Sequence[Key], *, whole: bool = False, passing: Passing | None = None
) -> Iterator[DecodedMatch]:
    """What one query of a level would find, with the levels above walked where the keys leave them open.

    `whole`: one relational query. Of the levels above, only what was asked for is held in memory; a match there without
    its unique key leads nowhere, and only `passing` hears of it.
    """
    known = {
        upper: value
        for upper in query.levels(root)
        if (value := query.value_of(keys, UNIQUE[upper])) is not None and query.is_single(value)
    }
    yield from _walk(ask, root, query.steps(level, root, keys, whole=whole), known, whole, passing=passing)


def _walk(
    ask: Ask,
    root: str,
    steps: Sequence[query.Step],
    known: Mapping[Level, str],
    whole: bool = False,
    inherited: Mapping[str, Any] = MappingProxyType({}),
    passing: Passing | None = None,
) -> Iterator[DecodedMatch]:
    step, *rest = steps
    ordered = query.levels(root)
    uppers = {upper: known[upper] for upper in ordered[: ordered.index(step.level)] if upper in known and not whole}
    keys = [*((f"{UNIQUE[upper]:08X}", value) for upper, value in uppers.items()), *step.keys]
    answers = (DecodedMatch(match, answer, uppers, inherited) for match, answer in ask(step.level, keys))
    if not rest:
        yield from answers
        return
    # The next query has to wait for this one's last answer: what goes on is remembered first.
    asked = {path[:8] for path, _ in step.keys}
    uppers_found: dict[str, Attributes] = {}
    for found in answers:
        uid = found.unique(step.level)
        if passing:
            passing(step.level, found)
        if uid:
            uppers_found[uid] = {tag: element for tag, element in found.answer.attributes.items() if tag in asked}
    for uid, attributes in uppers_found.items():
        below = {**known, step.level: uid}
        yield from _walk(ask, root, rest, below, inherited={**inherited, **attributes}, passing=passing)


@dataclass(frozen=True)
class Instance:
    """An instance that the peer lists.

    `availability` as in (0008,0056): ONLINE, NEARLINE, OFFLINE, UNAVAILABLE; that of its series or study where the peer
    says no more.
    """

    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str
    sop_class_uid: str | None
    availability: str | None


class Expectation:
    """What a retrieve of `level` and `keys` is expected to bring, listed by the peer: iterate, then read the rest.

    After the iteration `depth` is how far it was listed (see `proof.depth_of`), `why` the reason for anything less than
    `images`, `error` the refusal behind it. `count` is how many instances the peer says there are, None where it gives
    no number; `listed` how many it lists, each once. `inner` are the studies and series below of which it says more
    than it lists; `nameless` counts the matches below that came without their unique key, `capped` tells that a list
    of studies may be cut, and no number confirms it. `left_out` are answers that contradict the unique keys they were
    asked for with: a peer that does not keep to its keys is not believed. `availabilities` holds every word of
    (0008,0056) that came.

    A peer that refuses the query, or a level of it, is told of in `depth` and `why`; what it listed before stands.
    Iterating raises FindStopped, DimseTimeout, AssociationAborted and ProtocolViolation.
    """

    depth: Depth = Depth.UNKNOWN
    why: str | None = None
    error: DimseFailure | ContextNotAccepted | None = None
    count: int | None = None
    nameless: int = 0
    capped: bool = False
    inner: tuple[Part, ...] = ()

    def __init__(
        self, association: Association, root: str, level: Level | str, keys: Sequence[Key], *, stop: Stop = never
    ) -> None:
        self.availabilities: set[str] = set()
        self._ask_whole = association.remote.relational
        self.left_out = LeftOut()
        asked = asker(association, query.find_model(root), stop=stop)
        capped = heeding_caps(asked, association.remote.find_cap, self._cut)
        self._ask = heeding_keys(capped, root, self.left_out)
        self._root = root
        self._level = Level(level)
        self._keys = keys
        self._said: dict[_Entity, int | None] = {}
        self._seen: dict[_Entity, set[str]] = {}

    def _cut(self) -> None:
        self.capped = True

    @property
    def listed(self) -> int:
        """How many instances were listed."""
        return sum(len(uids) for uids in self._seen.values())

    def __iter__(self) -> Iterator[Instance]:
        level, root = self._level, self._root
        try:
            tops = _each_once(walk(self._ask, root, level, self._with_returns(level, self._keys)), level)
        except (DimseFailure, ContextNotAccepted) as error:
            self.why, self.error = str(error), error
            return
        if level is Level.IMAGE:
            self.depth = Depth.IMAGES
            yield from self._instances(top for top, _ in tops)
            self.count = self.listed
            return
        for top, _ in tops:
            self._note(top)
        self.count = _sum(number for _, number in tops)
        try:
            for top, _ in tops:
                yield from self._below(top)
        except (DimseFailure, ContextNotAccepted) as error:
            self.why, self.error = str(error), error
        self._judge()

    def _judge(self) -> None:
        """How far all of it was listed."""
        counts = {entity: self._listed_of(entity) for entity in self._said}
        self.inner = tuple(
            Part(*entity, said, counts[entity])
            for entity, said in self._said.items()
            if said is not None and said > counts[entity]
        )
        mute = self.nameless > 0 or any(self._is_mute(entity, counts) for entity in counts)
        self.capped = self.capped and self.count != self.listed
        refused = self.error is not None
        self.depth = depth_of(listed=self.listed, said=self.count, refused=refused, mute=mute)
        if self.depth is Depth.UNKNOWN and self._level is Level.STUDY and self._said and not self.nameless:
            # Those of its series are a number to go by; that these are all of its series nobody confirms.
            self.count = _sum(self._said.values())
            self.depth = depth_of(listed=self.listed, said=self.count, refused=refused, mute=mute)
        if self.depth is not Depth.IMAGES and self.why is None:
            if self.nameless:
                self.why = nameless_sentence(self.nameless)
            else:
                said = "no number is given" if self.count is None else f"{self.count} images are said to be there"
                self.why = f"{said}, {self.listed or 'none'} {'are' if self.listed else 'is'} listed"

    def _is_mute(self, entity: _Entity, counts: Mapping[_Entity, int]) -> bool:
        """Whether a study or series was shown, lists nothing, and no number says that this is all."""
        said = self._said[entity]
        if counts[entity] or said is not None:
            return False
        around = (entity[0], None)
        whole = self._said.get(around)
        return entity == around or whole is None or counts[around] < whole

    def _listed_of(self, entity: _Entity) -> int:
        study, series = entity
        return sum(len(uids) for own, uids in self._seen.items() if own == entity or (own[0] == study and not series))

    def _below(self, top: DecodedMatch) -> Iterator[Instance]:
        """The images of one match of the asked level."""
        ordered = query.levels(self._root)
        below = ordered[ordered.index(self._level) + 1 :]
        known = {upper: uid for upper in ordered[: ordered.index(below[0])] if (uid := self._unique(top, upper))}
        if self._level not in known:
            self.nameless += 1
            return
        word = top.answer.attributes.get(_AVAILABILITY, {})
        inherited = {_AVAILABILITY: word} if len(word) > 1 else {}
        if self._ask_whole:
            inner = ((f"{UNIQUE[level]:08X}", "") for level in below)
            steps = [query.Step(Level.IMAGE, tuple(self._with_returns(Level.IMAGE, inner)))]
        else:
            steps = [query.Step(level, tuple(self._with_returns(level, ()))) for level in below]
        walked = _walk(self._ask, self._root, steps, known, inherited=inherited, passing=self._pass)
        yield from self._instances(walked)

    def _unique(self, top: DecodedMatch, level: Level) -> str | None:
        """The unique key of a match; the one value that was asked for answers to itself, also where it is left out."""
        asked = query.value_of(self._keys, UNIQUE[level])
        return top.unique(level) or (asked if query.is_single(asked) else None)

    def _pass(self, level: Level, found: DecodedMatch) -> None:
        """A study or series on the way down, and the number that the peer gives of it."""
        uid = found.unique(level)
        if not uid:
            self.nameless += 1
            return
        entity = (found.unique(Level.STUDY), uid if level is Level.SERIES else None)
        self._said[entity] = _greater(self._said.get(entity), _number_in(found, level))

    def _instances(self, images: Iterable[DecodedMatch]) -> Iterator[Instance]:
        for found in images:
            uid = found.unique(Level.IMAGE)
            entity = (found.unique(Level.STUDY), found.unique(Level.SERIES))
            if not uid:
                self.nameless += 1
                continue
            if uid in self._seen.setdefault(entity, set()):
                continue
            self._seen[entity].add(uid)
            yield Instance(
                study_instance_uid=entity[0],
                series_instance_uid=entity[1],
                sop_instance_uid=uid,
                sop_class_uid=found.answer.first(query.SOP_CLASS_UID),
                availability=self._note(found),
            )

    def _note(self, found: DecodedMatch) -> str | None:
        word = found.answer.first(query.INSTANCE_AVAILABILITY)
        if word is None:
            word = next((str(one) for one in found.inherited.get(_AVAILABILITY, {}).get("Value", ())), None)
        if word:
            word = word.strip().upper()
            self.availabilities.add(word)
        return word

    @staticmethod
    def _with_returns(level: Level, keys: Iterable[Key]) -> list[Key]:
        """The keys, and what is to be known of each match."""
        counted = query.RELATED_INSTANCES.get(level, query.SOP_CLASS_UID)
        wanted = {UNIQUE[level]: "", counted: "", query.INSTANCE_AVAILABILITY: ""}
        return list(({f"{tag:08X}": value for tag, value in wanted.items()} | dict(keys)).items())


def heeding_caps(ask: Ask, cap: int | None, capped: Callable[[], object]) -> Ask:
    """Queries that call `capped` after one whose answers count as cut off (see `proof.is_capped`)."""

    def counted(level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        count = 0
        for pair in ask(level, keys):
            count += 1
            yield pair
        if is_capped(count, cap, level, keys):
            capped()

    return counted


def _each_once(found: Iterable[DecodedMatch], level: Level) -> list[tuple[DecodedMatch, int | None]]:
    """Matches without repetitions, each with its number of instances: some archives list a study once for each of its
    images, and those that keep it in several places once for each of these. The greatest number is the study's.
    """
    uppers = tuple(Level)[: tuple(Level).index(level) + 1]
    tops: dict[tuple[str | None, ...], tuple[DecodedMatch, int | None]] = {}
    for one in found:
        key = tuple(one.unique(upper) for upper in uppers)
        first, number = tops.get(key, (one, None))
        tops[key] = first, _greater(number, _number_in(one, level))
    return list(tops.values())


def _number_in(found: DecodedMatch, level: Level) -> int | None:
    """The number of instances that a match tells of itself; None where it tells none, or what no IS can be."""
    text = found.answer.first(query.RELATED_INSTANCES[level]) if level in query.RELATED_INSTANCES else None
    if text is None or not _INTEGER.fullmatch(text):
        return None
    return number if (number := int(text)) <= MOST_NUMBER else None


def _greater(one: int | None, other: int | None) -> int | None:
    return max((number for number in (one, other) if number is not None), default=None)


def _sum(numbers: Iterable[int | None]) -> int | None:
    """The sum; None where one of them is missing."""
    found = list(numbers)
    return None if None in found else sum(number for number in found if number is not None)

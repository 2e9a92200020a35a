"""Walks down the levels on one association (PS3.4 C.4.1.2.2.1), and what a retrieve may expect to receive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from dicomferry.models import query
from dicomferry.models.errors import ContextNotAccepted, DimseFailure
from dicomferry.models.query import UNIQUE, Key, Level
from dicomferry.workers.dimse import find, identifier
from dicomferry.workers.dimse.association import Association, Stop
from dicomferry.workers.dimse.find import Match, never
from dicomferry.workers.dimse.identifier import Answer, Attributes

_AVAILABILITY = f"{query.INSTANCE_AVAILABILITY:08X}"


@dataclass(frozen=True)
class Found:
    """A match, decoded. `uppers` are the unique keys of the levels above that the query asked with, by level;
    `inherited` is what was asked of those levels and answered there.
    """

    match: Match
    answer: Answer
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


Ask = Callable[[Level | None, Sequence[Key]], Iterable[tuple[Match, Answer]]]
"""One query: level (None for a worklist) and keys; its matches, decoded."""


def asker(association: Association, model_uid: str, *, stop: Stop = never) -> Ask:
    """Queries of a model on an association, keys and answers in the remote's character set. Raises what `find` does."""
    charset = association.remote.charset

    def ask(level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, Answer]]:
        syntax = association.context_for(model_uid).transfer_syntax
        encoded = identifier.encode(keys, syntax, charset=charset, level=level)
        # Whoever closes it early cancels the query.
        with contextlib.closing(find.find(association, model_uid, encoded, stop=stop)) as matches:
            for match in matches:
                yield match, identifier.decode(match.data, match.transfer_syntax, charset=charset)

    return ask


def walk(ask: Ask, root: str, level: Level, keys: Sequence[Key], *, whole: bool = False) -> Iterator[Found]:
    """What one query of a level would find, with the levels above walked where the keys leave them open.

    `whole`: one relational query. Of the levels above, only what was asked for is held in memory.
    """
    known = {
        upper: value
        for upper in query.levels(root)
        if (value := query.value_of(keys, UNIQUE[upper])) is not None and query.is_single(value)
    }
    yield from _walk(ask, root, query.steps(level, root, keys, whole=whole), known, whole)


def _walk(
    ask: Ask,
    root: str,
    steps: Sequence[query.Step],
    known: Mapping[Level, str],
    whole: bool = False,
    inherited: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Found]:
    step, *rest = steps
    ordered = query.levels(root)
    uppers = {upper: known[upper] for upper in ordered[: ordered.index(step.level)] if upper in known and not whole}
    keys = [*((f"{UNIQUE[upper]:08X}", value) for upper, value in uppers.items()), *step.keys]
    answers = (Found(match, answer, uppers, inherited) for match, answer in ask(step.level, keys))
    if not rest:
        yield from answers
        return
    # The next query has to wait for this one's last answer: what goes on is remembered first.
    asked = {path[:8] for path, _ in step.keys}
    uppers_found: dict[str, Attributes] = {}
    for found in answers:
        uid = found.unique(step.level)
        if uid:
            uppers_found[uid] = {tag: element for tag, element in found.answer.attributes.items() if tag in asked}
    for uid, attributes in uppers_found.items():
        yield from _walk(ask, root, rest, {**known, step.level: uid}, inherited={**inherited, **attributes})


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

    After the iteration `depth` is `images` (all that there is was listed), `counts` (the peer does not list images;
    `count` is how many it says there are) or `unknown`; `why` is the reason for anything less than `images`,
    `error` the refusal behind it. `count` is
    None where the peer gave no numbers, `availabilities` holds every word of (0008,0056) that came.

    A peer that refuses the query, or a level of it, is told of in `depth` and `why`. Iterating raises FindStopped,
    DimseTimeout, AssociationAborted and ProtocolViolation.
    """

    depth: Literal["images", "counts", "unknown"] = "unknown"
    why: str | None = None
    error: DimseFailure | ContextNotAccepted | None = None
    count: int | None = None
    listed: int = 0

    def __init__(
        self, association: Association, root: str, level: Level | str, keys: Sequence[Key], *, stop: Stop = never
    ) -> None:
        self.availabilities: set[str] = set()
        self._ask_whole = association.remote.relational
        self._ask = asker(association, query.find_model(root), stop=stop)
        self._root = root
        self._level = Level(level)
        self._keys = keys

    def __iter__(self) -> Iterator[Instance]:
        level, root = self._level, self._root
        try:
            tops = _each_once(walk(self._ask, root, level, self._with_returns(level, self._keys)), level)
        except (DimseFailure, ContextNotAccepted) as error:
            self.why, self.error = str(error), error
            return
        if level is Level.IMAGE:
            self.depth = "images"
            yield from self._instances(tops)
            self.count = self.listed
            return
        for top in tops:
            self._note(top)
        self.count = _sum(top.answer.first(query.RELATED_INSTANCES[level]) for top in tops)
        try:
            for top in tops:
                yield from self._below(top)
        except (DimseFailure, ContextNotAccepted) as error:
            self.why, self.error = str(error), error
        else:
            if self.listed or not self.count:
                self.depth = "images"
                return
            self.why = f"{self.count} images are said to be there, none is listed"
        self.depth = "unknown" if self.count is None else "counts"

    def _below(self, top: Found) -> Iterator[Instance]:
        """The images of one match of the asked level."""
        ordered = query.levels(self._root)
        below = ordered[ordered.index(self._level) + 1 :]
        known = {upper: uid for upper in ordered[: ordered.index(below[0])] if (uid := top.unique(upper))}
        if self._level not in known:
            return
        word = top.answer.attributes.get(_AVAILABILITY, {})
        inherited = {_AVAILABILITY: word} if len(word) > 1 else {}
        if self._ask_whole:
            inner = ((f"{UNIQUE[level]:08X}", "") for level in below)
            steps = [query.Step(Level.IMAGE, tuple(self._with_returns(Level.IMAGE, inner)))]
        else:
            steps = [query.Step(level, tuple(self._with_returns(level, ()))) for level in below]
        yield from self._instances(_walk(self._ask, self._root, steps, known, inherited=inherited))

    def _instances(self, images: Iterable[Found]) -> Iterator[Instance]:
        for found in images:
            uid = found.unique(Level.IMAGE)
            if uid:
                self.listed += 1
                yield Instance(
                    study_instance_uid=found.unique(Level.STUDY),
                    series_instance_uid=found.unique(Level.SERIES),
                    sop_instance_uid=uid,
                    sop_class_uid=found.answer.first(query.SOP_CLASS_UID),
                    availability=self._note(found),
                )

    def _note(self, found: Found) -> str | None:
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


def _each_once(found: Iterable[Found], level: Level) -> list[Found]:
    """Matches without repetitions: some archives list a study once for each of its images."""
    uppers = tuple(Level)[: tuple(Level).index(level) + 1]
    return list({tuple(one.unique(upper) for upper in uppers): one for one in found}.values())


def _sum(numbers: Iterable[str | None]) -> int | None:
    """The sum; None where one of them is missing or no number."""
    found = list(numbers)
    return sum(map(int, found)) if all(number and number.isdecimal() for number in found) else None  # type: ignore[arg-type]

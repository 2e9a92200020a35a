"""The answers to a query, held against its keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dicomferry.models.rules import matching, query
from dicomferry.models.rules.matching import Judged
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.workers.dimse.identifier import DecodedIdentifier, vr_of

if TYPE_CHECKING:
    from dicomferry.workers.dimse.find import Ask, Match

_NOUNS = {Level.PATIENT: "patient", Level.STUDY: "study", Level.SERIES: "series", Level.IMAGE: "image"}


class Judge:
    """Holds the answers to one query of a root, or of a worklist (None), against its keys."""

    def __init__(self, root: str | None, keys: Sequence[Key]) -> None:
        asked = [key for key in keys if not matching.is_universal(key[1])]
        self._keys = matching.PreparedKeys(asked, vr_of) if asked else None
        # Archives need not repeat them at lower levels, and whatever has none at its own level cannot be asked for.
        self._unique = {f"{UNIQUE[level]:08X}" for level in query.levels(root)} if root else set()

    def of(self, answer: DecodedIdentifier) -> Sequence[Judged]:
        """What an answer says of each key that asks for something."""
        if self._keys is None:
            return ()
        found = self._keys.judge(answer.attributes, unreadable=answer.unreadable)
        return [one for one in found if not (one.wants_value and one.path in self._unique)]


def against(judged: Sequence[Judged]) -> list[str]:
    """The keys that an answer contradicts."""
    return [one.path for one in judged if one.outcome is matching.CONTRADICTS]


def named(counts: Mapping[str, int]) -> list[str]:
    """Paths as people write keys, those that stand most often first."""
    from dicomferry.workers.finding.keys import spelled

    return [spelled(path) for path in sorted(counts, key=lambda path: -counts[path])]


def number_of(number: int, level: Level) -> str:
    """The number of matches of a level, in words."""
    noun = _NOUNS[level]
    plural = {"study": "studies", "series": "series"}.get(noun, f"{noun}s")
    return f"{number:,} {noun if number == 1 else plural}"


@dataclass
class LeftOut:
    """Answers that were left out because they contradict the keys that they were asked for with.

    `level` is that of the first of them, `against` counts how many contradict each key.
    """

    number: int = 0
    level: Level = Level.STUDY
    against: Counter[str] = field(default_factory=Counter)

    def add(self, level: Level, wrong: Sequence[str]) -> None:
        """One more, which contradicts these keys."""
        if not self.number:
            self.level = level
        self.number += 1
        self.against.update(wrong)

    @property
    def sentence(self) -> str | None:
        """What was left out and why, without a value of it; None where nothing was."""
        if not self.number:
            return None
        ignored = named(self.against)
        have = "does not have it" if self.number == 1 else "do not have it"
        text = f"{number_of(self.number, self.level)} listed that {have}: this archive does not match on "
        text += " and ".join(ignored)
        if "PatientID" not in ignored:
            return text
        return (
            f"{text}, or the patient was merged or has another ID there: look with `submit find`, and ask by "
            "StudyInstanceUID"
        )


def heeding_keys(ask: Ask, root: str, left_out: LeftOut) -> Ask:
    """Queries whose answers leave out what contradicts the unique keys of their own level or of one above it."""
    unique = {f"{UNIQUE[level]:08X}" for level in query.levels(root)}

    def fitting(level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        assert level is not None
        judge = Judge(root, [key for key in keys if key[0] in unique])
        for match, answer in ask(level, keys):
            wrong = against(judge.of(answer))
            if wrong:
                left_out.add(level, wrong)
            else:
                yield match, answer

    return fitting

"""What an identifier came to: the studies, or parts of studies, that are to be moved. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dicomferry.models.rules import query
from dicomferry.models.rules.proof import Depth, Part
from dicomferry.models.rules.query import UNIQUE, Key, Level


@dataclass(frozen=True, kw_only=True)
class Target:
    """One patient, study or series, or some images of a series; as deep as its lowest value that is there.

    `count` is how many instances the peer says there are, None where it does not say; `listed` is how many it lists,
    `depth` how far it does that, None where it was not asked. `inner` are the studies and series below of which it says
    more than it lists.
    """

    patient_id: str | None = None
    study: str | None = None
    series: str | None = None
    images: tuple[str, ...] = field(default=())
    count: int | None = None
    listed: int = 0
    depth: str | None = None
    inner: tuple[Part, ...] = ()

    @property
    def bare(self) -> Target:
        """What it names, and nothing of what the peer told of it."""
        return replace(self, count=None, listed=0, depth=None, inner=())

    @property
    def part(self) -> Part:
        """The target as the rule of proof takes it, where it was listed."""
        return Part(self.study, self.series, self.count, self.listed, self.depth or Depth.UNKNOWN)

    def holds(self, study: str | None, series: str | None) -> bool:
        """Whether an instance of this study and series is part of it, as far as these tell."""
        return self.study in (None, study) and self.series in (None, series)

    @property
    def level(self) -> Level:
        """The level at which all of it is asked for."""
        if self.images:
            return Level.IMAGE
        if self.series:
            return Level.SERIES
        return Level.STUDY if self.study else Level.PATIENT

    def keys(self, root: str) -> tuple[Key, ...]:
        """The unique keys of a retrieve: the level's own and those above it (PS3.4 C.4.2.1.4.1), of this root."""
        values = {
            Level.PATIENT: self.patient_id,
            Level.STUDY: self.study,
            Level.SERIES: self.series,
            Level.IMAGE: "\\".join(self.images),
        }
        return tuple((f"{UNIQUE[level]:08X}", value) for level in query.levels(root) if (value := values[level]))

    def to_json(self) -> list[Any]:
        """A list that `from_json` reads."""
        inner = [[one.study, one.series, one.said, one.listed] for one in self.inner]
        told = [] if self.depth is None else [self.listed, str(self.depth), inner]
        return [self.patient_id, self.study, self.series, list(self.images), self.count, *told]


def from_json(values: Sequence[Any]) -> Target:
    """The target that `to_json` wrote."""
    patient_id, study, series, images, count, *told = values
    found = Target(patient_id=patient_id, study=study, series=series, images=tuple(images), count=count)
    if told:
        listed, depth, inner = told
        found = replace(found, listed=listed, depth=depth, inner=tuple(Part(*one) for one in inner))
    return found


def says_more(root: str, level: str, keys: Iterable[Key]) -> bool:
    """Whether the keys say something that no retrieve can: in Study Root, whose the study is."""
    return (
        query.Root(root) is query.Root.STUDY
        and Level(level) is not Level.PATIENT
        and bool(query.value_of(keys, UNIQUE[Level.PATIENT]))
    )


def from_keys(level: str, keys: Iterable[Key]) -> list[Target] | None:
    """The targets of an identifier that names them by unique keys alone; None where a query has to resolve it.

    Values may be lists at the asked level, each entry of which is a target of its own, but for images, which stay
    together.
    """
    keys = tuple(keys)
    asked = Level(level)
    found = {one: query.value_of(keys, UNIQUE[one]) or None for one in Level}
    unique = {f"{tag:08X}" for tag in UNIQUE.values()}
    if any(value and path not in unique for path, value in keys):
        return None
    own = found[asked]
    if not own or any(char in own for char in "*?"):
        return None
    ordered = list(Level)
    below, above = ordered[ordered.index(asked) + 1 :], ordered[: ordered.index(asked)]
    if any(found[one] for one in below):
        return None
    needed = [one for one in above if one is not Level.PATIENT]
    if any(not query.is_single(found[one]) for one in needed):
        return None
    patient_id = found[Level.PATIENT] if query.is_single(found[Level.PATIENT]) else None
    if asked is not Level.PATIENT and found[Level.PATIENT] and patient_id is None:
        return None
    whole = Target(patient_id=patient_id, study=found[Level.STUDY], series=found[Level.SERIES])
    values = tuple(dict.fromkeys(value for value in own.split("\\") if value))
    if asked is Level.IMAGE:
        return [replace(whole, images=values)]
    if asked is Level.SERIES:
        return [replace(whole, series=value) for value in values]
    if asked is Level.STUDY:
        return [replace(whole, study=value) for value in values]
    return [Target(patient_id=value) for value in values]

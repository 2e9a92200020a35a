"""What a retrieve asks for next, given what is missing: whole studies first, then series, lists of images, single ones.

Pure. A request names one level and the single-valued unique keys above it; a list of images stays within one series
(PS3.4 C.4.2.1.4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.query import Level
from dicomferry.models.rules.target import Target

WHOLE, LISTS, SINGLY = range(3)
"""How fine the requests of a round are."""

Series = tuple[str | None, str | None]


@dataclass(frozen=True)
class Missing:
    """An instance that is expected and not here; `charges` as on its item, `sop_class` None where it was not listed."""

    item_id: int
    study: str | None
    series: str | None
    uid: str
    charges: int = 0
    sop_class: str | None = None

    @property
    def key(self) -> tuple[str | None, str | None, str]:
        """What tells it from all others: one UID may be listed in two series."""
        return self.study, self.series, self.uid


@dataclass(frozen=True)
class Ask:
    """One request, and the items that it is to bring; none where the peer did not list them."""

    target: Target
    items: tuple[int, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether it asks for one instance, so that what goes wrong is that one's fault."""
        return len(self.target.images) == 1


@dataclass(frozen=True)
class Capabilities:
    """What a peer can do as far as is known: retrieve at IMAGE level, take lists of UIDs, retrieve at SERIES level."""

    images: bool = True
    lists: bool = True
    series: bool = True

    def after(self, refused: Target) -> Capabilities | None:
        """What it can do once it has refused this request as such; None when there is nothing else to try."""
        return self.without(refused.level, len(refused.images))

    def without(self, level: Level, images: int) -> Capabilities | None:
        """What it can do once it has refused requests of this level for so many images; None where nothing is left to
        try.
        """
        if images > 1 and self.lists:
            return replace(self, lists=False)
        if level is Level.IMAGE and self.images:
            return replace(self, images=False)
        if level is Level.SERIES and self.series:
            return replace(self, series=False)
        return None


def asks(
    targets: Sequence[Target],
    missing: Sequence[Missing],
    totals: Mapping[Series, int],
    *,
    fineness: int,
    max_uids: int,
    limits: Capabilities,
) -> list[Ask]:
    """The requests that bring what is missing; `totals` are the expected instances of each (study, series).

    Those that were in flight when an association broke are asked for last.
    """
    wholes = {target.study for target in targets if target.level in (Level.PATIENT, Level.STUDY)}
    patients = {target.study: target.patient_id for target in targets}
    parts = {(target.study, target.series) for target in targets if target.images}
    everybody = targets[0].patient_id if targets else None
    by_study: dict[str | None, dict[str | None, list[Missing]]] = {}
    for one in sorted(missing, key=lambda one: one.charges):
        by_study.setdefault(one.study, {}).setdefault(one.series, []).append(one)
    found: list[Ask] = []
    for study, of_series in by_study.items():
        base = Target(patient_id=patients.get(study, everybody), study=study)
        gone = sum(map(len, of_series.values()))
        expected = sum(number for (own, _), number in totals.items() if own == study)
        # Nothing of a patient's study is outside of what was asked for, so of those none is named.
        may_be_whole = study in wholes or (study is not None and None in wholes)
        whole = fineness == WHOLE and gone == expected
        if may_be_whole and (whole or not _finer(limits, of_series)):
            found.append(Ask(base, _items(of_series.values())))
            continue
        for series, wanted in of_series.items():
            all_of_it = (
                fineness == WHOLE and len(wanted) == totals.get((study, series)) and (study, series) not in parts
            )
            found += _of_series(replace(base, series=series), wanted, all_of_it, fineness, max_uids, limits)
    return found


def _finer(limits: Capabilities, of_series: Iterable[str | None]) -> bool:
    """Whether less than the study can be asked for."""
    return all(series is not None for series in of_series) and (limits.images or limits.series)


def _of_series(
    base: Target,
    wanted: Sequence[Missing],
    all_of_it: bool,
    fineness: int,
    max_uids: int,
    limits: Capabilities,
) -> list[Ask]:
    if (all_of_it and limits.series) or not limits.images:
        return [Ask(base, _items([wanted]))]
    size = max_uids if fineness < SINGLY and limits.lists else 1
    # One that broke an association is asked for alone.
    suspects = [one for one in wanted if one.charges]
    others = [one for one in wanted if not one.charges]
    parts = [*batches(others, size)] + [[one] for one in suspects]
    return [Ask(replace(base, images=tuple(one.uid for one in part)), _items([part])) for part in parts]


def _items(parts: Iterable[Iterable[Missing]]) -> tuple[int, ...]:
    return tuple(one.item_id for part in parts for one in part)


def blind(targets: Sequence[Target], *, fineness: int, max_uids: int, limits: Capabilities) -> list[Ask]:
    """The requests where the peer lists no images: each target as it is, long lists of UIDs cut."""
    found: list[Ask] = []
    for target in targets:
        if not target.images:
            found.append(Ask(target.bare))
            continue
        size = max_uids if fineness < SINGLY and limits.lists else 1
        for batch in batches(target.images, size):
            found.append(Ask(replace(target.bare, images=tuple(batch))))
    return found

"""Which requests of a retrieve are asked for together: those for single images, which share associations and, within
one series, lists of UIDs (PS3.4 C.4.2.2.1). Pure.

Each stays a request of its own: it has its row, its proof and its end. Only what is asked on the wire is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dicomferry.models.rules import peer_text, target
from dicomferry.models.rules.query import Level
from dicomferry.models.rules.spec import Identifier, MoveSpec, Retrieve
from dicomferry.models.rules.target import Target

MOST = 100
"""Images that are asked for together at most: little is lost with a chunk, and several moves share a long list."""

_Place = tuple[str | None, str | None, str]
"""Study, series and SOP Instance UID."""


def target_of(one: Identifier, spec: Retrieve) -> Target | None:
    """The images that a request names by unique keys alone, None where it has to be looked up, or names anything else.

    What goes elsewhere is asked for by itself: there an answer's numbers are all that tells what was sent.
    """
    if spec.level != Level.IMAGE or (isinstance(spec, MoveSpec) and spec.destination is not None):
        return None
    _, keys = one
    if target.says_more(spec.root, spec.level, keys):
        return None
    found = target.from_keys(spec.level, keys)
    if found is None or len(found) != 1:
        return None
    return found[0] if all(map(_is_kept_whole, _uids(found[0]))) else None


def _uids(one: Target) -> list[str]:
    return [uid for uid in (one.study, one.series, *one.images) if uid]


def _is_kept_whole(uid: str) -> bool:
    """Whether a row has it as it is: only then is what comes told apart by it."""
    return peer_text.uid(uid) == uid


def chunks(identifiers: Sequence[Identifier], spec: Retrieve, most: int = MOST) -> list[list[Identifier]]:
    """The requests, those that are asked for together in one list, images of one series beside each other."""
    alone: list[tuple[int, list[Identifier]]] = []
    by_series: dict[tuple[str | None, str | None], list[tuple[int, Identifier, int]]] = {}
    seen: set[_Place] = set()
    patients: dict[str | None, str | None] = {}
    for place, one in enumerate(identifiers):
        found = target_of(one, spec)
        places = _places(found) if found else set()
        if (
            found is None
            or len(found.images) > most
            # What two requests name is expected once, and decided where the first of them is.
            or not seen.isdisjoint(places)
            or patients.setdefault(found.study, found.patient_id) != found.patient_id
        ):
            alone.append((place, [one]))
            continue
        seen |= places
        by_series.setdefault((found.study, found.series), []).append((place, one, len(found.images)))
    packed = _packed((entry for entries in by_series.values() for entry in entries), most)
    return [requests for _, requests in sorted([*alone, *packed], key=lambda entry: entry[0])]


def _places(found: Target) -> set[_Place]:
    return {(found.study, found.series, uid) for uid in found.images}


def _packed(entries: Iterable[tuple[int, Identifier, int]], most: int) -> list[tuple[int, list[Identifier]]]:
    """Runs of requests with `most` images together, each with the place of its first."""
    packed: list[tuple[int, list[Identifier]]] = []
    room = 0
    for place, one, images in entries:
        if images > room:
            packed.append((place, []))
            room = most
        packed[-1][1].append(one)
        room -= images
    return packed


def merged(targets: Iterable[Target]) -> tuple[Target, ...]:
    """The images of these targets, one target a series, with what the archive told of all of them together."""
    found: dict[tuple[str | None, str | None, str | None], Target] = {}
    for one in targets:
        key = one.patient_id, one.study, one.series
        known = found.get(key)
        found[key] = one if known is None else _both(known, one)
    return tuple(found.values())


def _both(one: Target, other: Target) -> Target:
    images = tuple(dict.fromkeys((*one.images, *other.images)))
    count = None if one.count is None or other.count is None else one.count + other.count
    return replace(one, images=images, count=count, listed=one.listed + other.listed)

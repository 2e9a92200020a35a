"""Whether an answer to a query has what was asked for (PS3.4 C.2.2.2), in three outcomes. Pure.

Archives answer with more than what matches: some do not match on every key, and do not say so. An answer carries the
values of the keys that it was asked for, so they are compared. What cannot be told for certain is undecided.

Values of answers are those of the DICOM JSON model (PS3.18 F.2). An asked value is text as it stands in a key, several
joined by a backslash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from dicomferry.models.rules import moments, query
from dicomferry.models.rules.folding import is_name_part, loose, name_folded
from dicomferry.models.rules.moments import Span
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.wildcards import fits, is_wild


class Comparison(StrEnum):
    """What a comparison came to."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    UNDECIDED = "undecided"


AGREES, CONTRADICTS, UNDECIDED = Comparison

EMPTY = '""'
"""A key of this value asks for entities without a value (PS3.4 C.2.2.2.7)."""
TIMEZONE_OFFSET = 0x00080201
"""Where it stands in an answer, that answer's dates and times are in a zone of their own (PS3.3 C.12.1.1.8)."""
_ZONE = f"{TIMEZONE_OFFSET:08X}"
_MOST_KNOWN, _MOST_KNOWN_LENGTH = 1024, 128
"""Values of answers that are remembered of a key, at most, and how long they may be, in characters."""
_COMBINED: Mapping[str, str] = {
    f"{one:08X}": f"{date:08X}"
    for one, date in (
        (0x00080030, 0x00080020),
        (0x00080031, 0x00080021),
        (0x00080032, 0x00080022),
        (0x00080033, 0x00080023),
        (0x00400003, 0x00400002),
        (0x00400245, 0x00400244),
    )
}
"""Times by the date that some archives match together with them (PS3.4 C.2.2.2.5): the time's path, the date's."""
_NUMBERS = frozenset(("IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"))
_TIMES = frozenset(("DA", "TM", "DT"))
WHOLE = frozenset(("LT", "ST", "UT", "UR"))
"""Text in which a backslash is a backslash, so that there is one value (PS3.5 6.2)."""
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW"))
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(frozen=True)
class Judged:
    """One key held against an answer. `wants_value`: undecided because the answer gives no value to compare."""

    path: str
    outcome: Comparison
    wants_value: bool = False


def outcome(
    vr: str, asked: str, answered: Sequence[Any] | None, *, readable: bool = True, zoned: bool = False
) -> Comparison:
    """Whether the values of an element agree with what was asked of it; None where the answer does not have it.

    Of several values one that agrees is enough. `readable` is False where its text could not be decoded for certain,
    `zoned` tells that (0008,0201) stands in the answer.
    """
    if is_universal(asked):
        return AGREES
    values = [one for one in answered or () if not _is_empty(one)]
    if asked == EMPTY:
        return UNDECIDED if answered is None else CONTRADICTS if values else AGREES
    if not values:
        return UNDECIDED
    wanted = _wanted(vr, asked)
    if not wanted:
        return AGREES
    found: set[Comparison] = set()
    for value in values:
        found |= _compared(vr, asked, value) if isinstance(value, str) else {compare(value) for compare in wanted}
    if AGREES in found:
        return AGREES
    if UNDECIDED in found or not readable or (zoned and vr in _TIMES):
        return UNDECIDED
    return CONTRADICTS


class PreparedKeys:
    """The keys of one query that ask for a value, made ready for being held against many answers; for one thread.

    `vr_of` tells the VR of a tag.
    """

    def __init__(self, keys: Iterable[Key], vr_of: Callable[[int], str]) -> None:
        asked = [(path, value) for path, value in keys if value and not is_universal(value)]
        self._plain = [_PlainKey(path, value, vr_of, asked) for path, value in asked if "." not in path]
        items: dict[str, list[Key]] = {}
        for path, value in asked:
            head, dot, rest = path.partition(".")
            if dot:
                items.setdefault(head, []).append((rest, value))
        self._items = [(head, inner[0][0], PreparedKeys(inner, vr_of)) for head, inner in items.items()]

    def judge(self, attributes: Mapping[str, Any], *, unreadable: frozenset[int] = frozenset()) -> list[Judged]:
        """Each of them, held against an answer. `unreadable` are the tags whose text is not certain."""
        zoned = _ZONE in attributes
        found = [key.judge(attributes.get(key.path), zoned, unreadable) for key in self._plain]
        for head, first, inner in self._items:
            found.append(_judge_sequence(head, first, inner, attributes, unreadable))
        return found


def together(outcomes: Iterable[Comparison]) -> Comparison:
    """What the keys of one answer come to: one that contradicts decides, else one that is undecided."""
    found = set(outcomes)
    return CONTRADICTS if CONTRADICTS in found else UNDECIDED if UNDECIDED in found else AGREES


def is_universal(asked: str) -> bool:
    """Whether a value asks for nothing: no value, or any (PS3.4 C.2.2.2.3)."""
    return not asked.strip("*")


def _texts(values: Sequence[Any] | None) -> str | tuple[str, ...] | None:
    """Values that are all text, so that what they came to may be kept; one stands for itself."""
    if not values:
        return None
    if len(values) == 1:
        return values[0] if isinstance(values[0], str) else None
    return tuple(values) if all(isinstance(one, str) for one in values) else None


class _PlainKey:
    """One key outside of sequences. Answers repeat their days and modalities, so what these came to is kept."""

    def __init__(self, path: str, asked: str, vr_of: Callable[[int], str], keys: Sequence[Key]) -> None:
        self.path = path
        self._tag = int(path, 16)
        self._vr = vr_of(self._tag)
        self._asked = asked
        self._is_combined = path in _COMBINED and _may_be_combined(
            asked, query.value_of(keys, int(_COMBINED[path], 16))
        )
        self._is_time = self._vr in _TIMES
        self._remembers = self._vr != "UN" and self._vr != "PN" and self._vr not in _NUMBERS
        self._known: dict[str | tuple[str, ...] | None, Judged] = {}

    def judge(self, element: Mapping[str, Any] | None, zoned: bool, unreadable: frozenset[int]) -> Judged:
        """Held against an element of an answer, None where it is not there."""
        if element is None or not self._remembers or (zoned and self._is_time) or self._tag in unreadable:
            return self._judge(element, zoned, unreadable)
        value = _texts(element.get("Value"))
        known = self._known.get(value)
        if known is None:
            known = self._judge(element, zoned, unreadable)
            if value and sum(map(len, value)) <= _MOST_KNOWN_LENGTH:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[value] = known
        return known

    def _judge(self, element: Mapping[str, Any] | None, zoned: bool, unreadable: frozenset[int]) -> Judged:
        vr = self._vr
        if vr == "UN" and element:
            vr = str(element.get("vr", vr))
        if element and "InlineBinary" in element:
            return Judged(self.path, UNDECIDED)
        values = None if element is None else element.get("Value", ())
        found = outcome(vr, self._asked, values, readable=self._tag not in unreadable, zoned=zoned)
        if found is CONTRADICTS and self._is_combined:
            found = UNDECIDED
        empty = not any(not _is_empty(one) for one in values or ())
        return Judged(self.path, found, wants_value=found is UNDECIDED and empty)


def _may_be_combined(times: str, dates: str | None) -> bool:
    """Whether a range of times says something else to an archive that takes both ranges for one of date-times."""
    if not dates or "-" not in times:
        return False
    span = moments.asked("DA", dates)
    return span is not None and not span.is_one_day


def _judge_sequence(
    head: str, first: str, inner: PreparedKeys, attributes: Mapping[str, Any], unreadable: frozenset[int]
) -> Judged:
    """Sequence matching (PS3.4 C.2.2.2.6): one item of the answer that agrees with all keys of an asked item.

    `head` is the item's path and `first` that of its first key.
    """
    element = attributes.get(head[:8]) or {}
    # A timezone of the answer as a whole holds for its items.
    zone = {tag: one for tag, one in attributes.items() if tag == _ZONE}
    answered = [one for one in element.get("Value", ()) if isinstance(one, Mapping) and one]
    judged = [inner.judge({**zone, **one}, unreadable=unreadable) for one in answered]
    if not judged:
        return Judged(f"{head}.{first}", UNDECIDED, wants_value=True)
    best = min(judged, key=lambda one: _RANK[together(key.outcome for key in one)])
    result = together(key.outcome for key in best)
    culprits = [key for key in best if key.outcome is result]
    wants = result is UNDECIDED and all(key.wants_value for key in culprits)
    return Judged(f"{head}.{culprits[0].path}", result, wants_value=wants)


_RANK: Mapping[Comparison, int] = {AGREES: 0, UNDECIDED: 1, CONTRADICTS: 2}


# --- one value against one --------------------------------------------------------------------------------------------

_Compare = Callable[[Any], Comparison]


@lru_cache(maxsize=1024)
def _wanted(vr: str, asked: str) -> tuple[_Compare, ...]:
    """What each of the asked values is compared by."""
    parts = [asked] if vr in WHOLE else asked.split("\\")
    return tuple(_comparison(vr, part.strip(" \0")) for part in parts if part.strip(" \0"))


def _compared(vr: str, asked: str, value: str) -> set[Comparison]:
    """What a value came to, by each of the asked ones."""
    if vr == "UI" and not is_wild(asked):
        uids, lax = _uids(asked)
        text = value.strip(" \0")
        return {AGREES if text in uids else UNDECIDED if loose(text) in lax else CONTRADICTS}
    return {compare(value) for compare in _wanted(vr, asked)}


@lru_cache(maxsize=64)
def _uids(asked: str) -> tuple[frozenset[str], frozenset[str]]:
    """The values of a list of UIDs, of which there may be hundreds, as they stand and as `loose` has them."""
    uids = frozenset(part.strip(" \0") for part in asked.split("\\"))
    return uids, frozenset(map(loose, uids))


def _comparison(vr: str, asked: str) -> _Compare:
    if is_universal(asked):
        return lambda _: AGREES
    if vr == "PN":
        return _name_comparison(asked)
    if vr in _TIMES and not is_wild(asked):
        span = moments.asked(vr, asked)
        return _undecided if span is None else lambda value: _by_span(vr, span, value)
    if vr in _NUMBERS and (number := _number(asked)) is not None:
        return lambda value: _by_number(number, value)
    if vr == "AT":
        return lambda value: _by_text(_digits(asked), _digits(str(value)))
    if vr in _BINARY:
        return _undecided
    if is_wild(asked):
        lax = loose(asked)
        return lambda value: _by_pattern(asked, lax, str(value))
    return lambda value: _by_text(asked, str(value))


def _digits(text: str) -> str:
    """A tag as the DICOM JSON model has it."""
    return "".join(char for char in text.upper() if char.isalnum())


def _undecided(_: Any) -> Comparison:
    return UNDECIDED


def _by_text(asked: str, value: str) -> Comparison:
    value = value.strip(" \0")
    if value == asked:
        return AGREES
    return UNDECIDED if loose(value) == loose(asked) else CONTRADICTS


def _by_pattern(asked: str, lax: str, value: str) -> Comparison:
    if fits(asked, value.strip(" \0")):
        return AGREES
    return UNDECIDED if fits(lax, loose(value)) else CONTRADICTS


def _by_number(asked: float, value: Any) -> Comparison:
    number = _number(value)
    if number is None:
        return UNDECIDED
    return AGREES if number == asked else CONTRADICTS


def _by_span(vr: str, asked: Span, value: Any) -> Comparison:
    """An asked day, time or range against a value, which covers as much time as it leaves open."""
    held = moments.told(vr, str(value))
    if held is None:
        return UNDECIDED
    return {"within": AGREES, "apart": CONTRADICTS, "unsure": UNDECIDED}[asked.holds(held)]


def _name_comparison(asked: str) -> _Compare:
    """A person's name: any of its component groups, case and accents folded (PS3.5 6.2.1, PS3.4 C.2.2.2.1)."""
    wanted = [group for group in (name_folded(one) for one in asked.split("=")) if group]

    def compare(value: Any) -> Comparison:
        groups = [name_folded(group) for group in _groups(value)]
        found = {_by_name(one, group) for one in wanted for group in groups if group}
        return AGREES if AGREES in found else CONTRADICTS if found == {CONTRADICTS} else UNDECIDED

    return compare


def _by_name(asked: str, group: str) -> Comparison:
    if is_wild(asked):
        # Components that are empty may be left out at the end.
        return AGREES if fits(asked, group) or fits(asked, f"{group}^") else CONTRADICTS
    if asked == group:
        return AGREES
    return UNDECIDED if is_name_part(asked, group) else CONTRADICTS


def _groups(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(value[name]) for name in _GROUPS if value.get(name)]
    return str(value).split("=")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number else None


def _is_empty(value: Any) -> bool:
    if value is None or (isinstance(value, Mapping) and not value):
        return True
    return isinstance(value, str) and not value.strip(" \0")

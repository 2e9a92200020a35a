"""Query/Retrieve as values: levels and roots (PS3.4 C.6), the grammar of keys, and which key belongs to which level.

A key is (path, value). A path names an element as `0020000D`, one inside a sequence as `00400100[0].00080060`; it is
what all spellings of a key on the command line become. An empty value asks for the element to be returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Protocol

from dicomferry.models.rules import moments
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.uid import is_numeric

Key = tuple[str, str]


class Level(StrEnum):
    """Query/Retrieve level, the highest first; in an identifier its name stands in capitals."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    IMAGE = "image"


class Root(StrEnum):
    """Patient Root or Study Root (PS3.4 C.6.1, C.6.2)."""

    PATIENT = "patient"
    STUDY = "study"


CHARACTER_SET = 0x00080005
SOP_CLASS_UID = 0x00080016
LEVEL = 0x00080052
INSTANCE_AVAILABILITY = 0x00080056
MODALITY = 0x00080060
MODALITIES_IN_STUDY = 0x00080061
SOP_CLASSES_IN_STUDY = 0x00080062
STUDY_DATE = 0x00080020
STUDY_TIME = 0x00080030
RELATED_INSTANCES: Mapping[Level, int] = {
    Level.PATIENT: 0x00201204,
    Level.STUDY: 0x00201208,
    Level.SERIES: 0x00201209,
}
"""NumberOfPatientRelatedInstances and so on."""

UNIQUE: Mapping[Level, int] = {
    Level.PATIENT: 0x00100020,
    Level.STUDY: 0x0020000D,
    Level.SERIES: 0x0020000E,
    Level.IMAGE: 0x00080018,
}
"""The unique key of each level: PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID."""

WORKLIST_MODEL = "1.2.840.10008.5.1.4.31"
_MODELS: Mapping[Root, str] = {Root.PATIENT: "1.2.840.10008.5.1.4.1.2.1", Root.STUDY: "1.2.840.10008.5.1.4.1.2.2"}

# Which attribute is an attribute of what (PS3.4 C.6.1.1.2 to C.6.1.1.5 and PS3.3 A.1.2). What is in none of these
# goes with the level that is asked for.
_OF_LEVEL: Mapping[Level, frozenset[int]] = {
    Level.PATIENT: frozenset(
        (0x00100010, 0x00100020, 0x00100021, 0x00100022, 0x00100024, 0x00100030, 0x00100032, 0x00100040, 0x00101000,
         0x00101001, 0x00101002, 0x00102160, 0x00104000, 0x00201200, 0x00201202, 0x00201204)
    ),
    Level.STUDY: frozenset(
        (0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080061, 0x00080062, 0x00080090, 0x00081030, 0x00081032,
         0x00081048, 0x00081060, 0x00081080, 0x00081110, 0x00101010, 0x00101020, 0x00101030, 0x00102180, 0x001021B0,
         0x0020000D, 0x00200010, 0x00201206, 0x00201208, 0x00321032, 0x00321060)
    ),
    Level.SERIES: frozenset(
        (0x00080021, 0x00080031, 0x00080060, 0x0008103E, 0x00081050, 0x00081070, 0x00081111, 0x00180015, 0x00181030,
         0x00185100, 0x0020000E, 0x00200011, 0x00200060, 0x00201209, 0x00400244, 0x00400245, 0x00400253, 0x00400254,
         0x00400275)
    ),
}  # fmt: skip


class Dictionary(Protocol):
    """The data dictionary (PS3.6), which is not ours to hold."""

    def tag(self, keyword: str) -> int:
        """The tag of a keyword; raises UsageError with the nearest one for a keyword that is not there."""

    def vr(self, tag: int) -> str:
        """The value representation of a tag, UN for one that is not there."""


def find_model(root: Root | str, *, worklist: bool = False) -> str:
    """The SOP class of a C-FIND."""
    return WORKLIST_MODEL if worklist else f"{_MODELS[Root(root)]}.1"


def move_model(root: Root | str) -> str:
    """The SOP class of a C-MOVE."""
    return f"{_MODELS[Root(root)]}.2"


def get_model(root: Root | str) -> str:
    """The SOP class of a C-GET."""
    return f"{_MODELS[Root(root)]}.3"


def levels(root: Root | str) -> tuple[Level, ...]:
    """The levels of a root, the highest first; in Study Root what is the patient's belongs to the study."""
    return tuple(Level) if Root(root) is Root.PATIENT else tuple(Level)[1:]


# --- paths ----------------------------------------------------------------------------------------------------------

_PART = re.compile(
    r"\((?P<g>[0-9A-Fa-f]{1,4}),\s*(?P<e>[0-9A-Fa-f]{1,4})\)|(?P<g2>[0-9A-Fa-f]{1,4}),(?P<e2>[0-9A-Fa-f]{1,4})"
    r"|(?P<tag>[0-9A-Fa-f]{8})(?![0-9A-Za-z])|(?P<word>[A-Za-z][A-Za-z0-9]*)"
)
_INDEX = re.compile(r"\[(\d{1,4})\]")
_NEVER = {0x0000, 0x0002, 0xFFFE}


def steps_of(path: str) -> list[tuple[int, int]]:
    """The (tag, item number) of each part of a path; the last one's number says nothing."""
    parts = (part.partition("[") for part in path.split("."))
    return [(int(tag, 16), int(number[:-1] or 0)) for tag, _, number in parts]


def parse_path(text: str, dictionary: Dictionary) -> str:
    """The path that was meant; raises UsageError.

    Parts are a keyword, `gggg,eeee` with or without brackets, or eight digits; between them `.` or `/`, and after each
    that is a sequence the number of the item, `[0]` if it is left out.
    """
    parts: list[str] = []
    position = 0
    while True:
        found = _PART.match(text, position)
        if not found:
            raise UsageError(_no_key(text))
        tag = _tag(found, dictionary)
        position = found.end()
        index = _INDEX.match(text, position)
        if index:
            position = index.end()
        if position == len(text):
            if index:
                raise UsageError(f"key {text!r}: an element of the item has to follow, such as {text}.Modality")
            return ".".join([*parts, f"{tag:08X}"])
        if text[position] not in "./":
            raise UsageError(_no_key(text))
        if dictionary.vr(tag) not in ("SQ", "UN"):
            raise UsageError(f"key {text!r}: {found[0]} is no sequence")
        parts.append(f"{tag:08X}[{int(index[1]) if index else 0}]")
        position += 1


def _tag(found: re.Match[str], dictionary: Dictionary) -> int:
    if found["word"]:
        return dictionary.tag(found["word"])
    if found["tag"]:
        tag = int(found["tag"], 16)
    else:
        tag = int(found["g"] or found["g2"], 16) << 16 | int(found["e"] or found["e2"], 16)
    if tag >> 16 in _NEVER or not tag & 0xFFFF:
        raise UsageError(f"key {found[0]}: no element of a query has this number")
    return tag


def _no_key(text: str) -> str:
    return f"{text!r} is no key: write PatientID=X, 0010,0020=X, or Sequence[0].Modality=X; without =X it is returned"


def parse_key(text: str, dictionary: Dictionary, *, today: date) -> Key:
    """A key as it stands on the command line; raises UsageError. Days such as `@today` are resolved in DA and DT, and
    blanks around a UID are left out.
    """
    name, _, value = text.partition("=")
    path = parse_path(name.strip(), dictionary)
    vr = dictionary.vr(steps_of(path)[-1][0])
    if any(not char.isprintable() for char in value):
        raise UsageError(f"key {name}: the value has a character that cannot be printed")
    if vr == "SQ" and value:
        raise UsageError(f"key {name} is a sequence: ask for an element in it, such as {name}[0].Modality={value}")
    if vr == "UI":
        return path, _uids(name.strip(), value)
    if vr in ("DA", "DT"):
        value = resolve_days(value, today)
    if value and vr in ("DA", "TM", "DT"):
        moments.check(name.strip(), vr, value)
    return path, value


_UID = re.compile(r"[0-9A-Za-z.*?-]+")
"""What the storage SCP takes for a UID, and wildcards, which some archives match."""


def _uids(name: str, value: str) -> str:
    """The UIDs of a list, without the blanks around each; raises UsageError for what is in no UID."""
    found = [uid.strip() for uid in value.split("\\")]
    for uid in found:
        if not _UID.fullmatch(uid) and value.strip():
            what = f"{uid!r} is no UID" if uid else f"there is an empty UID in {value!r}"
            raise UsageError(
                f"key {name}: {what}: it has digits and dots, and several are joined by a backslash; put it right, "
                "then submit again"
            )
    return "\\".join(found)


def odd_uids(keys: Iterable[Key]) -> list[str]:
    """The UIDs in unique keys that PS3.5 9.1 does not allow: letters, leading zeros, more than 64 characters.

    There are instances with such UIDs, so they are lawful to ask for; more often they are misspelt.
    """
    paths = {f"{tag:08X}" for level, tag in UNIQUE.items() if level is not Level.PATIENT}
    values = [uid for path, value in keys if path in paths for uid in value.split("\\")]
    return [uid for uid in values if uid and not any(char in uid for char in "*?") and not is_numeric(uid)]


_DAY = re.compile(r"@(today|yesterday)(?:([+-])(\d{1,5}))?")


def resolve_days(value: str, today: date) -> str:
    """`@today`, `@yesterday`, `@today-7`, `@today-7..@today-1`, `@today-7..`, `..@today` as PS3.5 writes days and
    ranges of them; what holds no `@` as it is. Raises UsageError.
    """
    if "@" not in value:
        return value
    first, between, last = value.partition("..")
    if not between:
        return _day(first, today)
    begin, end = (_day(text, today) if text else "" for text in (first, last))
    if begin and end and begin > end:
        raise UsageError(f"{value!r} ends before it begins")
    return f"{begin}-{end}"


def _day(text: str, today: date) -> str:
    found = _DAY.fullmatch(text)
    if not found:
        if re.fullmatch(r"\d{8}", text):
            return text
        raise UsageError(f"{text!r} is no day: write @today, @yesterday, @today-7, or a range as @today-7..@today-1")
    days = int(found[3] or 0) * (-1 if found[2] == "-" else 1) - (found[1] == "yesterday")
    try:
        return (today + timedelta(days=days)).strftime("%Y%m%d")
    except OverflowError:
        raise UsageError(f"{text!r} is beyond the calendar") from None


# --- keys and levels ------------------------------------------------------------------------------------------------


def value_of(keys: Iterable[Key], tag: int) -> str | None:
    """The value asked for of an element; None where it is no key."""
    path = f"{tag:08X}"
    return next((value for name, value in keys if name == path), None)


def is_single(value: str | None) -> bool:
    """Whether a unique key's value names exactly one: it is there, no wildcard and no list (PS3.4 C.2.2.2.1)."""
    return bool(value) and not any(char in str(value) for char in "*?\\")


def level_of(path: str, asked: Level, root: Root | str) -> Level:
    """The level whose query carries a key: its own where that is above the one asked for, else the one asked for."""
    tag = steps_of(path)[0][0]
    ordered = levels(root)
    for level in Level:
        if tag in _OF_LEVEL.get(level, ()):
            own = level if level in ordered else ordered[0]
            return own if ordered.index(own) < ordered.index(asked) else asked
    return asked


@dataclass(frozen=True)
class Step:
    """One query of a walk: its level and the keys that belong there, the level's unique key among them."""

    level: Level
    keys: tuple[Key, ...]


def check(level: str, root: str, keys: Sequence[Key], *, worklist: bool = False) -> None:
    """Raise UsageError for what makes no query: a level that the root does not have, a key twice, one that is ours."""
    if not worklist and Level(level) not in levels(root):
        raise UsageError(f"level {level} needs --root patient: Study Root begins with the study")
    paths = [path for path, _ in keys]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"key {path} is given twice")
        if path == f"{LEVEL:08X}":
            raise UsageError("QueryRetrieveLevel is what --level says")
        if path == f"{CHARACTER_SET:08X}":
            raise UsageError("SpecificCharacterSet is the remote's: `dicomferry remote set NAME --charset CS`")
        if any(other.startswith(f"{path}[") for other in paths):
            raise UsageError(f"key {path} is a whole sequence, and another key an element of it: one of both")


def steps(level: Level | str, root: Root | str, keys: Sequence[Key], *, whole: bool = False) -> list[Step]:
    """The queries that find what is asked for, the highest level first; the last one is the level's own.

    The hierarchical model (PS3.4 C.4.1.2.2.1) wants one value for the unique key of each level above, and no other key
    of those levels. So a level is walked unless all that is asked of it is one value of its unique key; that value goes
    along with all queries below (`above`). `whole` makes one relational query of everything.
    """
    asked = Level(level)
    if whole:
        return [Step(asked, _with_unique(asked, keys))]
    found: list[Step] = []
    ordered = levels(root)
    for upper in ordered[: ordered.index(asked)]:
        mine = tuple(key for key in keys if level_of(key[0], asked, root) is upper)
        others = [path for path, _ in mine if path != f"{UNIQUE[upper]:08X}"]
        # In Patient Root a study may be asked for without its patient: many archives take that, and whoever names a
        # study by its UID need not know the patient.
        known = is_single(value_of(keys, UNIQUE[upper])) or (upper is Level.PATIENT and _names_study(keys))
        if others or not known:
            found.append(Step(upper, _with_unique(upper, mine)))
    mine = tuple(key for key in keys if level_of(key[0], asked, root) is asked)
    found.append(Step(asked, _with_unique(asked, mine)))
    return found


def _names_study(keys: Sequence[Key]) -> bool:
    return value_of(keys, UNIQUE[Level.PATIENT]) is None and is_single(value_of(keys, UNIQUE[Level.STUDY]))


def _with_unique(level: Level, keys: Iterable[Key]) -> tuple[Key, ...]:
    found = tuple(keys)
    return found if value_of(found, UNIQUE[level]) is not None else (*found, (f"{UNIQUE[level]:08X}", ""))


def above(level: Level | str, root: Root | str, keys: Sequence[Key]) -> tuple[Key, ...]:
    """The single-valued unique keys above a level, as a retrieve and each query below them carry them."""
    ordered = levels(root)
    uppers = (
        (f"{UNIQUE[upper]:08X}", value_of(keys, UNIQUE[upper])) for upper in ordered[: ordered.index(Level(level))]
    )
    return tuple((path, value) for path, value in uppers if value is not None and is_single(value))

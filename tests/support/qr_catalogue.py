"""What a Query/Retrieve peer of the tests holds: instances on disk, and the queries that they match (PS3.4 C.2.2.2).

Matching and answers are pydicom's data sets and a few lines of our own: nothing of the code under test.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterable

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from support.samples import Sample

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
COUNTS = {
    "PATIENT": "NumberOfPatientRelatedInstances",
    "STUDY": "NumberOfStudyRelatedInstances",
    "SERIES": "NumberOfSeriesRelatedInstances",
}
_NO_KEYS = ("QueryRetrieveLevel", "SpecificCharacterSet")


class Unlawful(AssertionError):
    """An identifier that breaks the rules of the hierarchical model."""


def values_of(identifier: Dataset, keyword: str) -> list[str]:
    """The values of a key as text; none for an empty or absent one."""
    if keyword not in identifier:
        return []
    value = identifier[keyword].value
    found = [value] if isinstance(value, str) or value is None else list(value)
    return [str(one) for one in found if one not in (None, "")]


class Catalogue:
    """Instances, which may come and go while the peer runs."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Sample, Dataset]] = {}
        self.add(samples)

    def add(self, samples: Iterable[Sample]) -> None:
        """From now on these are there as well."""
        for sample in samples:
            with self._lock:
                self._held[str(sample.path)] = (sample, dcmread(sample.path, stop_before_pixels=True))

    def remove(self, uid: str) -> None:
        """From now on this instance is not there."""
        with self._lock:
            self._held = {key: one for key, one in self._held.items() if one[0].sop_instance_uid != uid}

    @property
    def samples(self) -> list[Sample]:
        """Everything, in the order in which it came."""
        with self._lock:
            return [sample for sample, _ in self._held.values()]

    @property
    def described(self) -> list[Dataset]:
        """Their data sets, without pixels."""
        with self._lock:
            return [held for _, held in self._held.values()]

    @property
    def uids(self) -> set[str]:
        return {sample.sop_instance_uid for sample in self.samples}

    def find(self, identifier: Dataset, levels: tuple[str, ...]) -> list[Dataset]:
        """The answers to a query; raises Unlawful where the keys above the level are not single values."""
        level = str(identifier.QueryRetrieveLevel)
        if level not in levels:
            raise Unlawful(f"level {level} in this root")
        # PS3.4 C.4.1.2.2.1; a study may be asked for without its patient, as many archives let it be.
        for upper in levels[: levels.index(level)]:
            if upper != "PATIENT" and len(values_of(identifier, UNIQUE[upper])) != 1:
                raise Unlawful(f"{level} query without one {UNIQUE[upper]}")
        # One UID in two series is two instances.
        named = [UNIQUE[one] for one in levels[: levels.index(level) + 1] if one != "PATIENT" or level == "PATIENT"]
        groups: dict[tuple[str, ...], list[Dataset]] = {}
        with self._lock:
            for _, held in self._held.values():
                groups.setdefault(tuple(str(held[one].value) for one in named), []).append(held)
        described = [_described(level, members) for members in groups.values()]
        keys = [element for element in identifier if element.keyword not in _NO_KEYS]
        return [
            _answer(level, identifier, candidate)
            for candidate in described
            if all(_matches(key, candidate) for key in keys)
        ]

    def select(self, identifier: Dataset, levels: tuple[str, ...]) -> list[Sample]:
        """What a retrieve names; raises Unlawful for keys that no retrieve may have (PS3.4 C.4.2.2.1)."""
        level = str(identifier.QueryRetrieveLevel)
        wanted = levels[: levels.index(level) + 1]
        allowed = {"QueryRetrieveLevel", *(UNIQUE[one] for one in wanted)}
        if identifier.get("PatientID") and not str(identifier.PatientID).isascii():
            allowed.add("SpecificCharacterSet")
        more = {element.keyword for element in identifier} - allowed
        if more:
            raise Unlawful(f"a retrieve at {level} with {sorted(more)}")
        if not values_of(identifier, UNIQUE[level]):
            raise Unlawful(f"a retrieve at {level} without its unique key")
        for one in wanted:
            if one not in (level, "PATIENT") and len(values_of(identifier, UNIQUE[one])) != 1:
                raise Unlawful(f"a retrieve at {level} without one {UNIQUE[one]}")
        if level == "STUDY" and len(values_of(identifier, UNIQUE[level])) != 1:
            raise Unlawful("more than one study in a retrieve")
        with self._lock:
            return [
                sample
                for sample, held in self._held.values()
                if all(
                    str(held[UNIQUE[one]].value) in values_of(identifier, UNIQUE[one])
                    for one in wanted
                    if values_of(identifier, UNIQUE[one])
                )
            ]


def _described(level: str, members: list[Dataset]) -> Dataset:
    """One match: the first member's attributes, and what is counted over all of them."""
    first = members[0]
    found = Dataset()
    found.update({element.tag: element for element in first if element.VR != "SQ"})
    if level in COUNTS:
        setattr(found, COUNTS[level], len(members))
    if level == "STUDY":
        found.ModalitiesInStudy = sorted({str(member.Modality) for member in members})
        found.SOPClassesInStudy = sorted({str(member.SOPClassUID) for member in members})
        found.NumberOfStudyRelatedSeries = len({str(member.SeriesInstanceUID) for member in members})
    found.InstanceAvailability = "ONLINE"
    return found


def _answer(level: str, identifier: Dataset, candidate: Dataset) -> Dataset:
    """The keys that were asked for, empty where there is nothing to say."""
    answer = Dataset()
    if "SpecificCharacterSet" in candidate:
        answer.SpecificCharacterSet = candidate.SpecificCharacterSet
    answer.QueryRetrieveLevel = level
    for element in identifier:
        if element.keyword in _NO_KEYS:
            continue
        if element.tag in candidate:
            answer[element.tag] = candidate[element.tag]
        else:
            answer.add_new(element.tag, element.VR, None)
    return answer


def _matches(key: DataElement, candidate: Dataset) -> bool:
    if key.VR == "SQ" or key.value in (None, "") or key.keyword in (*COUNTS.values(), "InstanceAvailability"):
        return True
    wanted = [str(key.value)] if isinstance(key.value, str) else [str(one) for one in _listed(key.value)]
    held = values_of(candidate, key.keyword)
    if key.VR in ("DA", "TM") and "-" in wanted[0]:
        first, _, last = wanted[0].partition("-")
        return any((not first or first <= one) and (not last or one <= last) for one in held)
    if key.VR == "UI":
        return bool(set(wanted) & set(held))
    return any(fnmatch.fnmatchcase(one, pattern) for one in held for pattern in wanted)


def _listed(value: object) -> list[object]:
    try:
        return list(value)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        return [value]

"""What an archive of the tests is filled with: six studies of three patients, mixed modalities and encodings."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, RLELossless

from support import samples
from support.samples import Sample

ACCESSIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""The accession number of each study; spreadsheets like to make 1, 2, 3 of them."""


def six(folder: Path, scale: int = 1, *, name: str = "six", compressed: bool = True) -> list[Sample]:
    """950 instances (divided by `scale`) in six studies; without `compressed` the same in plain encodings."""
    lossless, rle = (JPEGLosslessSV1, RLELossless) if compressed else (ExplicitVRLittleEndian,) * 2
    return [
        *_series(folder, name, 1, "MR", 1, 100 // scale),
        *_series(folder, name, 1, "MR", 2, 100 // scale),
        *_series(folder, name, 2, "CT", 1, 200 // scale),
        *_series(folder, name, 3, "MR", 1, 50 // scale, ImplicitVRLittleEndian),
        *_series(folder, name, 3, "MR", 2, 50 // scale, ImplicitVRLittleEndian),
        *_series(folder, name, 3, "MR", 3, 50 // scale),
        *_series(folder, name, 4, "CT", 1, 100 // scale),
        *_series(folder, name, 5, "MR", 1, 150 // scale, lossless),
        *_series(folder, name, 6, "CT", 1, 60 // scale),
        *_series(folder, name, 6, "MR", 2, 60 // scale),
        *_series(folder, name, 6, "MR", 3, 30 // scale, rle),
    ]


def of_study(made: list[Sample]) -> dict[str, list[Sample]]:
    """Study Instance UID -> its instances, in the order of the studies."""
    found: dict[str, list[Sample]] = {}
    for sample in made:
        found.setdefault(sample.study_instance_uid, []).append(sample)
    return found


def of_series(made: list[Sample]) -> dict[tuple[str, str], list[Sample]]:
    """(study, series) -> its instances."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in made:
        found.setdefault((sample.study_instance_uid, sample.series_instance_uid), []).append(sample)
    return found


def _series(
    folder: Path, name: str, study: int, kind: str, series: int, count: int, syntax: str = ExplicitVRLittleEndian
) -> list[Sample]:
    return [
        _instance(folder / f"{study}-{series}-{number:04}.dcm", f"{name} {study}", study, kind, series, number, syntax)
        for number in range(1, count + 1)
    ]


def _instance(path: Path, name: str, study: int, kind: str, series: int, number: int, syntax: str) -> Sample:
    patient = f"P{(study + 1) // 2}"
    if syntax in (JPEGLosslessSV1, RLELossless):
        return _compressed(path, name, study, kind, series, number, syntax, patient)
    made = samples.instance(
        path, kind, study=name, series=series, number=number, patient_id=patient, size=16, syntax=syntax
    )
    path.write_bytes(path.read_bytes().replace(b"ACC1", ACCESSIONS[study - 1].encode()))
    return made


def _compressed(
    path: Path, name: str, study: int, kind: str, series: int, number: int, syntax: str, patient: str
) -> Sample:
    """Encapsulated pixels that nobody here has to decode."""
    ds = samples.dataset(kind, 16, AccessionNumber=ACCESSIONS[study - 1], PatientID=patient, InstanceNumber=number)
    ds.StudyInstanceUID = UID(samples.uid("study", name))
    ds.SeriesInstanceUID = UID(samples.uid("series", name, series))
    ds.SOPInstanceUID = UID(samples.uid("sop", name, series, number, kind))
    ds.PixelData = encapsulate([hashlib.sha256(path.name.encode()).digest() * 20])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return samples.write(path, ds, syntax)

"""The data sets, made once under WORK and used again."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import WORK
from support import samples

SIZES = {"MR": 128, "CT": 512, "XL": 4096}
"""Rows and columns: 32 KB, 0.5 MB and 32 MB of 16-bit pixels."""


def folder(kind: str, number: int, *, per_folder: int = 1000, studies: int = 1) -> Path:
    """`number` images of one kind in `studies` studies, one after the other; no UID is in two such folders."""
    path = WORK / (f"{kind}-{number}" if studies == 1 else f"{kind}-{number}-of-{studies}")
    # Beside the folder: storescu sends nothing at all from one with a file in it that is not DICOM.
    done = path.with_suffix(".done")
    if not done.exists():
        size = SIZES[kind]
        modality = "MR" if kind == "MR" else "CT"
        for index in range(number):
            study = index * studies // number
            name = f"series{index // per_folder:04}" if studies == 1 else f"study{study:04}"
            target = path / name / f"{index:06}.dcm"
            target.parent.mkdir(parents=True, exist_ok=True)
            content = samples.instance_bytes(
                modality,
                size,
                sop=samples.uid(kind, index, number),
                series=samples.uid(kind, "series", name, number),
                study=samples.uid(kind, "study", study, number),
                number=index,
            )
            target.write_bytes(content)
        done.touch()
    return path


def files(kind: str, number: int) -> list[Path]:
    """The same as a list, sorted."""
    return sorted(folder(kind, number).rglob("*.dcm"))

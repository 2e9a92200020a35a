"""One object in every transfer syntax that the real peers take, and the smallest and largest of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from support import samples
from support.samples import Sample


def opaque(path: Path, syntax: str) -> Sample:
    """Encapsulated pixels that no decoder here has to understand."""
    ds = samples.dataset(SOPInstanceUID=samples.uid("opaque", syntax))
    ds.PixelData = encapsulate([os.urandom(5000)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return samples.write(path, ds, syntax)


def shipped(name: str) -> Callable[[Path], Sample]:
    return lambda path: samples._shipped(path, name, name)


def video(syntax: str) -> Callable[[Path], Sample]:
    return lambda path: opaque(path, syntax)


# Name -> (how it is made, how storescu is to be told to propose its syntax).
OBJECTS: dict[str, tuple[Callable[[Path], Sample], str]] = {
    "explicit": (samples.mr_instance, "--propose-little"),
    "uncompressed": (lambda path: samples.instance(path, "CT", size=32), "--propose-uncompr"),
    "implicit": (samples.implicit, "--propose-implicit"),
    "big endian": (samples.big_endian, "--propose-big"),
    "deflated": (samples.deflated, "--propose-deflated"),
    "rle": (samples.rle, "--propose-rle"),
    "jpeg baseline": (samples.jpeg_baseline, "--propose-jpeg8"),
    "jpeg extended": (shipped("JPGExtended.dcm"), "--propose-jpeg12"),
    "jpeg lossless": (video("1.2.840.10008.1.2.4.70"), "--propose-lossless"),
    "jpeg-ls": (shipped("MR_small_jpeg_ls_lossless.dcm"), "--propose-jls-lossless"),
    "jpeg-ls lossy": (shipped("JPEGLSNearLossless_16.dcm"), "--propose-jls-lossy"),
    "jpeg 2000": (samples.jpeg2000, "--propose-j2k-lossless"),
    "jpeg 2000 lossy": (video("1.2.840.10008.1.2.4.91"), "--propose-j2k-lossy"),
    "mpeg 2": (video("1.2.840.10008.1.2.4.100"), "--propose-mpeg2"),
    "mpeg 2 high": (video("1.2.840.10008.1.2.4.101"), "--propose-mpeg2-high"),
    "mpeg 4": (video("1.2.840.10008.1.2.4.102"), "--propose-mpeg4"),
    "mpeg 4 bd": (video("1.2.840.10008.1.2.4.103"), "--propose-mpeg4-bd"),
    "mpeg 4 2d": (video("1.2.840.10008.1.2.4.104"), "--propose-mpeg4-2-2d"),
    "mpeg 4 3d": (video("1.2.840.10008.1.2.4.105"), "--propose-mpeg4-2-3d"),
    "mpeg 4 stereo": (video("1.2.840.10008.1.2.4.106"), "--propose-mpeg4-2-st"),
    "hevc": (video("1.2.840.10008.1.2.4.107"), "--propose-hevc"),
    "hevc 10": (video("1.2.840.10008.1.2.4.108"), "--propose-hevc10"),
}


def mixed(folder: Path) -> list[Sample]:
    """One of each, and a private class. Orthanc does not take pydicom's JPEG-LS sample: it lacks a patient's id."""
    made = [make(folder / f"{name}.dcm") for name, (make, _) in OBJECTS.items() if name != "jpeg-ls lossy"]
    return [*made, samples.private_sop_class(folder / "private.dcm")]


def tiny(path: Path) -> Sample:
    """About three hundred bytes: its UIDs, and nothing else."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3.1"
    ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "P", "1.2.3.2", "1.2.3.3"
    return samples.write(path, ds)


def enormous(path: Path, megabytes: int = 1024) -> Sample:
    """One object of so many megabytes, without ever being in memory: its pixels are a hole in the file."""
    ds = samples.dataset(size=2, SOPInstanceUID=samples.uid("enormous", megabytes))
    sample = samples.write(path, ds)
    content = path.read_bytes()
    # (7FE0,0010) OW is the last element: two reserved bytes, its length, eight bytes of pixels.
    path.write_bytes(content[:-12] + (megabytes << 20).to_bytes(4, "little"))
    os.truncate(path, len(content) - 8 + (megabytes << 20))
    return sample

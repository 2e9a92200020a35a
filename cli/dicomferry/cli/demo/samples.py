"""The files that `dicomferry demo` sends: pydicom's own, a CT series made on the spot, and two that cannot be sent."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import pydicom.data
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

CT_SLICES = 300
CT_SIZE = 256
FROM_PYDICOM = (
    "CT_small.dcm",
    "MR_small.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_small_odd.dcm",
    "examples_jpeg2k.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "liver_1frame.dcm",
    "rtdose_rle.dcm",
    "waveform_ecg.dcm",
)
"""Each has a SOP Instance UID of its own and a Patient ID; compressed and uncompressed, images and other objects."""


def make(folder: Path) -> None:
    """Fill the folder: FROM_PYDICOM, CT_SLICES slices of CT, a text file and a truncated file."""
    shipped = folder / "pydicom"
    shipped.mkdir(parents=True)
    source = Path(pydicom.data.__file__).parent / "test_files"
    for name in FROM_PYDICOM:
        shutil.copyfile(source / name, shipped / name)
    _ct_series(folder / "ct")
    whole = (folder / "ct" / "slice-001.dcm").read_bytes()
    (folder / "broken").mkdir()
    (folder / "broken" / "truncated.dcm").write_bytes(_with_uid_of_its_own(whole)[: len(whole) // 2])
    (folder / "notes.txt").write_text("Not every file in a folder of images is an image.\n")


def _ct_series(folder: Path) -> None:
    folder.mkdir()
    study, series = generate_uid(prefix=None), generate_uid(prefix=None)
    for number in range(1, CT_SLICES + 1):
        path = folder / f"slice-{number:03}.dcm"
        _slice(path, study, series, number).save_as(path, enforce_file_format=True)


def _slice(path: Path, study: str, series: str, number: int) -> FileDataset:
    """A disc that grows and shrinks along the axis, in CT numbers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), Dataset(), file_meta=meta, preamble=bytes(128))
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.PatientName, image.PatientID = "DEMO^PHANTOM", "DEMO-1"
    image.Modality, image.StudyID, image.SeriesNumber, image.InstanceNumber = "CT", "1", 1, number
    image.StudyDate, image.StudyTime, image.AccessionNumber = "20260101", "120000", "DEMO1"
    image.PatientBirthDate, image.PatientSex, image.ReferringPhysicianName = "", "", ""
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = CT_SIZE
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    radius = CT_SIZE * min(number, CT_SLICES - number + 1) // CT_SLICES
    image.PixelData = b"".join(_line(row - CT_SIZE // 2, radius) for row in range(CT_SIZE))
    return image


def _line(y: int, radius: int) -> bytes:
    half = int(max(0, radius * radius - y * y) ** 0.5)
    inside = min(CT_SIZE, 2 * half)
    edge = (CT_SIZE - inside) // 2
    return b"\x00\x00" * edge + b"\x28\x04" * (CT_SIZE - 2 * edge) + b"\x00\x00" * edge


def _with_uid_of_its_own(content: bytes) -> bytes:
    """A copy of an object under another SOP Instance UID, in meta group and data set."""
    image = pydicom.dcmread(BytesIO(content))
    uid = str(image.SOPInstanceUID).encode()
    other = uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2")
    return content.replace(uid, other)

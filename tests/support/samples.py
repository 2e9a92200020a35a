"""Synthetic DICOM files: good ones by the ten thousand, and each kind of odd one.

Well-formed instances are cut from a template that pydicom wrote once: only UIDs, patient id, number and the
first pixels are put in anew, so ten thousand MR files take seconds. All UIDs are 44 characters long, made
from what they stand for: the same arguments give the same bytes.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_file_meta_info
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

PRIVATE_SOP_CLASS = "1.3.6.1.4.1.9590.100.1.0.100.4.0"
IMPLEMENTATION = UID("2.25.190146791043182537444806132342625375407")
_KINDS = {"MR": (MRImageStorage, 128), "CT": (CTImageStorage, 512)}


@dataclass(frozen=True)
class Sample:
    """What was written, as the data set says it."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str


def uid(*parts: object) -> str:
    """The UID that stands for these parts, always the same, always 44 characters."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    low = 10**38
    return f"2.25.{low + int.from_bytes(digest) % (2**128 - low)}"


def dataset(kind: str = "MR", size: int | None = None, **elements: object) -> Dataset:
    """A whole image of `size` x `size` 16-bit pixels; `elements` by keyword go over it."""
    sop_class, default = _KINDS[kind]
    size = size or default
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = uid("sop")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20240229"
    ds.StudyTime = ds.ContentTime = "101112"
    ds.AccessionNumber = "ACC1"
    ds.Modality = kind
    ds.Manufacturer = "dicomferry"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "synthetic study"
    ds.SeriesDescription = f"synthetic {kind}"
    ds.PatientName = "Ferry^Test"
    ds.PatientID = "PAT1"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.SliceThickness = "5"
    ds.StudyInstanceUID = uid("study")
    ds.SeriesInstanceUID = uid("series")
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.ImagePositionPatient = [0, 0, 0]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = uid("frame")
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = size
    ds.PixelSpacing = [1, 1]
    ds.BitsAllocated = 16
    ds.BitsStored = 12
    ds.HighBit = 11
    ds.PixelRepresentation = 0
    if kind == "CT":
        ds.RescaleIntercept = "-1024"
        ds.RescaleSlope = "1"
    row = b"".join((n * 7 % 4096).to_bytes(2, "little") for n in range(size))
    ds.PixelData = row * size
    ds["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def meta(ds: Dataset, syntax: str) -> FileMetaDataset:
    group = FileMetaDataset()
    group.FileMetaInformationGroupLength = 0  # present, so the writer puts the right one in
    group.FileMetaInformationVersion = b"\0\1"
    group.MediaStorageSOPClassUID = ds.SOPClassUID
    group.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    group.TransferSyntaxUID = UID(syntax)
    group.ImplementationClassUID = IMPLEMENTATION
    return group


def encoded(ds: Dataset, syntax: str) -> bytes:
    """The data set alone, in one of the three plain encodings."""
    into = BytesIO()
    dcmwrite(
        into,
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=False,
    )
    return into.getvalue()


def file_bytes(group: FileMetaDataset, body: bytes) -> bytes:
    """A Part 10 file of these parts, whether they fit each other or not."""
    head = DicomBytesIO()
    head.is_little_endian, head.is_implicit_VR = True, False
    write_file_meta_info(head, group, enforce_standard=False)
    return b"\0" * 128 + b"DICM" + head.getvalue() + body


def write(path: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian, body: bytes | None = None) -> Sample:
    """One Part 10 file; `body` in place of the data set's own encoding."""
    content = file_bytes(meta(ds, syntax), encoded(ds, syntax) if body is None else body)
    return _written(path, content, ds, syntax)


def _written(path: Path, content: bytes, ds: Dataset, syntax: str) -> Sample:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    study, series = (str(ds.get(f"{level}InstanceUID", "")) for level in ("Study", "Series"))
    return Sample(path, str(ds.SOPInstanceUID), str(ds.SOPClassUID), study, series, str(syntax))


# --- well-formed, many --------------------------------------------------------------------------------------


def _marks() -> dict[bytes, str]:
    """What stands in a template where a value goes; each as long as what replaces it."""
    return {
        uid("slot", "sop").encode(): "sop",
        uid("slot", "series").encode(): "series",
        uid("slot", "study").encode(): "study",
        b"@patient-id-@@@@": "patient",
        b"9" * 6: "number",
    }


@cache
def _template(kind: str, size: int, syntax: str) -> tuple[bytes | str, ...]:
    """A file, cut into fixed bytes and the names of what goes between them."""
    ds = dataset(kind, size)
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = (
        uid("slot", name) for name in ("sop", "series", "study")
    )
    ds.PatientID = "@patient-id-@@@@"
    ds.InstanceNumber = "999999"
    # The first pixels carry the number too: no two instances have the same image.
    ds.PixelData = b"9" * 6 + ds.PixelData[6:]
    pieces: list[bytes | str] = [file_bytes(meta(ds, syntax), encoded(ds, syntax))]
    for mark, slot in _marks().items():
        cut: list[bytes | str] = []
        for piece in pieces:
            if isinstance(piece, str):
                cut.append(piece)
                continue
            for n, part in enumerate(piece.split(mark)):
                cut.extend([slot, part] if n else [part])
        pieces = cut
    if not set(_marks().values()) <= set(pieces):
        raise AssertionError("the template lost a slot")
    return tuple(pieces)


def instance_bytes(
    kind: str = "MR",
    size: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
    *,
    sop: str,
    series: str,
    study: str,
    patient_id: str = "PAT1",
    number: int = 1,
) -> bytes:
    """The bytes of one instance; the UIDs are 44 characters long, as `uid` makes them."""
    values = {
        "sop": sop.encode(),
        "series": series.encode(),
        "study": study.encode(),
        "patient": patient_id.encode().ljust(16),
        "number": f"{number:06d}".encode(),
    }
    wrong = [name for name in ("sop", "series", "study") if len(values[name]) != 44]
    if wrong or len(values["patient"]) != 16 or len(values["number"]) != 6:
        raise ValueError(f"does not fit its slot in the template: {wrong or (patient_id, number)}")
    pieces = _template(kind, size or _KINDS[kind][1], str(syntax))
    return b"".join(values[piece] if isinstance(piece, str) else piece for piece in pieces)


def instance(
    path: Path,
    kind: str = "MR",
    *,
    study: object = "study",
    series: object = "series",
    number: int = 1,
    patient_id: str = "PAT1",
    size: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> Sample:
    """One well-formed instance. `study` and `series` are names, not UIDs: equal names, equal UIDs."""
    study_uid, series_uid = uid("study", study), uid("series", study, series)
    sop_uid = uid("sop", study, series, number, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        instance_bytes(
            kind,
            size,
            syntax,
            sop=sop_uid,
            series=series_uid,
            study=study_uid,
            patient_id=patient_id,
            number=number,
        )
    )
    return Sample(path, sop_uid, str(_KINDS[kind][0]), study_uid, series_uid, str(syntax))


def mr_instance(
    path: Path,
    *,
    study: object = "study",
    series: object = "series",
    number: int = 1,
    patient_id: str = "PAT1",
    syntax: str = ExplicitVRLittleEndian,
) -> Sample:
    """One MR image of about 32 KB."""
    return instance(path, "MR", study=study, series=series, number=number, patient_id=patient_id, syntax=syntax)


def ct_series(folder: Path, n: int, size: int = 512, *, study: object = "ct", series: object = 1) -> list[Sample]:
    """One CT series of `n` images (0.5 MB each at 512 x 512)."""
    return [
        instance(folder / f"ct{i:05d}.dcm", "CT", study=study, series=series, number=i, size=size)
        for i in range(1, n + 1)
    ]


def make_tree(
    folder: Path,
    n: int,
    per_folder: int = 100,
    *,
    name: object = "tree",
    kind: str = "MR",
    size: int | None = None,
    patient_id: str = "PAT1",
) -> list[Sample]:
    """`n` images in folders of `per_folder`, in walk order: a folder is a series, ten of them a study."""
    made = []
    for i in range(n):
        series, number = divmod(i, per_folder)
        study = series // 10
        path = folder / f"study{study:04d}" / f"series{series:05d}" / f"im{number:05d}.dcm"
        made.append(
            instance(
                path,
                kind,
                study=f"{name}.{study}",
                series=series,
                number=number + 1,
                size=size,
                patient_id=patient_id,
            )
        )
    return made


# --- odd, but to be sent ------------------------------------------------------------------------------------


def big_endian(path: Path, name: object = "big endian") -> Sample:
    ds = _named(name)
    ds.PixelData = b"".join(ds.PixelData[i : i + 2][::-1] for i in range(0, len(ds.PixelData), 2))
    return write(path, ds, ExplicitVRBigEndian)


def implicit(path: Path, name: object = "implicit") -> Sample:
    return write(path, _named(name), ImplicitVRLittleEndian)


def deflated(path: Path, name: object = "deflated", *, odd: bool = False) -> Sample:
    """Deflated; `odd`: a deflated stream of odd length without the closing NUL that PS3.5 A.5 asks for."""
    for attempt in range(100):
        ds = _named(name)
        ds.StudyDescription = "x" * attempt
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(encoded(ds, ExplicitVRLittleEndian)) + packer.flush()
        if len(body) % 2 == odd:
            return write(path, ds, DeflatedExplicitVRLittleEndian, body)
    raise AssertionError("no deflated stream of that parity")


def private_sop_class(path: Path, name: object = "private") -> Sample:
    return write(path, _named(name, SOPClassUID=PRIVATE_SOP_CLASS))


def without_meta(path: Path, name: object = "no meta") -> Sample:
    """A bare data set in Implicit VR Little Endian: no preamble, no group 0002."""
    ds = _named(name)
    return _written(path, encoded(ds, ImplicitVRLittleEndian), ds, ImplicitVRLittleEndian)


def rle(path: Path, name: object = "rle") -> Sample:
    """RLE Lossless, one of pydicom's own files under another SOP Instance UID."""
    return _shipped(path, "MR_small_RLE.dcm", name)


def jpeg_baseline(path: Path, name: object = "jpeg baseline") -> Sample:
    """JPEG Baseline, one of pydicom's own files under another SOP Instance UID."""
    return _shipped(path, "SC_rgb_jpeg_dcmtk.dcm", name)


def jpeg2000(path: Path, name: object = "jpeg 2000") -> Sample:
    """JPEG 2000 Lossless, one of pydicom's own files under another SOP Instance UID."""
    return _shipped(path, "MR_small_jp2klossless.dcm", name)


# --- not to be sent, or not as they are ---------------------------------------------------------------------


def meta_mismatch(path: Path, name: object = "meta mismatch") -> Sample:
    """The meta group names another instance than the data set, whose UIDs the sample has."""
    ds = _named(name)
    group = meta(ds, ExplicitVRLittleEndian)
    group.MediaStorageSOPInstanceUID = UID(uid("meta", name))
    return _written(path, file_bytes(group, encoded(ds, ExplicitVRLittleEndian)), ds, ExplicitVRLittleEndian)


def syntax_mismatch(path: Path, name: object = "syntax mismatch") -> Sample:
    """Declared Explicit VR, encoded Implicit VR."""
    ds = _named(name)
    return write(path, ds, ExplicitVRLittleEndian, encoded(ds, ImplicitVRLittleEndian))


def truncated(path: Path, name: object = "truncated") -> Sample:
    """Ends in the middle of its pixels."""
    sample = write(path, _named(name))
    os.truncate(path, path.stat().st_size - 10_000)
    return sample


def text_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("Not DICOM, and no accident.\n" * 20, encoding="ascii")
    return path


def dicomdir(path: Path) -> Path:
    """A media directory; it is named DICOMDIR in life, but known by its SOP class."""
    ds = Dataset()
    ds.FileSetID = "FERRY"
    ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    ds.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    ds.FileSetConsistencyFlag = 0
    ds.DirectoryRecordSequence = []
    body = encoded(ds, ExplicitVRLittleEndian)
    ds.SOPClassUID = MediaStorageDirectoryStorage
    ds.SOPInstanceUID = UID(uid("dicomdir"))
    return write(path, ds, body=body).path


def same_again(sample: Sample, path: Path) -> Sample:
    """A second file with the same UID and the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sample.path.read_bytes())
    return _at(sample, path)


def altered(sample: Sample, path: Path) -> Sample:
    """A second file with the same UID and another image."""
    content = bytearray(sample.path.read_bytes())
    content[-100:] = bytes(byte ^ 0x0F for byte in content[-100:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return _at(sample, path)


def non_utf8_name(folder: Path) -> Path:
    """A path whose last part is no UTF-8 (Latin-1 from an old share); nothing is written there."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.dcm"))


def uids(samples: Iterable[Sample]) -> set[str]:
    return {sample.sop_instance_uid for sample in samples}


def _named(name: object, **elements: object) -> Dataset:
    own = {f"{level}InstanceUID": UID(uid(level, name)) for level in ("SOP", "Series", "Study")}
    return dataset(**{**own, **elements})  # type: ignore[arg-type]


def _at(sample: Sample, path: Path) -> Sample:
    return replace(sample, path=path)


def _shipped(path: Path, file_name: str, name: object) -> Sample:
    """A file out of pydicom's wheel (never downloaded), under a new UID as long as the old one."""
    source = get_testdata_file(file_name, download=False)
    if not isinstance(source, str):
        raise FileNotFoundError(f"pydicom does not ship {file_name}")
    ds = dcmread(source, stop_before_pixels=True)
    old = str(ds.SOPInstanceUID)
    new = (uid(name) + uid(name, "more")[5:])[: len(old)]
    ds.SOPInstanceUID = UID(new)
    content = Path(source).read_bytes().replace(old.encode(), new.encode())
    return _written(path, content, ds, str(ds.file_meta.TransferSyntaxUID))

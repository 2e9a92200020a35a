"""Whether two DICOM files hold the same object, with more or less forgiveness."""

from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

PADDING = 0xFFFCFFFC


def body(path: Path) -> bytes:
    """The bytes of the data set in a file with or without meta group."""
    content = path.read_bytes()
    if content[128:132] != b"DICM":
        return content
    # (0002,0000) UL comes first (PS3.10 7.1) in all files of these tests.
    if content[132:140] != b"\x02\0\0\0UL\x04\0":
        raise AssertionError(f"{path} does not begin with its meta group's length")
    return content[144 + int.from_bytes(content[140:144], "little") :]


def read(source: Path | bytes) -> Dataset:
    return dcmread(source if isinstance(source, Path) else DicomBytesIO(source), force=True)


def assert_same_object(ours: Path, theirs: Path | bytes) -> None:
    """Equal as design section 10 says: elements without group lengths and trailing padding, and Pixel Data bytes."""
    differences = _differences(read(ours), read(theirs))
    assert not differences, f"{ours}: {differences}"


def _differences(ours: Dataset, theirs: Dataset) -> list[str]:
    tags = {tag for ds in (ours, theirs) for tag in ds.keys() if tag.element != 0 and tag != PADDING}  # noqa: SIM118
    found = []
    for tag in sorted(tags):
        if tag not in ours or tag not in theirs:
            found.append(f"{tag} is {'not sent' if tag not in ours else 'not there'}")
            continue
        found += _element_differences(ours[tag], theirs[tag])
    return found


def _element_differences(ours: DataElement, theirs: DataElement) -> list[str]:
    if ours.VR == "SQ" and theirs.VR == "SQ":
        if len(ours.value) != len(theirs.value):
            return [f"{ours.tag}: {len(ours.value)} items, {len(theirs.value)} arrived"]
        pairs = zip(ours.value, theirs.value, strict=True)
        return [f"{ours.tag} > {text}" for one, other in pairs for text in _differences(one, other)]
    if ours.value != theirs.value:
        return [f"{ours.tag}: {str(ours.value)[:60]!r}, {str(theirs.value)[:60]!r} arrived"]
    return []

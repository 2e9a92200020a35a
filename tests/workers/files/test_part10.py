"""What a DICOM file is, and whether it is whole."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.files.part10 import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    FIRST_READ,
    IMPLICIT_LE,
    Header,
    NotDicom,
    check_deflated,
    check_whole,
    read_header,
)
from support.part10_bytes import JPEG, MR, UNDEFINED, element, elements, encapsulated, meta, part10, uid

Writer = Callable[..., bytes]
SAMPLES = Path(pydicom.data.__file__).parent


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def writer(content: bytes, name: str = "file") -> bytes:
        path = tmp_path / name
        path.write_bytes(content)
        return os.fsencode(path)

    return writer


def refusal(path: bytes) -> str:
    with pytest.raises(UnusableFile) as caught:
        read_header(path)
    return caught.value.reason


def verdict(path: bytes) -> str:
    with pytest.raises(UnusableFile) as caught:
        check_whole(path, read_header(path))
    return caught.value.reason


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, JPEG, "1.2.3.private"])
def test_reads_uids(write: Writer, syntax: str) -> None:
    """The UIDs are the data set's in every encoding; unknown transfer syntaxes are read as Explicit VR LE."""
    header = read_header(write(part10(syntax)))
    assert header == Header(MR, "1.2.3", syntax, "1.2.3.4", "1.2.3.5", 132 + len(meta(syntax)))


@pytest.mark.parametrize("start", [b"\0" * 128 + b"DICM", b"DICM", b""])
def test_preamble_forms(write: Writer, start: bytes) -> None:
    """A meta group is found behind a preamble, behind DICM alone, and bare."""
    content = start + meta() + b"".join(elements())
    header = read_header(write(content))
    assert header.sop_instance_uid == "1.2.3"
    assert header.data_offset == len(start) + len(meta())


@pytest.mark.parametrize("lie", [-31, -8, 1, 4, 10_000, 0x7FFFFFFF])
def test_lying_group_length(write: Writer, lie: int) -> None:
    """A group length that lies is ignored: the data set begins at the first element that is not group 0002."""
    content = b"\0" * 128 + b"DICM" + meta(length=lie) + b"".join(elements())
    assert read_header(write(content)).data_offset == 132 + len(meta())


def test_no_group_length(write: Writer) -> None:
    """A meta group without (0002,0000) is read."""
    content = b"\0" * 128 + b"DICM" + meta()[12:] + b"".join(elements())
    assert read_header(write(content)).sop_instance_uid == "1.2.3"


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE])
def test_no_meta(write: Writer, syntax: str) -> None:
    """A file without meta group is DICOM if its first elements leave no doubt; its encoding is found out."""
    header = read_header(write(b"".join(elements(syntax))))
    assert header == Header(MR, "1.2.3", syntax, "1.2.3.4", "1.2.3.5", 0)


def test_long_meta_group(write: Writer) -> None:
    """More than the first 4 KB is read where the meta group is longer."""
    private = element(0x00020102, "OB", b"\7" * 100_000)
    content = b"\0" * 128 + b"DICM" + meta() + private + b"".join(elements())
    header = read_header(write(content))
    assert (header.sop_instance_uid, header.study_instance_uid) == ("1.2.3", "1.2.3.4")


def test_far_uids(write: Writer) -> None:
    """More is read where (0008,0018) lies beyond 4 KB; study and series UIDs are not searched further."""
    early = element(0x00080006, "SQ", element(0xFFFEE000, "", element(0x00080100, "UT", b"x" * 70_000)))
    far = element(0x00091001, "OB", b"\0" * 5_000_000)
    content = part10(body=early + b"".join(elements()))
    assert read_header(write(content)).sop_instance_uid == "1.2.3"
    parts = elements()
    content = part10(body=b"".join(parts[:2]) + far + b"".join(parts[4:]))
    assert read_header(write(content)).study_instance_uid is None


@pytest.mark.parametrize("tail", [b"\0", b" ", b"\0\0 ", b""])
def test_uid_padding(write: Writer, tail: bytes) -> None:
    """UIDs lose trailing NUL and blanks, and nothing else is repaired."""
    body = element(0x00080016, "UI", uid(MR)) + element(0x00080018, "UI", b"1.02.X" + tail)
    content = b"\0" * 128 + b"DICM" + meta(instance="1.02.X") + body
    assert read_header(write(content)).sop_instance_uid == "1.02.X"


def test_stale_meta(write: Writer) -> None:
    """The data set's UIDs are the object's: where (0002,0002) or (0002,0003) differ, that is told, not refused."""
    body = b"".join(elements())
    header = read_header(write(b"\0" * 128 + b"DICM" + meta(instance="1.2.4") + body))
    assert (header.sop_instance_uid, header.meta_differs) == (
        "1.2.3",
        "SOP Instance UID: (0002,0003) is '1.2.4', (0008,0018) is '1.2.3'",
    )
    header = read_header(write(b"\0" * 128 + b"DICM" + meta(sop_class="1.2.4") + body))
    assert header.sop_class_uid == MR
    assert header.meta_differs == f"SOP Class UID: (0002,0002) is '1.2.4', (0008,0016) is '{MR}'"
    absent = read_header(write(b"\0" * 128 + b"DICM" + meta(sop_class="", instance="") + body))
    assert absent.meta_differs is None


@pytest.mark.parametrize(
    ("declared", "actual"),
    [
        (declared, actual)
        for declared in (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, JPEG)
        for actual in (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE)
        if declared != actual and (declared, actual) != (JPEG, EXPLICIT_LE)
    ],
)
def test_syntax_mismatch(write: Writer, declared: str, actual: str) -> None:
    """A data set whose first element cannot be one in the declared transfer syntax is refused."""
    content = b"\0" * 128 + b"DICM" + meta(declared) + b"".join(elements(actual))
    assert refusal(write(content)) == "syntax mismatch"


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE])
@pytest.mark.parametrize("tag", [0x00000002, 0x00020002])
def test_command_and_meta_groups(write: Writer, tag: int, syntax: str) -> None:
    """Groups 0000 and 0002 are no part of a data set."""
    stray = element(tag, "UI", uid(MR), syntax)
    assert refusal(write(part10(syntax, stray + b"".join(elements(syntax))))) == "syntax mismatch"


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE])
def test_missing_transfer_syntax(write: Writer, syntax: str) -> None:
    """A meta group without (0002,0010) leaves the encoding to be found out."""
    content = b"\0" * 128 + b"DICM" + meta(None) + b"".join(elements(syntax))
    assert read_header(write(content)).transfer_syntax_uid == syntax


def test_no_uid(write: Writer) -> None:
    """A data set without SOP Class or Instance UID is refused, whatever the meta group says; never repaired."""
    parts = elements()
    assert refusal(write(part10(body=b"".join(parts[1:])))) == "no uid"
    assert refusal(write(part10(body=parts[0] + b"".join(parts[2:])))) == "no uid"
    empty = element(0x00080018, "UI", b"")
    assert refusal(write(part10(body=parts[0] + empty + b"".join(parts[2:])))) == "no uid"
    odd = element(0x00080018, "UI", b"1.2\\3.4 ")
    assert refusal(write(part10(body=parts[0] + odd + b"".join(parts[2:])))) == "bad uid"


def test_dicomdir(write: Writer) -> None:
    """A DICOMDIR goes by its class, by its group 0004, or by its name; an image of that name is an image."""
    directory = element(0x00041130, "CS", b"SET1") + element(0x00041220, "SQ", b"")
    start = b"\0" * 128 + b"DICM"
    assert refusal(write(start + meta(sop_class="1.2.840.10008.1.3.10") + directory)) == "DICOMDIR"
    assert refusal(write(start + meta(sop_class="") + directory)) == "DICOMDIR"
    assert refusal(write(start + meta() + b"".join(elements()[2:]), "DICOMDIR")) == "DICOMDIR"
    assert read_header(write(part10(), "DICOMDIR")).sop_class_uid == MR


@pytest.mark.parametrize("content", [b"", b"\0", b"text\n" * 2000, b"\0" * 5000, b"\x89PNG\r\n", b"\x08\0" * 9])
def test_not_dicom(write: Writer, content: bytes) -> None:
    """What begins neither with DICM nor with a plain data set is no DICOM file."""
    with pytest.raises(NotDicom) as caught:
        read_header(write(content))
    assert caught.value.reason == "not DICOM"


def test_every_cut_in_the_header(write: Writer) -> None:
    """A file that begins as DICOM and ends inside its header is truncated, not "not DICOM"."""
    content = part10()
    for length in range(132, 132 + len(meta()) + len(b"".join(elements()[:2]))):
        # Cut just behind (0008,0016), a whole data set lacks a UID; that too is a failure.
        assert refusal(write(content[:length])) in ("truncated", "no uid")


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_every_prefix(write: Writer, syntax: str) -> None:
    """Each strict prefix is found truncated, unless it ends between two elements, which no length can tell."""
    content = part10(syntax)
    path = write(content)
    header = read_header(path)
    assert check_whole(path, header) == len(content)
    boundaries = set()
    at = header.data_offset
    if syntax != DEFLATED_LE:
        for part in elements(syntax)[:-1]:
            at += len(part)
            boundaries.add(at)
    for length in range(header.data_offset, len(content)):
        before = max((place for place in boundaries if place <= length), default=None)
        if before is not None and not content[before:length].strip(b"\0"):
            assert check_whole(write(content[:length], "cut"), header) == before
            continue
        with pytest.raises(UnusableFile) as caught:
            check_whole(write(content[:length], "cut"), header)
        assert caught.value.reason == "truncated"


def test_truncation_names_the_element(write: Writer) -> None:
    """The sentence names the element in which the data set ends, and where that element is."""
    path = write(part10()[:-1])
    at = len(part10()) - len(elements()[-1])
    with pytest.raises(UnusableFile, match=rf"inside \(7FE0,0010\) PixelData at byte {at}$"):
        check_whole(path, read_header(path))


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 7, b"\0" * 8, b"\0" * 100_001])
@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_trailing_zeros(write: Writer, syntax: str, tail: bytes) -> None:
    """Zero bytes behind the last element are tolerated; the data set ends before them."""
    path = write(part10(syntax) + tail)
    assert check_whole(path, read_header(path)) == len(part10(syntax))


def test_an_endless_deflate_stream_ends(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a few kilobytes inflate to no more is looked at than a bound, be it one value or small elements alone, be
    it cut off behind that; within the bound all is walked as ever.
    """
    body = b"".join(elements())
    value, small = element(0x7FE11001, "OB", bytes(8 << 20)), element(0x7FE31001, "LO", b"") * 300_000
    looked: list[int] = []
    inflate = zlib.decompressobj
    for behind, bound in ((value, "most_inflated"), (small, "most_elements")):
        whole = part10(DEFLATED_LE, body + behind)
        path = write(whole)
        assert check_whole(path, read_header(path)) == len(whole) < 64_000
        assert verdict(write(whole[:-100])) == "truncated"
        for content in (whole, whole[:-100]):
            path = write(content)
            start = read_header(path).data_offset
            looked.clear()
            with monkeypatch.context() as counted, open(path, "rb") as file:
                counted.setattr(zlib, "decompressobj", lambda *rest: Counting(inflate(*rest), looked))
                assert check_deflated(file.fileno(), start, len(content), **{bound: 1 << 20}) == len(content)
            assert 1 << 20 <= sum(looked) < 2 << 20


class Counting:
    """An inflater that writes down how much it gave."""

    def __init__(self, inflater: Any, looked: list[int]) -> None:
        self._inflater = inflater
        self._looked = looked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inflater, name)

    def decompress(self, *rest: Any) -> bytes:
        data: bytes = self._inflater.decompress(*rest)
        self._looked.append(len(data))
        return data


def test_trailing_padding(write: Writer) -> None:
    """Data Set Trailing Padding (FFFC,FFFC) is an element like others (PS3.10 7.2)."""
    path = write(part10() + element(0xFFFCFFFC, "OB", b"\0" * 100))
    assert check_whole(path, read_header(path)) == os.path.getsize(path)


def test_encapsulated(write: Writer) -> None:
    """Fragments go by their lengths up to the delimiter, even if one holds the delimiter's bytes."""
    body = b"".join(elements()[:-1])
    tricky = element(0xFFFEE0DD, "", b"") * 3
    path = write(part10(JPEG, body + encapsulated(tricky, b"x" * 50_000)))
    assert check_whole(path, read_header(path)) == os.path.getsize(path)
    assert verdict(write(part10(JPEG, body + encapsulated(b"xx", delimiter=False)))) == "truncated"
    assert verdict(write(part10(JPEG, body + encapsulated(b"xx" * 99)[:-20]))) == "truncated"


def test_encapsulated_in_uncompressed(write: Writer) -> None:
    """Encapsulated pixel data under an uncompressed transfer syntax would be read as noise: refused."""
    path = write(part10(EXPLICIT_LE, b"".join(elements()[:-1]) + encapsulated(b"xx")))
    assert verdict(path) == "syntax mismatch"


@pytest.mark.parametrize(("tag", "vr"), [(0x7FE00008, "OF"), (0x7FE00009, "OD")])
def test_float_pixels_in_compressed(write: Writer, tag: int, vr: str) -> None:
    """Float and Double Float Pixel Data cannot be encapsulated (PS3.5 A.4): under a compressed syntax they are refused
    as native pixels are, also in the form of encapsulated ones; an empty value says nothing.
    """
    body = b"".join(elements()[:-1])
    forms = [element(tag, vr, bytes(8)), element(tag, vr, encapsulated(b"xx")[12:], length=UNDEFINED)]
    for pixels in forms:
        path = write(part10(JPEG, body + pixels))
        with pytest.raises(UnusableFile, match="float pixel data in a compressed transfer syntax") as caught:
            check_whole(path, read_header(path))
        assert caught.value.reason == "syntax mismatch"
    for fine in (
        part10(EXPLICIT_LE, body + forms[0]),
        part10(JPEG, body + element(tag, vr, b"") + encapsulated(b"xx")),
    ):
        path = write(fine)
        assert check_whole(path, read_header(path)) == os.path.getsize(path)


def test_un_of_undefined_length(write: Writer) -> None:
    """UN of undefined length holds Implicit VR Little Endian (PS3.5 6.2.2), whatever is around it."""
    inner = element(0xFFFEE000, "", element(0x00091001, "LO", b"some", IMPLICIT_LE), length=UNDEFINED)
    inner += element(0xFFFEE00D, "", b"") + element(0xFFFEE0DD, "", b"")
    parts = elements()
    body = b"".join(parts[:3]) + element(0x00091010, "UN", inner, length=UNDEFINED) + b"".join(parts[4:])
    path = write(part10(body=body))
    assert check_whole(path, read_header(path)) == os.path.getsize(path)
    assert read_header(path).study_instance_uid == "1.2.3.4"


def test_hostile_nesting(write: Writer) -> None:
    """Sequences nested 100,000 deep end in a verdict, not in a crash."""
    level = element(0x00081140, "SQ", b"", length=UNDEFINED) + element(0xFFFEE000, "", b"", length=UNDEFINED)
    path = write(part10(body=b"".join(elements()[:2]) + level * 100_000))
    assert verdict(path) == "truncated"


def test_descriptor_keeps_its_position(write: Writer) -> None:
    """check_whole takes an open descriptor and leaves its position alone."""
    path = write(part10())
    with open(path, "rb", buffering=0) as file:
        file.seek(7)
        assert check_whole(file.fileno(), read_header(path), os.path.getsize(path)) == len(part10())
        assert file.tell() == 7


@given(st.binary(max_size=400), st.sampled_from([0, 1, 2, 3, 4, 5]))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, noise: bytes, form: int) -> None:
    """Whatever a file holds, the answer is a header or an UnusableFile, never another error or a hang."""
    syntaxes = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, JPEG]
    syntax = syntaxes[form % 5]
    start = b"" if form == 5 else b"\0" * 128 + b"DICM" + meta(syntax)
    path = os.fsencode(tmp_path / "noise")
    for content in (start + noise, start + b"".join(elements(syntax)[:4]) + noise):
        Path(os.fsdecode(path)).write_bytes(content)
        with suppress(UnusableFile):
            read_header(path)
        with suppress(UnusableFile):
            check_whole(path, Header(MR, "1.2", syntax, None, None, len(start)))


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    """A good file with some bytes changed is read, refused or found broken, nothing else."""
    syntax = data.draw(st.sampled_from([EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE]))
    content = bytearray(part10(syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with suppress(UnusableFile):
        check_whole(os.fsencode(path), read_header(os.fsencode(path)))


def samples() -> list[str]:
    return sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.rglob("*.dcm"))


# What pydicom reads and this refuses, each looked at: the files break the rule named.
REFUSED = {
    "charset_files/chrSQEncoding.dcm": "no uid",
    "charset_files/chrSQEncoding1.dcm": "no uid",
    "test_files/SC_rgb_jpeg.dcm": "syntax mismatch",
    "test_files/UN_sequence.dcm": "no uid",
    "test_files/dicomdirtests/DICOMDIR-empty.dcm": "DICOMDIR",
    "test_files/empty_charset_LEI.dcm": "no uid",
    "test_files/meta_missing_tsyntax.dcm": "syntax mismatch",
    "test_files/nested_priv_SQ.dcm": "no uid",
    "test_files/no_meta.dcm": "not DICOM",
    "test_files/no_meta_group_length.dcm": "no uid",
    "test_files/priv_SQ.dcm": "no uid",
}


@pytest.mark.parametrize("name", samples())
def test_as_pydicom_reads_it(name: str) -> None:
    """For every file that pydicom ships, UIDs and wholeness are what pydicom reads, or the file breaks a rule."""
    path = os.fsencode(SAMPLES / name)
    if name in REFUSED:
        assert refusal(path) == REFUSED[name]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = pydicom.dcmread(SAMPLES / name, force=True)
    header = read_header(path)
    assert header.sop_class_uid == data_set.SOPClassUID
    assert header.sop_instance_uid == data_set.SOPInstanceUID
    assert header.transfer_syntax_uid == data_set.file_meta.get("TransferSyntaxUID", header.transfer_syntax_uid)
    assert header.study_instance_uid in (None, data_set.get("StudyInstanceUID"))
    assert header.series_instance_uid in (None, data_set.get("SeriesInstanceUID"))
    if name in ("test_files/MR_truncated.dcm", "test_files/rtplan_truncated.dcm"):
        assert verdict(path) == "truncated"
    else:
        # image_dfl.dcm has eight bytes of its writer's behind the deflate stream.
        spare = 8 if name == "test_files/image_dfl.dcm" else 0
        assert check_whole(path, header) == os.path.getsize(path) - spare


def test_first_bytes_given(write: Writer) -> None:
    """A caller that has read the first bytes hands them in, and the file is not opened again."""
    content = part10()
    header = read_header(b"/nowhere", first=content[:FIRST_READ])
    assert header.sop_instance_uid == "1.2.3"

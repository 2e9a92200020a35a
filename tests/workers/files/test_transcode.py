"""Data sets in another transfer syntax."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import warnings
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.filereader import read_dataset

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.files.part10 import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    UNCOMPRESSED,
    Header,
    check_whole,
    read_header,
)
from dicomferry.workers.files.transcode import decompress, reencode
from dicomferry.workers.sending.inventory import same_content
from support import samples as made
from support.process import require

MR = "1.2.840.10008.5.1.4.1.1.4"
SAMPLES = Path(pydicom.data.__file__).parent
TARGETS = [IMPLICIT_LE, EXPLICIT_LE]


def sample(name: str) -> bytes:
    return os.fsencode(SAMPLES / "test_files" / name)


def samples() -> list[str]:
    """The uncompressed files that pydicom ships and that can be sent."""
    kept = []
    for path in sorted(SAMPLES.rglob("*.dcm")):
        try:
            header = read_header(os.fsencode(path))
            check_whole(os.fsencode(path), header)
        except UnusableFile:
            continue
        if header.transfer_syntax_uid in UNCOMPRESSED:
            kept.append(str(path.relative_to(SAMPLES)))
    return kept


def parsed(data: bytes, syntax: str) -> Dataset:
    return read_dataset(io.BytesIO(data), syntax == IMPLICIT_LE, syntax != EXPLICIT_BE)


def explicit(tag: int, vr: bytes, value: bytes, big: bool = False) -> bytes:
    order = ">" if big else "<"
    head = struct.pack(order + "HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"SV", b"UV")
    return head + struct.pack(order + ("HI" if long else "H"), *([0] if long else []), len(value)) + value


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def start(syntax: str) -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\0" * 128 + b"DICM" + explicit(0x00020010, b"UI", value)


def written(tmp_path: Path, syntax: str, body: bytes) -> tuple[bytes, Header]:
    path = tmp_path / "file"
    path.write_bytes(start(syntax) + body)
    return os.fsencode(path), Header(MR, "1.2.3", syntax, None, None, len(start(syntax)))


def recoded(tmp_path: Path, syntax: str, body: bytes, target: str) -> bytes:
    with reencode(*written(tmp_path, syntax, body), target) as file:
        return file.read()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", samples())
def test_every_value_stays(tmp_path: Path, name: str, target: str) -> None:
    """Each file that pydicom ships keeps every element and value, and what is written is whole by its lengths."""
    path = os.fsencode(SAMPLES / name)
    header = read_header(path)
    with reencode(path, header, target) as file:
        data = file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = pydicom.dcmread(os.fsdecode(path), force=True)
        after = parsed(data, target)
        big = header.transfer_syntax_uid == EXPLICIT_BE
        for element in before:
            if element.tag.element == 0 or (big and element.VR == "OW"):
                continue
            other = after[element.tag]
            if element.VR == other.VR and element.VR != "SQ":
                assert element == other
    (tmp_path / "copy").write_bytes(data)
    bare = Header(MR, "1.2.3", target, None, None, 0)
    assert check_whole(os.fsencode(tmp_path / "copy"), bare) == len(data)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "reportsi.dcm", "waveform_ecg.dcm", "image_dfl.dcm"])
def test_there_and_back(tmp_path: Path, name: str, target: str) -> None:
    """A re-encoded file is the same content as its source, and can be checked and read like any other."""
    path = sample(name)
    copy = tmp_path / "copy"
    with reencode(path, read_header(path), target) as file:
        copy.write_bytes(start(target) + file.read())
    header = read_header(os.fsencode(copy))
    assert check_whole(os.fsencode(copy), header) == copy.stat().st_size
    assert same_content(path, os.fsencode(copy))


@pytest.mark.parametrize("target", TARGETS)
def test_big_endian_pixels(target: str) -> None:
    """Pixel Data in OW is turned: the big endian twin of a file becomes the file itself (PS3.5 7.3)."""
    twin, plain = sample("MR_small_bigendian.dcm"), sample("MR_small.dcm")
    with reencode(twin, read_header(twin), target) as a, reencode(plain, read_header(plain), target) as b:
        big, little = parsed(a.read(), target), parsed(b.read(), target)
    assert big.PixelData == little.PixelData
    assert (big.Rows, big.PixelSpacing, big.SmallestImagePixelValue) == (
        little.Rows,
        little.PixelSpacing,
        little.SmallestImagePixelValue,
    )


@pytest.mark.parametrize(
    ("vr", "code"),
    [
        (b"US", "H"),
        (b"SS", "h"),
        (b"UL", "I"),
        (b"SL", "i"),
        (b"FL", "f"),
        (b"FD", "d"),
        (b"OW", "H"),
        (b"OF", "f"),
        (b"OL", "I"),
        (b"OD", "d"),
        (b"OV", "Q"),
        (b"SV", "q"),
        (b"UV", "Q"),
        (b"AT", "H"),
    ],
)
def test_big_endian_words(tmp_path: Path, vr: bytes, code: str) -> None:
    """Words of every numeric VR are turned by their size, private ones and those in items included."""
    values = (1, 2, 300, 4)
    big, little = struct.pack(f">4{code}", *values), struct.pack(f"<4{code}", *values)
    item = struct.pack(">HHI", 0xFFFE, 0xE000, len(explicit(0x00091001, vr, big, True)))
    body = explicit(0x00080006, b"SQ", item + explicit(0x00091001, vr, big, True), True)
    body += explicit(0x00091001, vr, big, True)
    plain = explicit(0x00091001, vr, little)
    expected = explicit(0x00080006, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(plain)) + plain) + plain
    assert recoded(tmp_path, EXPLICIT_BE, body, EXPLICIT_LE) == expected


@pytest.mark.parametrize("vr", [b"OB", b"UN"])
def test_bytes_are_not_turned(tmp_path: Path, vr: bytes) -> None:
    """OB and UN have no byte order."""
    body = explicit(0x00091001, vr, b"\1\2\3\4", True)
    assert recoded(tmp_path, EXPLICIT_BE, body, EXPLICIT_LE) == explicit(0x00091001, vr, b"\1\2\3\4")


def test_values_are_never_decoded(tmp_path: Path) -> None:
    """Values that break their VR's rules, or no charset can decode, stay byte for byte."""
    wild = [
        (0x00080005, b"CS", b"ISO_IR 999"),
        (0x00080020, b"DA", b"not a date"),
        (0x00100010, b"PN", b"\xff\xfe^\x80==== \0"),
        (0x00181318, b"DS", b"1.5e999x  "),
        (0x00200013, b"IS", b"12.5\\\\ "),
        (0x00280010, b"US", b"\1\2\3"),
        (0x00280030, b"DS", b""),
    ]
    body = b"".join(explicit(*each) for each in wild)
    expected = b"".join(implicit(tag, value) for tag, _, value in wild)
    assert recoded(tmp_path, EXPLICIT_LE, body, IMPLICIT_LE) == expected
    assert recoded(tmp_path, IMPLICIT_LE, expected, EXPLICIT_LE) == body


def test_private_and_unknown(tmp_path: Path) -> None:
    """Private creators become LO, other elements without a known VR become UN, which is never wrong; UN stays UN."""
    body = implicit(0x00091010 & ~0x1000, b"ME") + implicit(0x00091001, b"\1\2") + implicit(0x00080017, b"ab")
    expected = explicit(0x00090010, b"LO", b"ME") + explicit(0x00091001, b"UN", b"\1\2")
    result = recoded(tmp_path, IMPLICIT_LE, implicit(0x00090010, b"ME") + implicit(0x00091001, b"\1\2"), EXPLICIT_LE)
    assert result == expected
    assert b"UN" in recoded(tmp_path, IMPLICIT_LE, body, EXPLICIT_LE)
    kept = explicit(0x00280010, b"UN", b"\1\2")
    assert recoded(tmp_path, EXPLICIT_LE, kept, EXPLICIT_LE) == kept


@pytest.mark.parametrize(("representation", "vr"), [(0, b"US"), (1, b"SS")])
def test_ambiguous_vr(tmp_path: Path, representation: int, vr: bytes) -> None:
    """`US or SS` goes by Pixel Representation (0028,0103); pixel data from Implicit VR is OW (PS3.5 A.1)."""
    body = implicit(0x00280103, struct.pack("<H", representation)) + implicit(0x00280106, b"\5\0")
    body += implicit(0x7FE00010, b"\1\2")
    expected = explicit(0x00280103, b"US", struct.pack("<H", representation)) + explicit(0x00280106, vr, b"\5\0")
    assert recoded(tmp_path, IMPLICIT_LE, body, EXPLICIT_LE) == expected + explicit(0x7FE00010, b"OW", b"\1\2")


def test_long_value_of_a_short_vr(tmp_path: Path) -> None:
    """A value too long for its VR's 16-bit length goes as UN (PS3.5 6.2.2)."""
    body = implicit(0x00080008, b"X" * 70_000)
    assert recoded(tmp_path, IMPLICIT_LE, body, EXPLICIT_LE) == explicit(0x00080008, b"UN", b"X" * 70_000)


def test_large_data_sets_leave_memory(tmp_path: Path) -> None:
    """A data set over the limit is written to a temporary file."""
    body = explicit(0x7FE00010, b"OW", b"\1\2" * 5000)
    with reencode(*written(tmp_path, EXPLICIT_LE, body), IMPLICIT_LE, in_memory=1000) as file:
        assert file.read() == implicit(0x7FE00010, b"\1\2" * 5000)
        assert isinstance(file.fileno(), int)


def test_refusals() -> None:
    """Compressed sources are not re-encoded unasked; a target that is no plain syntax is a fault of the caller."""
    compressed = sample("JPEG2000.dcm")
    header = read_header(compressed)
    with pytest.raises(UnusableFile) as caught:
        reencode(compressed, header, EXPLICIT_LE)
    assert caught.value.reason == "not transcodable"
    for call in (reencode, decompress):
        with pytest.raises(ValueError):
            call(compressed, header, DEFLATED_LE)


@pytest.mark.parametrize(
    "value",
    [
        b"no item here",
        struct.pack("<HHI", 0xFFFE, 0xE000, 12) + explicit(0x00100010, b"PN", b"abcd")[:-1],
        struct.pack("<HHI", 0xFFFE, 0xE000, 10) + struct.pack("<HH2sH", 0x10, 0x10, b"PN", 4) + b"ab",
    ],
)
def test_damage_is_not_passed_over(tmp_path: Path, value: bytes) -> None:
    """pydicom reads on past a damaged sequence in silence; re-encoding refuses rather than lose a part."""
    with pytest.raises(UnusableFile) as caught:
        recoded(tmp_path, EXPLICIT_LE, explicit(0x00081140, b"SQ", value), IMPLICIT_LE)
    assert caught.value.reason == "not transcodable"


def test_decompress_of_uncompressed() -> None:
    """What is not compressed is only re-encoded."""
    path = sample("MR_small.dcm")
    header = read_header(path)
    with decompress(path, header, IMPLICIT_LE) as a, reencode(path, header, IMPLICIT_LE) as b:
        assert a.read() == b.read()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_decompress(name: str, target: str) -> None:
    """A lossless image gives the very pixels that went into it, under its own SOP Instance UID; all else stays."""
    path, plain = sample(name), pydicom.dcmread(os.fsdecode(sample("MR_small.dcm")))
    with decompress(path, read_header(path), target) as file:
        data_set = parsed(file.read(), target)
    assert data_set.PixelData == plain.PixelData
    assert data_set.SOPInstanceUID == read_header(path).sop_instance_uid
    before = pydicom.dcmread(os.fsdecode(path))
    tags = [tag for tag in before if tag.tag.element and tag.keyword != "PixelData"]
    assert [data_set[element.tag].value for element in tags] == [element.value for element in tags]


@pytest.mark.parametrize("process", ["+e1", "+el"])
def test_jpeg_lossless(tmp_path: Path, process: str) -> None:
    """JPEG Lossless (.70 and .57), as DCMTK compresses it, comes back bit for bit."""
    source = made.write(tmp_path / "plain", made.dataset())
    path = tmp_path / "compressed"
    subprocess.run([require("dcmcjpeg"), process, source.path, path], check=True)
    header = read_header(os.fsencode(path))
    assert header.transfer_syntax_uid in ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
    with decompress(os.fsencode(path), header) as file:
        assert parsed(file.read(), EXPLICIT_LE).PixelData == pydicom.dcmread(source.path).PixelData


def test_lossy_jpeg(tmp_path: Path) -> None:
    """JPEG Baseline becomes RGB of the size that the image says, and goes on saying that it was compressed lossily."""
    path = made.jpeg_baseline(tmp_path / "jpeg").path
    ds = pydicom.dcmread(path)
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "7.5"
    ds.save_as(path)
    with decompress(os.fsencode(path), read_header(os.fsencode(path))) as file:
        copy = parsed(file.read(), EXPLICIT_LE)
    assert len(copy.PixelData) == ds.Rows * ds.Columns * 3
    assert (copy.PhotometricInterpretation, copy.PlanarConfiguration) == ("RGB", 0)
    assert (copy.LossyImageCompression, copy.LossyImageCompressionRatio) == ("01", 7.5)


def test_colours_of_lossless_images_are_not_converted(tmp_path: Path) -> None:
    """YCbCr stays YCbCr where nothing was lost: turning it into RGB would round."""
    path = tmp_path / "ybr"
    ds = pydicom.dcmread(os.fsdecode(sample("SC_rgb_rle.dcm")))
    ds.PhotometricInterpretation = "YBR_FULL"
    ds.save_as(path)
    plain = pydicom.dcmread(os.fsdecode(sample("SC_rgb_rle.dcm"))).pixel_array.tobytes()
    with decompress(os.fsencode(path), read_header(os.fsencode(path))) as file:
        copy = parsed(file.read(), EXPLICIT_LE)
    assert (copy.PhotometricInterpretation, copy.PixelData) == ("YBR_FULL", plain)


def test_frames_and_their_tables(tmp_path: Path) -> None:
    """All frames in order, without the tables of where each fragment begins (PS3.3 C.7.6.3)."""
    source = sample("SC_rgb_rle_2frame.dcm")
    path = tmp_path / "frames"
    ds = pydicom.dcmread(os.fsdecode(source))
    plain = ds.pixel_array.tobytes()
    frames = list(generate_frames(ds.PixelData, number_of_frames=2))
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    ds.save_as(path)
    with decompress(os.fsencode(path), read_header(os.fsencode(path))) as file:
        copy = parsed(file.read(), EXPLICIT_LE)
    assert (copy.NumberOfFrames, copy.PixelData) == (2, plain)
    assert "ExtendedOffsetTable" not in copy and "ExtendedOffsetTableLengths" not in copy


def test_icons_are_decompressed_too(tmp_path: Path) -> None:
    """No fragment may be left in an uncompressed data set; an icon that was never compressed stays (PS3.5 A.4)."""
    ds = pydicom.dcmread(os.fsdecode(sample("MR_small_RLE.dcm")))
    packed, plain = Dataset(), Dataset()
    for icon in (packed, plain):
        icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
        icon.Rows, icon.Columns, icon.PixelRepresentation = ds.Rows, ds.Columns, ds.PixelRepresentation
        icon.BitsAllocated, icon.BitsStored, icon.HighBit = 16, 16, 15
    pixels = pydicom.dcmread(os.fsdecode(sample("MR_small.dcm"))).PixelData
    packed.add_new(0x7FE00010, "OB", ds.PixelData)
    packed["PixelData"].is_undefined_length = True
    plain.add_new(0x7FE00010, "OW", pixels)
    ds.IconImageSequence = [packed, plain]
    path = tmp_path / "icons"
    ds.save_as(path)
    with decompress(os.fsencode(path), read_header(os.fsencode(path))) as file:
        copy = parsed(file.read(), EXPLICIT_LE)
    assert [icon.PixelData for icon in copy.IconImageSequence] == [pixels, pixels]


def test_a_compressed_syntax_without_pixels(tmp_path: Path) -> None:
    """What has no pixels has nothing to decompress."""
    ds = made.dataset()
    del ds.PixelData
    written = made.write(tmp_path / "bare", ds, "1.2.840.10008.1.2.5")
    path = os.fsencode(written.path)
    with decompress(path, read_header(path)) as file:
        assert parsed(file.read(), EXPLICIT_LE).PatientID == "PAT1"


@pytest.mark.parametrize(
    ("syntax", "reason", "words"),
    [
        ("1.2.840.10008.1.2.4.102", "not transcodable", "MPEG-4 AVC/H.264 High Profile / Level 4.1 cannot"),
        ("1.2.3.4", "not transcodable", "1.2.3.4 cannot be decompressed here"),
        ("1.2.840.10008.1.2.4.70", "not transcodable", "cannot be written"),
    ],
)
def test_what_cannot_be_decompressed(tmp_path: Path, syntax: str, reason: str, words: str) -> None:
    """A syntax without a decoder, and pixels that the decoder does not understand: the item's failure says which."""
    ds = made.dataset()
    ds.PixelData = encapsulate([b"no image of any kind"])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    path = os.fsencode(made.write(tmp_path / "opaque", ds, syntax).path)
    with pytest.raises(UnusableFile, match=words) as caught:
        decompress(path, read_header(path))
    assert caught.value.reason == reason


def test_a_decoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where installing something would help, the reason is another one and the sentence names the packages."""
    monkeypatch.setattr("pydicom.pixels.decoders.JPEG2000LosslessDecoder._available", {})
    lacking = {"pylibjpeg": ("numpy", "pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.0")}
    monkeypatch.setattr("pydicom.pixels.decoders.JPEG2000LosslessDecoder._unavailable", lacking)
    path = sample("MR_small_jp2klossless.dcm")
    with pytest.raises(UnusableFile, match=r"JPEG 2000.*pylibjpeg-openjpeg") as caught:
        decompress(path, read_header(path))
    assert caught.value.reason == "no decoder"


def test_temporary_files_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of it, nothing that it wrote meanwhile is left, neither with a name nor with a descriptor."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    path = sample("MR_small_RLE.dcm")
    for target in TARGETS:
        decompress(path, read_header(path), target, in_memory=100).close()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(Path(os.fsdecode(path)).read_bytes().replace(b"\xfe\xff\x00\xe0", b"\xfe\xff\x00\xe1"))
    with pytest.raises(UnusableFile):
        decompress(os.fsencode(damaged), read_header(os.fsencode(damaged)), in_memory=100)
    assert os.listdir(tmp_path) == ["damaged"]
    if before:
        assert len(os.listdir("/proc/self/fd")) == before

"""Is it the same instance? One answer for what is sent and for what is received; in doubt both are kept."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomferry.workers.files import file_meta, same_instance
from dicomferry.workers.files.same_instance import Relation, Side, compare
from dicomferry.workers.sending.inventory import same_content
from support import samples

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
MR = "1.2.840.10008.5.1.4.1.1.4"
LONG = ("OB", "OW", "OF", "SQ", "UN", "UT")
Write = Callable[[bytes, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file with a data set in a transfer syntax, as the archive keeps it."""
    number = 0

    def writer(data: bytes, syntax: str) -> Path:
        nonlocal number
        number += 1
        path = tmp_path / f"{number}.dcm"
        head = file_meta.encode("1.2.3", ((file_meta.SOP_CLASS, MR), (file_meta.TRANSFER_SYNTAX, syntax)))
        path.write_bytes(head + data)
        return path

    return writer


def relation(one: Path, other: Path) -> Relation:
    """What the storage SCP says, which the sender has to say as well, and both of them either way round."""
    fds = [os.open(path, os.O_RDONLY) for path in (one, other)]
    try:
        found = compare(*fds)
        assert compare(*fds[::-1]) is found
    finally:
        for fd in fds:
            os.close(fd)
    assert same_content(bytes(one), bytes(other)) is (found is Relation.SAME)
    return found


def side(fd: int, *, most_inflated: int) -> Side:
    """An open file of which no more than that is inflated."""
    meta = file_meta.decode(os.pread(fd, 1024, 0))
    assert meta is not None
    return Side(fd, meta.data_offset, meta.values[file_meta.TRANSFER_SYNTAX], most_inflated)


def el(tag: int, vr: str, value: bytes | str, syntax: str = EXPLICIT) -> bytes:
    """One data element, padded."""
    raw = value.encode("latin-1") if isinstance(value, str) else value
    raw += b" " * (len(raw) % 2)
    order = ">" if syntax == BIG else "<"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", len(raw)) + raw
    if vr in LONG:
        return head + vr.encode() + struct.pack(f"{order}HI", 0, len(raw)) + raw
    return head + vr.encode() + struct.pack(f"{order}H", len(raw)) + raw


def image(
    syntax: str = EXPLICIT, *, charset: str = "ISO_IR 192", name: bytes = b"A^B", slope: str = "1.0", **more: bytes
) -> bytes:
    """A small image, with `before` in front of its pixels and `behind` them."""
    rows: list[tuple[int, str, bytes | str]] = [
        (0x00080005, "CS", charset), (0x00080016, "UI", MR + "\0"), (0x00080018, "UI", "1.2.3\0"),
        (0x00100010, "PN", name),
        (0x0020000D, "UI", "1.2\0"), (0x0020000E, "UI", "1.2.1\0"), (0x00281053, "DS", slope),
    ]  # fmt: skip
    pixels = el(0x7FE00010, "OW", more.get("pixels", bytes(range(64))), syntax)
    return b"".join(el(*row, syntax) for row in rows) + more.get("before", b"") + pixels + more.get("behind", b"")


def encapsulated(behind: bytes = b"", fragment: bytes = b"\xff\xd8\xff\xd9") -> bytes:
    head = image(pixels=b"")
    fragments = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment
    pixels = (
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + fragments + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    return head[:-12] + pixels + behind


RAW = el(0x7FE10010, "LO", "SOME VENDOR") + el(0x7FE11001, "OB", b"nobody has a copy of this")
SIGNATURE = struct.pack("<HH2sHI", 0xFFFA, 0xFFFA, b"SQ", 0, 8) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)


@pytest.mark.parametrize(
    "other",
    [
        image(behind=RAW),
        image(behind=SIGNATURE),
        image(name=b"M\xfcller^A"),
        image(slope="1"),
        image(before=el(0x00290010, "LO", "X")),
        image(pixels=bytes(64)),
    ],
    ids=["private behind the pixels", "signature behind the pixels", "undecodable text", "number", "more", "pixels"],
)  # fmt: skip
@pytest.mark.parametrize("encode", ["explicit", "deflated"])
def test_any_other_byte_is_another_content(write: Write, other: bytes, encode: str) -> None:
    """Wherever it stands, behind Pixel Data too, and whatever it means: the raw bytes of the values decide."""
    one = image(name=b"M\xfdller^A")
    if encode == "explicit":
        assert relation(write(one, EXPLICIT), write(other, EXPLICIT)) is Relation.CONFLICT
    else:
        assert relation(write(deflate(one), DEFLATED), write(deflate(other), DEFLATED)) is Relation.CONFLICT
        assert relation(write(one, EXPLICIT), write(deflate(other), DEFLATED)) is Relation.CONFLICT


def deflate(data: bytes, level: int = 6) -> bytes:
    squeeze = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    out = squeeze.compress(data) + squeeze.flush()
    return out + bytes(len(out) % 2)


def full() -> Dataset:
    """Sequences in sequences, private elements, numbers of every width, elements behind the pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = samples.dataset(size=16, SOPInstanceUID="1.2.3")
        inner = Dataset()
        inner.CodeValue, inner.CodeMeaning = "1", "one"
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = Sequence([inner, inner])
        item.ReferencedFrameNumber = [1, 2]
        ds.ReferencedImageSequence = Sequence([item, Dataset()])
        ds.RedPaletteColorLookupTableData = bytes(range(64))
        ds.add_new(0x00290010, "LO", "SOME VENDOR")
        ds.add_new(0x00291001, "UN", b"1234")
        ds.add_new(0x00189309, "FD", [1.5, 2.5])
        ds.add_new(0x00209057, "UL", [1, 2, 3])
        ds.add_new(0x00280009, "AT", [0x00181063])
        ds.add_new(0x7FE10010, "LO", "SOME VENDOR")
        ds.add_new(0x7FE11001, "OB", b"12345678")
        return ds


def encoded(syntax: str, *, lengths: bool = True) -> bytes:
    """The same in another encoding; `lengths`: those of sequences are defined."""
    ds = full()
    if not lengths:
        ds["ReferencedImageSequence"].is_undefined_length = True
        for item in ds.ReferencedImageSequence:
            item.is_undefined_length_sequence_item = True
    if syntax == BIG:
        ds.PixelData = b"".join(ds.PixelData[at : at + 2][::-1] for at in range(0, len(ds.PixelData), 2))
        data = ds.RedPaletteColorLookupTableData
        ds.RedPaletteColorLookupTableData = b"".join(data[at : at + 2][::-1] for at in range(0, len(data), 2))
    return deflate(samples.encoded(ds, EXPLICIT)) if syntax == DEFLATED else samples.encoded(ds, syntax)


ENCODINGS = [(syntax, lengths) for syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED) for lengths in (True, False)]


@pytest.mark.parametrize(("syntax", "lengths"), ENCODINGS)
def test_the_same_in_every_encoding(write: Write, syntax: str, lengths: bool) -> None:
    """Byte order, value representations, length forms, deflate: none of it is content."""
    there = write(encoded(syntax, lengths=lengths), syntax)
    for other, others in ENCODINGS:
        assert relation(there, write(encoded(other, lengths=others), other)) is Relation.SAME, (other, others)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_no_bit_is_passed_over(write: Write, syntax: str) -> None:
    """Each bit of a value counts, in sequences and behind the pixels too."""
    data = encoded(syntax, lengths=False)
    there = write(data, syntax)
    heads = {"<": b"\x08\0", ">": b"\0\x08"}[">" if syntax == BIG else "<"]
    assert data[:2] == heads
    values = [
        at for at in range(len(data)) if data[at : at + 8] in (b"12345678", b"SOME VEN") or data[at : at + 3] == b"one"
    ]
    assert len(values) >= 4
    for at in values:
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            assert relation(there, write(bytes(changed), syntax)) is Relation.CONFLICT


def test_group_lengths_and_padding_do_not_count(write: Write) -> None:
    """They say nothing about the object (PS3.5 7.2, PS3.10 7.2); nor do zero bytes at the end."""
    more = el(0x00280000, "UL", struct.pack("<I", 99)) + el(0xFFFCFFFC, "OB", bytes(10))
    there = write(image(), EXPLICIT)
    assert relation(there, write(image(behind=more), EXPLICIT)) is Relation.SAME
    assert relation(there, write(image() + bytes(100), EXPLICIT)) is Relation.SAME
    assert relation(there, write(image() + bytes(100) + b"x", EXPLICIT)) is Relation.CONFLICT
    odd = el(0x00280000, "UT", b"hidden in a group length")
    assert relation(there, write(image(behind=odd), EXPLICIT)) is Relation.CONFLICT


def test_compressed_beside_uncompressed(write: Write) -> None:
    """Another encoding of the same, if all else agrees, behind the pixels too; in one syntax the bytes decide."""
    there = write(encapsulated(), JPEG)
    assert relation(there, write(image(), EXPLICIT)) is Relation.ALTERNATE
    assert relation(there, write(image(IMPLICIT), IMPLICIT)) is Relation.ALTERNATE
    assert relation(there, write(image(behind=RAW), EXPLICIT)) is Relation.CONFLICT
    assert relation(there, write(encapsulated(RAW), JPEG)) is Relation.CONFLICT
    assert relation(there, write(encapsulated(fragment=b"\xff\xd8\xff\xd8"), JPEG)) is Relation.CONFLICT
    assert relation(there, write(encapsulated(el(0xFFFCFFFC, "OB", bytes(2))), JPEG)) is Relation.SAME


@pytest.mark.parametrize("cut", [1, 7, 60, 100])
def test_what_ends_too_early_is_not_the_same(write: Write, cut: int) -> None:
    """In doubt both are kept: also of two that are cut alike in different encodings."""
    one, other = write(image()[:-cut], EXPLICIT), write(image(IMPLICIT)[:-cut], IMPLICIT)
    assert relation(one, write(image(), EXPLICIT)) is Relation.CONFLICT
    assert relation(one, other) is Relation.CONFLICT
    assert relation(one, write(image()[:-cut], EXPLICIT)) is Relation.SAME


def test_nesting_without_end_is_not_followed(write: Write) -> None:
    """Ten thousand sequences inside of one another cost no stack, and are no same as soon as a byte differs."""
    opened = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    one, other = (image()[:-76] + opened * 10_000 + end for end in (b"ab", b"cd"))
    assert relation(write(one, EXPLICIT), write(other, EXPLICIT)) is Relation.CONFLICT


def test_memory_does_not_follow_what_is_compared(write: Write) -> None:
    """Two deflated bombs, and two large values: compared block by block, to a bound; beyond it by the bytes alone."""
    size = 64 << 20
    head = image() + struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, size)
    squeezed: list[Path] = []
    for last in (b"a", b"b", b"a"):
        squeeze = zlib.compressobj(9 if len(squeezed) < 2 else 1, zlib.DEFLATED, -zlib.MAX_WBITS)
        parts = [squeeze.compress(head), *(squeeze.compress(bytes(1 << 20)) for _ in range((size >> 20) - 1))]
        parts += [squeeze.compress(bytes((1 << 20) - 1) + last), squeeze.flush()]
        squeezed.append(write(b"".join(parts), DEFLATED))
    tracemalloc.start()
    try:
        assert relation(squeezed[0], squeezed[1]) is Relation.CONFLICT
        assert relation(squeezed[0], squeezed[2]) is Relation.SAME
        with squeezed[0].open("rb") as one, squeezed[2].open("rb") as other:
            sides = [side(file.fileno(), most_inflated=1 << 20) for file in (one, other)]
            assert same_instance.relation(*sides) is Relation.CONFLICT
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20

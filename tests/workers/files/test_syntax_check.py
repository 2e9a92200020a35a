"""A stale meta group may name a stale transfer syntax: then all of the data set has to agree with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.dimse.local_instance import LocalInstance, open_instance
from dicomferry.workers.files import part10
from support import samples
from support.part10_bytes import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    JPEG,
    element,
    elements,
    encapsulated,
    meta,
)
from support.part10_bytes import part10 as file_of

J2K, LOSSLESS, LS, RLE, XL = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.110",
)
FRAMES = {
    JPEG: b"\xff\xd8\xff\xdb\0\4\0\0\xff\xc0\0\4\0\0",
    LOSSLESS: b"\xff\xd8\xff\xc4\0\4\0\0\xff\xc3\0\4\0\0",
    LS: b"\xff\xd8\xff\xf7\0\4\0\0",
    J2K: b"\xff\x4f\xff\x51\0\4\0\0",
    RLE: b"\1\0\0\0\x40\0\0\0" + b"\0" * 56 + b"\0\0",
    XL: b"\xff\x0a\0\0",
}


def verdict(path: Path) -> str | None:
    """Why the file is not sent; None where it is."""
    try:
        header = part10.read_header(os.fsencode(path))
    except UnusableFile as error:
        return error.reason
    status = path.stat()
    uids = header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid
    try:
        open_instance(LocalInstance(1, os.fsencode(path), status.st_size, status.st_mtime_ns, *uids)).close()
    except UnusableFile as error:
        return error.reason
    return None


def stale(folder: Path, syntax: str, body: bytes) -> Path:
    """A file whose meta group names another instance."""
    path = folder / "stale.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + meta(syntax, instance="1.2.99") + body)
    return path


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_a_syntax_that_holds(tmp_path: Path, syntax: str) -> None:
    """Where every element agrees with the declared syntax the file is sent."""
    assert verdict(stale(tmp_path, syntax, b"".join(elements(syntax)))) is None


def test_deflated(tmp_path: Path) -> None:
    """What inflates and is whole was deflated."""
    content = file_of(DEFLATED_LE)
    body = content[132 + len(meta(DEFLATED_LE)) :]
    assert verdict(stale(tmp_path, DEFLATED_LE, body)) is None


@pytest.mark.parametrize("declared", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, JPEG])
@pytest.mark.parametrize("actual", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_another_syntax_behind_the_first_element(tmp_path: Path, declared: str, actual: str) -> None:
    """The first elements may fit by chance: `syntax mismatch` wherever the others do not, never `truncated`."""
    if declared == actual:
        return
    first = elements(EXPLICIT_LE if declared == JPEG else declared)[:2]
    body = b"".join(first) + b"".join(elements(actual)[2:])
    assert verdict(stale(tmp_path, declared, body)) == "syntax mismatch"
    assert verdict(stale(tmp_path, declared, b"".join(elements(actual)))) == "syntax mismatch"


def test_a_vr_that_nobody_knows(tmp_path: Path) -> None:
    """In doubt it is refused: an unknown VR, which a file with a good meta group may have."""
    odd = element(0x00291010, "LO", b"abcd").replace(b"LO", b"XX")
    body = b"".join(elements()[:-1]) + odd + elements()[-1]
    assert verdict(stale(tmp_path, EXPLICIT_LE, body)) == "syntax mismatch"
    good = tmp_path / "good.dcm"
    good.write_bytes(b"\0" * 128 + b"DICM" + meta() + body)
    assert verdict(good) is None


@pytest.mark.parametrize("declared", list(FRAMES))
@pytest.mark.parametrize("actual", list(FRAMES))
def test_the_first_fragment(tmp_path: Path, declared: str, actual: str) -> None:
    """Compressed pixels tell by their first bytes what compressed them."""
    body = b"".join(elements()[:-1]) + encapsulated(FRAMES[actual])
    expected = None if declared == actual else "syntax mismatch"
    assert verdict(stale(tmp_path, declared, body)) == expected


def test_a_truncated_file_is_truncated(tmp_path: Path) -> None:
    """A stale meta group is no excuse: what is cut off is called so."""
    path = stale(tmp_path, EXPLICIT_LE, b"".join(elements()))
    os.truncate(path, path.stat().st_size - 10)
    assert verdict(path) == "truncated"


@pytest.mark.parametrize("make", [samples.rle, samples.jpeg_baseline, samples.jpeg2000])
def test_real_fragments(tmp_path: Path, make: object) -> None:
    """Files of real encoders, with the instance in their meta group made stale, are sent."""
    assert callable(make)
    path = make(tmp_path / "a.dcm").path
    content = bytearray(path.read_bytes())
    header = part10.read_header(os.fsencode(path))
    at = content.index(header.sop_instance_uid.encode())
    assert at < header.data_offset
    content[at + len(header.sop_instance_uid) - 1] ^= 1
    path.write_bytes(content)
    assert part10.read_header(os.fsencode(path)).meta_differs
    assert verdict(path) is None

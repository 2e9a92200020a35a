"""Files with something odd about their elements: what can be sent is sent, and what cannot is called by its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.files.part10 import check_whole, read_header
from support.part10_bytes import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    JPEG,
    UNDEFINED,
    element,
    elements,
    encapsulated,
    meta,
    part10,
)

SYNTAXES = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE)


def written(folder: Path, content: bytes) -> bytes:
    path = folder / "file.dcm"
    path.write_bytes(content)
    return os.fsencode(path)


def verdict(path: bytes) -> tuple[str, str]:
    with pytest.raises(UnusableFile) as caught:
        check_whole(path, read_header(path))
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("syntax", [*SYNTAXES, DEFLATED_LE])
@pytest.mark.parametrize("place", [0, 3, 5, 8], ids=["first", "in group 0008", "in group 0010", "last"])
def test_elements_out_of_order(tmp_path: Path, syntax: str, place: int) -> None:
    """PS3.5 7.1 has elements ascend. Where they do not, all of them are looked at once before it is said that there
    is no UID: SOP, study and series UIDs are found wherever they stand, and the file is whole.
    """
    parts = elements(syntax)
    rest = [part for number, part in enumerate(parts) if number not in (0, 1, 5, 6)]
    pixels = rest.pop()
    uids = [parts[number] for number in (6, 1, 5, 0)]
    stray = element(0x00080060, "CS", b"MR", EXPLICIT_LE if syntax == DEFLATED_LE else syntax)
    body = b"".join([stray, *rest[:place], *uids, *rest[place:]] if place < 8 else [stray, *rest, pixels, *uids])
    path = written(tmp_path, part10(syntax, body + (pixels if place < 8 else b"")))
    header = read_header(path)
    assert (header.sop_instance_uid, header.study_instance_uid, header.series_instance_uid) == (
        "1.2.3",
        "1.2.3.4",
        "1.2.3.5",
    )
    assert check_whole(path, header) == os.path.getsize(path)


def test_uids_behind_large_values(tmp_path: Path) -> None:
    """The slow look steps over values by their lengths, however long they are."""
    parts = elements()
    far = element(0x00091001, "OB", b"\0" * (20 << 20))
    path = written(tmp_path, part10(body=far + b"".join(parts)))
    assert read_header(path).series_instance_uid == "1.2.3.5"


def test_no_uid_stays_no_uid(tmp_path: Path) -> None:
    """Nowhere is nowhere: such a file is refused after the whole of it was looked at."""
    path = written(tmp_path, part10(body=b"".join(elements()[2:])))
    with pytest.raises(UnusableFile) as caught:
        read_header(path)
    assert caught.value.reason == "no uid"


def test_cut_before_its_uids(tmp_path: Path) -> None:
    """A file that is cut off before UIDs that may have stood further on is truncated."""
    stray = element(0x00100010, "PN", b"TEST")
    path = written(tmp_path, part10(body=stray + elements()[2] + elements()[-1])[:-10])
    with pytest.raises(UnusableFile) as caught:
        read_header(path)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "tail",
    [b"\n", b"END OF FILE\n", b"\0" * 200 + b"DICM", b"\x02\0\0\0UL\x04\0\1\2\3\4", b"\xff" * 7, b"\r\n"],
    ids=["newline", "text", "another file", "meta group", "noise", "line end"],
)
def test_trailing_bytes(tmp_path: Path, syntax: str, tail: bytes) -> None:
    """Behind a complete Pixel Data element, what cannot be an element is no sign of truncation: its number is told."""
    path = written(tmp_path, part10(syntax) + tail)
    reason, detail = verdict(path)
    assert reason == "trailing bytes"
    assert detail.startswith(f"{len(tail)} bytes behind the data set's last element, (7FE0,0010) PixelData")


def test_trailing_bytes_behind_compressed_pixels(tmp_path: Path) -> None:
    """The same behind the delimiter of encapsulated pixels."""
    body = b"".join(elements()[:-1]) + encapsulated(b"xx")
    assert verdict(written(tmp_path, part10(JPEG, body) + b"\n"))[0] == "trailing bytes"


def test_a_cut_in_what_follows_the_pixels_is_a_cut(tmp_path: Path) -> None:
    """Padding (FFFC,FFFC), signatures and private elements may follow: cut off, they are truncated."""
    for tag, vr in ((0xFFFCFFFC, "OB"), (0x7FE10010, "LO"), (0xFFFAFFFA, "SQ")):
        content = part10() + element(tag, vr, b"\1" * 40)
        for cut in (1, 20, 39, 44):
            assert verdict(written(tmp_path, content[:-cut]))[0] == "truncated", (tag, cut)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, EXPLICIT_BE])
@pytest.mark.parametrize("letters", [b"??", b"\0\0", b"1 ", b"\xff\xff"])
def test_no_value_representation(tmp_path: Path, syntax: str, letters: bytes) -> None:
    """Where PS3.5 7.1.2 wants a value representation and no letters stand, that is said: the file is not cut off."""
    odd = bytearray(element(0x00291003, "LO", b"abcd", syntax))
    odd[4:6] = letters
    parts = elements(syntax)
    for pixels in (64, 1_000_000):
        body = b"".join(parts[:-1]) + odd + element(0x7FE00010, "OW", b"\1" * pixels, syntax)
        reason, detail = verdict(written(tmp_path, part10(syntax, body)))
        assert reason == "syntax mismatch"
        assert "(0029,1003)" in detail
        assert "no value representation" in detail


def test_no_value_representation_inside_a_sequence(tmp_path: Path) -> None:
    """Nor is a file cut off whose nested elements have none."""
    odd = bytearray(element(0x00291003, "LO", b"abcd"))
    odd[4:6] = b"??"
    item = element(0xFFFEE000, "", bytes(odd), length=UNDEFINED) + element(0xFFFEE00D, "", b"")
    nested = element(0x00081140, "SQ", item, length=UNDEFINED) + element(0xFFFEE0DD, "", b"")
    parts = elements()
    reason, detail = verdict(written(tmp_path, part10(body=b"".join(parts[:3]) + nested + b"".join(parts[4:]))))
    assert reason == "syntax mismatch"
    assert "no value representation" in detail


@pytest.mark.parametrize("syntax", [JPEG, "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.98"])
def test_native_pixels_under_a_compressed_syntax(tmp_path: Path, syntax: str) -> None:
    """PS3.5 A.4 has compressed pixels encapsulated: a defined length shows that they are not compressed."""
    reason, detail = verdict(written(tmp_path, part10(syntax)))
    assert reason == "syntax mismatch"
    assert "native pixel data" in detail


def test_native_icons_are_lawful(tmp_path: Path) -> None:
    """An icon inside a sequence may be native in any syntax; JPIP syntaxes have no Pixel Data, unknown ones any."""
    icon = element(0xFFFEE000, "", element(0x7FE00010, "OW", b"\1" * 64))
    body = b"".join(elements()[:-1]) + element(0x00880200, "SQ", icon) + encapsulated(b"xx")
    path = written(tmp_path, part10(JPEG, body))
    assert check_whole(path, read_header(path)) == os.path.getsize(path)
    for syntax in ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204", "1.2.3.4"):
        path = written(tmp_path, part10(syntax))
        assert check_whole(path, read_header(path)) == os.path.getsize(path)


def test_a_short_report_that_is_cut(tmp_path: Path) -> None:
    """Without pixels the next element may always be missing: a beginning of one is truncated, and what cannot be one is
    trailing bytes.
    """
    body = b"".join(elements()[:-1])
    following = element(0x0040A730, "SQ", b"")
    for cut in range(2, 8):
        assert verdict(written(tmp_path, b"\0" * 128 + b"DICM" + meta() + body + following[:cut]))[0] == "truncated"
    assert verdict(written(tmp_path, b"\0" * 128 + b"DICM" + meta() + body + b"\n\0"))[0] == "trailing bytes"

"""What is wrong with what came: told in stable words, alike for what has just come and for what is found on disk."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.archive import index
from dicomferry.models.record.archive.index import Received
from dicomferry.models.record.database import Database
from dicomferry.workers.files import data_set, file_meta, soundness
from dicomferry.workers.files.soundness import Bounds
from dicomferry.workers.receiving import archive_check
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.journal import Journal
from support import samples
from support.receiving import BIG_ENDIAN, EXPLICIT, IMPLICIT, RLE, Site, encoded

JPEG, DEFLATED, PRIVATE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1.99", "1.2.3.4.5"
HANGING_PROTOCOL = "1.2.840.10008.5.1.4.38.1"
UID, STUDY, SERIES = samples.uid("sop"), samples.uid("study"), samples.uid("series")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def row(site: Site) -> Received:
    """What is recorded of the only file, which has to be the same when it is found later."""
    (found,) = site.looked_at
    later = archive_check.describe(site.archive, found.path)
    for key in ("flaw", "sop_instance_uid", "study_instance_uid", "series_instance_uid", "size", "transfer_syntax_uid"):
        assert getattr(later, key) == getattr(found, key), key
    return found


def flaw(site: Site, bounds: Bounds) -> str:
    """What a walk within these bounds finds wrong with the last file that came."""
    last = site.waiting[-1]
    with (site.archive.root / last.path).open("rb") as file:
        meta = file_meta.decode(file.read(1024))
        assert meta is not None
        uids = soundness.read_uids(file.fileno(), meta.data_offset, last.transfer_syntax_uid)
        return soundness.flaw_of(file.fileno(), meta.data_offset, last.transfer_syntax_uid, uids, UID, bounds) or ""


def deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    out = squeeze.compress(data) + squeeze.flush()
    return out + bytes(len(out) % 2)


def fragments() -> bytes:
    """The image with its pixels in fragments."""
    data = encoded()
    at = data.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"))
    ends = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    parts = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
    return data[:at] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + parts + ends


def out_of_order(data: bytes) -> bytes:
    """The same elements, the image's own attributes in front of its UIDs."""
    at = data.index(struct.pack("<HH", 0x0028, 0x0002))
    end = data.index(struct.pack("<HH", 0x7FE0, 0x10))
    return data[at:end] + data[:at] + data[end:]


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (encoded(), EXPLICIT), (encoded(IMPLICIT), IMPLICIT), (encoded(BIG_ENDIAN), BIG_ENDIAN), (fragments(), JPEG),
        (fragments(), RLE), (deflate(encoded()), DEFLATED), (encoded() + bytes(64), EXPLICIT), (encoded(), PRIVATE),
        (deflate(encoded() + bytes(900_000)), DEFLATED),
    ],
)  # fmt: skip
def test_a_sound_one_has_no_flaw(site: Site, data: bytes, syntax: str) -> None:
    """In every encoding, with zero bytes behind its end too."""
    assert site.receive(data, UID, syntax).status == 0
    assert row(site).flaw is None


@pytest.mark.parametrize("size", [1, 700, 1 << 20])
@pytest.mark.parametrize(
    ("data", "syntax", "flaw"),
    [
        (encoded(), JPEG, "pixels: "),
        (encoded(), RLE, "pixels: "),
        (fragments(), EXPLICIT, "pixels: "),
        (encoded()[:-100], EXPLICIT, "truncated: "),
        (encoded(IMPLICIT)[:-1], IMPLICIT, "truncated: "),
        (fragments()[:-8], JPEG, "truncated: "),
        (deflate(encoded())[:-40], DEFLATED, "truncated: "),
        (deflate(encoded()[:-40]), DEFLATED, "truncated: "),
        (os.urandom(40_000), EXPLICIT, "unreadable: "),
        (encoded(IMPLICIT), EXPLICIT, "unreadable: "),
        (encoded(), DEFLATED, "unreadable: "),
        (deflate(b"\xff" * 5000), DEFLATED, "unreadable: "),
        (encoded(StudyInstanceUID=""), EXPLICIT, "no study"),
        (encoded(StudyInstanceUID="")[:-100], EXPLICIT, "no study"),
        (encoded(StudyInstanceUID="1.02"), EXPLICIT, "odd uid"),
        (encoded(SeriesInstanceUID=""), EXPLICIT, "no series"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_stable_words(site: Site, data: bytes, syntax: str, flaw: str, size: int) -> None:
    """Kept all the same, whatever the fragments; the worst comes first, since that decides whether the file counts."""
    assert site.receive(data, UID, syntax, size=size).status == 0
    found = row(site)
    assert (found.flaw or "").startswith(flaw)
    assert found.sop_instance_uid == UID and (site.archive.root / found.path).read_bytes().endswith(data)


def test_damage_behind_the_header_is_seen(site: Site) -> None:
    """The walk goes to the end: what stands behind pixels that are well is told, with its number of bytes."""
    assert site.receive(encoded() + struct.pack("<HH2sH", 2, 0x10, b"UI", 2) + b"1\0", UID).status == 0
    assert (row(site).flaw or "").startswith("trailing bytes: 10 bytes ")


def test_damage_in_front_of_the_pixels_is_seen(site: Site) -> None:
    """An element that can be none, behind the UIDs."""
    data = encoded()
    at = data.index(struct.pack("<HH", 0x0028, 0x0010))
    assert site.receive(data[:at] + b"\x28\0\x0a\0\0\0\2\0" + data[at:], UID).status == 0
    assert (row(site).flaw or "").startswith("unreadable: ")


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    "odd",
    [struct.pack("<HH2sH", 2, 0x10, b"UI", 2) + b"1\0", struct.pack("<HHL", 8, 0x60, 2) + b"MR"],
    ids=["group", "letters"],
)
def test_damage_between_the_uids_is_seen(site: Site, odd: bytes, size: int) -> None:
    """The way to the study's UID is gone only once: what is not plain on it is left to the walk, and filed in place."""
    data = encoded()
    at = data.index(struct.pack("<HH", 0x0020, 0x000D))
    assert site.receive(data[:at] + odd + data[at:], UID, size=size).status == 0
    found = row(site)
    assert (found.flaw or "").startswith("unreadable: ")
    assert found.path == f"{STUDY}/{SERIES}/{UID}.dcm"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_the_end_is_told_the_same_from_the_head_on(syntax: str) -> None:
    """Where the way to the UIDs was plain, the rest of it leads to the same end."""
    data = encoded(syntax)
    found = data_set.head_of(data, 0, syntax, True)
    assert found.plain_upto > 0
    assert soundness.end_told(data, found.plain_upto, syntax) == soundness.end_told(data, 0, syntax) == len(data)


@pytest.mark.parametrize("size", [100, 1 << 20])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
def test_elements_out_of_order(site: Site, syntax: str, size: int) -> None:
    """The whole header is read where the first look finds no UIDs: filed by its study and series, without a flaw."""
    data = deflate(out_of_order(encoded())) if syntax == DEFLATED else None
    if data is None and syntax == BIG_ENDIAN:
        data = out_of_order_big(encoded(syntax))
    elif data is None:
        data = out_of_order(encoded(syntax))
    assert site.receive(data, UID, syntax, size=size).status == 0
    found = row(site)
    assert (found.study_instance_uid, found.series_instance_uid, found.flaw) == (STUDY, SERIES, None)
    assert found.path == f"{STUDY}/{SERIES}/{UID}.dcm"


def out_of_order_big(data: bytes) -> bytes:
    at = data.index(struct.pack(">HH", 0x0028, 0x0002))
    end = data.index(struct.pack(">HH", 0x7FE0, 0x10))
    return data[at:end] + data[:at] + data[end:]


def test_another_uid_out_of_order(site: Site) -> None:
    """A900 as where it stands in its place: nothing is kept under a UID that is not its own."""
    assert site.receive(out_of_order(encoded()), "1.2.3").status == 0xA900
    assert site.files == [] and site.waiting == []


def test_another_uid_in_a_file_that_is_found(site: Site) -> None:
    """One that lies in the archive under a UID that its data set does not have is told apart."""
    assert site.receive(encoded(), UID).status == 0
    head = file_meta.encode("1.2.3", ((file_meta.SOP_CLASS, "1.2"), (file_meta.TRANSFER_SYNTAX, EXPLICIT)))
    site.only.write_bytes(head + encoded())
    found = archive_check.describe(site.archive, site.files[0])
    assert found.flaw == f"uid differs: the data set's is {UID}"


def test_what_belongs_to_no_patient_lacks_no_study(site: Site) -> None:
    """A hanging protocol has none: that is no flaw (PS3.4 annex GG)."""
    data = encoded(SOPClassUID=HANGING_PROTOCOL, StudyInstanceUID="", SeriesInstanceUID="")
    assert site.receive(data, UID, sop_class=HANGING_PROTOCOL).status == 0
    assert row(site).flaw is None


def test_a_deflated_one_without_end_is_not_walked_to_it(site: Site) -> None:
    """What is not looked at is said; it is no reason not to count."""
    data = encoded() + struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, 4 << 20) + bytes(4 << 20)
    assert site.receive(deflate(data), UID, DEFLATED).status == 0
    assert flaw(site, Bounds(inflated=1 << 20)).startswith("not walked to its end: ")


TINY = struct.pack("<HH2sH", 0x7FE3, 0x1001, b"LO", 0)
OPEN = struct.pack("<HH2sHI", 0x7FE3, 0x1002, b"SQ", 0, 0xFFFFFFFF)
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


@pytest.mark.parametrize("behind", [TINY * 1_000_000, OPEN + ITEM * 1_000_000], ids=["elements", "items"])
def test_a_few_kilobytes_do_not_hold_up_the_rows_of_others(site: Site, behind: bytes) -> None:
    """Deflated, millions of elements without a value are no larger than a letter: the walk ends after some of them."""
    data = deflate(encoded() + behind)
    assert len(data) < 30_000
    assert site.receive(data, UID, DEFLATED).status == 0
    assert row(site).flaw == "not walked to its end: the data set has more than 300,000 elements"


def test_two_deflated_ones_are_not_compared_for_ever(site: Site) -> None:
    """In doubt both are kept."""
    for behind in (TINY * 400_000, TINY * 400_000 + ITEM):
        assert site.receive(deflate(encoded() + behind), UID, DEFLATED).status == 0
    assert [one.relation for one in site.waiting] == ["first", "conflict"]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_walk_over_small_elements_ends_as_well(site: Site, syntax: str) -> None:
    """A data set that is made of nothing else; values of a large one are stepped over and do not count."""
    bounds = Bounds(elements=1 << 20)
    tiny = TINY if syntax == EXPLICIT else struct.pack("<HHL", 0x7FE3, 0x1001, 0)
    head = struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, 4 << 20)
    large = (head if syntax == EXPLICIT else struct.pack("<HHL", 0x7FE1, 0x1001, 4 << 20)) + bytes(4 << 20)
    assert site.receive(encoded(syntax) + large, UID, syntax).status == 0
    assert flaw(site, bounds) == "" and row(site).flaw is None
    assert site.receive(encoded(syntax) + tiny * 300_000, UID, syntax).status == 0
    assert flaw(site, bounds) == "not walked to its end: the data set has more than 1 MiB of small elements"


def test_what_names_no_study_may_be_large_and_deflated(site: Site) -> None:
    """An implant's mesh, say: that the search for a study was given up is no flaw of it."""
    data = encoded(SOPClassUID=HANGING_PROTOCOL, StudyInstanceUID="", SeriesInstanceUID="")
    data += struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, 6 << 20) + bytes(6 << 20)
    assert site.receive(deflate(data), UID, DEFLATED, HANGING_PROTOCOL).status == 0
    assert row(site).flaw is None


def test_tiny_fragments_are_not_read_anew_each(site: Site) -> None:
    """A data set that comes octet by octet is looked at each time that there is twice as much of it."""
    looks: list[int] = []

    class Counted(Ingest):
        def _identify(self, first: bytes, *, whole: bool) -> bool:
            looks.append(len(first))
            return super()._identify(first, whole=whole)

    site.ingest = Counted
    data = out_of_order(encoded())
    assert site.receive(data, UID, size=1).status == 0
    assert len(looks) < 20 and sum(looks) < 4 * len(data)


@pytest.fixture
def indexer(site: Site, tmp_path: Path) -> Callable[[], list[Any]]:
    """Writes the rows of what the site received, and gives them."""
    database = Database(f"sqlite:///{tmp_path / 'rows.db'}")
    schema.upgrade(database)

    def write() -> list[Any]:
        made = Indexer(database, Journal(tmp_path / "journal"), look=partial(archive_check.look, site.archive))
        for entry in site.indexer._waiting:
            made.enter(entry.folder)
            made.add(entry.folder, entry.received, is_sound=entry.is_sound)
        made.start()
        assert made.close(30)
        found = list(index.listing(database))
        database.close()
        return found

    return write


@pytest.mark.parametrize("first", [EXPLICIT, IMPLICIT])
def test_a_row_describes_the_file_that_is_there(site: Site, indexer: Callable[[], list[Any]], first: str) -> None:
    """Not the duplicate that came behind it, in another encoding and of another size, before the row was written."""
    second = IMPLICIT if first == EXPLICIT else EXPLICIT
    for syntax in (first, second):
        assert site.receive(encoded(syntax), UID, syntax).status == 0
    (found,) = indexer()
    assert (found["transfer_syntax_uid"], found["size"]) == (first, site.only.stat().st_size)
    assert found["arrivals"] == 2


def test_a_duplicate_of_a_file_without_a_row(site: Site, indexer: Callable[[], list[Any]]) -> None:
    """The row is the file's, though nothing but a duplicate of it is to be recorded."""
    for syntax in (EXPLICIT, IMPLICIT):
        assert site.receive(encoded(syntax), UID, syntax).status == 0
    del site.indexer._waiting[0]
    (found,) = indexer()
    assert (found["transfer_syntax_uid"], found["size"], found["arrivals"]) == (EXPLICIT, site.only.stat().st_size, 1)


def test_a_file_that_is_gone_before_its_row_has_none(site: Site, indexer: Callable[[], list[Any]]) -> None:
    """A row without a file would say that something is here; the others get theirs."""
    for uid in ("1.2.1", "1.2.2"):
        assert site.receive(encoded(SOPInstanceUID=uid), uid).status == 0
    (site.archive.root / site.files[0]).unlink()
    assert [found["sop_instance_uid"] for found in indexer()] == ["1.2.2"]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("cut", [0, 1, 2, 7, 8, 12, 100])
def test_memory_and_file_tell_the_same(site: Site, syntax: str, cut: int) -> None:
    """What is taken for sound by its first bytes has no flaw in the file either, and all that is whole is so taken."""
    data = encoded(syntax)
    assert site.receive(data[: len(data) - cut], UID, syntax).status == 0
    (entry,) = site.indexer._waiting
    assert entry.is_sound == (cut == 0)
    found = archive_check.look(site.archive, entry.received)
    assert found == archive_check.look(site.archive, entry.received, entry.is_sound)
    assert found is not None and (found.flaw is None) == entry.is_sound


@pytest.mark.parametrize(("element", "vr"), [(0x08, b"OF"), (0x09, b"OD"), (0x10, b"OW")])
def test_native_pixels_under_a_compressed_syntax_are_not_taken_for_sound(site: Site, element: int, vr: bytes) -> None:
    """Their length would pass for the end of the data set, and those of floating point are never compressed (PS3.5
    A.4).
    """
    data = encoded(EXPLICIT) + struct.pack("<HH2sxxL", 0x7FE0, element, vr, 8) + bytes(8)
    assert site.receive(data, UID, RLE).status == 0
    (entry,) = site.indexer._waiting
    assert not entry.is_sound
    assert str(row(site).flaw).startswith("pixels:")


def test_a_sound_file_that_has_another_size_before_its_row_is_read(site: Site) -> None:
    """What was seen in memory holds for the file as long as that is as it came."""
    assert site.receive(encoded(), UID).status == 0
    (entry,) = site.indexer._waiting
    os.truncate(site.only, site.only.stat().st_size - 1)
    found = archive_check.look(site.archive, entry.received, entry.is_sound)
    assert found is not None and str(found.flaw).startswith("truncated:")

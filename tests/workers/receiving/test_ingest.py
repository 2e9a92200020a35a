"""One received instance: what its file is, where it lies, and what is answered."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomferry.workers.dimse.acceptor import StatusReply
from dicomferry.workers.dimse.wire.associate_items import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomferry.workers.files.same_instance import Relation
from dicomferry.workers.receiving import archive_check
from dicomferry.workers.receiving.archive import OWN
from dicomferry.workers.receiving.draft import Draft
from dicomferry.workers.receiving.ingest import Ingest, Tuning
from dicomferry.workers.receiving.journal import Journal
from support import samples
from support.installation import until
from support.receiving import BIG_ENDIAN, EXPLICIT, IMPLICIT, MR, Site, data_of, encoded


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


UID = samples.uid("sop")


@pytest.mark.parametrize("size", [1, 100, 5000, 1 << 20])
def test_the_file_is_what_came(site: Site, size: int) -> None:
    """The data set byte for byte behind our own meta group, at the place that its UIDs give."""
    data = encoded()
    assert site.receive(data, UID, size=size) == StatusReply(0)
    assert site.files == [f"{samples.uid('study')}/{samples.uid('series')}/{UID}.dcm"]
    assert data_of(site.only) == data
    meta = dcmread(site.only).file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (MR, UID)
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "SENDER"
    assert site.only.read_bytes()[:132] == b"\0" * 128 + b"DICM"


MAKERS: list[Callable[[Path], Any]] = [
    samples.implicit, samples.big_endian, samples.deflated, samples.rle, samples.jpeg_baseline, samples.jpeg2000,
    samples.private_sop_class, samples.mr_instance,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: str(make.__name__))
def test_every_encoding_is_found_its_place(site: Site, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    """Implicit, explicit, big endian, deflated, encapsulated: the UIDs come from the data set itself."""
    sample = make(tmp_path / "x.dcm")
    assert site.receive_file(sample.path) == StatusReply(0)
    assert site.files == [f"{sample.study_instance_uid}/{sample.series_instance_uid}/{sample.sop_instance_uid}.dcm"]
    assert data_of(site.only) == data_of(sample.path)
    (row,) = site.looked_at
    assert (
        row.size == site.only.stat().st_size
        and row.flaw is None
        and row.transfer_syntax_uid == str(sample.transfer_syntax_uid)
    )


def test_an_unknown_syntax_is_read_as_explicit(site: Site) -> None:
    """A private one of tomorrow: kept under its own transfer syntax UID."""
    assert site.receive(encoded(), UID, "1.2.3.4.5") == StatusReply(0)
    assert dcmread(site.only, force=True, stop_before_pixels=True).file_meta.TransferSyntaxUID == "1.2.3.4.5"
    assert site.files[0].startswith(samples.uid("study"))


def test_uids_far_behind_are_found(site: Site) -> None:
    """A sequence of half a megabyte before the study's UID."""
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.TextValue = "x" * 600_000
    data = encoded(ReferencedImageSequence=[item])
    assert site.receive(data, UID, size=10_000) == StatusReply(0)
    assert site.files[0].startswith(samples.uid("study"))
    assert data_of(site.only) == data


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 5000, b"no data set at all", os.urandom(3_000_000), encoded(IMPLICIT)[:6]], ids=len
)
def test_what_cannot_be_read_is_kept_and_flagged(site: Site, data: bytes) -> None:
    """Under the command's UID: it is not ours to judge."""
    assert site.receive(data, UID) == StatusReply(0)
    assert site.files == [f"_no_study/_no_series/{UID}.dcm"]
    assert site.only.read_bytes().endswith(data)
    (row,) = site.looked_at
    assert (row.flaw or "").startswith("unreadable: ") and row.sop_instance_uid == UID


@pytest.mark.parametrize(("uid", "sop_class"), [("1.2.3", MR), (UID, "1.2.840.10008.5.1.4.1.1.2")])
def test_a_command_that_names_another_instance(site: Site, uid: str, sop_class: str) -> None:
    """A900, and nothing is kept."""
    assert site.receive(encoded(), uid, sop_class=sop_class).status == 0xA900
    assert site.files == [] and site.waiting == [] and site.archive.drafts() == []


def test_padding_of_a_uid_does_not_count(site: Site) -> None:
    """Trailing NUL and blanks are no part of a UID; the data set keeps them."""
    data = encoded(SOPInstanceUID="1.2.3").replace(b"UI\x06\x001.2.3\0", b"UI\x06\x001.2.3 ")
    assert site.receive(data, "1.2.3") == StatusReply(0)
    assert b"1.2.3 " in site.only.read_bytes()


@pytest.mark.parametrize("uid", ["", "..", ".", "1.2/3", "../1.2", "1.2 3", "1.2\0003", "1.2_3", "1" * 129, "1.2é"])
def test_a_uid_that_is_none(site: Site, uid: str) -> None:
    """0117 for characters that no UID has; nothing is written anywhere."""
    assert site.receive(encoded(), uid).status == 0x0117
    assert site.files == []


@pytest.mark.parametrize(
    ("uid", "why"),
    [("", "is missing"), ("1" * 129, "has more than 128 characters"), ("1_2", "has a character that no")],
)
def test_what_is_wrong_with_a_uid_is_said(site: Site, uid: str, why: str) -> None:
    """The sender's administrator reads it in the error comment."""
    assert site.receive(encoded(), uid).comment.startswith(f"SOP Instance UID {why}")


def test_a_transfer_syntax_that_no_row_could_name(site: Site) -> None:
    """0117 for a UID of more than 128 characters, wherever it stands."""
    assert site.receive(encoded(), UID, "1.2." + "3" * 125).status == 0x0117
    assert site.files == []


@pytest.mark.parametrize("uid", ["1.02.3", "1.2.A-b", "1" * 65, "2.25." + "9" * 100, "-1", ".1.2"])
def test_an_odd_uid_is_kept_and_flagged(site: Site, uid: str) -> None:
    """Leading zeros, letters, over 64 characters: in use, so they are taken; never repaired."""
    assert site.receive(encoded(SOPInstanceUID=uid), uid) == StatusReply(0)
    (row,) = site.looked_at
    assert row.flaw == "odd uid" and row.sop_instance_uid == uid
    assert site.only.parent.parent.parent == site.archive.root


# --- a second time ------------------------------------------------------------------------------------------


def outcomes(site: Site) -> list[str]:
    return [row.arrival.outcome for row in site.waiting if row.arrival]


def test_the_same_again(site: Site) -> None:
    """Equal bytes: success, kept once, and both arrivals are on record."""
    for _ in range(2):
        assert site.receive(encoded(), UID) == StatusReply(0)
    assert len(site.files) == 1
    assert outcomes(site) == ["stored", "duplicate"]
    assert site.waiting[0].path == site.waiting[1].path


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN, EXPLICIT])
def test_the_same_in_another_encoding(site: Site, syntax: str) -> None:
    """Equal elements apart from encoding, group lengths and padding: kept once."""
    assert site.receive(encoded(), UID) == StatusReply(0)
    ds = samples.dataset(size=16)
    if syntax == BIG_ENDIAN:
        ds.PixelData = b"".join(ds.PixelData[i : i + 2][::-1] for i in range(0, len(ds.PixelData), 2))
    data = samples.encoded(ds, syntax)
    if syntax == EXPLICIT:
        data += struct.pack("<HH2s2xL", 0xFFFC, 0xFFFC, b"OB", 10) + bytes(10)
    assert site.receive(data, UID, syntax) == StatusReply(0)
    assert len(site.files) == 1
    assert outcomes(site) == ["stored", "duplicate"]


@pytest.mark.parametrize("change", [{"PatientName": "Other^One"}, {"PixelData": bytes(512)}, {"Rows": 15}])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_another_content_under_one_uid(site: Site, change: dict[str, object], syntax: str) -> None:
    """A conflict: both are kept, each once."""
    assert site.receive(encoded(), UID) == StatusReply(0)
    for _ in range(2):
        assert site.receive(encoded(syntax, **change), UID, syntax) == StatusReply(0)
    assert [Path(path).name for path in site.files] == [f"{UID}.dcm", f"{UID}~2.dcm"]
    assert outcomes(site) == ["stored", "conflict", "duplicate"]
    assert [row.relation for row in site.waiting[:2]] == ["first", "conflict"]


def test_ever_new_contents_under_one_uid_do_not_get_dearer(site: Site) -> None:
    """Only the first few are parsed; further ones are kept all the same, and the same bytes are known again."""
    parsed: list[bool] = []

    class Counted(Ingest):
        def _compare(self, draft: Draft, folder: str, name: str, *, elements: bool) -> Relation | None:
            parsed.append(elements)
            return super()._compare(draft, folder, name, elements=elements)

    site.ingest = partial(Counted, tuning=Tuning(most_parsed=2))
    names = [f"Other^{number}" for number in range(5)]
    for name in (*names, names[-1]):
        assert site.receive(encoded(PatientName=name), UID) == StatusReply(0)
    assert outcomes(site) == ["stored", "conflict", "conflict", "conflict", "conflict", "duplicate"]
    # None, one, then two comparisons each.
    assert parsed.count(True) == 0 + 1 + 2 + 2 + 2 + 2


def test_another_transfer_syntax_of_the_same(site: Site, tmp_path: Path) -> None:
    """Compressed beside uncompressed: an alternate, not a conflict; both are kept."""
    sample = samples.rle(tmp_path / "rle.dcm")
    assert site.receive_file(sample.path) == StatusReply(0)
    ds = Dataset()
    ds.update(dcmread(sample.path))
    ds.PixelData = bytes(ds.Rows * ds.Columns * 2)
    ds["PixelData"].is_undefined_length = False
    plain = samples.write(tmp_path / "plain.dcm", ds)
    assert site.receive_file(plain.path) == StatusReply(0)
    assert outcomes(site) == ["stored", "alternate"]
    assert len(site.files) == 2


# --- when the disk or the index does not play along ---------------------------------------------------------


@pytest.mark.parametrize("call", ["writev", "fdatasync", "link", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails(site: Site, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """A700 whatever step fails, no half-written file, and the next one is taken."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    assert site.receive(encoded(), UID, size=1000).status == 0xA700
    monkeypatch.undo()
    assert site.archive.drafts() == [] and site.waiting == []
    assert [path for path in site.files if data_of(site.archive.root / path) != encoded()] == []
    assert site.receive(encoded(), UID) == StatusReply(0)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), os.mkfifo, Path.mkdir])
def test_a_name_that_is_taken_by_no_file(site: Site, make: Callable[[Path], object]) -> None:
    """A link, a pipe or a folder in a file's place is left alone and never followed: the instance lies beside it."""
    assert site.receive(encoded(), UID) == StatusReply(0)
    taken = site.only
    taken.unlink()
    make(taken)
    before = taken.lstat()
    assert site.receive(encoded(), UID) == StatusReply(0)
    assert outcomes(site) == ["stored", "conflict"]
    assert data_of(taken.with_name(f"{UID}~2.dcm")) == encoded()
    assert (taken.lstat().st_ino, taken.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_folder_that_was_renamed_while_it_was_held_open(site: Site) -> None:
    """Success is said of a file that lies where its path says: nothing strays into the folder's new name."""
    series = samples.uid("series")
    assert site.receive(encoded(SOPInstanceUID="1.2.1"), "1.2.1") == StatusReply(0)
    study = site.only.parents[1]
    study.rename(study.with_name("moved"))
    assert site.receive(encoded(SOPInstanceUID="1.2.2"), "1.2.2") == StatusReply(0)
    assert (study / series / "1.2.2.dcm").is_file()
    assert [path.name for path in (study.with_name("moved") / series).iterdir()] == ["1.2.1.dcm"]
    # The one that went with the folder is no reason to throw the next one away.
    assert site.receive(encoded(SOPInstanceUID="1.2.1"), "1.2.1") == StatusReply(0)
    assert (study / series / "1.2.1.dcm").is_file()
    assert outcomes(site) == ["stored"] * 3


def elsewhere(site: Site) -> Path:
    """The archive, which is known by its mark, and where it lies now instead of at its place."""
    (site.archive.root / OWN / "mark").write_text("one\n")
    site.archive.remember()
    away = site.archive.root.with_name("away")
    os.rename(site.archive.root, away)
    return away


@pytest.mark.parametrize("mark", ["other\n", None])
def test_another_archive_is_mounted_over_this_one(site: Site, mark: str | None) -> None:
    """Or the folder is empty, since the disk is not there: what is put there would be lost with the right one back."""
    spare = site.archive.spare_draft()
    away = elsewhere(site)
    (site.archive.root / OWN / "incoming").mkdir(parents=True)
    if mark:
        (site.archive.root / OWN / "mark").write_text(mark)
    for draft in (spare, None):
        sink = site.sink(UID, spare=draft)
        sink.take([memoryview(encoded())])
        answer = sink.finish()
        assert answer.status == 0xA700 and "another archive, or none, lies at its place" in answer.comment
    assert site.files == [] and site.waiting == []
    shutil.rmtree(site.archive.root)
    os.rename(away, site.archive.root)
    assert site.receive(encoded(), UID).status == 0


def test_the_same_disk_mounted_anew(site: Site) -> None:
    """Other numbers of device and file, and the same mark."""
    away = elsewhere(site)
    shutil.copytree(away, site.archive.root)
    assert site.receive(encoded(), UID).status == 0


def test_a_row_waits_for_an_archive_that_is_out_of_sight(site: Site) -> None:
    """What was answered for is not gone because its disk is away for a moment."""
    assert site.receive(encoded(), UID).status == 0
    away = elsewhere(site)
    site.indexer._look = partial(archive_check.look, site.archive)
    for entry in site.indexer._waiting:
        entry.is_seen = False
        site.archive.let_go(entry.folder)
    assert site.indexer._write(site.indexer._waiting[:]) is False
    assert not site.archive.root.exists()
    os.rename(away, site.archive.root)
    assert site.indexer._write(site.indexer._waiting[:]) is True
    assert [row.path for row in site.rows] == site.files


def test_an_archive_out_of_reach(site: Site) -> None:
    """A700 to whoever sends, and what is sent once it is back is taken: no association breaks for it."""
    away = site.archive.root.with_name("away")
    site.archive.root.rename(away)
    assert site.receive(encoded(), UID).status == 0xA700
    site.archive.root.mkdir()
    assert site.receive(encoded(), UID).status == 0xA700
    site.archive.root.rmdir()
    away.rename(site.archive.root)
    assert site.archive._nameless
    assert site.receive(encoded(), UID) == StatusReply(0)
    assert data_of(site.only) == encoded()


def test_below_the_reserve(site: Site) -> None:
    """A700 before a byte is written."""
    site.archive.reserve_bytes = 1 << 62
    assert site.receive(encoded(), UID) == StatusReply(0xA700, "disk is full to its reserve")
    assert site.files == []


def test_the_reserve_is_reached_under_way(site: Site) -> None:
    """A large object is given up as soon as it would eat into the reserve."""
    site.ingest = partial(Ingest, tuning=Tuning(room_every=2000))
    sink = site.sink(UID)
    data = memoryview(encoded() + bytes(10_000))
    sink.take([data[:1500]])
    site.archive.reserve_bytes = 1 << 62
    sink.take([data[1500:]])
    assert sink.finish().status == 0xA700
    assert site.files == [] and site.archive.drafts() == []


def test_too_many_wait_for_their_rows(tmp_path: Path) -> None:
    """With the database away for long, A700 rather than memory without end."""
    site = Site(tmp_path, most_waiting=1)
    assert site.receive(encoded(), UID) == StatusReply(0)
    assert site.receive(encoded(), UID).status == 0xA700


def test_a_draft_that_was_there_before(site: Site) -> None:
    """It is the one that is written, and it is closed also where nothing is written."""
    spare = site.archive.spare_draft()
    assert spare is not None
    inode = os.fstat(spare.fd).st_ino
    sink = site.sink(UID, spare=spare)
    sink.take([memoryview(encoded())])
    assert sink.finish() == StatusReply(0)
    assert site.only.stat().st_ino == inode and spare.fd == -1

    site.archive.reserve_bytes = 1 << 62
    spare = site.archive.spare_draft()
    assert spare is not None
    assert site.sink(UID, spare=spare).finish().status == 0xA700
    assert spare.fd == -1 and site.archive.drafts() == []


def test_a_named_draft_is_not_made_ahead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would lie about when the process dies, for nothing."""
    monkeypatch.setattr(site.archive, "_nameless", False)
    assert site.archive.spare_draft() is None and site.archive.drafts() == []


def test_an_association_that_breaks_leaves_nothing(site: Site) -> None:
    """Half an instance is none."""
    sink = site.sink(UID)
    sink.take([memoryview(encoded())[:2000]])
    sink.discard()
    assert site.files == [] and site.archive.drafts() == []


def test_the_end_of_an_association_is_no_time_to_wait(tmp_path: Path) -> None:
    """Rows are written in batches; once nothing more comes, what there is makes one."""
    site = Site(tmp_path, batch_seconds=3600.0, still_seconds=3600.0)
    site.indexer.start()
    uid = "1.2.1"
    assert site.receive(encoded(SOPInstanceUID=uid), uid) == StatusReply(0)
    site.indexer.hurry()
    until(lambda: [row.sop_instance_uid for row in site.rows] == [uid], "its row is written")
    assert site.indexer.close(30)


def test_rows_follow_when_the_database_is_back(site: Site) -> None:
    """What was answered while it was away is written later, in order, and then the journal is empty."""
    site.away = True
    site.indexer.start()
    for number in range(5):
        uid = f"1.2.{number + 1}"
        assert site.receive(encoded(SOPInstanceUID=uid), uid) == StatusReply(0)
    journal = Journal(site.archive.root / OWN / "journal")
    assert journal.read() == [f"{samples.uid('study')}/{samples.uid('series')}"]
    site.away = False
    assert site.indexer.close(30)
    assert [row.sop_instance_uid for row in site.rows] == [f"1.2.{n}" for n in range(1, 6)]
    assert journal.read() == []


def test_a_file_tells_its_own_row(site: Site, tmp_path: Path) -> None:
    """After a restart the row is made from the file alone: the same as it would have been."""
    for sample in (samples.mr_instance(tmp_path / "a"), samples.deflated(tmp_path / "b"), samples.rle(tmp_path / "c")):
        site.receive_file(sample.path)
    site.receive(b"junk", "1.2.3")
    site.receive(encoded(), UID)
    site.receive(encoded(PatientName="Other"), UID)
    for received in site.waiting:
        found = archive_check.describe(site.archive, received.path)
        keys = ("path", "size", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_instance_uid",
                "series_instance_uid", "relation")  # fmt: skip
        assert {key: getattr(found, key) for key in keys} == {key: getattr(received, key) for key in keys}
        assert bool(found.flaw) == bool(received.flaw)

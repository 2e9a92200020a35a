"""After a power cut: everything that was answered for is there, whole, once, and nothing else was touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomferry.workers.receiving.archive import OWN
from dicomferry.workers.receiving.reception_log import recovery
from support.logged_site import LoggedSite
from support.receiving import IMPLICIT, Site, encoded

UID = "1.2.1"
DATA = encoded(SOPInstanceUID=UID, PixelData=b"pixel" * 600)


def received(folder: Path, *data: bytes) -> LoggedSite:
    """A site that received this, by its log alone, and whose process is dead."""
    site = LoggedSite(folder)
    for one in data or (DATA,):
        assert site.receive(one, UID).status == 0
    site.die()
    return site


def zero(path: Path, begin: int, end: int) -> None:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(end - begin))


TEARS: list[Callable[[Path], object]] = [
    os.unlink,
    lambda path: os.truncate(path, 0),
    lambda path: os.truncate(path, 1024),
    lambda path: os.truncate(path, 1000),
    lambda path: zero(path, 512, 1024),
    lambda path: zero(path, 0, path.stat().st_size),
]


@pytest.mark.parametrize("tear", TEARS)
def test_a_file_that_is_gone_or_torn_is_made_anew_under_its_name(
    tmp_path: Path, tear: Callable[[Path], object]
) -> None:
    """Whatever the disk had of it."""
    site = received(tmp_path)
    before = site.contents
    tear(site.only)
    assert site.recover().files == list(before)
    assert site.contents == before and site.archive.drafts() == []


def test_a_study_whose_folders_are_gone_is_made_anew(tmp_path: Path) -> None:
    """Folders are flushed when they are made; should a disk lose them all the same, the record has the whole place."""
    site = received(tmp_path)
    before = site.contents
    shutil.rmtree(site.only.parents[1])
    site.recover()
    assert site.contents == before


def test_what_is_whole_is_not_touched(tmp_path: Path) -> None:
    """It is the same file afterwards, flushed; nothing is reported as made."""
    site = received(tmp_path)
    number = site.only.stat().st_ino
    assert site.recover().files == [] and site.only.stat().st_ino == number


def test_recovering_twice_is_recovering_once(tmp_path: Path) -> None:
    """The log is free afterwards: what is removed by hand from then on stays so."""
    site = received(tmp_path)
    site.recover()
    site.only.unlink()
    assert site.recover().files == [] and site.files == []


def test_another_file_at_the_place_stays_and_the_record_gets_the_next_name(tmp_path: Path) -> None:
    """Nothing is written over that the record did not make."""
    site = received(tmp_path)
    content, path = site.only.read_bytes(), site.only
    other = content[:-5] + b"other"
    path.write_bytes(other)
    assert site.recover().files == [str(path.relative_to(site.archive.root)).replace(".dcm", "~2.dcm")]
    assert sorted(site.contents.values()) == sorted([content, other]) and path.read_bytes() == other


def test_the_same_instance_in_another_encoding_is_enough(tmp_path: Path) -> None:
    """As when it is received: it is there, once."""
    site = received(tmp_path)
    site.only.unlink()
    Site(tmp_path).receive(encoded(IMPLICIT, SOPInstanceUID=UID, PixelData=b"pixel" * 600), UID, IMPLICIT)
    assert site.recover().files == [] and len(site.files) == 1


def test_two_records_of_one_place_of_which_the_first_was_never_linked(tmp_path: Path) -> None:
    """The process died between record and link, the instance came again otherwise: both are whole in the end."""
    other = encoded(SOPInstanceUID=UID, PatientName="Other")
    site = LoggedSite(tmp_path)
    site.receive(DATA, UID)
    [first] = site.contents.values()
    site.only.unlink()
    site.receive(other, UID)
    second = site.only.read_bytes()
    site.die()
    site.recover()
    assert sorted(site.contents.values()) == sorted([first, second])


def test_a_log_whose_process_lives_is_left_alone(tmp_path: Path) -> None:
    """It is not dead: it has what it needs in memory."""
    site = LoggedSite(tmp_path)
    site.receive(DATA, UID)
    site.only.unlink()
    assert site.recover().files == [] and site.files == []
    site.die()
    assert len(site.recover().files) == 1


def test_the_logs_of_several_processes_are_recovered_and_those_not_used_any_more_go(tmp_path: Path) -> None:
    """Each has a log of its own; fewer processes have fewer logs."""
    sites = [LoggedSite(tmp_path, number=number) for number in range(3)]
    for number, site in enumerate(sites):
        uid = f"1.2.{number}"
        site.receive(encoded(SOPInstanceUID=uid), uid)
    before = sites[0].contents
    for path in sites[0].files:
        (sites[0].archive.root / path).unlink()
    for site in sites:
        site.die()
    assert len(recovery.recover(sites[0].archive, processes=2).files) == 3
    assert sites[0].contents == before
    assert [folder.name for folder in recovery.folders(sites[0].archive)] == ["log-0", "log-1"]


def test_damage_is_told_and_kept_and_what_follows_it_is_recovered(tmp_path: Path) -> None:
    """The segment is set aside under a name by which it is not read again."""
    site = LoggedSite(tmp_path)
    for number in range(3):
        uid = f"1.2.{number}"
        site.receive(encoded(SOPInstanceUID=uid), uid)
    assert site.log.active is not None
    second, path = list(site.log.active.heads())[1], site.log.active.path
    before = site.contents
    for name in site.files:
        (site.archive.root / name).unlink()
    site.die()
    zero(path, second.offset, second.offset + second.size)
    found = site.recover()
    assert set(site.contents) == set(found.files) == {name for name in before if not name.endswith("1.2.1.dcm")}
    assert found.damaged == recovery.damaged(site.archive) and found.damaged[0].parent == path.parent
    assert not path.exists() and site.recover().damaged == []


def test_a_log_that_was_being_made_is_none(tmp_path: Path) -> None:
    """The power went while a segment was written with zeros: nothing was committed in it."""
    site = received(tmp_path)
    site.recover()
    folder = site.archive.root / OWN / "log-0"
    (folder / "half.segment").write_bytes(bytes(3000))
    assert site.recover().files == []
    again = LoggedSite(tmp_path)
    assert not (folder / "half.segment").exists() and again.log.free
    again.die()

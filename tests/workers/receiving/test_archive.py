"""Where files lie, how they get there, and what the journal remembers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.workers.receiving import archive as archives
from dicomferry.workers.receiving.archive import Archive, file_name
from dicomferry.workers.receiving.journal import Journal

UID = "1.2.840.113619.2.55"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / "archive")
    made.prepare()
    return made


def put(archive: Archive, folder: str, name: str, content: bytes = b"content") -> bool:
    draft = archive.draft()
    try:
        draft.write([content])
        archive.flush_draft(draft)
        done = archive.publish(draft, folder, name)
        archive.flush_folder(folder)
        return done
    finally:
        draft.close()


def everything(folder: Path) -> set[str]:
    """All files below, as paths."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_held_open_while_it_is_used(tmp_path: Path) -> None:
    """Even when other threads push it out of the list of open folders at once."""
    archive = Archive(tmp_path / "archive", most_folders=0)
    archive.prepare()
    assert put(archive, "1/2", "3.dcm")
    os.close(archive.open_file("1/2", "3.dcm"))


@pytest.mark.parametrize(
    ("study", "series", "instance", "expected"),
    [
        ("1.2", "1.2.3", "1.2.3.4", "1.2/1.2.3/1.2.3.4.dcm"),
        ("01.2.A-b", "1", "2.25.007", "01.2.A-b/1/2.25.007.dcm"),
        (None, None, UID, f"_no_study/_no_series/{UID}.dcm"),
        ("", UID, UID, f"_no_study/{UID}/{UID}.dcm"),
    ],
)
def test_the_path_is_made_of_the_uids(study: str | None, series: str | None, instance: str, expected: str) -> None:
    """Study, series, instance; odd ones as they are, missing ones under a name that no UID has."""
    folder, stem = archives.place(study, series, instance)
    assert f"{folder}/{archives.file_name(stem, 1)}" == expected


@given(st.text(max_size=140))
def test_no_uid_leads_out_of_its_folder(uid: str) -> None:
    """Whatever stands where a UID should: its name has no separator, begins with no dot, and is of bounded length."""
    name = archives.component(uid, "study")
    assert re.fullmatch(r"[0-9A-Za-z_][0-9A-Za-z._\-]{0,63}", name)
    assert name.startswith("_") or name == uid


def test_two_odd_uids_have_two_names() -> None:
    """A hash keeps apart what cannot be a name."""
    odd = ["..", "../../etc", ".ferry", "a/b", "x" * 65, "x" * 66, "\0", "1.2 "]
    assert len({archives.component(uid, "study") for uid in odd}) == len(odd)


def test_what_is_published_is_there(archive: Archive) -> None:
    """The whole content under its name; nothing else but our own folder."""
    assert put(archive, "1/2", "3.dcm", b"abc" * 1000)
    assert (archive.root / "1/2/3.dcm").read_bytes() == b"abc" * 1000
    assert list(archive.files()) == ["1/2/3.dcm"]
    assert archive.drafts() == []


def test_a_name_that_is_taken_stays(archive: Archive) -> None:
    """Publishing never replaces."""
    assert put(archive, "1/2", "3.dcm", b"first")
    assert not put(archive, "1/2", "3.dcm", b"second")
    assert (archive.root / "1/2/3.dcm").read_bytes() == b"first"


def test_a_draft_that_is_given_up_leaves_nothing(archive: Archive) -> None:
    """Neither a file nor a folder."""
    draft = archive.draft()
    draft.write([b"abc"])
    draft.close()
    assert everything(archive.root) == set()


def test_without_nameless_files(archive: Archive) -> None:
    """Where the file system has none, a draft has a name in our own folder until it is published."""
    archive._nameless = False
    draft = archive.draft()
    draft.write([b"abc"])
    assert len(archive.drafts()) == 1
    assert archive.publish(draft, "1/2", "3.dcm")
    draft.close()
    assert archive.drafts() == []
    assert everything(archive.root) == {"1/2/3.dcm"}


def test_left_over_drafts_are_removed(archive: Archive) -> None:
    """What a process that died was receiving; what a living one receives, such as a C-GET, is left to it."""
    archive._nameless = False
    dead, living = archive.draft(), archive.draft()
    os.close(dead.fd)
    assert archive.remove_drafts() == 1
    assert archive.drafts() == [Path(str(living.path))]
    living.close()
    assert archive.drafts() == []


def test_a_file_system_without_locks(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is received into all the same; what is left there is removed."""

    def flock(fd: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    archive._nameless = False
    archive.draft()
    assert archive.remove_drafts() == 1 and archive.drafts() == []


def test_the_files_of_one_instance_come_in_the_order_of_their_numbers(archive: Archive) -> None:
    """The tenth is behind the second: of several contents the last one is the newest, which counts."""
    for number in (10, 2, 1, 11):
        put(archive, "1/2", file_name("3", number))
    assert list(archive.files()) == ["1/2/3.dcm", "1/2/3~2.dcm", "1/2/3~10.dcm", "1/2/3~11.dcm"]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for its files is told so; a folder that is gone has none."""
    put(archive, "1/2", "3.dcm")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("1/2"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        list(archive.files("1/2"))
    assert list(archive.files("1/3")) == list(archive.files()) == []


def test_only_one_receives(archive: Archive) -> None:
    """A second storage SCP on the same archive would remove the first one's drafts."""
    held = archive.claim()
    with pytest.raises(ConfigurationError, match="another storage SCP"):
        archive.claim()
    os.close(held)
    os.close(archive.claim())


def test_many_views_in_one_write(archive: Archive) -> None:
    """More than the system takes at once, and empty ones among them."""
    draft = archive.draft()
    pieces = [bytes([n % 251]) * (n % 7) for n in range(5000)]
    draft.write([memoryview(piece) for piece in pieces])
    assert draft.size == sum(map(len, pieces))
    assert archive.publish(draft, "1/2", "3.dcm")
    draft.close()
    assert (archive.root / "1/2/3.dcm").read_bytes() == b"".join(pieces)


def test_a_write_that_comes_back_short(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system did not take is written again from there."""
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, views: real(fd, [memoryview(views[0])[:3]]))
    draft = archive.draft()
    draft.write([b"abcdefgh", b"", memoryview(b"ijkl")])
    monkeypatch.undo()
    assert os.pread(draft.fd, 100, 0) == b"abcdefghijkl"
    draft.close()


@pytest.mark.parametrize("level", ["1", "1/2"])
def test_a_link_in_the_way_is_not_followed(archive: Archive, tmp_path: Path, level: str) -> None:
    """Nothing is written outside the archive, though somebody planted a link to there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (archive.root / level).parent.mkdir(exist_ok=True)
    (archive.root / level).symlink_to(outside)
    with pytest.raises(OSError):
        put(archive, "1/2", "3.dcm")
    assert everything(outside) == set()


def test_a_folder_that_was_removed_comes_back(archive: Archive) -> None:
    """`archive remove` may take an empty folder away while the storage SCP has it open."""
    put(archive, "1/2", "3.dcm")
    assert archive.remove("1/2/3.dcm") == 7
    assert not (archive.root / "1").exists()
    assert put(archive, "1/2", "3.dcm")
    assert list(archive.files()) == ["1/2/3.dcm"]


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "1/../x", ".ferry/incoming/x", "1/2"])
def test_only_instances_are_removed(archive: Archive, path: str) -> None:
    """A path that is none of ours is refused."""
    with pytest.raises(OSError):
        archive.remove(path)


class Order:
    """Which system calls were made, in order, by name and path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._of(name, getattr(os, name)))
        real = os.link

        def link(source: str, target: str, *, dst_dir_fd: int, follow_symlinks: bool) -> None:
            self.calls.append(("link", self._path(dst_dir_fd) + "/" + target))
            real(source, target, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)

        monkeypatch.setattr(os, "link", link)

    def _of(self, name: str, real: object) -> object:
        def call(fd: int) -> None:
            self.calls.append((name, self._path(fd)))
            real(fd)  # type: ignore[operator]

        return call

    @staticmethod
    def _path(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_the_order_in_which_things_reach_the_disk(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, then every folder newly made from above, then the name, then its folder; known folders only once."""
    order = Order(monkeypatch)
    root = str(archive.root)
    put(archive, "1/2", "3.dcm")
    put(archive, "1/2", "4.dcm")
    names = [(call, path) if "deleted" not in path else (call, "draft") for call, path in order.calls]
    assert names == [
        ("fdatasync", "draft"), ("fsync", root), ("fsync", f"{root}/1"), ("link", f"{root}/1/2/3.dcm"),
        ("fsync", f"{root}/1/2"), ("fdatasync", "draft"), ("link", f"{root}/1/2/4.dcm"), ("fsync", f"{root}/1/2"),
    ]  # fmt: skip


def test_an_archive_that_cannot_be_made(tmp_path: Path) -> None:
    """The setting is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"scp\.archive"):
        Archive(tmp_path / "file" / "archive").prepare()


# --- the journal --------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_folder_is_on_the_list_before_anything_is_in_it(path: Path) -> None:
    """Once, however many files follow; another process reads it."""
    journal = Journal(path)
    for folder in ("1/2", "1/3", "1/2"):
        journal.enter(folder)
        assert folder in Journal(path).read()
    assert Journal(path).read() == ["1/2", "1/3"]
    assert path.read_bytes().count(b"\n") == 2


def test_the_list_is_shortened_when_all_is_indexed(path: Path) -> None:
    """Not as long as a file of it is not; afterwards the folder is written down again."""
    journal = Journal(path)
    journal.enter("1/2")
    journal.enter("1/2")
    journal.leave("1/2")
    journal.shorten()
    assert Journal(path).read() == ["1/2"]
    journal.leave("1/2")
    journal.shorten()
    assert Journal(path).read() == []
    journal.enter("1/2")
    assert Journal(path).read() == ["1/2"]


def test_a_long_list_keeps_what_is_open(path: Path) -> None:
    """It is rewritten under way when it has grown too long."""
    journal = Journal(path, most_lines=3)
    for number in range(5):
        journal.enter(f"1/{number}")
    journal.leave("1/2", 1)
    journal.shorten()
    assert Journal(path).read() == ["1/0", "1/1", "1/3", "1/4"]


def test_a_line_that_was_cut_off(path: Path) -> None:
    """A power cut in mid-line: nothing was published for it, and the next line is not glued to it."""
    path.write_bytes(b"1/2\n1/3\n1/")
    journal = Journal(path)
    assert journal.read() == ["1/2", "1/3"]
    journal.enter("1/4")
    assert "1/4" in Journal(path).read()


def test_a_journal_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing may be published: the folder does not count as written down."""
    journal = Journal(path)
    journal.enter("1/2")
    real = os.fdatasync

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError):
        journal.enter("1/3")
    monkeypatch.setattr(os, "fdatasync", real)
    assert Journal(path).read() == ["1/2"]
    journal.enter("1/3")
    assert Journal(path).read() == ["1/2", "1/3"]

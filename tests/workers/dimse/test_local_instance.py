"""A file that was read into memory before its turn: what lies there goes out if the file is still the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.dimse.heads import Heads
from dicomferry.workers.dimse.local_instance import LocalInstance, open_instance
from dicomferry.workers.dimse.wire.pdu_writer import SourceFailed
from dicomferry.workers.files import part10
from dicomferry.workers.files.file_state import Content
from dicomferry.workers.sending.inventory import inventory
from support import samples
from support.samples import Sample


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples were not written just now."""
    monkeypatch.setattr("time.time", lambda: os.stat("/proc/self").st_ctime + 60)


def read(sample: Sample) -> LocalInstance:
    """As an inventory reads it that keeps everything."""
    (found,) = inventory([os.fsencode(sample.path)], recursive=False, keeps=lambda _: True)
    header = found.header
    assert header is not None
    uids = header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid
    return LocalInstance(1, found.path, found.size, found.mtime_ns, *uids, found.content)


def kept(item: LocalInstance) -> Content:
    assert item.content is not None
    return item.content


def test_what_was_kept_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither opened nor read; its data set is looked at as that of any other file."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    item = read(sample)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: pytest.fail("opened"))
        opened = open_instance(item)
    assert opened.held == sample.path.read_bytes() == kept(item).data
    assert opened.header == part10.read_header(item.path, first=kept(item).data)
    assert opened.length == len(kept(item).data) - opened.header.data_offset
    assert opened.is_as_seen() and opened.is_unchanged()
    opened.close()


def _rewrite(path: Path) -> None:
    """Other pixels, and the times of before."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\7" * 100)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(path: Path) -> None:
    """Another file of the same bytes."""
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize("change", [_rewrite, _replace])
@pytest.mark.parametrize("trusting", [False, True])
def test_what_is_not_the_same_file_any_more_is_read_anew(
    tmp_path: Path, change: Callable[[Path], None], trusting: bool
) -> None:
    """Written over with its times kept, or another one under its name: the bytes that lie in memory do not go out. Who
    opens it before its turn is told at its turn.
    """
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    item = read(sample)
    if trusting:
        early = open_instance(item, trusting=True)
        change(sample.path)
        assert early.held == kept(item).data and not early.is_as_seen()
    else:
        change(sample.path)
    opened = open_instance(item, most_held=1 << 20)
    assert opened.fd >= 0 and opened.held == sample.path.read_bytes()
    opened.close()


def test_a_file_that_is_gone_is_vanished_though_it_lies_in_memory(tmp_path: Path) -> None:
    """What was taken away is not to be sent."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    item = read(sample)
    early = open_instance(item, trusting=True)
    sample.path.unlink()
    assert not early.is_as_seen() and not early.is_unchanged()
    with pytest.raises(UnusableFile) as told:
        open_instance(item)
    assert told.value.reason == "vanished"


def test_a_file_that_now_holds_another_instance_is_changed(tmp_path: Path) -> None:
    """As it is without having been kept."""
    sample, other = (samples.mr_instance(tmp_path / f"{n}.dcm", number=n) for n in (1, 2))
    item = read(sample)
    other.path.rename(sample.path)
    with pytest.raises(UnusableFile) as told:
        open_instance(item)
    assert told.value.reason == "changed"


def test_a_broken_file_is_told_of_from_memory_as_from_disk(tmp_path: Path) -> None:
    """Truncated, in the same words."""
    sample = samples.truncated(tmp_path / "cut.dcm")
    item = read(sample)
    texts = []
    for one in (item, item._replace(content=None)):
        with pytest.raises(UnusableFile) as told:
            open_instance(one)
        texts.append((told.value.reason, str(told.value)))
    assert texts[0] == texts[1] and texts[0][0] == "truncated"


def test_what_needs_a_closer_look_is_opened(tmp_path: Path) -> None:
    """A deflated data set, and one whose meta group names another instance."""
    for sample in (samples.deflated(tmp_path / "deflated.dcm"), samples.meta_mismatch(tmp_path / "stale.dcm")):
        opened = open_instance(read(sample))
        assert opened.fd >= 0
        opened.close()


def test_a_descriptor_of_what_lies_in_memory(tmp_path: Path) -> None:
    """Who re-encodes reads the file; one that is another by now is not that."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    opened = open_instance(read(sample))
    with opened.descriptor() as fd:
        assert os.pread(fd, 1 << 20, 0) == opened.held
    _rewrite(sample.path)
    with pytest.raises(SourceFailed), opened.descriptor():
        pass


def test_a_file_that_is_changed_while_it_is_read_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of two versions never lie in memory as one: it goes the way of a large file, which looks again later."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    item = read(sample)._replace(content=None)
    real = os.pread

    def beside(fd: int, size: int, at: int) -> bytes:
        data = real(fd, size, at)
        _rewrite(sample.path)
        return data

    monkeypatch.setattr(os, "pread", beside)
    opened = open_instance(item, most_held=1 << 20)
    assert opened.held is None and not opened.is_unchanged()
    opened.close()


@pytest.mark.parametrize(("most", "is_held"), [(0, False), (500_000, False), (600_000, True)])
def test_what_is_held_is_for_the_caller_to_say(tmp_path: Path, most: int, is_held: bool) -> None:
    """By its size; of all others the beginning alone is looked at, and they are sent as they are read."""
    sample = samples.instance(tmp_path / "ct.dcm", "CT", size=512)
    opened = open_instance(read(sample)._replace(content=None), Heads(), most_held=most)
    assert (opened.held is not None) is is_held
    opened.close()

"""What the two models of a disk let a power cut take, step by step."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support.cut_disk import EXT4, MODELS, PESSIMISTIC, CutDisk
from support.recorded_disk import RecordedDisk

SCRIPT = """
import os, sys
os.chdir(sys.argv[1])
def write(name, data, flags=os.O_CREAT | os.O_WRONLY, flush=False):
    fd = os.open(name, flags, 0o600)
    os.write(fd, data)
    if flush:
        os.fsync(fd)
    return fd
def flush(folder="."):
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""


class Played:
    """A folder that holds the file `old`, in which a few lines of Python run; and what a cut behind them leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder / "home"
        self._home.mkdir()
        (self._home / "old").write_bytes(b"o" * 1024)
        self._disk, self._recorder = CutDisk(self._home), RecordedDisk(folder)
        self._seen = self._cuts = 0

    def __call__(self, model: str, lines: str, fail_every: int = 0) -> list[dict[str, bytes]]:
        """Run these lines too; what is left by each of many cuts, by path."""
        self._recorder.fail_flushes(fail_every)
        command = [sys.executable, "-c", SCRIPT + lines, str(self._home)]
        subprocess.run(command, env={**os.environ, **self._recorder.environment}, check=True, timeout=120)
        steps = list(self._recorder.steps())
        for step in steps[self._seen :]:
            self._disk.step(step)
        self._seen = len(steps)
        return [self._cut(model) for _ in range(60)]

    def _cut(self, model: str) -> dict[str, bytes]:
        self._cuts += 1
        target = self._folder / f"cut-{self._cuts}"
        self._disk.cut(model, random.Random(self._cuts), target)
        return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@pytest.fixture
def left(tmp_path: Path) -> Played:
    return Played(tmp_path)


def contents(found: list[dict[str, bytes]], name: str) -> set[bytes | None]:
    return {one.get(name) for one in found}


@pytest.mark.parametrize("model", MODELS)
def test_what_is_flushed_with_its_name_stays(left: Played, model: str) -> None:
    """Bytes first, then the name, then nothing takes either."""
    found = left(model, "write('new', b'n' * 2000, flush=True); flush()")
    assert contents(found, "new") == {b"n" * 2000}
    assert contents(found, "old") == {b"o" * 1024}


@pytest.mark.parametrize("model", MODELS)
def test_a_nameless_file_with_a_name_later(left: Played, model: str) -> None:
    """A flushed file without a name that gets one: with the folder flushed it is there whole; without, whole or not."""
    make = "fd = write('.', b'n' * 2000, os.O_TMPFILE | os.O_RDWR, flush=True)\n"
    link = "os.link(f'/proc/self/fd/{fd}', 'new', dst_dir_fd=os.open('.', os.O_RDONLY), follow_symlinks=True)\n"
    assert contents(left(model, make + link), "new") == {b"n" * 2000, None}
    assert contents(left(model, "flush()"), "new") == {b"n" * 2000}


def test_the_flush_of_a_file_is_none_of_its_name(left: Played) -> None:
    """As POSIX has it; ext4 brings the name along."""
    assert contents(left(PESSIMISTIC, "write('new', b'n', flush=True)"), "new") == {b"n", None}


def test_on_ext4_a_flush_brings_older_names(left: Played) -> None:
    """They are in the same journal."""
    found = left(EXT4, "write('a', b''); write('new', b'n' * 9000, flush=True); write('later', b'l')")
    assert contents(found, "a") == {b""} and contents(found, "new") == {b"n" * 9000}
    assert contents(found, "later") == {None, b"", b"l"}


def test_bytes_that_were_not_flushed_are_torn(left: Played) -> None:
    """In blocks of 512 bytes, each on its own; on ext4 a file that grew has a beginning."""
    found = left(PESSIMISTIC, "write('old', b'N' * 1024)")
    assert contents(found, "old") == {b"o" * 1024, b"N" * 1024, b"o" * 512 + b"N" * 512, b"N" * 512 + b"o" * 512}


def test_on_ext4_a_file_grows_from_its_start(left: Played) -> None:
    """Its new bytes come in pages, one after the other."""
    found = left(EXT4, "write('new', b'n' * 10000); flush()")
    assert contents(found, "new") == {b"", b"n" * 4096, b"n" * 8192, b"n" * 10000}


@pytest.mark.parametrize("model", MODELS)
def test_a_rename_is_one_step(left: Played, model: str) -> None:
    """The old file or the new one, never none."""
    found = left(model, "write('new', b'n', flush=True); flush(); os.replace('new', 'old')")
    assert {(one.get("old"), one.get("new")) for one in found} == {(b"o" * 1024, b"n"), (b"n", None)}


@pytest.mark.parametrize("model", MODELS)
def test_a_folder_is_a_name_of_the_one_above(left: Played, model: str) -> None:
    """What is flushed in a folder that has no durable name may be gone with it, where a flush brings no older names."""
    found = left(model, "os.mkdir('f'); write('f/new', b'n', flush=True); flush('f')")
    assert contents(found, "f/new") == ({b"n", None} if model == PESSIMISTIC else {b"n"})
    assert contents(left(model, "flush()"), "f/new") == {b"n"}


@pytest.mark.parametrize("model", MODELS)
def test_what_is_removed_may_come_again(left: Played, model: str) -> None:
    """Until its folder is flushed."""
    assert contents(left(model, "os.unlink('old')"), "old") == {None, b"o" * 1024}
    assert contents(left(model, "flush()"), "old") == {None}


@pytest.mark.parametrize("model", MODELS)
def test_a_flush_that_failed_covers_nothing(left: Played, model: str) -> None:
    """Nor does a later one of the same file; what is written anew is covered."""
    failed = (
        "fd = write('old', b'N' * 1024, flush=True)\n"
        "os.pwrite(fd, b'M' * 1024, 0)\n"
        "try: os.fsync(fd)\nexcept OSError: pass\n"
        "else: raise SystemExit('no error')\n"
        "os.fsync(fd)\n"
    )
    assert {b"N" * 1024, b"M" * 1024} <= contents(left(model, failed, fail_every=2), "old")
    assert contents(left(model, "fd = write('old', b'K' * 1024, flush=True)"), "old") == {b"K" * 1024}

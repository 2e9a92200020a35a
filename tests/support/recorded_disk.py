"""Programs whose writes are recorded: each change of a file or folder and each flush, in order.

`disk_recorder.c` is compiled once a run and preloaded into the programs. What it tells is read here as steps; what a
disk may hold of them after a power cut says `cut_disk`.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_name("disk_recorder.c")

_HEAD = struct.Struct("<IIQQQqII")
_FAILING = struct.Struct("<II")
_FAILING_AT, _CONTROL_BYTES = 128, 4096
_NOTE = ord("N")

_UID = re.compile(rb"\x00\x00\x00\x10..\x00\x00([0-9.]+)", re.DOTALL)
_STATUS = re.compile(rb"\x00\x00\x00\x09\x02\x00\x00\x00(..)", re.DOTALL)


class Step(NamedTuple):
    """One record: a change, the begin (`b`) or end (`e`, failed `f`) of a flush, a message that was sent (`S`), a note
    of the test's (`N`). Inodes are the file system's own numbers, which come again after a file is gone.
    """

    kind: str
    inode: int
    folder: int
    name: str
    other_folder: int
    other_name: str
    offset: int
    data: bytes

    @property
    def confirmed(self) -> str | None:
        """The SOP Instance UID of a C-STORE-RSP with 0x0000, PS3.7 9.3.1.2."""
        if self.kind != "S":
            return None
        uid, status = _UID.search(self.data), _STATUS.search(self.data)
        return uid[1].decode("ascii") if uid and status and status[1] == b"\0\0" else None


class RecordedDisk:
    """A log of what programs do to files, kept in `folder`; they are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "disk-log"
        self._control = folder / "disk-control"
        self._library = compiled(folder)
        self._log.touch()
        self._control.write_bytes(bytes(_CONTROL_BYTES))

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs to be recorded, and those that it starts."""
        return {
            "LD_PRELOAD": str(self._library),
            "DISK_LOG": str(self._log),
            "DISK_CONTROL": str(self._control),
        }

    def note(self, text: str) -> None:
        """Put a note of the test's own into the log, at this moment."""
        data = text.encode("ascii")
        fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, _HEAD.pack(_HEAD.size + len(data), _NOTE, 0, 0, 0, 0, 0, 0) + data)
        finally:
            os.close(fd)

    def fail_flushes(self, every: int, number: int = errno.EIO) -> None:
        """From now on each so-manieth flush fails with this error, and is not done; 0: none."""
        with self._control.open("r+b") as file, mmap.mmap(file.fileno(), _CONTROL_BYTES) as control:
            control[_FAILING_AT : _FAILING_AT + _FAILING.size] = _FAILING.pack(every, number)

    def steps(self) -> Iterator[Step]:
        """What was recorded so far."""
        with self._log.open("rb") as log:
            while head := log.read(_HEAD.size):
                length, kind, inode, folder, other_folder, offset, name, other_name = _HEAD.unpack(head)
                rest = log.read(length - _HEAD.size)
                if len(rest) != length - _HEAD.size:
                    raise ValueError("the log of the disk is cut off")
                yield Step(
                    chr(kind),
                    inode,
                    folder,
                    os.fsdecode(rest[:name]),
                    other_folder,
                    os.fsdecode(rest[name : name + other_name]),
                    offset,
                    rest[name + other_name :],
                )


def compiled(folder: Path) -> Path:
    """The recorder as a library; without a C compiler the test skips by name, or fails in CI."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        message = "no C compiler is installed (Debian packages: gcc libc6-dev)"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    library = folder / "disk_recorder.so"
    options = ["-std=gnu11", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    done = subprocess.run([compiler, *options], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{compiler}: {done.stderr}")
    return library

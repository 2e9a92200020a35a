"""A local file that is to be sent: as the plan saw it, and as it is when it is opened for that."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from dicomferry.models.errors import UnusableFile
from dicomferry.workers import part10

# What follows the preamble: DICM, and the head of (0002,0000), UL of four bytes.
_META_LENGTH = b"DICM\x02\0\0\0UL\x04\0"

# As much of a file is read at once for its check: nearly always all that comes before its pixels.
_FIRST_READ = 16384


class LocalInstance(NamedTuple):
    """A file to be sent, as the plan saw it; `size` in bytes, `mtime_ns` in nanoseconds."""

    item_id: int
    path: bytes
    size: int
    mtime_ns: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class OpenInstance(NamedTuple):
    """A file that is open and may be sent, until `close`.

    `length` is that of its data set in bytes, as it was when it was opened: a file that grows from there on is sent as
    it was. `pad` tells whether a NUL is to follow it.
    """

    item: LocalInstance
    fd: int
    header: part10.Header
    length: int
    pad: bool
    seen: tuple[int, int, int]

    def is_as_seen(self) -> bool:
        """Whether the file has been left alone since, and is still what its path leads to."""
        return _state(os.fstat(self.fd)) == self.seen

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def open_instance(item: LocalInstance) -> OpenInstance:
    """Open a file and look into it. Raises UnusableFile for everything that forbids to send it."""
    try:
        fd = part10.open_file(item.path)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableFile("vanished", "the file is gone") from None
    except OSError as error:
        raise UnusableFile("unreadable", error.strerror or str(error)) from error
    try:
        return _look_into(item, fd)
    except BaseException:
        os.close(fd)
        raise


def _look_into(item: LocalInstance, fd: int) -> OpenInstance:
    try:
        now = os.fstat(fd)
        if not stat.S_ISREG(now.st_mode):
            raise UnusableFile("unreadable", "not a regular file")
        first = os.pread(fd, _FIRST_READ, 0)
        header = _as_planned(item, first, now) or part10.read_header(item.path, first=first[: part10.FIRST_READ])
        if header.sop_instance_uid != item.sop_instance_uid:
            raise UnusableFile("changed", f"the file now holds instance {header.sop_instance_uid}")
        length = part10.check_whole(fd, header, now.st_size, first) - header.data_offset
    except OSError as error:
        raise UnusableFile("unreadable", error.strerror or str(error)) from error
    pad = length % 2 == 1
    if pad and header.transfer_syntax_uid not in part10.DEFLATED:
        # Only the deflated byte stream is padded, with a single NUL (PS3.5 A.5).
        raise UnusableFile("odd length", f"its data set has {length} bytes; PS3.5 7.1.1 makes every value even")
    return OpenInstance(item, fd, header, length, pad, _state(now))


def _state(now: os.stat_result) -> tuple[int, int, int]:
    # The third changes also where another file takes the path: the number of names is one less then.
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _as_planned(item: LocalInstance, first: bytes, now: os.stat_result) -> part10.Header | None:
    """The header of a file that did not change since the plan read it: only where its data set begins is
    missing, which its `first` bytes tell.

    None where the file did change, or does not begin with a preamble and the meta group's length (PS3.10
    7.1).
    """
    if (now.st_size, now.st_mtime_ns) != (item.size, item.mtime_ns):
        return None
    if first[128:140] != _META_LENGTH or len(first) < 144:
        return None
    return part10.Header(
        sop_class_uid=item.sop_class_uid,
        sop_instance_uid=item.sop_instance_uid,
        transfer_syntax_uid=item.transfer_syntax_uid,
        study_instance_uid=None,
        series_instance_uid=None,
        data_offset=144 + int.from_bytes(first[140:144], "little"),
        has_meta=True,
    )

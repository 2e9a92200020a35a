"""A local file that is to be sent: as the plan saw it, and as it is when it is opened for that."""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.dimse.heads import Heads
from dicomferry.workers.files import part10

# As much of a file is read at once for its check: nearly always all that comes before its pixels.
_FIRST_READ = 16384

_HEAD = 512
"""Bytes of a data set that are compared with those that go out: its SOP UIDs are among them."""

_TICK = 0.01
"""Seconds by which file systems' clocks move on, at most: of two changes within one, the second leaves no trace."""


_State = tuple[int, int, int, int]
"""A file's size in bytes, when its bytes and when its status changed in nanoseconds, and how many names it has."""


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

    `length` is that of its data set in bytes, `head` are its first ones, which name class and instance, as they were
    looked at. `pad` tells whether a NUL is to follow it. A file that is changed from
    there on, which `is_unchanged` tells, is of no use any more.
    """

    item: LocalInstance
    fd: int
    header: part10.Header
    length: int
    pad: bool
    seen: _State
    head: bytes

    def is_as_seen(self) -> bool:
        """Whether the file has been left alone since, and is still what its path leads to."""
        return _state(os.fstat(self.fd)) == self.seen

    def is_unchanged(self) -> bool:
        """Whether its bytes have been left alone since, as far as the file system can tell."""
        now = _state(os.fstat(self.fd))
        # A name given or taken moves the third time on as well, and none of the bytes.
        return now == self.seen or (now[:2] == self.seen[:2] and now[3] != self.seen[3])

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def open_instance(item: LocalInstance, heads: Heads | None = None, *, strict_meta: bool = False) -> OpenInstance:
    """Open a file and look into it. Raises UnusableFile for everything that forbids to send it.

    `heads` have seen the head of the file before. `strict_meta` forbids a meta group that names another class or
    instance than the data set.
    """
    try:
        fd = part10.open_file(item.path)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableFile(Reason.VANISHED, "the file is gone") from None
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, error.strerror or str(error)) from error
    try:
        return _look_into(item, fd, heads or Heads(), strict_meta)
    except BaseException:
        os.close(fd)
        raise


def _look_into(item: LocalInstance, fd: int, heads: Heads, strict_meta: bool) -> OpenInstance:
    try:
        now = _steady_status(fd)
        if not stat.S_ISREG(now.st_mode):
            raise UnusableFile(Reason.UNREADABLE, "not a regular file")
        first = os.pread(fd, _FIRST_READ, 0)
        header = _as_planned(item, first, now, heads) or part10.read_header(item.path, first=first, fd=fd)
        if header.sop_instance_uid != item.sop_instance_uid:
            raise UnusableFile(Reason.CHANGED, f"the file now holds instance {header.sop_instance_uid}")
        if header.sop_class_uid != item.sop_class_uid:
            raise UnusableFile(Reason.CHANGED, f"the file now holds an instance of class {header.sop_class_uid}")
        if header.meta_differs:
            if strict_meta:
                raise UnusableFile(Reason.META_MISMATCH, header.meta_differs)
            part10.check_syntax(fd, header, now.st_size)
        length = part10.check_whole(fd, header, now.st_size, first) - header.data_offset
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, error.strerror or str(error)) from error
    pad = length % 2 == 1
    if pad and header.transfer_syntax_uid not in part10.DEFLATED:
        # Only the deflated byte stream is padded, with a single NUL (PS3.5 A.5).
        raise UnusableFile(Reason.ODD_LENGTH, f"its data set has {length} bytes; PS3.5 7.1.1 makes every value even")
    head = first[header.data_offset : header.data_offset + _HEAD]
    return OpenInstance(item, fd, header, length, pad, _state(now), head)


def _steady_status(fd: int) -> os.stat_result:
    """The file's status, once another change of the file would change that as well."""
    now = os.fstat(fd)
    if 0 <= time.time() - now.st_ctime < _TICK:
        time.sleep(_TICK)
        now = os.fstat(fd)
    return now


def _state(now: os.stat_result) -> _State:
    # The third changes also where another file takes the path: the number of names is one less then.
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_nlink


def _as_planned(item: LocalInstance, first: bytes, now: os.stat_result, heads: Heads) -> part10.Header | None:
    """The header of a file that did not change since the plan read it: only where its data set begins is missing.

    None where the file did change, has no preamble, or its first elements do not show the planned class and instance:
    then all of it is read anew.
    """
    _, _, size, mtime_ns, sop_class, sop_instance, syntax = item
    if now.st_size != size or now.st_mtime_ns != mtime_ns or first[128:132] != b"DICM":
        return None
    begin = heads.begin(first, syntax, sop_class, sop_instance)
    if begin is None:
        return None
    return part10.Header(sop_class, sop_instance, syntax, None, None, begin.offset, begin.meta_differs)

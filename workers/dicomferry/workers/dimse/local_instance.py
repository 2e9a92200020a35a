"""A local file that is to be sent: as the plan saw it, and as it is when it is opened for that."""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from dicomferry.models.errors import UnusableFile
from dicomferry.workers import meta_group, part10
from dicomferry.workers.data_set import NeedMore, is_instance

# As much of a file is read at once for its check: nearly always all that comes before its pixels.
_FIRST_READ = 16384

_HEAD = 512
"""So many bytes of a data set are compared with those that go out: its SOP UIDs are among them."""

_TICK = 0.01
"""Seconds by which file systems' clocks move on, at most: of two changes within one, the second leaves no trace."""


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
    seen: os.stat_result
    head: bytes

    def is_as_seen(self) -> bool:
        """Whether the file has been left alone since, and is still what its path leads to."""
        return _state(os.fstat(self.fd)) == _state(self.seen)

    def is_unchanged(self) -> bool:
        """Whether its bytes have been left alone since, as far as the file system can tell."""
        now, seen = os.fstat(self.fd), self.seen
        if (now.st_size, now.st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
            return False
        # A name given or taken moves the third time on as well, and none of the bytes.
        return now.st_ctime_ns == seen.st_ctime_ns or now.st_nlink != seen.st_nlink

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def open_instance(item: LocalInstance, *, strict_meta: bool = False) -> OpenInstance:
    """Open a file and look into it. Raises UnusableFile for everything that forbids to send it.

    `strict_meta` forbids a meta group that names another class or instance than the data set.
    """
    try:
        fd = part10.open_file(item.path)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableFile("vanished", "the file is gone") from None
    except OSError as error:
        raise UnusableFile("unreadable", error.strerror or str(error)) from error
    try:
        return _look_into(item, fd, strict_meta)
    except BaseException:
        os.close(fd)
        raise


def _look_into(item: LocalInstance, fd: int, strict_meta: bool) -> OpenInstance:
    try:
        now = _settled(fd)
        if not stat.S_ISREG(now.st_mode):
            raise UnusableFile("unreadable", "not a regular file")
        first = os.pread(fd, _FIRST_READ, 0)
        header = _as_planned(item, first, now) or part10.read_header(item.path, first=first, fd=fd)
        if header.sop_instance_uid != item.sop_instance_uid:
            raise UnusableFile("changed", f"the file now holds instance {header.sop_instance_uid}")
        if header.sop_class_uid != item.sop_class_uid:
            raise UnusableFile("changed", f"the file now holds an instance of class {header.sop_class_uid}")
        if header.meta_differs:
            if strict_meta:
                raise UnusableFile("meta mismatch", header.meta_differs)
            part10.check_syntax(fd, header, now.st_size)
        length = part10.check_whole(fd, header, now.st_size, first) - header.data_offset
    except OSError as error:
        raise UnusableFile("unreadable", error.strerror or str(error)) from error
    pad = length % 2 == 1
    if pad and header.transfer_syntax_uid not in part10.DEFLATED:
        # Only the deflated byte stream is padded, with a single NUL (PS3.5 A.5).
        raise UnusableFile("odd length", f"its data set has {length} bytes; PS3.5 7.1.1 makes every value even")
    head = first[header.data_offset : header.data_offset + _HEAD]
    return OpenInstance(item, fd, header, length, pad, now, head)


def _settled(fd: int) -> os.stat_result:
    """The file's status, once another change of the file would change that as well."""
    now = os.fstat(fd)
    if 0 <= time.time() - now.st_ctime < _TICK:
        time.sleep(_TICK)
        now = os.fstat(fd)
    return now


def _state(now: os.stat_result) -> tuple[int, int, int]:
    # The third changes also where another file takes the path: the number of names is one less then.
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _as_planned(item: LocalInstance, first: bytes, now: os.stat_result) -> part10.Header | None:
    """The header of a file that did not change since the plan read it: only where its data set begins is missing.

    None where the file did change, has no preamble, or its first elements do not show the planned class and instance:
    then all of it is read anew.
    """
    if (now.st_size, now.st_mtime_ns) != (item.size, item.mtime_ns) or first[128:132] != b"DICM":
        return None
    uids = item.sop_class_uid, item.sop_instance_uid
    try:
        values, start = meta_group.read(first)
    except (NeedMore, UnusableFile):
        return None
    if not is_instance(first, start, item.transfer_syntax_uid, *uids):
        return None
    return part10.Header(
        sop_class_uid=item.sop_class_uid,
        sop_instance_uid=item.sop_instance_uid,
        transfer_syntax_uid=item.transfer_syntax_uid,
        study_instance_uid=None,
        series_instance_uid=None,
        data_offset=start,
        has_meta=True,
        meta_differs=part10.stale(values, *uids) if _differs(values, *uids) else None,
    )


def _differs(values: dict[int, bytes], sop_class: str, sop_instance: str) -> bool:
    """Whether the meta group may name another class or instance: a look that costs next to nothing."""
    return (
        values.get(meta_group.MEDIA_STORAGE_CLASS, b"").rstrip(b"\0 ") != sop_class.encode()
        or values.get(meta_group.MEDIA_STORAGE_INSTANCE, b"").rstrip(b"\0 ") != sop_instance.encode()
    )

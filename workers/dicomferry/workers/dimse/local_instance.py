"""A local file that is to be sent: as the plan saw it, and as it is when it is opened for that."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.dimse.heads import Begin, Heads
from dicomferry.workers.dimse.wire.pdu_writer import SourceFailed
from dicomferry.workers.files import part10
from dicomferry.workers.files.file_state import TICK, Content, FileState, is_same_bytes, is_settled, state_of

# As much of a file is read at once for its check: nearly always all that comes before its pixels.
_FIRST_READ = 16384

_HEAD = 512
"""Bytes of a data set that are compared with those that go out: its SOP UIDs are among them."""


class LocalInstance(NamedTuple):
    """A file to be sent, as the plan saw it; `size` in bytes, `mtime_ns` in nanoseconds.

    `content` is the whole of it where it was kept in memory since: that goes out if the file is still as it was then.
    """

    item_id: int
    path: bytes
    size: int
    mtime_ns: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    content: Content | None = None


class OpenInstance(NamedTuple):
    """A file that may be sent, until `close`.

    `fd` is open, or -1 where the file lies in memory alone. `length` is that of its data set in bytes, `head` are its
    first ones, which name class and instance, as they were looked at. `pad` tells whether a NUL is to follow it. `held`
    is the whole file where it was read so and not changed meanwhile. One that is not, and is changed from there on,
    which `is_unchanged` tells, is of no use any more.
    """

    item: LocalInstance
    fd: int
    header: part10.Header
    length: int
    pad: bool
    seen: FileState
    head: bytes
    held: bytes | None

    def is_as_seen(self) -> bool:
        """Whether the file has been left alone since, and is still what its path leads to."""
        return self._state() == self.seen

    def is_unchanged(self) -> bool:
        """Whether its bytes have been left alone since, as far as the file system can tell."""
        now = self._state()
        return now is not None and is_same_bytes(now, self.seen)

    def _state(self) -> FileState | None:
        """Its state now; of one that lies in memory alone, that of the file at its path, None where there is none."""
        if self.fd >= 0:
            return state_of(os.fstat(self.fd))
        try:
            return state_of(os.stat(self.item.path))
        except OSError:
            return None

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """One that can be read from. Raises SourceFailed where a file that lay in memory is another by now, OSError."""
        if self.fd >= 0:
            yield self.fd
            return
        fd = part10.open_file(self.item.path)
        try:
            if state_of(os.fstat(fd)) != self.seen:
                raise SourceFailed(Reason.CHANGING, "the file was changed before it was re-encoded")
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)


def open_instance(
    item: LocalInstance,
    heads: Heads | None = None,
    *,
    strict_meta: bool = False,
    most_held: int = 0,
    trusting: bool = False,
) -> OpenInstance:
    """Open a file and look into it. Raises UnusableFile for everything that forbids to send it.

    `heads` have seen the head of the file before. `strict_meta` forbids a meta group that names another class or
    instance than the data set. A file of up to `most_held` bytes is held whole. With `trusting` one that lies in memory
    is not looked for at its path: who opens it before its turn asks `is_as_seen` then.
    """
    kept = _kept(item)
    if kept is not None and (trusting or kept.is_as_seen()):
        return kept
    try:
        fd = part10.open_file(item.path)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableFile(Reason.VANISHED, "the file is gone") from None
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, error.strerror or str(error)) from error
    try:
        return _look_into(item, fd, heads or Heads(), strict_meta, most_held)
    except BaseException:
        os.close(fd)
        raise


def _kept(item: LocalInstance) -> OpenInstance | None:
    """The file as it was read into memory; None where it was not, or is to be looked at more closely.

    Raises UnusableFile.
    """
    content = item.content
    if content is None:
        return None
    data, seen, header = content
    if header.meta_differs or header.transfer_syntax_uid in part10.DEFLATED:
        return None
    return _measured(item, -1, header, seen, data, data)


def _look_into(item: LocalInstance, fd: int, heads: Heads, strict_meta: bool, most_held: int) -> OpenInstance:
    try:
        now = _steady_status(fd)
        if not stat.S_ISREG(now.st_mode):
            raise UnusableFile(Reason.UNREADABLE, "not a regular file")
        seen = state_of(now)
        is_small = now.st_size <= most_held
        first = os.pread(fd, now.st_size if is_small else _FIRST_READ, 0)
        header = _as_planned(item, first, seen, heads) or part10.read_header(item.path, first=first, fd=fd)
        if header.sop_instance_uid != item.sop_instance_uid:
            raise UnusableFile(Reason.CHANGED, f"the file now holds instance {header.sop_instance_uid}")
        if header.sop_class_uid != item.sop_class_uid:
            raise UnusableFile(Reason.CHANGED, f"the file now holds an instance of class {header.sop_class_uid}")
        if header.meta_differs:
            if strict_meta:
                raise UnusableFile(Reason.META_MISMATCH, header.meta_differs)
            part10.check_syntax(fd, header, now.st_size)
        is_held = is_small and len(first) == now.st_size and is_same_bytes(state_of(os.fstat(fd)), seen)
        return _measured(item, fd, header, seen, first, first if is_held else None)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, error.strerror or str(error)) from error


def _measured(
    item: LocalInstance, fd: int, header: part10.Header, seen: FileState, first: bytes, held: bytes | None
) -> OpenInstance:
    """A file whose data set is whole. Raises UnusableFile where it is not, OSError."""
    length = part10.check_whole(fd, header, seen[0], first) - header.data_offset
    pad = length % 2 == 1
    if pad and header.transfer_syntax_uid not in part10.DEFLATED:
        # Only the deflated byte stream is padded, with a single NUL (PS3.5 A.5).
        raise UnusableFile(Reason.ODD_LENGTH, f"its data set has {length} bytes; PS3.5 7.1.1 makes every value even")
    head = first[header.data_offset : header.data_offset + _HEAD]
    return OpenInstance(item, fd, header, length, pad, seen, head, held)


def _steady_status(fd: int) -> os.stat_result:
    """The file's status, once another change of the file would change that as well."""
    now = os.fstat(fd)
    if not is_settled(now):
        time.sleep(TICK)
        now = os.fstat(fd)
    return now


def _as_planned(item: LocalInstance, first: bytes, seen: FileState, heads: Heads) -> part10.Header | None:
    """The header of a file that did not change since the plan read it: only where its data set begins is missing.

    None where the file did change, has no preamble, or its first elements do not show the planned class and instance:
    then all of it is read anew.
    """
    if seen[:2] != (item.size, item.mtime_ns) or first[128:132] != b"DICM":
        return None
    begin = heads.begin(first, item.transfer_syntax_uid, item.sop_class_uid, item.sop_instance_uid)
    return None if begin is None else _header(item, begin)


def _header(item: LocalInstance, begin: Begin) -> part10.Header:
    """What the plan knew, and where the data set begins."""
    sop_class, sop_instance, syntax = item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid
    return part10.Header(sop_class, sop_instance, syntax, None, None, begin.offset, begin.meta_differs)

"""One path of the inventory of a store: opened, looked into, and what it is found to be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.files.file_state import Content, FileState, is_settled, state_of
from dicomferry.workers.files.part10 import FIRST_READ, Header, open_file, read_header

_SKIPPED_REASONS = frozenset({Reason.NOT_DICOM, Reason.DICOMDIR})


class InventoryEntry(NamedTuple):
    """One path of the inventory. PENDING is sendable and has a header; SKIPPED and FAILED say why.

    `size` in bytes and `mtime_ns` are those of the bytes that were read, 0 where nothing could be. `content` is all of
    a sendable file where that was asked for, and another change of it would show.
    """

    path: bytes
    size: int
    mtime_ns: int
    state: ItemState
    reason: Reason | None
    detail: str | None
    header: Header | None
    content: Content | None = None


HeaderOf = Callable[[bytes, bytes], Header]
"""Reads the header of the file at a path from its first bytes, or from more; raises what `read_header` raises."""


def header_from(path: bytes, first: bytes) -> Header:
    """The plain way of it."""
    return read_header(path, first=first)


class OpenedFile(NamedTuple):
    """A file before its turn; `fd` is none where `found` says all there is to say of it. `kept` is the state of
    one that is to be kept.
    """

    path: bytes
    fd: int
    size: int
    mtime_ns: int
    found: InventoryEntry | None = None
    kept: FileState | None = None


def open_before(path: bytes, keeps: Callable[[int], bool]) -> OpenedFile:
    """Open one plain file and ask the system for its beginning, without waiting for it."""
    try:
        fd = open_file(path)
    except OSError as error:
        return OpenedFile(path, -1, 0, 0, failed(path, error))
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            size = status.st_size
            is_kept = keeps(size) and is_settled(status)
            os.posix_fadvise(fd, 0, size if is_kept else FIRST_READ, os.POSIX_FADV_WILLNEED)
            return OpenedFile(path, fd, size, status.st_mtime_ns, None, state_of(status) if is_kept else None)
        found = not_a_file(path)
    except OSError as error:
        found = failed(path, error)
    os.close(fd)
    return OpenedFile(path, -1, 0, 0, found)


def look_into(opened: OpenedFile, header_of: HeaderOf) -> InventoryEntry:
    """Read an open file's beginning, and close it."""
    if opened.found is not None:
        return opened.found
    path, fd, size, mtime_ns, _, kept = opened
    try:
        try:
            first = os.read(fd, FIRST_READ if kept is None else max(size, FIRST_READ))
        finally:
            os.close(fd)
        header = header_of(path, first)
    except UnusableFile as error:
        skipped = error.reason in _SKIPPED_REASONS
        state = ItemState.SKIPPED if skipped else ItemState.FAILED
        return InventoryEntry(path, size, mtime_ns, state, error.reason, str(error), None)
    except OSError as error:
        return failed(path, error)
    except Exception as error:  # one file that no parser foresaw must not stop the walk behind it
        return InventoryEntry(
            path, size, mtime_ns, ItemState.FAILED, Reason.UNREADABLE, f"{type(error).__name__}: {error}", None
        )
    content = None if kept is None or len(first) != size else Content(first, kept, header)
    return InventoryEntry(path, size, mtime_ns, ItemState.PENDING, None, None, header, content)


def failed(path: bytes, error: OSError, unreadable: Reason = Reason.UNREADABLE) -> InventoryEntry:
    """The entry of a path that this error keeps from being looked into."""
    reason = Reason.VANISHED if isinstance(error, FileNotFoundError) else unreadable
    return InventoryEntry(path, 0, 0, ItemState.FAILED, reason, error.strerror or str(error), None)


def no_status(path: bytes, error: OSError) -> InventoryEntry:
    """The entry of a path whose status could not be had: most often a link that leads nowhere."""
    if os.path.islink(path):
        return InventoryEntry(path, 0, 0, ItemState.FAILED, Reason.DANGLING_LINK, _target(path, error), None)
    return failed(path, error)


def _target(path: bytes, error: OSError) -> str:
    text = error.strerror or str(error)
    try:
        return f"{text}: {os.fsdecode(os.readlink(path))!r}"
    except OSError:
        return text


def not_a_file(path: bytes) -> InventoryEntry:
    """The entry of a device, a pipe, a socket."""
    detail = "neither a file nor a folder; it was not opened"
    return InventoryEntry(path, 0, 0, ItemState.SKIPPED, Reason.NOT_A_FILE, detail, None)

"""DICOM files (PS3.10) as far as sending them needs: what an instance is, and whether its file is whole.

Nothing here decodes a value but UIDs. The walkers go over bytes themselves because an inventory reads many
files and the truncation check runs before each send; a general parser costs a hundred times as much.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.files import meta_group
from dicomferry.workers.files.byte_source import MOST_INFLATED, TooLong
from dicomferry.workers.files.data_set import (
    BLANKS,
    DEFLATED,
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT,
    IMPLICIT_LE,
    MEDIA_STORAGE_DIRECTORY,
    UNCOMPRESSED,
    NeedMore,
    NoUid,
    Uids,
    guess_syntax,
    instance_uids,
    is_encapsulated,
    uid,
)
from dicomferry.workers.files.elements import BadElement, DataEnded, plain_end, walk
from dicomferry.workers.files.top_level import refuse, refuse_rest, search_uids

__all__ = [
    "DEFLATED",
    "DEFLATED_LE",
    "EXPLICIT_BE",
    "EXPLICIT_LE",
    "FIRST_READ",
    "IMPLICIT_LE",
    "UNCOMPRESSED",
    "Header",
    "NotDicom",
    "check_syntax",
    "check_whole",
    "open_file",
    "read_header",
    "stale",
]

FindUids = Callable[[bytes, int, str, bool], Uids]
"""What reads the UIDs of the data set that begins at a position of a file's first bytes, as `instance_uids` does."""

FIRST_READ = 4096
"""How many bytes of a file `read_header` looks at before it decides that it needs more."""

MOST_READ = 16 << 20
"""How far into a file `read_header` looks at most: no honest meta group is longer."""

_LONG_WINDOW = 16384
MOST_ELEMENTS = 16 * 1024 * 1024
"""Bytes of small elements over which a data set is walked whose file does not tell how long that takes."""


class Header(NamedTuple):
    """What the beginning of a DICOM file tells. The UIDs are the data set's, without trailing NUL and blanks.

    `data_offset` is the position in bytes of the data set's first byte. Study and series UID are None where
    they do not lie within the bytes that were read. `meta_differs` says in words where the meta group names another
    class or instance than the data set (None: it does not); the group never goes over the wire.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    data_offset: int
    meta_differs: str | None = None


class NotDicom(UnusableFile):
    """The file is no DICOM file at all."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.NOT_DICOM, message)


def read_header(path: bytes, *, first: bytes | None = None, fd: int | None = None) -> Header:
    """The header of the file at `path`, from its first 4 KB, or from more where that does not reach.

    `first` are the file's first bytes where the caller has read them already: FIRST_READ of them or more, or fewer if
    the file is shorter; `fd` is a descriptor of it, whose position stays as it is. A data set whose SOP UIDs do not
    stand where they belong is walked as a whole, once. Raises NotDicom, or UnusableFile with the reason "DICOMDIR",
    "truncated", "no uid", "bad uid" or "syntax mismatch"; OSError where the file cannot be read.
    """
    if fd is None and first is None:
        fd = open_file(path)
        try:
            return read_header(path, fd=fd)
        finally:
            os.close(fd)
    if first is None:
        assert fd is not None
        first = os.pread(fd, FIRST_READ, 0)
    try:
        try:
            return _parse(first, whole=False)
        except NeedMore as need:
            upto = need.upto
            return _with_file(path, fd, lambda file: _read_on(file, first, upto))
        except NoUid:
            return _with_file(path, fd, lambda file: _read_slowly(file, first))
    except UnusableFile as error:
        # A directory whose meta group is missing or names no class still goes by its name (PS3.10 8.6).
        if error.reason == Reason.NO_UID and os.path.basename(path).upper() == b"DICOMDIR":
            raise UnusableFile(Reason.DICOMDIR, "a DICOMDIR by its name") from error
        raise


def _with_file(path: bytes, fd: int | None, read: Callable[[int], Header]) -> Header:
    if fd is not None:
        return read(fd)
    fd = open_file(path)
    try:
        return read(fd)
    finally:
        os.close(fd)


def open_file(path: bytes) -> int:
    """A descriptor for reading. It never blocks, even if a fifo took the file's place; raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def check_whole(
    path: bytes | int, header: Header, size: int | None = None, first: bytes = b"", *, most: int | None = None
) -> int:
    """Check by element lengths alone that the data set is whole; values are never read.

    `path` may be an open descriptor, whose position stays as it is; `size` is the file's size in bytes where the caller
    knows it, `first` are its first bytes, as many as were read already: where these are all, nothing is read. With
    `most`, no more bytes than that are read of elements that stand one behind the other, or TooLong is raised. Returns
    the position in the file at which the data set ends: the file's size, or less by the zero bytes that some writers
    leave after the last element, or by what follows a deflate stream (the NUL that makes its length even included). A
    deflated data set is looked at as far as MOST_INFLATED and MOST_ELEMENTS; of what goes on behind them nothing is
    known, and the file's size is returned.
    Raises UnusableFile: "truncated" where the data set ends inside an element or item, or before a delimiter
    that an undefined length demands (PS3.5 7.5.2, A.4); "trailing bytes" where something that is no element follows
    the last one; "syntax mismatch" where it cannot be walked at all, or its pixels are not as the syntax has them.
    """
    if not isinstance(path, int):
        fd = open_file(path)
        try:
            return check_whole(fd, header, size, first, most=most)
        finally:
            os.close(fd)
    if size is None:
        size = os.fstat(path).st_size
    syntax = header.transfer_syntax_uid
    if syntax in DEFLATED:
        return check_deflated(path, header.data_offset, size)
    start = header.data_offset
    # Most data sets are plain up to their pixels, and those are all that is left of the file.
    implicit, big, encapsulated = syntax in IMPLICIT, syntax == EXPLICIT_BE, is_encapsulated(syntax)
    if not encapsulated and plain_end(first, start, implicit=implicit, big=big, encapsulated=False) == size > start:
        return size
    is_held = len(first) >= size
    refill = _held_reader(first, size) if is_held else _reader(path, size, most)
    try:
        end = walk(
            first,
            0,
            refill,
            start,
            size=size,
            implicit=implicit,
            big=big,
            native=syntax in UNCOMPRESSED,
            encapsulated=encapsulated,
        )
    except (DataEnded, BadElement) as error:
        again = _held_reader(first, size) if is_held else _reader(path, size)
        refuse_rest(error, again, start, size=size, implicit=implicit, big=big)
    if end <= start:
        raise UnusableFile(Reason.TRUNCATED, f"the file has {size} bytes, and no data set at byte {start}")
    return end


def check_syntax(fd: int, header: Header, size: int) -> None:
    """Look whether the Transfer Syntax UID of a stale meta group holds; `size` is the file's, in bytes.

    Raises UnusableFile "syntax mismatch" where it is stale too, or may be.
    """
    # Few files need it.
    from dicomferry.workers.files import syntax_check

    syntax_check.check(lambda: _reader(fd, size), header.data_offset, header.transfer_syntax_uid, size=size)


def _held_reader(data: bytes, size: int) -> Callable[[int], bytes]:
    """Windows on a file of `size` bytes that lies in memory."""
    return lambda pos: data[pos : min(pos + _LONG_WINDOW, size)]


def _reader(fd: int, size: int, most: int | None = None) -> Callable[[int], bytes]:
    """Windows on a file of `size` bytes: long ones while the walk goes on where it was, short ones after a jump.

    Raises TooLong once it has gone on so for more than `most` bytes.
    """
    reached = -1
    gone_on = 0

    def refill(pos: int) -> bytes:
        nonlocal reached, gone_on
        if pos == size:  # where a walk over a whole file ends
            return b""
        if most is not None and pos <= reached:
            gone_on += _LONG_WINDOW
            if gone_on > most:
                raise TooLong(f"the data set has more than {most >> 20} MiB of small elements")
        length = 4096 if reached >= 0 and pos > reached + 4096 else _LONG_WINDOW
        data = os.pread(fd, length, pos)
        reached = pos + len(data)
        return data

    return refill


def check_deflated(
    fd: int, start: int, size: int, *, most_inflated: int = MOST_INFLATED, most_elements: int = MOST_ELEMENTS
) -> int:
    """`check_whole` for a raw deflate stream: inflated block by block and walked on the way, as far as a bound.

    Beyond that nothing is known of it, and it ends with its file: a few kilobytes may inflate to whatever they like.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    pos = start  # in the file
    window = b""
    base = 0  # position of window[0] in the inflated data set
    inflated = 0
    reached = gone_on = 0  # where the walk's last window ended, and how much it has walked over without a jump

    def grow() -> bytes:
        """The next inflated block; empty at the end of the stream or of the file."""
        nonlocal pos, inflated
        while not inflater.eof:
            fed = inflater.unconsumed_tail
            if not fed:
                fed = os.pread(fd, 65536, pos)
                pos += len(fed)
                if not fed:
                    return b""
            try:
                block = inflater.decompress(fed, 262144)
            except zlib.error as error:
                raise UnusableFile(Reason.SYNTAX_MISMATCH, f"the deflated data set is damaged: {error}") from None
            inflated += len(block)
            if inflated > most_inflated:
                raise TooLong(f"the deflated data set holds more than {most_inflated >> 20} MiB")
            if block:
                return block
        return b""

    def refill(wanted: int) -> bytes | None:
        nonlocal window, base, reached, gone_on
        if wanted <= reached:
            gone_on += _LONG_WINDOW
            if gone_on > most_elements:
                raise TooLong(f"the data set has more than {most_elements >> 20} MiB of small elements")
        while base + len(window) < wanted + 12:
            block = grow()
            if not block:
                break
            keep = window[wanted - base :] if wanted - base < len(window) else b""
            base += len(window) - len(keep)
            window = keep + block
        if wanted > base + len(window):
            return None
        window = window[wanted - base :]
        base = wanted
        reached = base + min(len(window), _LONG_WINDOW)
        return window[:_LONG_WINDOW]

    try:
        walk(b"", 0, refill, 0, size=1 << 62, implicit=False, big=False, native=True)
        while grow():
            pass
    except (DataEnded, BadElement) as error:
        refuse(error, "inflated byte")
    except TooLong:
        return size
    if not inflater.eof:
        raise UnusableFile(Reason.TRUNCATED, f"the deflate stream does not end within the file's {size} bytes")
    return pos - len(inflater.unused_data)


def _read_on(fd: int, data: bytes, upto: int) -> Header:
    """The header of a file whose first bytes, `data`, did not reach; each round reads what was lacking."""
    size = os.fstat(fd).st_size
    while True:
        # A position beyond the file's end never comes, however much is read.
        whole = upto > size
        if not whole:
            if len(data) >= MOST_READ or upto > MOST_READ:
                return _read_slowly(fd, data)
            data = os.pread(fd, min(max(len(data) * 16, upto), MOST_READ), 0)
            whole = len(data) >= size
        try:
            return _parse(data, whole)
        except NeedMore as need:
            upto = need.upto
        except NoUid:
            return _read_slowly(fd, data)


def _read_slowly(fd: int, data: bytes) -> Header:
    """The header of a file whose data set, of which `data` hold the beginning, is not in ascending order: it is walked
    over to its end, if need be.
    """
    size = os.fstat(fd).st_size

    def find(_: bytes, offset: int, syntax: str, whole: bool) -> Uids:
        if syntax not in DEFLATED:
            return search_uids(_reader(fd, size), offset, syntax, size=size)
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(os.pread(fd, MOST_READ, offset), 4 * MOST_READ)
        return search_uids(lambda pos: inflated[pos : pos + 16384], 0, syntax, size=len(inflated))

    try:
        return _parse(data, True, find)
    except zlib.error as error:
        raise UnusableFile(Reason.SYNTAX_MISMATCH, f"not a deflated data set: {error}") from None


def _parse(data: bytes, whole: bool, find: FindUids = instance_uids) -> Header:
    """The header out of a file's first bytes; `whole` says that these are all there are, `find` reads the data set."""
    if data[128:132] == b"DICM":
        pos = meta_group.BEGINS
    elif data[:4] == b"DICM":
        pos = 4
    elif data[:2] == b"\x02\0" and data[4:6].isalpha():
        pos = 0
    else:
        return _parse_bare(data, whole, find)
    values, pos = meta_group.read(data, pos, whole=whole)
    meta_class = values.get(meta_group.MEDIA_STORAGE_CLASS, b"").rstrip(BLANKS)
    if meta_class == MEDIA_STORAGE_DIRECTORY.encode():
        raise UnusableFile(Reason.DICOMDIR, "a media directory (DICOMDIR), not an instance")
    named = values.get(meta_group.TRANSFER_SYNTAX)
    syntax = uid(named, "Transfer Syntax UID (0002,0010)") if named else ""
    if not syntax:
        guess = guess_syntax(data, pos)
        if guess is None:
            raise UnusableFile(
                Reason.SYNTAX_MISMATCH, "no Transfer Syntax UID, and the data set fits none by its first element"
            )
        syntax = guess
    found = find(data, pos, syntax, whole)
    return Header(found[0], found[1], syntax, found[2], found[3], pos, stale(values, *found[:2]))


def stale(values: Mapping[int, bytes], sop_class: str, sop_instance: str) -> str | None:
    """What the meta group's `values` say of class and instance that the data set does not; None where they agree."""
    told = []
    for element, real, name, tags in (
        (meta_group.MEDIA_STORAGE_CLASS, sop_class, "SOP Class UID", ("(0002,0002)", "(0008,0016)")),
        (meta_group.MEDIA_STORAGE_INSTANCE, sop_instance, "SOP Instance UID", ("(0002,0003)", "(0008,0018)")),
    ):
        value = values.get(element, b"").rstrip(BLANKS)
        if value and value != real.encode():
            told.append(f"{name}: {tags[0]} is {value[:128].decode('latin-1')!r}, {tags[1]} is {real!r}")
    return "; ".join(told) or None


def _parse_bare(data: bytes, whole: bool, find: FindUids) -> Header:
    """The header of a file without meta group: DICOM only if its first bytes leave no doubt."""
    syntax = guess_syntax(data, 0)
    if syntax is None:
        raise NotDicom("an empty file" if not data else "neither DICM at byte 128 nor a data set at byte 0")
    try:
        found = find(data, 0, syntax, whole)
    except NoUid:
        if find is instance_uids and _names_a_class(data):
            raise
        raise NotDicom("no DICM at byte 128, and taken as a bare data set it has no SOP UIDs") from None
    except UnusableFile as error:
        if error.reason in (Reason.NO_UID, Reason.BAD_UID, Reason.SYNTAX_MISMATCH) or not _names_a_class(data):
            raise NotDicom(f"no DICM at byte 128, and taken as a bare data set: {error}") from None
        raise
    return Header(found[0], found[1], syntax, found[2], found[3], 0)


def _names_a_class(data: bytes) -> bool:
    """Whether a SOP class of the Standard stands somewhere in these bytes."""
    return b"1.2.840.10008.5." in data

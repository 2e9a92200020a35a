"""DICOM files (PS3.10) as far as sending them needs: what an instance is, and whether its file is whole.

Nothing here decodes a value but UIDs. The walkers go over bytes themselves because an inventory reads many
files and the truncation check runs before each send; a general parser costs a hundred times as much.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from dicomferry.models.errors import UnusableFile
from dicomferry.workers.data_set import (
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
    guess_syntax,
    instance_uids,
    uid,
    want,
)
from dicomferry.workers.elements import (
    HEADER_SIZES,
    UNPACK_HEADER,
    UNPACK_LENGTH,
    Broken,
    Ended,
    describe,
    walk,
)

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
    "check_whole",
    "open_file",
    "read_header",
]

FIRST_READ = 4096
"""How many bytes of a file `read_header` looks at before it decides that it needs more."""

MOST_READ = 16 << 20
"""How far into a file `read_header` looks at most: no honest meta group is longer."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the beginning of a DICOM file tells. The UIDs are the data set's, without trailing NUL and blanks.

    `data_offset` is the position in bytes of the data set's first byte. Study and series UID are None where
    they do not lie within the bytes that were read.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    data_offset: int
    has_meta: bool


class NotDicom(UnusableFile):
    """The file is no DICOM file at all."""

    def __init__(self, message: str) -> None:
        super().__init__("not DICOM", message)


def read_header(path: bytes, *, first: bytes | None = None) -> Header:
    """The header of the file at `path`, from its first 4 KB, or from more where that does not reach.

    `first` are the file's first bytes where the caller has read them already: FIRST_READ of them, or fewer if
    the file is shorter. Raises NotDicom, or UnusableFile with the reason "DICOMDIR", "truncated", "no uid",
    "bad uid", "meta mismatch" or "syntax mismatch"; OSError where the file cannot be read.
    """
    if first is None:
        fd = open_file(path)
        try:
            first = os.read(fd, FIRST_READ)
        finally:
            os.close(fd)
    try:
        try:
            return _parse(first, whole=False)
        except NeedMore as need:
            return _read_on(path, first, need.upto)
    except UnusableFile as error:
        # A directory whose meta group is missing or names no class still goes by its name (PS3.10 8.6).
        if error.reason == "no uid" and os.path.basename(path).upper() == b"DICOMDIR":
            raise UnusableFile("DICOMDIR", "a DICOMDIR by its name") from error
        raise


def open_file(path: bytes) -> int:
    """A descriptor for reading. It never blocks, even if a fifo took the file's place; raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def check_whole(path: bytes | int, header: Header, size: int | None = None, first: bytes = b"") -> int:
    """Check by element lengths alone that the data set is whole; values are never read.

    `path` may be an open descriptor, whose position stays as it is; `size` is the file's size in bytes where the caller
    knows it, `first` are its first bytes, as many as were read already. Returns the position in the file at which the
    data set ends: the file's size, or less by the zero bytes that some writers leave after the last element, or by what
    follows a deflate stream (the NUL that makes its length even included).
    Raises UnusableFile: "truncated" where the data set ends inside an element or item, or before a delimiter
    that an undefined length demands (PS3.5 7.5.2, A.4); "syntax mismatch" where it cannot be walked at all.
    """
    if not isinstance(path, int):
        fd = open_file(path)
        try:
            return check_whole(fd, header, size, first)
        finally:
            os.close(fd)
    if size is None:
        size = os.fstat(path).st_size
    syntax = header.transfer_syntax_uid
    if syntax in DEFLATED:
        return _check_deflated(path, header.data_offset, size)
    refill = _reader(path, size)
    start = header.data_offset
    try:
        end = walk(
            first,
            0,
            refill,
            start,
            size=size,
            implicit=syntax in IMPLICIT,
            big=syntax == EXPLICIT_BE,
            native=syntax in UNCOMPRESSED,
        )
    except (Ended, Broken) as error:
        _refuse(error, "byte")
    if end <= start:
        raise UnusableFile("truncated", f"the file has {size} bytes, and no data set at byte {start}")
    return end


def _refuse(error: Ended | Broken, unit: str) -> NoReturn:
    if isinstance(error, Ended):
        where = f"{describe(error.tag)} at {unit} {error.at}" if error.tag is not None else f"{unit} {error.at}"
        raise UnusableFile("truncated", f"the data set ends {error.what} {where}") from None
    raise UnusableFile("syntax mismatch", f"{describe(error.tag)} at {unit} {error.at}: {error.what}") from None


def _reader(fd: int, size: int) -> Callable[[int], bytes]:
    """Windows on a file of `size` bytes: long ones while the walk goes on where it was, short ones after a jump."""
    reached = -1

    def refill(pos: int) -> bytes:
        nonlocal reached
        if pos == size:  # where a walk over a whole file ends
            return b""
        length = 4096 if reached >= 0 and pos > reached + 4096 else 16384
        data = os.pread(fd, length, pos)
        reached = pos + len(data)
        return data

    return refill


def _check_deflated(fd: int, start: int, size: int) -> int:
    """`check_whole` for a raw deflate stream: inflated block by block and walked on the way."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    pos = start  # in the file
    window = b""
    base = 0  # position of window[0] in the inflated data set

    def grow() -> bytes:
        """The next inflated block; empty at the end of the stream or of the file."""
        nonlocal pos
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
                raise UnusableFile("syntax mismatch", f"the deflated data set is damaged: {error}") from None
            if block:
                return block
        return b""

    def refill(wanted: int) -> bytes | None:
        nonlocal window, base
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
        return window

    try:
        walk(b"", 0, refill, 0, size=1 << 62, implicit=False, big=False, native=True)
    except (Ended, Broken) as error:
        _refuse(error, "inflated byte")
    while grow():
        pass
    if not inflater.eof:
        raise UnusableFile("truncated", f"the deflate stream does not end within the file's {size} bytes")
    return pos - len(inflater.unused_data)


def _read_on(path: bytes, data: bytes, upto: int) -> Header:
    """The header of a file whose first bytes, `data`, did not reach; each round reads what was lacking."""
    fd = open_file(path)
    try:
        size = os.fstat(fd).st_size
        while True:
            # A position beyond the file's end never comes, however much is read.
            whole = upto > size
            if not whole:
                if len(data) >= MOST_READ or upto > MOST_READ:
                    raise UnusableFile("no uid", f"no SOP Class and Instance UID within {MOST_READ} bytes")
                data = os.pread(fd, min(max(len(data) * 16, upto), MOST_READ), 0)
                whole = len(data) >= size
            try:
                return _parse(data, whole)
            except NeedMore as need:
                upto = need.upto
    finally:
        os.close(fd)


def _parse(data: bytes, whole: bool) -> Header:
    """The header out of a file's first bytes; `whole` says that these are all there are."""
    if data[128:132] == b"DICM":
        pos = 132
    elif data[:4] == b"DICM":
        pos = 4
    elif data[:2] == b"\x02\0" and data[4:6].isalpha():
        pos = 0
    else:
        return _parse_bare(data, whole)
    unpack = UNPACK_HEADER[False]
    sizes = HEADER_SIZES[False]
    values: dict[int, bytes] = {}
    available = len(data)
    declared_end = last = -1
    while True:
        if pos + 8 > available:
            want(pos + 8, whole)
        group, element, vr, length = unpack(data, pos)
        if group != 2:
            break
        head = sizes.get(vr, 0)
        if pos == declared_end:
            # The meta group ends here by its own length. More of it means that the length lies, but a second
            # round of it, or an implicit one, is the data set's; deflated bytes may look like anything.
            if values.get(0x10, b"").rstrip(BLANKS).decode("latin-1") in DEFLATED:
                break
            if element <= last or not head:
                raise UnusableFile("syntax mismatch", f"group 0002 in the data set at byte {pos}")
        if head == 12:
            if pos + 12 > available:
                want(pos + 12, whole)
            length = UNPACK_LENGTH[False](data, pos + 8)[0]
        elif not head:
            head = 8
            length = UNPACK_LENGTH[False](data, pos + 4)[0]
        start = pos + head
        pos = start + length
        if pos > available:
            want(pos, whole)
        values[element] = data[start:pos]
        last = element
        if element == 0 and length == 4:
            declared_end = pos + UNPACK_LENGTH[False](data, start)[0]
    meta_class = values[2].rstrip(BLANKS) if 2 in values else b""
    if meta_class == MEDIA_STORAGE_DIRECTORY.encode():
        raise UnusableFile("DICOMDIR", "a media directory (DICOMDIR), not an instance")
    syntax = uid(values.get(0x10, b""), "Transfer Syntax UID (0002,0010)") if values.get(0x10) else ""
    if not syntax:
        guess = guess_syntax(data, pos)
        if guess is None:
            raise UnusableFile(
                "syntax mismatch", "no Transfer Syntax UID, and the data set fits none by its first element"
            )
        syntax = guess
    found = instance_uids(data, pos, syntax, whole)
    _same(meta_class, found[0], "SOP Class UID", "(0002,0002)", "(0008,0016)")
    _same(
        values.get(3, b"").rstrip(BLANKS),
        found[1],
        "SOP Instance UID",
        "(0002,0003)",
        "(0008,0018)",
    )
    return Header(found[0], found[1], syntax, found[2], found[3], pos, bool(values))


def _same(meta: bytes, uid: str, name: str, meta_tag: str, tag: str) -> None:
    if meta and meta != uid.encode():
        raise UnusableFile("meta mismatch", f"{name}: {meta_tag} is {meta.decode('latin-1')!r}, {tag} is {uid!r}")


def _parse_bare(data: bytes, whole: bool) -> Header:
    """The header of a file without meta group: DICOM only if its first bytes leave no doubt."""
    syntax = guess_syntax(data, 0)
    if syntax is None:
        raise NotDicom("an empty file" if not data else "neither DICM at byte 128 nor a data set at byte 0")
    try:
        found = instance_uids(data, 0, syntax, whole)
    except UnusableFile as error:
        if error.reason in ("no uid", "bad uid", "syntax mismatch") or b"1.2.840.10008.5." not in data:
            raise NotDicom(f"no DICM at byte 128, and taken as a bare data set: {error}") from None
        raise
    return Header(found[0], found[1], syntax, found[2], found[3], 0, has_meta=False)

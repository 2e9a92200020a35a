"""One record of the reception log, put back to its place: nothing that is whole is touched, nothing is lost.

What lies at a place is compared with the record. It may be missing, or be what a power cut left of the very file that
the record speaks of: blocks of it, and zeros or nothing elsewhere. Then it is made anew beside and renamed. Anything
else is another file, and stays; the record's gets the next name that is free, unless it is there already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from dicomferry.workers.files.same_instance import Relation, compare
from dicomferry.workers.receiving.archive import Archive, file_name, file_number
from dicomferry.workers.receiving.reception_log.record_format import is_torn_copy
from dicomferry.workers.receiving.reception_log.segment import read_at

MOST_OF_ONE_UID = 1000
_NOT_OPENED = (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)


def put_back(archive: Archive, place: str, content: bytes) -> str | None:
    """Have the instance in the archive, durably: the path of the file that was made for it, None where it was there.

    Raises OSError.
    """
    folder, _, name = place.rpartition("/")
    stem, first = _stem(name), file_number(name)
    for number in range(first, MOST_OF_ONE_UID):
        name = file_name(stem, number)
        done = _try_name(archive, folder, name, content, is_own=number == first)
        if done is not None:
            return f"{folder}/{name}" if done else None
    raise OSError(errno.EMLINK, "too many files of one SOP Instance UID", place)


def make_anew(archive: Archive, place: str, content: bytes) -> None:
    """Put a new file in the place of one of the same content, of which nobody knows what is on disk. Raises OSError.

    One that was removed stays so, and one of another content is another one.
    """
    folder, _, name = place.rpartition("/")
    try:
        found = _read(archive, folder, name, len(content))
    except FileNotFoundError:
        return
    if found is not None and is_torn_copy(found, content):
        archive.replace(content, folder, name)


def _try_name(archive: Archive, folder: str, name: str, content: bytes, *, is_own: bool) -> bool | None:
    """True where it was made under this name, False where it is there already, None where another file is."""
    while True:
        try:
            found = _read(archive, folder, name, len(content))
        except FileNotFoundError:
            if _make(archive, folder, name, content):
                return True
            continue  # somebody was quicker
        except OSError as error:
            if error.errno in _NOT_OPENED:
                return None
            raise
        if found == content:
            archive.flush_file(folder, name)
            return False
        if is_own and found is not None and is_torn_copy(found, content):
            archive.replace(content, folder, name)
            return True
        return None if found is None or not _is_same(archive, folder, name, content) else False


def _read(archive: Archive, folder: str, name: str, most: int) -> bytes | None:
    """A file's bytes as they are on disk; None where it is longer than `most`, or no regular file. Raises OSError."""
    fd = archive.open_file(folder, name)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            return None
        # Where this fails, or a write failed before, the disk has less than the memory: it is the disk that counts.
        with contextlib.suppress(OSError):
            os.fdatasync(fd)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return read_at(fd, 0, found.st_size)
    finally:
        os.close(fd)


def _make(archive: Archive, folder: str, name: str, content: bytes) -> bool:
    """A new file under that name, durable; False where the name is taken. Raises OSError."""
    draft = archive.draft()
    try:
        draft.write([content])
        archive.flush_draft(draft)
        if not archive.publish(draft, folder, name):
            return False
        archive.flush_folder(folder)
        return True
    finally:
        draft.close()


def _is_same(archive: Archive, folder: str, name: str, content: bytes) -> bool:
    """Whether another file holds the same instance, in whatever encoding; then it is flushed. Raises OSError."""
    draft = archive.draft()
    try:
        draft.write([content])
        theirs = archive.open_file(folder, name)
        try:
            same = compare(draft.fd, theirs) is Relation.SAME
        finally:
            os.close(theirs)
    finally:
        draft.close()
    if same:
        archive.flush_file(folder, name)
    return same


def _stem(name: str) -> str:
    """The name of the first file of an instance, without its ending."""
    stem = name.removesuffix(".dcm")
    with contextlib.suppress(ValueError):
        if file_number(name) > 1:
            return stem[: stem.rindex("~")]
    return stem

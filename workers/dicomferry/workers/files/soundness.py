"""Is a file of the archive sound: does its data set say whose it is, and can it be read to its end?

One answer for what has just come and for what is found on disk. Flaws are texts that begin with a stable word; of those
named here, all but `truncated:` and the notes behind it keep a file from counting as the instance that it is filed as.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.uid import is_lawful
from dicomferry.workers.files import part10, top_level
from dicomferry.workers.files.byte_source import MOST_INFLATED, ByteSource, Inflated, Stored, TooLong, Unreadable
from dicomferry.workers.files.data_set import (
    DEFLATED,
    EXPLICIT_BE,
    IMPLICIT,
    NeedMore,
    Uids,
    instance_uids,
    is_encapsulated,
)
from dicomferry.workers.files.elements import plain_end
from dicomferry.workers.files.tokens import Tokens

UNREADABLE, PIXELS, TRUNCATED = "unreadable:", "pixels:", "truncated:"
UID_DIFFERS, NO_STUDY, NO_SERIES = "uid differs:", "no study: none is named", "no series: none is named"
ODD_UID = "odd uid"
MOST_WORDS = 200
"""Characters of a flaw."""

_FIRST = 64 * 1024
_WINDOW = 4096
_NO_END = 1 << 62
_SEARCHED = 4 * 1024 * 1024
"""Bytes of an inflated data set in which its UIDs are looked for, one element after the other."""
# Hanging protocols, color palettes, implant templates, defined procedures, inventories: of no patient, so of no study
# (PS3.4 annex GG).
_OF_NO_STUDY = tuple(
    f"1.2.840.10008.5.1.4.{branch}." for branch in ("38", "39", "43", "44", "45", "1.1.200", "1.1.201")
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much of a data set is walked: elements, and bytes that a deflate stream holds."""

    elements: int = part10.MOST_ELEMENTS
    """Elements that are walked over, at most: a data set made of small ones would hold up the rows of all."""
    inflated: int = MOST_INFLATED


DEFAULT = Bounds()


def read_uids(fd: int, start: int, syntax: str) -> Uids:
    """The UIDs of the data set that begins at `start`: from its first bytes, else from wherever they stand in it.

    Raises UnusableFile where there are no SOP UIDs in it; OSError.
    """
    first = os.pread(fd, _FIRST, start)
    try:
        found = instance_uids(first, 0, syntax, len(first) < _FIRST)
    except NeedMore:
        return search_uids(fd, start, syntax)
    except UnusableFile as error:
        if error.reason == Reason.BAD_UID:
            raise
        try:
            return search_uids(fd, start, syntax)
        except UnusableFile:
            raise error from None
    return found if found[2] and found[3] else search_uids(fd, start, syntax)


def search_uids(fd: int, start: int, syntax: str) -> Uids:
    """The UIDs of a data set whose elements stand in any order, though they should ascend (PS3.5 7.1)."""
    source: ByteSource = Inflated(fd, start, _SEARCHED) if syntax in DEFLATED else Stored(fd, start)

    def read(pos: int) -> bytes:
        try:
            return source.read(pos, _WINDOW)
        except TooLong:
            return b""

    try:
        return top_level.search_uids(read, 0, syntax, size=_NO_END)
    except Unreadable as error:
        raise UnusableFile(Reason.NO_UID, str(error)) from None


def unreadable(error: UnusableFile) -> str:
    """The flaw of a data set whose UIDs cannot be read."""
    return f"{UNREADABLE} {error.reason}: {error}"[:MOST_WORDS]


def flaw_of(
    fd: int, start: int, syntax: str, uids: Uids | UnusableFile, claimed: str, bounds: Bounds = DEFAULT
) -> str | None:
    """What is wrong with the data set that begins at `start`; None where nothing is.

    `uids` are its own, or what keeps them from being read; `claimed` is the SOP Instance UID that it is kept under.
    No value is read, and of a deflated data set no more than a bound. Raises OSError.
    """
    return _worst(fd, start, syntax, uids, claimed, bounds)[:MOST_WORDS] or None


def end_told(first: bytes, plain_upto: int, syntax: str) -> int:
    """At which size of a data set that begins with `first` a walk would find it whole, by these bytes alone; 0 where
    they do not tell. Most do: behind their headers come the pixels, to the end, and those are passed over by length.
    `plain_upto` is how far its head told that already.
    """
    if syntax in DEFLATED:
        return 0
    implicit, big = syntax in IMPLICIT, syntax == EXPLICIT_BE
    return plain_end(first, plain_upto, implicit=implicit, big=big, encapsulated=is_encapsulated(syntax))


def is_named(uids: Uids | UnusableFile) -> bool:
    """Whether a data set says in lawful words whose it is; nothing but a walk over it could find a flaw then."""
    if isinstance(uids, UnusableFile):
        return False
    sop_class, sop_instance, study, series = uids
    if study is None or series is None:
        return False
    return is_lawful(sop_instance) and is_lawful(study) and is_lawful(series) and is_lawful(sop_class)


def _worst(fd: int, start: int, syntax: str, uids: Uids | UnusableFile, claimed: str, bounds: Bounds) -> str:
    if isinstance(uids, UnusableFile):
        return unreadable(uids)
    sop_class, sop_instance, study, series = uids
    if sop_instance != claimed:
        return f"{UID_DIFFERS} the data set's is {sop_instance}"
    walked = _walk(fd, start, syntax, bounds)
    if walked.startswith((UNREADABLE, PIXELS)):
        return walked
    if study is None and not sop_class.startswith(_OF_NO_STUDY):
        return NO_STUDY
    if walked:
        return walked
    if not all([is_lawful(one) for one in uids if one]):
        return ODD_UID
    return NO_SERIES if study and series is None else ""


def _walk(fd: int, start: int, syntax: str, bounds: Bounds) -> str:
    """What a walk over the data set to its end finds wrong; empty where it is whole."""
    if syntax in DEFLATED:
        return _walk_inflated(Inflated(fd, start, bounds.inflated), syntax)
    header = part10.Header(
        sop_class_uid="",
        sop_instance_uid="",
        transfer_syntax_uid=syntax,
        study_instance_uid=None,
        series_instance_uid=None,
        data_offset=start,
    )
    try:
        part10.check_whole(fd, header, most=bounds.elements)
    except TooLong as error:
        return f"not walked to its end: {error}"
    except UnusableFile as error:
        words = str(error)
        if error.reason == Reason.TRUNCATED:
            return f"{TRUNCATED} {words}"
        if error.reason != Reason.SYNTAX_MISMATCH:
            return f"{error.reason}: {words}"
        return f"{PIXELS if ' pixel data in ' in words else UNREADABLE} {words}"
    return ""


def _walk_inflated(source: Inflated, syntax: str) -> str:
    tokens = Tokens(source, syntax)
    try:
        last = None
        while token := tokens.next():
            last = token
        # A value that ends beyond the end of the stream.
        if last is not None and source.size < last.start + last.length:
            return f"{TRUNCATED} the data set ends inside of an element"
    except TooLong as error:
        return f"not walked to its end: {error}"
    except Unreadable as error:
        return f"{UNREADABLE} {error}" if source.is_ended else f"{TRUNCATED} {error}"
    return "" if source.is_ended else f"{TRUNCATED} the deflate stream does not end"

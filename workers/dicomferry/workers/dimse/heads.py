"""Where a data set begins and that it is the planned one, for files that are mostly like the last: images of a series.

What a walk over the first bytes of one file found holds for each other one whose bytes are the same but for the SOP
Instance UID, and comparing them costs a tenth of walking over them.
"""

from __future__ import annotations

from typing import NamedTuple

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.dimse.wire.message import text_value
from dicomferry.workers.files import meta_group, part10
from dicomferry.workers.files.data_set import BLANKS, DEFLATED, NeedMore, is_instance, is_uid, sop_uids

_ORDINARY = b"\x08\0"
"""The group that nearly all data sets begin with, in little endian."""


class Begin(NamedTuple):
    """`offset` is where the data set begins, `meta_differs` what the meta group says of it otherwise, in words."""

    offset: int
    meta_differs: str | None


class _KnownHead(NamedTuple):
    """The head of a file: the bytes around its SOP Instance UID, whose value is `length` bytes long.

    `before` and `behind` are those of the meta group, from DICM on up to the data set's first group number; `ahead`
    those of the data set up to that value, none where it could not be told where it stands.
    """

    uids: tuple[str, str]
    length: int
    before: bytes
    behind: bytes
    ahead: bytes
    begin: Begin


class Heads:
    """Looks into the heads of files, one after the other; not to be shared by threads."""

    def __init__(self) -> None:
        self._seen: _KnownHead | None = None

    def begin(self, first: bytes, syntax: str, sop_class: str, sop_instance: str) -> Begin | None:
        """Where the data set of a file begins; None unless its `first` bytes show these UIDs."""
        seen = self._seen
        if seen is not None and seen.uids == (syntax, sop_class):
            value = text_value(sop_instance)
            if len(value) == seen.length and first.startswith(seen.before + value + seen.behind, meta_group.BEGINS):
                begin = seen.begin
                if seen.ahead and first.startswith(seen.ahead + value, begin.offset):
                    return begin
                return begin if is_instance(first, begin.offset, syntax, sop_class, sop_instance) else None
        return self._walk(first, syntax, sop_class, sop_instance)

    def header(self, path: bytes, first: bytes) -> part10.Header:
        """The header of the file at `path`, whose first bytes these are, as `part10.read_header` reads it; of one whose
        head is like the last one's without study and series UID.
        """
        known = self._recognised(first)
        if known is not None:
            return known
        header = part10.read_header(path, first=first)
        self._walk(first, header.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid)
        return header

    def _recognised(self, first: bytes) -> part10.Header | None:
        seen = self._seen
        if seen is None or not seen.ahead or first[128 : meta_group.BEGINS] != b"DICM":
            return None
        start = meta_group.BEGINS + len(seen.before)
        end = start + seen.length
        value = first[start:end]
        if not (
            first.startswith(seen.before, meta_group.BEGINS)
            and first.startswith(seen.behind, end)
            and first.startswith(seen.ahead + value, seen.begin.offset)
        ):
            return None
        text = value.rstrip(BLANKS).decode("latin-1")
        if not is_uid(text) or text_value(text) != value:
            return None
        syntax, sop_class = seen.uids
        return part10.Header(sop_class, text, syntax, None, None, seen.begin.offset)

    def _walk(self, first: bytes, syntax: str, sop_class: str, sop_instance: str) -> Begin | None:
        try:
            values, offset = meta_group.read(first)
        except (NeedMore, UnusableFile):
            return None
        if values.get(meta_group.TRANSFER_SYNTAX, b"").rstrip(BLANKS) != syntax.encode():
            return None
        if not is_instance(first, offset, syntax, sop_class, sop_instance):
            return None
        begin = Begin(offset, part10.stale(values, sop_class, sop_instance))
        value = text_value(sop_instance)
        meta = first[meta_group.BEGINS : offset + len(_ORDINARY)].split(value)
        if len(meta) == 2 and values.get(meta_group.MEDIA_STORAGE_INSTANCE) == value and begin.meta_differs is None:
            before, behind = meta
            if behind.endswith(_ORDINARY):
                ahead = _ahead(first, offset, syntax, value)
                self._seen = _KnownHead((syntax, sop_class), len(value), before, behind, ahead, begin)
        return begin


def _ahead(first: bytes, offset: int, syntax: str, value: bytes) -> bytes:
    """The bytes of a data set ahead of its SOP Instance UID, if that UID is `value`."""
    if syntax in DEFLATED:
        return b""
    at = sop_uids(first, offset, syntax).at
    return first[offset:at] if first.startswith(value, at) else b""

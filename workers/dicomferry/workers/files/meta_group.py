"""Where a file's data set begins: the one rule for whoever opens a DICOM file (PS3.10 7.1).

The meta group is walked element by element, whatever its own length (0002,0000) says: writers that edit a file and
leave that number as it was are common, and to trust it cuts elements off the data set.
"""

from __future__ import annotations

from typing import NamedTuple

from dicomferry.workers.files.data_set import want
from dicomferry.workers.files.elements import HEADER_SIZES, UNPACK_HEADER, UNPACK_LENGTH

MEDIA_STORAGE_CLASS, MEDIA_STORAGE_INSTANCE, TRANSFER_SYNTAX = 0x02, 0x03, 0x10
BEGINS = 132
"""Behind the preamble and DICM."""

_UNPACK = UNPACK_HEADER[False]
_UNPACK_LENGTH = UNPACK_LENGTH[False]
_SIZES = HEADER_SIZES[False]


class MetaGroup(NamedTuple):
    """The values of group 0002 by element number, as they stand there; `end` is where the data set begins."""

    values: dict[int, bytes]
    end: int


def read(data: bytes, pos: int = BEGINS, *, whole: bool = False) -> MetaGroup:
    """The meta group that begins at `pos` of `data`, a file's first bytes; `whole` says that these are all there are.

    It ends at the first element that is not of group 0002. Its declared length decides in one case alone: where just
    there something stands that would be of group 0002 and cannot go on with it, the data set has begun. Raises
    NeedMore, or UnusableFile "truncated" where the file ends inside the group.
    """
    values: dict[int, bytes] = {}
    available = len(data)
    declared_end = last = -1
    while True:
        if pos + 8 > available:
            if pos == declared_end:  # a data set may be shorter than an element's head
                break
            want(pos + 8, whole)
        group, element, vr, length = _UNPACK(data, pos)
        if group != 2:
            break
        head = _SIZES.get(vr, 0)
        if pos == declared_end and (element <= last or not head):
            break
        if head == 12:
            if pos + 12 > available:
                want(pos + 12, whole)
            length = _UNPACK_LENGTH(data, pos + 8)[0]
        elif not head:
            head = 8
            length = _UNPACK_LENGTH(data, pos + 4)[0]
        start = pos + head
        pos = start + length
        if pos > available:
            want(pos, whole)
        values[element] = data[start:pos]
        last = element
        if not element and length == 4:
            declared_end = pos + _UNPACK_LENGTH(data, start)[0]
    return MetaGroup(values, pos)

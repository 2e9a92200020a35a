"""Are two files of one SOP Instance UID the same instance, another encoding of it, or a conflict?

One answer for what is sent and for what is received. The raw bytes of the values decide, to the end of the data set; in
doubt it is a conflict, which keeps both. Encoding, length forms, group lengths and padding do not count.
"""

from __future__ import annotations

import os
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from dicomferry.workers.files import file_meta
from dicomferry.workers.files.byte_source import MOST_INFLATED, ByteSource, Inflated, Stored, Unreadable
from dicomferry.workers.files.data_set import DEFLATED, UNCOMPRESSED
from dicomferry.workers.files.tokens import PIXEL_DATA, Token, TokenKind, Tokens


class Relation(StrEnum):
    """What a file is to another one of the same SOP Instance UID."""

    SAME = "same"
    ALTERNATE = "alternate"
    CONFLICT = "conflict"


class Side(NamedTuple):
    """An open file, where its data set begins, in which transfer syntax, and how much of a deflated one is read."""

    fd: int
    data_offset: int
    syntax: str
    most_inflated: int = MOST_INFLATED

    @property
    def source(self) -> ByteSource:
        """The bytes of its data set."""
        if self.syntax in DEFLATED:
            return Inflated(self.fd, self.data_offset, self.most_inflated)
        return Stored(self.fd, self.data_offset)


_BLOCK = 1024 * 1024
_TWO, _FOUR, _EIGHT = ("AT", "OW", "SS", "US"), ("FL", "OF", "OL", "SL", "UL"), ("FD", "OD", "OV", "SV", "UV")
_WORDS = {vr: size for size, vrs in ((2, _TWO), (4, _FOUR), (8, _EIGHT)) for vr in vrs}
# What compressing or decompressing lawfully changes at the top level (PS3.3 C.7.6.1, C.7.6.3), pixels first.
_OF_THE_ENCODING = frozenset(
    {
        PIXEL_DATA, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0x00080008, 0x00082111, 0x00280002, 0x00280004, 0x00280006,
        0x00280034, 0x00282110, 0x00282112, 0x00282114,
    }
)  # fmt: skip


def compare(ours: int, theirs: int, *, elements: bool = True) -> Relation:
    """What the file with descriptor `ours` is to the file with descriptor `theirs`, both with a meta group as we write.

    Without `elements` only the same bytes in the same syntax are the same. Raises OSError.
    """
    sides = []
    for fd in (ours, theirs):
        meta = file_meta.decode(os.pread(fd, 64 * 1024, 0))
        if meta is None:
            return Relation.CONFLICT
        sides.append(Side(fd, meta.data_offset, meta.values.get(file_meta.TRANSFER_SYNTAX, "")))
    return relation(*sides, elements=elements)


def relation(one: Side, other: Side, *, elements: bool = True) -> Relation:
    """What the one data set is to the other. Memory stays flat, whatever they hold. Raises OSError."""
    if one.syntax == other.syntax and _equal_bytes(one, other):
        return Relation.SAME
    if not elements:
        return Relation.CONFLICT
    native = {one.syntax, other.syntax} <= UNCOMPRESSED
    alike = native or one.syntax == other.syntax
    try:
        equal = _FileComparison(
            one, other, strict=alike and not native, ignored=frozenset() if alike else _OF_THE_ENCODING
        )
        if not equal.holds():
            return Relation.CONFLICT
    except Unreadable:
        return Relation.CONFLICT
    return Relation.SAME if alike else Relation.ALTERNATE


def _equal_bytes(one: Side, other: Side) -> bool:
    size = os.fstat(one.fd).st_size - one.data_offset
    if size != os.fstat(other.fd).st_size - other.data_offset:
        return False
    for pos in range(0, size, _BLOCK):
        if os.pread(one.fd, _BLOCK, one.data_offset + pos) != os.pread(other.fd, _BLOCK, other.data_offset + pos):
            return False
    return True


class _FileComparison:
    """Two data sets side by side. `strict`: value representations count as well; `ignored`: tags at the top level."""

    def __init__(self, one: Side, other: Side, *, strict: bool, ignored: frozenset[int]) -> None:
        self._sources = one.source, other.source
        self._tokens = Tokens(self._sources[0], one.syntax), Tokens(self._sources[1], other.syntax)
        self._strict = strict
        self._ignored = ignored

    def holds(self) -> bool:
        """Whether they hold the same. Raises Unreadable, OSError."""
        while True:
            one, other = self._next(0), self._next(1)
            if one is None or other is None:
                return one is other
            if one.tag != other.tag or (self._strict and one.vr != other.vr):
                return False
            if one.kind is not other.kind:
                # A sequence by its VR in the one is mere bytes in the other, which has no VR.
                if {one.kind, other.kind} != {TokenKind.VALUE, TokenKind.SEQUENCE}:
                    return False
                if not self._tokens[0 if one.kind is TokenKind.VALUE else 1].descend():
                    return False
            elif one.kind is TokenKind.VALUE and self._are_sequences(one, other):
                if not all([tokens.descend() for tokens in self._tokens]):
                    return False
            elif one.kind in (TokenKind.VALUE, TokenKind.FRAGMENT) and not self._equal_values(one, other):
                return False

    def _next(self, side: int) -> Token | None:
        """The next token that counts."""
        tokens = self._tokens[side]
        while (token := tokens.next()) is not None:
            if token.depth or token.tag not in self._ignored:
                return token
            while (
                token is not None
                and token.kind is not TokenKind.VALUE
                and (token.depth or token.kind is not TokenKind.END)
            ):
                token = tokens.next()
        return None

    @staticmethod
    def _are_sequences(one: Token, other: Token) -> bool:
        return one.vr in ("", "UN") and other.vr in ("", "UN") and _is_sequence(one.tag)

    def _equal_values(self, one: Token, other: Token) -> bool:
        if one.length != other.length:
            return False
        for pos in range(0, one.length, _BLOCK):
            size = min(_BLOCK, one.length - pos)
            blocks = []
            for token, source in zip((one, other), self._sources, strict=True):
                block = source.read(token.start + pos, size)
                if len(block) < size:
                    raise Unreadable("the data set ends inside of a value")
                blocks.append(
                    _turned(block, _WORDS.get(token.vr, 1)) if one.big is not other.big and token.big else block
                )
            if blocks[0] != blocks[1]:
                return False
        return True


@lru_cache(maxsize=4096)
def _is_sequence(tag: int) -> bool:
    """Whether the dictionary has it as a sequence."""
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _turned(value: bytes, width: int) -> bytes:
    """`value` with the bytes of each word of `width` bytes reversed; an odd rest stays as it is."""
    if width == 1:
        return value
    whole = len(value) // width * width
    turned = bytearray(value)
    for place in range(width):
        turned[place:whole:width] = value[width - 1 - place : whole : width]
    return bytes(turned)

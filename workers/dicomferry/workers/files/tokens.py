"""A data set as a stream of tokens: what is in it, apart from how it is encoded (PS3.5 7), a piece at a time.

No value is decoded, and none is read: a token says where its bytes lie. What stands in the stream for a sequence is the
same whether its length was defined or not. Group lengths (retired, PS3.5 7.2) and padding (FFFC,FFFC) are no content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from dicomferry.workers.files.byte_source import ByteSource, TooLong, Unreadable
from dicomferry.workers.files.data_set import EXPLICIT_BE, IMPLICIT
from dicomferry.workers.files.elements import HEADER_SIZES, UNDEFINED, UNPACK_HEADER, UNPACK_LENGTH

MOST_NESTED = 256
"""Sequences inside of one another: an object with more of them is made to hurt."""
MOST_TOKENS = 300_000
"""Pieces of one data set that are looked at: each costs some microseconds, and deflate makes millions of them out of a
few kilobytes.
"""

PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PADDING = 0xFFFCFFFC
_BLOCK = 64 * 1024


class TokenKind(Enum):
    """What a token is."""

    VALUE = "value"
    FRAGMENT = "fragment"
    SEQUENCE = "sequence"
    ITEM = "item"
    END = "end"


class Token(NamedTuple):
    """One piece of a data set. `vr` is empty where the encoding has none; `start` and `length` are the value's.

    `depth` is how many sequences and items it lies in; `big` says that the value's words are big endian.
    """

    kind: TokenKind
    tag: int = 0
    vr: str = ""
    start: int = 0
    length: int = 0
    depth: int = 0
    big: bool = False


@dataclass(slots=True)
class _Frame:
    """A sequence or an item that is open: where it ends (None: at its delimiter), and how what is in it is encoded."""

    is_sequence: bool
    end: int | None
    implicit: bool
    big: bool
    fragments: bool = False


class Tokens:
    """The tokens of the data set in `source`, one after the other."""

    def __init__(self, source: ByteSource, syntax: str) -> None:
        self._source = source
        self._pos = 0
        self._stack = [_Frame(False, None, syntax in IMPLICIT, syntax == EXPLICIT_BE)]
        self._last: Token | None = None
        self._ended = False
        self._number = 0

    def next(self) -> Token | None:
        """The next token; None at the end. Raises Unreadable where no element can stand, TooLong; OSError."""
        while not self._ended:
            self._number += 1
            if self._number > MOST_TOKENS:
                raise TooLong(f"the data set has more than {MOST_TOKENS:,} elements")
            frame = self._stack[-1]
            if frame.end is not None and self._pos >= frame.end:
                if self._pos > frame.end:
                    raise Unreadable(f"what stands at byte {self._pos} does not fit what it is in")
                return self._close()
            head = self._source.read(self._pos, 12)
            if len(head) < 8:
                if len(self._stack) > 1 or head.strip(b"\0"):
                    raise Unreadable(f"the data set ends at byte {self._pos}, inside of something")
                break
            token = self._part(frame, head) if frame.is_sequence else self._element(frame, head)
            if token is not None:
                self._last = token
                return token
        return None

    def descend(self) -> bool:
        """Take the value that came last, and was not read, for a sequence; False if it can be none."""
        token = self._last
        if token is None or token.kind is not TokenKind.VALUE or token.vr not in ("", "UN", "SQ"):
            return False
        frame = self._stack[-1]
        un = token.vr == "UN"
        self._pos = token.start
        # What is in a UN is Implicit VR Little Endian in any transfer syntax (PS3.5 6.2.2).
        self._push(_Frame(True, token.start + token.length, frame.implicit or un, frame.big and not un))
        return True

    def _close(self) -> Token:
        self._stack.pop()
        return Token(TokenKind.END, depth=len(self._stack) - 1)

    def _push(self, frame: _Frame) -> None:
        if len(self._stack) > MOST_NESTED:
            raise Unreadable(f"more than {MOST_NESTED} sequences inside of one another")
        self._stack.append(frame)

    def _part(self, frame: _Frame, head: bytes) -> Token | None:
        """An item, a fragment, or the end of a sequence."""
        group, element, _, _ = UNPACK_HEADER[frame.big](head, 0)
        tag = group << 16 | element
        length = UNPACK_LENGTH[frame.big](head, 4)[0]
        depth = len(self._stack) - 1
        self._pos += 8
        if tag == _SEQUENCE_END and frame.end is None:
            return self._close()
        if tag != _ITEM or (frame.fragments and length == UNDEFINED):
            raise Unreadable(f"no item where one is due at byte {self._pos - 8}")
        if frame.fragments:
            start = self._pos
            self._pos += length
            return Token(TokenKind.FRAGMENT, tag, "", start, length, depth)
        end = None if length == UNDEFINED else self._pos + length
        self._push(_Frame(False, end, frame.implicit, frame.big))
        return Token(TokenKind.ITEM, tag, depth=depth)

    def _element(self, frame: _Frame, head: bytes) -> Token | None:
        """An element, or the end of an item; None for what is no content, or at the end of the data."""
        group, element, vr_number, short = UNPACK_HEADER[frame.big](head, 0)
        tag = group << 16 | element
        depth = len(self._stack) - 1
        if group == 0xFFFE:
            return self._delimiter(frame, tag, head)
        if group in (0, 2) and not depth:
            if self._zeros_only():
                self._ended = True
                return None
            raise Unreadable(f"group {group:04X} in the data set at byte {self._pos}")
        vr, start, length = self._header(frame, head, vr_number, short)
        if length == UNDEFINED:
            self._pos = start
            fragments = vr not in ("", "SQ", "UN") or tag == PIXEL_DATA
            un = vr == "UN"
            self._push(_Frame(True, None, frame.implicit or un, frame.big and not un, fragments))
            return Token(TokenKind.SEQUENCE, tag, vr, start, 0, depth)
        if vr == "SQ":
            self._pos = start
            self._push(_Frame(True, start + length, frame.implicit, frame.big))
            return Token(TokenKind.SEQUENCE, tag, vr, start, 0, depth)
        self._pos = start + length
        if (element == 0 and length == 4) or tag == _PADDING:
            return None
        return Token(TokenKind.VALUE, tag, vr, start, length, depth, frame.big)

    def _delimiter(self, frame: _Frame, tag: int, head: bytes) -> Token | None:
        length = UNPACK_LENGTH[frame.big](head, 4)[0]
        self._pos += 8
        depth = len(self._stack) - 1
        if depth and frame.end is None and tag == _ITEM_END:
            return self._close()
        # One that some writers leave at the top level does no harm.
        if depth or length or tag == _ITEM:
            raise Unreadable(f"a delimiter where none is due at byte {self._pos - 8}")
        return None

    def _header(self, frame: _Frame, head: bytes, vr_number: int, short: int) -> tuple[str, int, int]:
        """(VR, where the value begins, its length)."""
        if frame.implicit:
            return "", self._pos + 8, UNPACK_LENGTH[frame.big](head, 4)[0]
        size = HEADER_SIZES[frame.big].get(vr_number, 0)
        vr = head[4:6].decode("latin-1")
        if size == 8:
            return vr, self._pos + 8, short
        if not vr.isalpha():
            raise Unreadable(f"no value representation at byte {self._pos}")
        # VRs not known here have the long form (PS3.5 6.2).
        if len(head) < 12:
            raise Unreadable(f"the data set ends at byte {self._pos}, inside of an element's head")
        return vr, self._pos + 12, UNPACK_LENGTH[frame.big](head, 8)[0]

    def _zeros_only(self) -> bool:
        pos = self._pos
        while data := self._source.read(pos, _BLOCK):
            if data.strip(b"\0"):
                return False
            pos += len(data)
        return True

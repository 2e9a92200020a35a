"""Specific Character Set (0008,0005): text to bytes and back (PS3.5 6.1), without ever failing on what a peer sends.

The tables of character sets and the code extensions of ISO 2022 are pydicom's.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS, PersonName

from dicomferry.models.rules.errors import UsageError

DEFAULT = "ISO_IR 192"
"""What a remote without a character set of its own is taken to speak."""
_ASCII_TERMS = ("", "ISO_IR 6", "ISO 2022 IR 6")
_ESCAPE = b"\x1b"
_SEPARATORS = re.compile("^ISO[ _-]?(?P<extended>2022[ _-]?)?IR[ _-]?")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pydicom warns of values, and logs them: they are patients' names."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


@dataclass(frozen=True)
class CharacterSet:
    """The defined terms of an element (0008,0005), several of them joined by a backslash as in the element."""

    terms: str
    encodings: tuple[str, ...]

    def decode(self, raw: bytes, *, name: bool = False) -> tuple[str, bool]:
        """The text, and whether all of it could be read; `name`: VR PN.

        Bytes that could not be read stand in it as lone surrogates, which `shown` makes visible: not at once, because
        a backslash would be taken for one of the value.
        """
        if _ESCAPE not in raw:
            try:
                return raw.decode(self.encodings[0]), True
            except UnicodeDecodeError:
                return raw.decode(self.encodings[0], "surrogateescape"), False
        with _quiet():
            try:
                text = decode_bytes(raw, self.encodings, PN_DELIMS if name else TEXT_VR_DELIMS)
            except (UnicodeError, LookupError):
                text = "\ufffd"
        return (raw.decode("ascii", "surrogateescape"), False) if "\ufffd" in text else (text, True)

    def encode(self, text: str, *, name: bool = False) -> bytes:
        """The bytes of a value; raises UsageError for text that these character sets do not have. `name`: VR PN."""
        if text.isascii():
            return text.encode()
        with _quiet():
            try:
                if len(self.encodings) == 1:
                    return text.encode(self.encodings[0])
                if name:
                    raw = b"\\".join(PersonName(part).encode(self.encodings) for part in text.split("\\"))
                else:
                    raw = encode_string(text, self.encodings)
            except (UnicodeError, LookupError):
                raw = b""
        if self.decode(raw, name=name) != (text, True):
            raise UsageError(
                f"{text!r} cannot be written in {self.terms or 'ASCII'}: name a character set that the remote knows, "
                "`dicomferry remote set NAME --charset CS`"
            )
        return raw


def shown(text: str) -> str:
    """Text of `decode` with \\xNN for each byte that could not be read."""
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in text)


@lru_cache(maxsize=256)
def character_set(terms: str) -> CharacterSet | None:
    """The character set of these terms; None where one of them is not known. Blanks for bars and the like are."""
    listed = [_SEPARATORS.sub(_separator, term.strip(" \0")) for term in terms.split("\\")]
    if any(term not in python_encoding for term in listed):
        return None
    if len(listed) == 1 and listed[0] in _ASCII_TERMS:  # with code extensions pydicom counts on a name of its own
        return CharacterSet(listed[0], ("ascii",))
    with _quiet():
        return CharacterSet("\\".join(listed), tuple(convert_encodings(listed)))


def _separator(found: re.Match[str]) -> str:
    return "ISO 2022 IR " if found["extended"] else "ISO_IR "


def known(terms: str | None) -> CharacterSet:
    """The character set of these terms; ISO_IR 192, of which ASCII is a part, for none and for unknown ones."""
    found = character_set(terms) if terms else None
    return found or CharacterSet(DEFAULT, ("utf-8",))

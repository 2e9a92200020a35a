"""Text without what people and archives write differently: case, accents, padding, leading zeros. Pure."""

from __future__ import annotations

import re
import unicodedata

_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i", "ħ": "h", "ŧ": "t"}
)
"""Letters that Unicode does not take apart into a letter and its mark."""
_ACCENTS = frozenset(range(200, 241))
"""Combining classes of marks around a letter; those of Indic and Japanese scripts, which are letters, are others."""
_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_PADDING = re.compile(r"[\s\0]+")
_BETWEEN = re.compile(r"[\^\s,.;'-]+")
_UMLAUTS = re.compile(r"(?<=[aou])e")


def folded(text: str) -> str:
    """Without case and accents."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in plain if unicodedata.combining(char) not in _ACCENTS).translate(_LETTERS)


def loose(text: str) -> str:
    """Without case, blanks, NULs and leading zeros of numbers in it: what is equal then may be the same."""
    return _ZEROS.sub("", _PADDING.sub("", text).casefold())


def name_folded(group: str) -> str:
    """One component group of a person's name (PS3.5 6.2.1.2) without case, accents and empty components at its end."""
    return "^".join(part.strip(" \0") for part in folded(group).split("^")).rstrip("^")


def is_name_part(asked: str, name: str) -> bool:
    """Whether each word of the asked name is one of the folded name: archives look for parts of names, in any order,
    and some write umlauts with an e.
    """
    words = {_UMLAUTS.sub("", word) for word in _BETWEEN.split(name) if word}
    wanted = {_UMLAUTS.sub("", word) for word in _BETWEEN.split(asked) if word}
    return bool(wanted) and wanted <= words

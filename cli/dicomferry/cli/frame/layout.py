"""How text fits a narrow terminal: which columns stay and how wide, what is cut where, where lines break. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

GAP = 2
"""Blanks between two columns."""
CUT = "…"
LEAST_TEXT = 24
"""Characters that wrapped text has at least beside its name; where there are fewer, nothing is wrapped."""
_KEY = re.compile(r"[\w.]+=(?=.)")
_COMMAND = re.compile(r"`[^`]*`")
_BLANK = "\x00"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, and how it gives way on a narrow terminal.

    `rank`: what is least important has the highest, and goes first; 0 stays. `least`: it may be shortened to so many
    characters; None is not at all. `middle`: it is cut in the middle, for UIDs and paths tell by both ends.
    `outcome`: its words are states, which have colours. `brief`: its heading over brief cells, if it is another.
    """

    heading: str
    brief: str | None = None
    rank: int = 0
    least: int | None = None
    middle: bool = False
    right: bool = False
    outcome: bool = False


class Brief(NamedTuple):
    """A cell that a terminal shows in fewer words, such as `9m` for a moment."""

    full: str
    brief: str


def fit(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int]:
    """The width of each column on a terminal with `room` characters a line, 0 for one that is left out.

    As many columns as possible, the least important ones left out first; then what is too wide is taken from those
    that may be shortened, again from the least important ones first.
    """
    least = [
        wide if column.least is None else min(wide, max(column.least, len(column.brief or column.heading)))
        for column, wide in zip(columns, natural, strict=True)
    ]
    kept = [place for place, wide in enumerate(natural) if wide]
    while sum(least[place] + GAP for place in kept) - GAP > room:
        place = max(kept, key=lambda one: (columns[one].rank, one))
        if not columns[place].rank:
            break
        kept.remove(place)
    over = sum(natural[place] + GAP for place in kept) - GAP - room
    widths = [natural[place] if place in kept else 0 for place in range(len(columns))]
    for place in sorted(kept, key=lambda one: -columns[one].rank):
        given = min(max(over, 0), widths[place] - least[place])
        widths[place] -= given
        over -= given
    return widths


def width(text: str) -> int:
    """Places that a text takes on a terminal: Chinese and Japanese characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shortened(text: str, room: int, *, middle: bool = False, mark: str = CUT) -> str:
    """The text within so many places, cut at its end or in the middle, with a mark where something is left out."""
    if width(text) <= room:
        return text
    left = max(room - len(mark), 0)
    tail = left // 2 if middle else 0
    head = _first(text, left - tail)
    return head + mark[:room] + (_first(text[::-1], tail)[::-1] if tail else "")


def _first(text: str, room: int) -> str:
    """The beginning of a text, as much as has room."""
    if text.isascii():
        return text[:room]
    taken = 0
    for place, char in enumerate(text):
        taken += width(char)
        if taken > room:
            return text[:place]
    return text


def padded(text: str, room: int, *, right: bool = False) -> str:
    """The text with blanks up to so many places."""
    blanks = " " * (room - width(text))
    return blanks + text if right else text + blanks


def wrapped(text: str, room: int) -> list[str]:
    """Lines of at most so many characters, broken at blanks, and behind the `=` of a key whose value has no room beside
    it; commands in back quotes, UIDs and paths stay whole.
    """
    if room < LEAST_TEXT or width(text) <= room:
        return [text]
    lines, current = [], ""
    for word in _words(text, room):
        if current and width(current) + 1 + width(word) > room:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}" if current else word
    return [line.replace(_BLANK, " ") for line in [*lines, current]]


def _words(text: str, room: int) -> Iterator[str]:
    for word in _COMMAND.sub(lambda found: found[0].replace(" ", _BLANK), text).split(" "):
        key = _KEY.match(word) if width(word) > room else None
        if key:
            yield key[0]
        yield word[key.end() :] if key else word

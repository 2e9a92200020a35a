"""The file of `--from-csv`: one request a row, columns named by DICOM keywords. What spreadsheets do to it is known."""

from __future__ import annotations

import csv
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from dicomferry.cli.frame import csv_cells
from dicomferry.cli.frame.words import printable
from dicomferry.models.rules import query, spreadsheet
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.workers.finding import keys as grammar

_SEPARATORS = ",;\t"
_PROTECTED = re.compile(r'="(.*)"', re.DOTALL)
_UIDS = frozenset(f"{UNIQUE[level]:08X}" for level in (Level.SERIES, Level.IMAGE))
_OF_IMAGE = frozenset(("00080016", "00080018", "00200013"))
"""SOP class, SOP Instance UID, InstanceNumber: what certainly says something about one image."""
_ANSWERS = frozenset(
    f"{tag:08X}"
    for tag in (
        *(query.RELATED_INSTANCES.values()),
        *(0x00080054, query.INSTANCE_AVAILABILITY, 0x00201200, 0x00201202, 0x00201206),
    )
)
"""What archives tell of a match and do not match on: numbers of what is related, and where it lies."""
_NEAR = 0.88
_ERRORS_TOLD = 3


@dataclass(frozen=True)
class RequestRow:
    """One row: its number as a spreadsheet counts (the header is 1), its keys, and what the other columns hold."""

    row: int
    keys: tuple[Key, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class RequestFile:
    """The rows of a file; the headings of the columns that are no keys, and of those that a lower level would use."""

    requests: tuple[RequestRow, ...]
    others: tuple[str, ...]
    unused: tuple[str, ...]
    guessed: str | None = None
    """What was assumed of its text, for whoever gave it."""


def read(source: str, *, level: str, root: str, today: date, known: Sequence[Key] = ()) -> RequestFile:
    """The requests in a file, or in standard input for `-`. `known` are keys that every row has anyway.

    A column whose heading is a DICOM keyword is a key, unless that is told with a match and not matched; every other
    column is kept as it is. Values are text: leading zeros stay. Raises UsageError with row and column.
    """
    name = "standard input" if source == "-" else source
    text, guessed = _text(source, name)
    rows = _rows(text, name)
    heading = next(rows, None)
    if heading is None:
        raise UsageError(f"{name} is empty: its first row has to name the columns, such as AccessionNumber")
    columns = _Columns.of(heading[1], name, Level(level), root, known)
    requests, errors = [], []
    for number, cells in rows:
        try:
            requests.append(columns.request(number, cells, today))
        except UsageError as error:
            errors.append(str(error))
    if errors:
        more = len(errors) - _ERRORS_TOLD
        told = "; ".join(errors[:_ERRORS_TOLD]) + (f"; and {more} more rows" if more > 0 else "")
        raise UsageError(f"{name}: {told}; nothing was submitted")
    if not requests:
        raise UsageError(f"{name} has a heading and no rows: nothing was submitted")
    return RequestFile(tuple(requests), columns.others, columns.unused, guessed)


def _text(source: str, name: str) -> tuple[str, str | None]:
    """The text, and what was assumed to read it."""
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace"), None
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
    try:
        # What spreadsheets write in Western Europe: Latin-1, with a few more characters.
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        raise UsageError(f"{name}: row {row} is neither UTF-8 nor Latin-1 text: save the file as CSV UTF-8") from None
    return text, (
        f"{name} is not UTF-8 (row {row}): it was read as Latin-1 (Windows-1252); if names with accents are wrong in "
        "it, cancel the job and save the file as CSV UTF-8"
    )


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row that is not blank."""
    first, _, rest = text.partition("\n")
    separator = max(_SEPARATORS, key=first.count)
    if first.lower().startswith("sep="):  # a spreadsheet's own line, which it does not count
        separator, text = first[4:5].strip("\r") or separator, rest
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(f"{name}: row {number}: {error}: is a quotation mark left open?") from None
        cells = [_plain(cell) for cell in cells]
        if any(cells):
            yield number, cells


class _Protected(str):
    """Text of a cell that a spreadsheet was told to leave alone."""

    __slots__ = ()


def _plain(cell: str) -> str:
    """A cell's text; `="007"` is how spreadsheets are told to leave 007 alone, `'=7` how our own CSV does it."""
    text = cell.strip()
    protected = _PROTECTED.fullmatch(text)
    return _Protected(protected[1].strip()) if protected else csv_cells.read(text)


@dataclass(frozen=True)
class _Columns:
    """What each column is: `paths` has None for one that is no key."""

    headings: tuple[str, ...]
    paths: tuple[str | None, ...]
    others: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    def of(cls, headings: list[str], name: str, level: Level, root: str, known: Sequence[Key]) -> _Columns:
        """Raises UsageError for a heading that is a key misspelt, given twice or of a level below."""
        paths: list[str | None] = []
        unused = []
        given: Mapping[str, str] = dict(known)
        for number, heading in enumerate(headings, start=1):
            path = _path(heading, name, number)
            if path in _ANSWERS:
                path = None
            if path is not None and path in paths:
                raise UsageError(f"{name}: row 1: column {heading} is there twice")
            if path is not None and path in given:
                raise UsageError(f"{name}: row 1: {heading} is a column and a key on the command line: one of both")
            if path is not None and is_below(path, level, root):
                if path not in _UIDS:
                    raise UsageError(
                        f"{name}: row 1: {heading} says nothing about a {level}: choose a lower --level, "
                        "or give the column another name"
                    )
                unused.append(heading)
                path = None
            paths.append(path)
        if not any(paths) and not known and unused:
            raise UsageError(
                f"{name}: row 1: {', '.join(unused)} names no {level}: choose a lower --level, or add a column such as "
                f"{'PatientID' if level is Level.PATIENT else 'StudyInstanceUID'}"
            )
        if not any(paths) and not known:
            raise UsageError(
                f"{name}: row 1 names no key: its columns are {', '.join(map(printable, headings))}; one of them "
                "has to be a DICOM keyword such as AccessionNumber or StudyInstanceUID"
            )
        others = tuple(
            heading for heading, path in zip(headings, paths, strict=True) if path is None and heading not in unused
        )
        return cls(tuple(headings), tuple(paths), others, tuple(unused))

    def request(self, number: int, cells: list[str], today: date) -> RequestRow:
        """One row; raises UsageError that names the row and the column."""
        if len(cells) > len(self.headings) and any(cells[len(self.headings) :]):
            found = spreadsheet.damage(",".join(cells), "SH") if len(self.headings) == 1 else None
            where = f"row {number}, column {self.headings[0]}: " if found else f"row {number}: "
            raise UsageError(where + (found or f"{len(cells)} cells under {len(self.headings)} headings"))
        cells = [*cells, *[""] * (len(self.headings) - len(cells))]
        keys: list[Key] = []
        others = []
        for heading, path, cell in zip(self.headings, self.paths, cells, strict=False):
            if path is None:
                if heading not in self.unused:
                    others.append(cell)
            elif cell:
                keys.append((path, self._value(number, heading, path, cell, today)))
        if not keys and any(self.paths):
            named = ", ".join(heading for heading, path in zip(self.headings, self.paths, strict=True) if path)
            raise UsageError(f"row {number}: {named}: no value")
        return RequestRow(number, tuple(keys), tuple(others))

    def _value(self, number: int, heading: str, path: str, cell: str, today: date) -> str:
        where = f"row {number}, column {heading}"
        if not isinstance(cell, _Protected):
            vr = grammar.DICTIONARY.vr(query.steps_of(path)[-1][0])
            for one in cell.split("\\"):
                found = spreadsheet.damage(one.strip(), vr)
                if found:
                    raise UsageError(f"{where}: {found}")
        try:
            ((_, value),) = grammar.parse((f"{path}={cell}",), today=today)
        except UsageError as error:
            raise UsageError(f"{where}: {str(error).removeprefix(f'key {path}: ')}") from None
        return value


def _path(heading: str, name: str, number: int) -> str | None:
    """The path of a column that is a key, None for any other; raises UsageError for one that is nearly a keyword."""
    known = _keywords()
    if heading in known:
        return known[heading]
    try:
        return query.parse_path(heading, grammar.DICTIONARY)
    except UsageError:
        pass
    plain = {keyword.lower(): keyword for keyword in known}
    bare = re.sub(r"[\s_-]", "", heading.lower())
    if bare in plain:
        return known[plain[bare]]
    near = difflib.get_close_matches(bare, plain, n=1, cutoff=_NEAR)
    if near:
        raise UsageError(
            f"{name}: row 1: column {number}: {heading!r} is no DICOM keyword; did you mean {plain[near[0]]}?"
        )
    return None


@cache
def _keywords() -> dict[str, str]:
    """The keywords that a request is likely to have, with their paths: those of patient, study, series and image."""
    from pydicom.datadict import keyword_dict

    paths = {keyword: f"{tag:08X}" for keyword, tag in keyword_dict.items() if keyword}
    return {
        keyword: path
        for keyword, path in paths.items()
        if path in _OF_IMAGE or query.level_of(path, Level.IMAGE, query.Root.PATIENT) is not Level.IMAGE
    }


def is_below(path: str, level: Level, root: str) -> bool:
    """Whether a key says something about a level below this one alone."""
    ordered = query.levels(root)
    own = query.level_of(path, Level.IMAGE, root)
    if own is Level.IMAGE and path not in _OF_IMAGE:
        return False
    return ordered.index(own) > ordered.index(level)

"""Cells of our CSV: text stays text in a spreadsheet, and what is written so is read back as it was. Pure."""

from __future__ import annotations

import re

from dicomferry.cli.frame.words import printable

MARK = "'"
"""What spreadsheets themselves put before text that is no formula."""
_STARTS = re.compile(rf"{MARK}*[=+\-@\t\r]")


def written(value: object) -> object:
    """A cell: control characters as escapes; text that a spreadsheet may take for a formula gets a mark before it."""
    if value is None or isinstance(value, bool):
        return value if value is None else str(value).lower()
    if not isinstance(value, str):
        return value
    text = printable(value)
    # What begins with a mark already gets another one: so reading takes away exactly what was put there.
    return MARK + text if _STARTS.match(text) else text


def as_it_is(value: object) -> object:
    """A cell of `--raw`: for programs, which take nothing for a formula and no terminal's part."""
    return str(value).lower() if isinstance(value, bool) else value


def read(text: str) -> str:
    """The text of a cell that `written` may have marked."""
    return text.removeprefix(MARK) if text.startswith(MARK) and _STARTS.match(text) else text

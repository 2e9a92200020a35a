"""What spreadsheets and data tools leave in a cell in place of what was meant. Pure."""

from __future__ import annotations

import re

_ROUNDED = re.compile(r"[+-]?\d+([.,]\d+)?[Ee][+-]?\d+")
_ERROR = re.compile(r"#{2,}|#[A-Z][A-Z0-9/]*[!?]?|#(?:N/A|N/D|NV)\b.*|Err:\d{3}")
"""`#N/A`, `#REF!`, `#NAME?`, `#DIV/0!` in any language, LibreOffice's `Err:502`, and a column too narrow."""
_DECIMAL = re.compile(r"\d+[.,]0+")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NOTHING = frozenset(("nan", "NaN", "NaT", "<NA>", "None", "NULL", "null", "nil"))
_LOGICAL = frozenset(("TRUE", "FALSE", "True", "False"))
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = re.compile(
    rf"\d{{1,2}}-{_MONTH}(?:-\d{{2,4}})?|{_MONTH}-\d{{1,2}}|\d{{4}}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?"
)
_SERIAL = re.compile(r"[1-9]\d{4}(?:[.,]\d+)?")
_TEXT = frozenset(("PN", "LT", "ST", "UT", "UC"))
_NUMBERS = frozenset(("DS", "FL", "FD"))
_MEND = "format the column as text and put it right"


def damage(cell: str, vr: str) -> str | None:
    """What happened to a cell that is to be a value of this VR, and what to do; None where nothing is seen."""
    if _ERROR.fullmatch(cell):
        return f"{cell} is what a spreadsheet shows where a formula failed: put the value right"
    if vr in _NUMBERS:
        return None
    if _ROUNDED.fullmatch(cell) and vr not in _TEXT:
        return f"{cell} was rounded by a spreadsheet: {_MEND}"
    if vr in ("DA", "TM", "DT"):
        return _moment_damage(cell, vr)
    if vr in _TEXT:
        return None
    if _DECIMAL.fullmatch(cell) and vr != "UI":
        return f"{cell} was made a decimal number, by a spreadsheet or a program: {_MEND}"
    if _THOUSANDS.fullmatch(cell):
        return f"{cell} was given separators of thousands by a spreadsheet: {_MEND}"
    if cell in _NOTHING:
        return f"{cell} is what programs write for no value: leave the cell empty, or put the value right"
    if cell in _LOGICAL:
        return f"{cell} is a spreadsheet's word for a truth value: {_MEND}"
    if _DAY.fullmatch(cell):
        return f"{cell} was made a date by a spreadsheet: {_MEND}"
    return None


def _moment_damage(cell: str, vr: str) -> str | None:
    if _SERIAL.fullmatch(cell) and vr != "TM":
        return f"{cell} is the number by which a spreadsheet counts days: format the column as YYYYMMDD"
    if vr == "TM" and re.fullmatch(r"0[.,]\d+", cell):
        return f"{cell} is a part of a day, as a spreadsheet keeps times: format the column as HHMMSS"
    return None

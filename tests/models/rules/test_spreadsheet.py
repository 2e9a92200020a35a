"""What spreadsheets and data tools do to cells, and what only looks like it."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.spreadsheet import damage


@pytest.mark.parametrize(
    ("vr", "cell"),
    [
        *(("SH", cell) for cell in ("1.23E+12", "1,23E+12", "1e5", "12E+05", "123456.0", "123456,00", "1,234,567")),
        *(("LO", cell) for cell in ("#N/A", "#NV", "#REF!", "#BEZUG!", "#NAME?", "#DIV/0!", "#N/A N/A", "#####")),
        *(("LO", cell) for cell in ("Err:502", "nan", "NaT", "<NA>", "None", "NULL", "TRUE", "False")),
        *(("SH", cell) for cell in ("1-Mar", "Mar-24", "1-Mar-2024", "2024-03-01 00:00:00", "2024-03-01T00:00")),
        *(("PN", cell) for cell in ("#VALUE!", "#N/A")),
        *(("UI", cell) for cell in ("1.2E+30", "#N/A", "nan")),
        *(("DA", cell) for cell in ("45292", "45292.5", "2.02E+07", "#NUM!")),
        ("TM", "0.354166667"),
        ("TM", "0,5"),
        ("IS", "7.0"),
    ],
)
def test_damage(vr: str, cell: str) -> None:
    """It is named with the cell, and what to do about it."""
    told = damage(cell, vr)
    assert told and told.startswith(f"{cell} ") and ": " in told


@pytest.mark.parametrize(
    ("vr", "cell"),
    [
        *(("SH", cell) for cell in ("0012345", "A1", "12-34", "E12", "12E", "MAR-1X", "1.2.3", "true north", "#17")),
        *(("LO", cell) for cell in ("12,34", "1,2345", "45292", "P.0", "7.5", "*", "A*", "null-7")),
        *(("PN", cell) for cell in ("Null^Jane", "None", "NaN", "Nan^Li", "True^Jo")),
        *(("UI", cell) for cell in ("1.2.840.10008.0", "1.2.0")),
        *(("DA", cell) for cell in ("20240229", "20240201-20240229", "@today")),
        *(("TM", cell) for cell in ("0830", "083000.5", "08")),
        *(("DS", cell) for cell in ("1.0", "1E5")),
    ],
)
def test_no_damage(vr: str, cell: str) -> None:
    """What may well be meant is asked for."""
    assert damage(cell, vr) is None

"""What the locale says of the characters that were typed, as gdcmscu reads it."""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UTF_8 = "ISO_IR 192"
LATIN_1 = "ISO_IR 100"
_TERMS: Mapping[str, str] = {
    "UTF-8": UTF_8,
    "ISO-8859-1": LATIN_1,
    "ISO-8859-2": "ISO_IR 101",
    "ISO-8859-3": "ISO_IR 109",
    "ISO-8859-4": "ISO_IR 110",
    "ISO-8859-5": "ISO_IR 144",
    "ISO-8859-6": "ISO_IR 127",
    "ISO-8859-7": "ISO_IR 126",
    "ISO-8859-8": "ISO_IR 138",
    "ISO-8859-9": "ISO_IR 148",
    "EUC-JP": "ISO_IR 13",
    "TIS-620": "ISO_IR 166",
    "EUC-KR": "ISO_IR 149",
}
_ASCII = "ANSI_X3.4-1968"


@dataclass(frozen=True)
class Characters:
    """The locale's name, its character set, and the DICOM defined term that a query carries (PS3.3 C.12.1.1.2)."""

    name: str
    codeset: str
    term: str


def characters(environ: Mapping[str, str]) -> Characters:
    """What LC_ALL, LC_CTYPE and LANG say; a locale that this system does not know is taken for UTF-8."""
    name = next(filter(None, map(environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "C")
    codeset = _codeset(name)
    return Characters(name, codeset, _TERMS.get(codeset, LATIN_1))


def _codeset(name: str) -> str:
    if name in ("C", "POSIX"):
        return _ASCII
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
        return locale.nl_langinfo(locale.CODESET)
    except locale.Error:
        return "UTF-8"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def given() -> Mapping[str, str]:
    """The environment as the caller gave it: Python sets LC_CTYPE itself where it finds the C locale (PEP 538)."""
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return os.environ
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}

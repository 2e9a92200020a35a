"""What a job asked for, as a JSON object for its document: never for logs, metrics or notifications. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields

from dicomferry.models.documents.shapes import AskedDocument
from dicomferry.models.rules.query import Key
from dicomferry.models.rules.spec import FindSpec, GetSpec, MoveSpec, Spec

MOST = 20
"""Requests of a retrieve that are named; a list may hold many thousands."""
_SHOWN = {
    "paths",
    "recursive",
    "level",
    "root",
    "worklist",
    "keys",
    "identifiers",
    "destination",
    "columns",
    "remarks",
    "csv",
}
"""Fields of a spec that are told by themselves, or with the job."""


def document(what: Spec) -> AskedDocument:
    """Keys as (path, value); of a retrieve the first requests with their rows, how many there are, and the CSV file.

    `options` are all others that are not as they would be without.
    """
    options = {
        one.name: getattr(what, one.name)
        for one in fields(what)
        if one.name not in _SHOWN and one.default is not MISSING and getattr(what, one.name) != one.default
    }
    match what:
        case FindSpec():
            return {
                "level": None if what.worklist else what.level,
                "root": None if what.worklist else what.root,
                "keys": _keys(what.keys),
                "options": options,
            }
        case MoveSpec() | GetSpec():
            return {
                "level": what.level,
                "root": what.root,
                "csv": what.csv,
                "requests": len(what.identifiers),
                "first": [{"row": row, "keys": _keys(keys)} for row, keys in what.identifiers[:MOST]],
                "options": options,
            }
        case _:
            return {"options": options}


def _keys(keys: Sequence[Key]) -> list[list[str]]:
    return [list(key) for key in keys]

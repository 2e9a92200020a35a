"""What a job asked for, as a JSON object for its document: never for logs, metrics or notifications. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dicomferry.models.query import Key
from dicomferry.models.spec import EchoSpec, FindSpec, Spec, StoreSpec

MOST = 20
"""Requests of a retrieve that are named; a list may hold many thousands."""


def document(what: Spec) -> dict[str, Any]:
    """Keys as (path, value); of a retrieve the first requests with their rows, how many there are, and the CSV file."""
    match what:
        case EchoSpec():
            return {}
        case StoreSpec():
            return {"transcode": what.transcode, "verify": what.verify}
        case FindSpec():
            return {
                "level": None if what.worklist else what.level,
                "root": None if what.worklist else what.root,
                "worklist": what.worklist,
                "split": what.split,
                "keys": _keys(what.keys),
            }
        case _:
            return {
                "level": what.level,
                "root": what.root,
                "refetch": what.refetch,
                "csv": what.csv,
                "requests": len(what.identifiers),
                "first": [{"row": row, "keys": _keys(keys)} for row, keys in what.identifiers[:MOST]],
            }


def _keys(keys: Sequence[Key]) -> list[list[str]]:
    return [list(key) for key in keys]

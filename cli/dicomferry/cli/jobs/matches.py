"""`dicomferry jobs matches`: what a find found, streamed as table, JSON, DICOM JSON, CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Command, note
from dicomferry.cli.frame.layout import Column
from dicomferry.cli.frame.render import Row
from dicomferry.models.rules import query
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import UNIQUE, Key, Level

_HIDDEN = (f"{query.LEVEL:08X}",)


@click.command(cls=Command)
@options.job_argument
@click.option("--limit", metavar="N", type=options.Number(), help="At most so many.")
@click.option("--dicom-json", "dicom_json", is_flag=True, help="Print the DICOM JSON model (PS3.18 F).")
@options.form_options
def matches(job: str, limit: int | None, dicom_json: bool, form: str | None) -> None:
    """List what a find found: a column for each key that was asked for."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import jobs
    from dicomferry.models.record.jobs import matches as recorded_matches
    from dicomferry.workers.finding import keys

    if dicom_json and form:
        raise UsageError(f"--dicom-json or --{form}, not both")
    database = installation.for_jobs(installation.settings())
    job_id = jobs.resolve_id(database, job)
    spec = recorded_matches.spec_of(database, job_id)
    paths = _paths(None if spec.worklist else Level(spec.level), spec.keys, whole=form == "csv")
    names = [keys.spelled(path) for path in paths]
    flawed = 0

    def attributes() -> Iterator[Mapping[str, Any]]:
        nonlocal flawed
        for row in recorded_matches.listing(database, job_id, limit=limit):
            flawed += row.flaw is not None
            yield json.loads(row.attributes)

    if dicom_json:
        render.rows(attributes(), "json", columns=(), text=_nothing)
    elif form in ("json", "jsonl"):
        absent = dict.fromkeys(name for name, path in zip(names, paths, strict=True) if "." not in path)
        render.rows((absent | _by_keyword(one) for one in attributes()), form, columns=(), text=_nothing)
    else:
        cells = (dict(zip(names, (_text(one, path) for path in paths), strict=True)) for one in attributes())
        render.rows(cells, form, columns=names, text=lambda rows: _table(names, rows))
    if flawed:
        note(
            f"{words.matches(flawed)} with text that cannot be read in the character set that it came with; what comes "
            "without one is read in the remote's: `dicomferry remote set NAME --charset CS`, then find again"
        )


def _nothing(_rows: Iterable[Row]) -> None:
    """Say nothing beside the rows: for forms that programs read."""


def _paths(level: Level | None, asked: Sequence[Key], *, whole: bool) -> list[str]:
    """The columns: the unique key of the level, then what was asked for, in that order; with `whole` also the UIDs
    above, without which no series or image can be retrieved.
    """
    own = [f"{UNIQUE[level]:08X}"] if level else []
    lower = {Level.SERIES: (Level.STUDY,), Level.IMAGE: (Level.STUDY, Level.SERIES)}
    above = [f"{UNIQUE[upper]:08X}" for upper in lower.get(level, ())] if level and whole else []
    return list(dict.fromkeys([*own, *(path for path, _ in asked), *above]))


def _by_keyword(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword -> value: one value alone, several as a list, none as null; a name as text; a sequence as a list."""
    from dicomferry.workers.finding.keys import DICTIONARY

    return {
        DICTIONARY.keyword(int(tag, 16)): _plain(element) for tag, element in attributes.items() if tag not in _HIDDEN
    }


def _plain(element: Mapping[str, Any]) -> Any:
    values = element.get("Value", [])
    if element["vr"] == "SQ":
        return [_by_keyword(item) for item in values]
    if element["vr"] == "PN":
        values = [_name(value) if value else None for value in values]
    if "InlineBinary" in element:
        return element["InlineBinary"]
    return values if len(values) > 1 else values[0] if values else None


def _name(groups: Mapping[str, str]) -> str:
    parts = [groups.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(parts).rstrip("=")


def _text(attributes: Mapping[str, Any], path: str) -> str:
    """What stands at a path, several values with a backslash between them as in DICOM."""
    *sequences, (tag, _) = query.steps_of(path)
    for sequence, number in sequences:
        items = attributes.get(f"{sequence:08X}", {}).get("Value", [])
        if number >= len(items):
            return ""
        attributes = items[number]
    element = attributes.get(f"{tag:08X}")
    value = _plain(element) if element else None
    if isinstance(value, list):
        if element and element["vr"] == "SQ":
            return json.dumps(value, ensure_ascii=False) if value else ""
        return "\\".join("" if one is None else str(one) for one in value)
    return "" if value is None else str(value)


def _table(names: Sequence[str], rows: Iterable[Row]) -> None:
    """What was asked for first is what matters most; values may be shortened, UIDs in the middle."""
    columns = [
        Column(heading=name.rpartition(".")[2], rank=place, least=12, middle=name.endswith("UID"))
        for place, name in enumerate(names)
    ]
    if not render.table(columns, ([row[name] for name in names] for row in rows)):
        note("nothing was found")

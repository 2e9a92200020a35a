"""What goes to stdout: documents, streams of rows, tables."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from dicomferry.cli import csv_cells
from dicomferry.cli.commands import RAW, meta
from dicomferry.cli.words import printable
from dicomferry.models.errors import UsageError

Row = Mapping[str, Any]


def line(text: str) -> None:
    """One line of text; characters that would command a terminal are shown as escapes."""
    verbatim(printable(text))


def verbatim(text: str) -> None:
    """One line as it is, for programs: what names files, and scripts."""
    sys.stdout.write(f"{text}\n")


def document(value: object) -> None:
    """One JSON document."""
    verbatim(_json(value, indent=2))


def sections(parts: Iterable[tuple[str, object]]) -> None:
    """One JSON document of named parts, each written as it comes; an iterator becomes an array, row by row."""
    before = "{"
    for name, value in parts:
        sys.stdout.write(f"{before}\n  {_json(name)}: ")
        if isinstance(value, Iterator):
            _array(value, indent="  ")
        else:
            sys.stdout.write(_json(value, indent=2).replace("\n", "\n  "))
        before = ","
    verbatim("\n}")


def rows(
    found: Iterable[Row],
    form: str | None,
    *,
    columns: Sequence[str],
    text: Callable[[Iterable[Row]], None],
) -> None:
    """Rows one by one in the form that was asked for: json, jsonl or csv with `columns`; `text` for people.

    Raises UsageError for `--raw` without CSV.
    """
    raw = bool(meta().get(RAW))
    if raw and form != "csv":
        raise UsageError("--raw leaves the cells of a CSV as they came: give --csv as well")
    cell = csv_cells.as_it_is if raw else csv_cells.written
    # The first row is fetched before anything is printed: what is wrong shows there.
    iterator = iter(found)
    first = list(_take_one(iterator))
    stream = chain(first, iterator)
    if form == "json":
        _array(stream)
        verbatim("")
    elif form == "jsonl":
        for row in stream:
            verbatim(_json(row))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(cell, columns))
        for row in stream:
            flat = flatten(row)
            writer.writerow([cell(flat.get(column)) for column in columns])
    else:
        text(stream)


def flatten(row: Row) -> dict[str, Any]:
    """Objects inside as columns of their own: items.total becomes items_total."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}_{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[key] = value
    return flat


def table(headings: Sequence[str], found: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """A table; `right` are the columns of numbers. As wide as it needs to be where no terminal sets a width."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout) if terminal else Console(force_terminal=False, color_system=None, width=2000)
    grid = Table(box=box.SIMPLE_HEAD if terminal else None, show_edge=False, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        grid.add_column(heading, justify="right" if index in right else "left", overflow="fold")
    for row in found:
        grid.add_row(*(Text("" if cell is None else printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(grid)
    for text in captured.get().splitlines():
        line(text.rstrip())


def pairs(found: Sequence[tuple[str, str | None]], *, indent: str = "  ") -> None:
    """Names and values below each other; those without a value are left out."""
    shown = [(name, value) for name, value in found if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line(f"{indent}{name:<{width}}  {printable(value)}")


def _take_one(iterator: Iterable[Row]) -> Iterable[Row]:
    for row in iterator:
        yield row
        return


def _array(stream: Iterable[Row], indent: str = "") -> None:
    empty = True
    for row in stream:
        sys.stdout.write(f"{'[' if empty else ','}\n{indent}  {_json(row)}")
        empty = False
    sys.stdout.write("[]" if empty else f"\n{indent}]")


def _json(value: object, *, indent: int | None = None) -> str:
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, indent=indent)
    # JSON itself escapes the control characters of ASCII but for one, and none of the others.
    return text if text.isascii() and "\x7f" not in text else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char.isprintable() or char == "\n":
        return char
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]

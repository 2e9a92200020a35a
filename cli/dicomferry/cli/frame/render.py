"""What goes to stdout: documents, streams of rows, tables."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import click

from dicomferry.cli.frame import csv_cells, layout
from dicomferry.cli.frame.command_classes import RAW, WIDE, note
from dicomferry.cli.frame.layout import Brief, Column
from dicomferry.cli.frame.words import printable
from dicomferry.models.rules.errors import UsageError

Row = Mapping[str, Any]
_R = TypeVar("_R", bound=Row)


def line(text: str) -> None:
    """One line of text, on a terminal broken between words; what would command a terminal is shown as escapes."""
    left = " " * (len(text) - len(text.lstrip(" ")))
    paragraph(left, text[len(left) :])


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
    found: Iterable[_R],
    form: str | None,
    *,
    columns: Sequence[str],
    text: Callable[[Iterable[_R]], None],
) -> None:
    """Rows one by one in the form that was asked for: json, jsonl or csv with `columns`; `text` for people.

    Raises UsageError for `--raw` without CSV.
    """
    raw = _is_asked(RAW)
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
            writer.writerow([cell(flat[column] if column in flat else _inside(row.get(column))) for column in columns])
    else:
        text(stream)


def _inside(value: object) -> str | None:
    """An object that is one column, such as the hours of a remote, as JSON; an empty one is an empty cell."""
    return _json(value) if value else None


def flatten(row: Row) -> dict[str, Any]:
    """Objects inside as columns of their own: items.total becomes items_total."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}_{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[key] = value
    return flat


MEASURED = 200
"""Rows that set the widths of a table's columns; what follows is printed as it comes."""
_COLOURS = {"failed": "31", "held": "33", "incomplete": "33"}
_BOLD = "1"
_STYLE = re.compile(r"\x1b\[[0-9]*m")


def room() -> int | None:
    """Characters that a line has; None where no terminal sets a width, and with `--wide`."""
    if not sys.stdout.isatty() or _is_asked(WIDE):
        return None
    return shutil.get_terminal_size().columns


def _is_asked(option: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(option))


def coloured(text: str) -> str:
    """A text in the colour of the state that it ends with, if that has one; plain where nobody wants colours."""
    word = text.rstrip().rpartition(" ")[2]
    return _styled(text, _COLOURS[word]) if word in _COLOURS else text


def heading(text: str, state: str) -> None:
    """A text that ends with a state, in its colour."""
    wide = room()
    whole = f"{printable(text)}, {state}"
    *lines, last = [whole] if wide is None else layout.wrapped(whole, wide)
    for one in [*lines, f"{last.removesuffix(state)}{coloured(state)}"]:
        verbatim(one)


def _styled(text: str, style: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{style}m{text}\x1b[0m"


def table(columns: Sequence[Column], found: Iterable[Sequence[object]]) -> bool:
    """A table, row by row, nothing held but the first rows; whether there were any.

    In full where no terminal sets a width and with `--wide`; else in brief words, shortened, and without the columns
    that have no room, which are named behind it.
    """
    wide = room()
    headings = [column.brief or column.heading if wide is not None else column.heading for column in columns]
    stream = iter([_text(cell, brief=wide is not None) for cell in row] for row in found)
    first = list(islice(stream, MEASURED))
    if not first:
        return False
    natural = [max(map(layout.width, cells)) for cells in zip(*first, strict=True)]
    if wide is not None:  # a column without any value tells nothing
        natural = [width if width or not column.rank else 0 for width, column in zip(natural, columns, strict=True)]
        kept = [bool(width) or not column.rank for width, column in zip(natural, columns, strict=True)]
    else:
        kept = [True] * len(columns)
    natural = [
        max(width, len(heading)) if keep else 0 for width, heading, keep in zip(natural, headings, kept, strict=True)
    ]
    widths = natural if wide is None else layout.fit(columns, natural, wide)
    mark = layout.CUT if _is_utf8() else "~"
    shown = [place for place, width in enumerate(widths) if width]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for place in shown:
            column, text = columns[place], row[place]
            if wide is not None:
                text = layout.shortened(text, widths[place], middle=column.middle, mark=mark)
            last = place == shown[-1] and not column.right
            padded = text if last else layout.padded(text, widths[place], right=column.right)
            yield coloured(padded) if column.outcome else padded

    verbatim(_styled((" " * layout.GAP).join(cells(headings)).rstrip(), _BOLD))
    for row in chain(first, stream):
        verbatim((" " * layout.GAP).join(cells(row)).rstrip())
    out = [
        column.heading for column, width, before in zip(columns, widths, natural, strict=True) if before > width == 0
    ]
    if out:
        note(f"(no room for {', '.join(out)}: --wide)")
    return True


def _text(cell: object, *, brief: bool) -> str:
    if isinstance(cell, Brief):
        cell = cell.brief if brief else cell.full
    return "" if cell is None else printable(cell)


def pairs(found: Iterable[tuple[str, str | None]], *, indent: str = "  ") -> None:
    """Names and values below each other, long ones wrapped on a terminal; those without a value are left out."""
    shown = [(name, printable(value)) for name, value in found if value]
    names = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        paragraph(f"{indent}{name:<{names}}  ", value)


def paragraph(name: str, text: str) -> None:
    """A name, which may be coloured, and a text; on a terminal the text goes on below itself."""
    wide, left = room(), layout.width(_STYLE.sub("", name))
    lines = [printable(text)] if wide is None else layout.wrapped(printable(text), wide - left)
    for number, one in enumerate(lines):
        verbatim(f"{' ' * left if number else name}{one}".rstrip())


def _take_one(iterator: Iterable[_R]) -> Iterable[_R]:
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
    text = json.dumps(value, ensure_ascii=not _is_utf8(), indent=indent)
    # JSON itself escapes the control characters of ASCII but for one, and none of the others.
    return text if text.isascii() and "\x7f" not in text else "".join(map(_escaped, text))


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _escaped(char: str) -> str:
    if char.isprintable() or char == "\n":
        return char
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]

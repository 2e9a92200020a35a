"""python -m benchmarks [ROW ...] [--rounds N]: print the table, keep the raw runs in benchmarks/results."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator

from benchmarks import (
    echo,
    far,
    find,
    idle,
    others,
    receive,
    retrieve,
    scale,
    send_loop,
    singles,
    stock,
    store,
    through_queue,
    walk,
)
from benchmarks.harness import HEADING, Row

ROWS: dict[str, Callable[[int], Iterator[Row]]] = {
    "store": store.run,
    "queue": through_queue.run,
    "far": far.run,
    "receive": receive.run,
    "retrieve": retrieve.run,
    "singles": singles.run,
    "find": find.run,
    "idle": idle.run,
    "echo": echo.run,
    "walk": walk.run,
}
MORE: dict[str, Callable[[int], Iterator[Row] | None]] = {
    "scale": scale.run,
    "others": others.run,
    "stock": stock.run,
    "profile-send": send_loop.run,
}
"""Figures to know; only where they are named. `scale` has a table of its own."""


def main() -> None:
    """Run the rows that were named, or those of the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    named = f"of {', '.join(ROWS)}; these without any; besides {', '.join(MORE)}"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=named)
    parser.add_argument("--rounds", type=int, default=3, help="of both sides in turn, after one to warm up")
    arguments = parser.parse_args()
    known: dict[str, Callable[[int], Iterator[Row] | None]] = {**ROWS, **MORE}
    if unknown := [name for name in arguments.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    _print(HEADING)
    table = [row for name in arguments.rows or ROWS for row in known[name](arguments.rounds) or ()]
    _print(
        f"\nMedians of {arguments.rounds} on {os.cpu_count()} cores, Python {platform.python_version()}:\n\n{HEADING}"
    )
    for row in table:
        _print(row.lines()[0])


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()

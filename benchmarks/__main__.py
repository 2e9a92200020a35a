"""python -m benchmarks [ROW ...] [--rounds N]: print the table, keep the raw runs in benchmarks/results."""

from __future__ import annotations

import argparse

from benchmarks import echo, far, find, others, receive, retrieve, scale, send_loop, stock, store, through_queue, walk

ROWS = {
    "store": store.run,
    "receive": receive.run,
    "find": find.run,
    "retrieve": retrieve.run,
    "queue": through_queue.run,
    "far": far.run,
    "others": others.run,
    "stock": stock.run,
    "echo": echo.run,
    "walk": walk.run,
    "scale": scale.run,
    "profile-send": send_loop.run,
}


def main() -> None:
    """Run the rows that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all without any")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.rows or ROWS:
        ROWS[name](arguments.rounds)


if __name__ == "__main__":
    main()

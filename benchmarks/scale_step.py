"""One command, or one thing that a role does to the record, in a process of its own: how long it was in SQL.

`python -m benchmarks.scale_step cli WORDS ...` or `python -m benchmarks.scale_step NAME URL`. The last line on standard
error is a JSON object: seconds in statements, how many there were, and the rows that the longest one took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from dicomferry.daemon import chronicle, sweep
from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims, verbs
from dicomferry.models.record.presence import Worker
from dicomferry.models.rules.spec import StoreSpec

_told: dict[str, Any] = {"statements": 0, "sql": 0.0, "longest": 0.0, "statement": ""}
_CLAIMS = 20


def _listen() -> None:
    def before(*arguments: Any) -> None:
        arguments[4].began = time.perf_counter()

    def after(*arguments: Any) -> None:
        took = time.perf_counter() - arguments[4].began
        _told["statements"] += 1
        _told["sql"] += took
        if took > _told["longest"]:
            _told["longest"], _told["statement"] = took, " ".join(str(arguments[2]).split())

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)


def _claim(database: Database, worker: Worker) -> None:
    """As often as a busy worker does in some seconds, or as long as there is something."""
    for _ in range(_CLAIMS):
        if claims.take(database, "bulk", worker, lease_seconds=86_400) is None:
            return


def _sweep(database: Database, worker: Worker) -> None:
    """One round, rings included."""
    sweep.sweep(database, worker, lambda lane: lane)


def _submit(database: Database, _worker: Worker) -> None:
    verbs.submit(database, StoreSpec(paths=("/data/new",)), 1)


def _hold_and_release(database: Database, _worker: Worker) -> None:
    """A job that waits with its items."""
    verbs.hold(database, 3)
    verbs.release(database, 3)


def _cancel(database: Database, _worker: Worker) -> None:
    verbs.cancel(database, 5)


def _retry(database: Database, _worker: Worker) -> None:
    """The job that has a tenth of all items, each of which failed."""
    verbs.retry(database, 1)


def _restart(database: Database, worker: Worker) -> None:
    """What a role reads when it begins."""
    chronicle.Chronicle(database, worker).look()
    claims.idle_lanes(database, worker, since=None)
    presence.alive(database)


STEPS: dict[str, Callable[[Database, Worker], None]] = {
    "claim": _claim, "sweep": _sweep, "submit": _submit, "hold": _hold_and_release, "cancel": _cancel,
    "retry": _retry, "restart": _restart,
}  # fmt: skip


def main() -> None:
    """Run the one that was named; `cli` is the whole command line."""
    kind, *rest = sys.argv[1:]
    _listen()
    code: Any = 0
    if kind == "cli":
        from dicomferry.cli.root import cli

        try:
            cli(rest, prog_name="dicomferry")
        except SystemExit as end:
            code = end.code
    else:
        database = Database(rest[0])
        worker = presence.register(database, "worker", slots=1000)
        began = time.perf_counter()
        _told.update(statements=0, sql=0.0, longest=0.0)
        STEPS[kind](database, worker)
        _told["wall"] = time.perf_counter() - began
    sys.stdout.flush()
    print(json.dumps(_told), file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

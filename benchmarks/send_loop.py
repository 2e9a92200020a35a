"""A profile, no figure of a user's: our send loop alone, with its files read beforehand, against the whole of storescu.

What a user gets is `store` and `queue`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmarks import data, receivers
from benchmarks.harness import Measured, Row, interleave, timed_process
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.dimse.store import send
from dicomferry.workers.files import part10

ROWS = (("MR", 2000), ("CT", 400), ("XL", 12))


def run(rounds: int, pdu: str = "16384") -> Iterator[Row]:
    """The three sizes of object."""
    for kind, number in ROWS:
        paths = data.files(kind, number)
        row = Row(f"profile: send loop, {kind} x {number}, pdu {pdu}", "/s", "storescu, whole command", None)
        with receivers.sink("-pdu", pdu) as port:
            argv = ["storescu", "-pdu", pdu, "-R", "+sd", "+r", "127.0.0.1", str(port), str(paths[0].parent.parent)]
            yield interleave(
                row,
                lambda paths=paths, port=port: ours(paths, port),  # type: ignore[misc]
                lambda argv=argv, number=number: timed_process(argv, number, receivers.ENVIRONMENT),  # type: ignore[misc]
                rounds,
            )


def ours(paths: list[Path], port: int) -> Measured:
    """These files over one association, without a queue."""
    remote = Remote(name="sink", ae_title="ANY-SCP", host="127.0.0.1", port=port, calling_ae_title="BENCH")
    instances = [_instance(path) for path in paths]
    pairs = [(instances[0].sop_class_uid, instances[0].transfer_syntax_uid)]
    waiting = deque(instances)
    feed = (waiting.popleft() for _ in instances)
    cpu, began = time.process_time(), time.perf_counter()
    answers = send(remote, feed, pairs, coming=lambda: waiting[0] if waiting else None)
    good = sum(answer.status == 0 for answer in answers)
    seconds = time.perf_counter() - began
    assert good == len(paths)
    return Measured(len(paths) / seconds, time.process_time() - cpu)


def _instance(path: Path) -> LocalInstance:
    """As a plan would have left it."""
    name = os.fsencode(path)
    header, status = part10.read_header(name), path.stat()
    return LocalInstance(
        0,
        name,
        status.st_size,
        status.st_mtime_ns,
        header.sop_class_uid,
        header.sop_instance_uid,
        header.transfer_syntax_uid,
    )

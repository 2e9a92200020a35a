"""`dicomferry scu --store -r FOLDER` against `storescu`: whole commands over one association, to the same sink.

Both read the folder, send each file and read each answer. Ours looks besides whether a file is whole
before it sends it.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import data, receivers
from benchmarks.harness import Row, Run, command, interleave, sized
from support.installation import SCRIPT

ROWS = (("MR", 499, 4999, 1.3), ("CT", 97, 997, 1.4), ("XL", 5, 29, 1.0))
"""Kind of image, how many in the smaller and in the larger run, the least ratio wanted."""
PDU = "131072"
"""storescu is faster with the longest PDU that it knows than with its default of 16,384 bytes."""

DOES = "reads folder and files, sees whether each is whole, sends, reads each answer; one association"
THEY_DO = "reads folder and files, sends, reads each answer; one association"


def run(rounds: int) -> Iterator[Row]:
    """Three sizes of image."""
    for kind, few, many, target in ROWS:
        with receivers.sink("-pdu", PDU) as port:
            row = Row(f"scu --store, {kind}", "/s", "storescu", target, DOES, THEY_DO)
            yield interleave(row, sent(_ours(port), kind, few, many), sent(theirs(port), kind, few, many), rounds)


def theirs(port: int) -> list[str]:
    """storescu at its best; a folder is still to be named."""
    return ["storescu", "-pdu", PDU, "-R", "+sd", "+r", "127.0.0.1", str(port)]


def _ours(port: int) -> list[str]:
    return [*SCRIPT, "scu", "--store", "-r", "127.0.0.1", str(port)]


def sent(argv: list[str], kind: str, few: int, many: int) -> Run:
    """The rate of a command that sends the folder that is its last word."""

    def once(number: int) -> float:
        return command([*argv, str(data.folder(kind, number))], receivers.ENVIRONMENT)

    return sized(once, few, many, many - few)

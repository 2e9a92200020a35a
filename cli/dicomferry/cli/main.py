"""The console script `dicomferry`: makes the streams safe, then hands over to a command.

`scu` is told apart before click is imported: it takes its words as they are, and its start counts.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from io import TextIOWrapper

from dicomferry.cli.scu import beginning

OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""What is imported stays: to look for garbage among it after every 700 objects costs a command a tenth of its time."""


def main() -> None:
    """The console script."""
    if sys.argv[1:2] == ["scu"]:
        beginning.watch()
    from dicomferry.cli.frame.output import Output

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that this terminal cannot show must not end a listing.
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None or isinstance(sys.stdout, TextIOWrapper):
        sys.stdout = Output(sys.stdout)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.argv[1:2] == ["scu"]:
        sys.exit(_scu(sys.argv[2:]))
    _command()


def _command() -> None:
    """Run a command to its end, whenever somebody interrupts it: while it is imported, or for the second time."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
    try:
        from dicomferry.cli.root import cli

        cli.main(prog_name="dicomferry")
    except KeyboardInterrupt:
        # Python's own end has nothing to add to that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("dicomferry: interrupted\n")
        sys.exit(beginning.INTERRUPTED)
    except SystemExit as end:
        if end.code == beginning.INTERRUPTED:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise


def _scu(argv: list[str]) -> int:
    from dicomferry.cli.scu.interruption import ignore
    from dicomferry.cli.scu.run import run

    code = run(argv)
    ignore()
    return code


if __name__ == "__main__":
    main()

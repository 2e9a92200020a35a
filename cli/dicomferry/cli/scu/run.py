"""`dicomferry scu ARGV...` from the command line to the exit status: 0 done, 1 anything else, 130 interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

from dicomferry.cli.frame.output import mute
from dicomferry.cli.scu import grammar
from dicomferry.cli.scu.beginning import INTERRUPTED
from dicomferry.cli.scu.grammar import ParsedLine
from dicomferry.cli.scu.interruption import restored
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import CommandRefused, Messages, one_line
from dicomferry.models.rules.errors import (
    AssociationRejected,
    DicomferryError,
    DimseError,
    DimseFailure,
    OutputFailed,
    RemoteUnreachable,
)


@restored()
def run(argv: Sequence[str]) -> int:
    """The exit status. What goes wrong is one line on standard error."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Patients' names are printed as UTF-8 whatever the locale, as what reads the pipe expects them.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except CommandRefused as refusal:
        return _complain(str(refusal))
    except BrokenPipeError:
        # Whoever read has heard enough.
        mute()
        return 1
    except OutputFailed as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _flush()
        _complain("interrupted")
        return INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    line = grammar.read(argv)
    if line.information:
        sys.stdout.write(_information(line))
        return 0
    grammar.check_root_uid(os.environ)
    try:
        invocation = grammar.invocation(line)
    except grammar.NoHost:
        sys.stdout.write(_help())
        raise
    say = Messages(invocation)
    try:
        code = _operate(invocation, say)
        return 1 if say.failed else code
    finally:
        say.close()


def _operate(invocation: Invocation, say: Messages) -> int:
    """Run the mode, and say what kept it from its end."""
    say.detail(f"{invocation.calling} calls {invocation.called}@{invocation.address}: {invocation.mode}")
    try:
        return _mode(invocation, say)
    except AssociationRejected as error:
        say.rejection(error)
    except DimseFailure as error:
        say.failure(_status_line(invocation, error))
    except DimseError as error:
        say.failure(_error_line(error))
    except DicomferryError as error:
        say.failure(str(error))
    except (CommandRefused, BrokenPipeError):
        raise
    except Exception as error:
        if invocation.debug:
            import traceback

            traceback.print_exc()
        say.failure(f"unexpected {type(error).__name__}: {error}; -D shows where")
    return 1


def _mode(invocation: Invocation, say: Messages) -> int:
    """Run the mode; its module has its name, and nothing is imported for the others."""
    mode: Callable[[Invocation, Messages], int] = import_module(f"dicomferry.cli.scu.{invocation.mode}").run
    if invocation.record and invocation.mode in ("echo", "find"):
        from dicomferry.cli.scu import recording

        return recording.single(invocation, say, mode)
    return mode(invocation, say)


def _status_line(invocation: Invocation, error: DimseFailure) -> str:
    """The peer, the operation, its status in four digits, and what that means."""
    from dicomferry.models.rules.answers import lookup

    reason = lookup.for_status(invocation.service, error.status).reason
    meant = "" if reason is None or reason.startswith("status 0x") else f" ({reason})"
    comment = f", {error.comment!r}" if error.comment else ""
    peer = f"{invocation.called}@{invocation.address}"
    return f"{peer}: C-{invocation.mode.upper()} ended with status {error.status:04X}{meant}{comment}"


def _error_line(error: DimseError) -> str:
    """What went wrong; where nobody was reached, also what to look at."""
    if not isinstance(error, RemoteUnreachable):
        return str(error)
    from dicomferry.models.rules.answers import lookup

    return f"{error}; {lookup.for_error(error).advice}"


def _information(line: ParsedLine) -> str:
    if line.information == "help":
        return _help()
    from dicomferry.cli.scu import help

    return help.version_text() if line.information == "version" else help.query_help(line.root)


def _help() -> str:
    from dicomferry.cli.scu import help, locale

    return help.help_text(locale.characters(locale.given()))


def _flush() -> None:
    """What was printed before an interruption; where nobody takes it, Python is not to try again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, OutputFailed):
        mute()


def _complain(text: str) -> int:
    with suppress(OSError):
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()
    return 1

"""What `dicomferry scu` prints, and where: standard output, standard error or the file of -L."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from dicomferry.cli.scu.invocation import Invocation
from dicomferry.models.rules.errors import AssociationRejected


class CommandRefused(Exception):
    """The command cannot go on; its text is the one line on standard error. It exits with 1."""


def one_line(text: str) -> str:
    """The text as one line that moves no cursor: names of files and answers of peers may hold anything."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Messages:
    """The channels of one run.

    A failure is one line on standard error, always. The trace (rejections, -V, -W, -E, -D) goes to standard error or,
    with -L, to that file; so do the records of C-FIND, but to standard output without -L.
    """

    def __init__(self, invocation: Invocation) -> None:
        """Opens the -L file, truncated; where it cannot be written, a line says so and it is done without."""
        self._asked = invocation
        self._log: TextIO | None = None
        self._failed = False
        if invocation.log_file is not None:
            try:
                self._log = open(  # noqa: SIM115 -- `close` closes it
                    invocation.log_file, "w", encoding="utf-8", errors="backslashreplace", buffering=1
                )
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                self.warn(f"log file {invocation.log_file} cannot be written ({why}): not used")

    @property
    def failed(self) -> bool:
        """Whether anything was a failure: then the command exits with 1."""
        return self._failed

    def failure(self, text: str) -> None:
        """One line on standard error, whatever the flags."""
        self._failed = True
        self._write(sys.stderr, one_line(text))

    def warn(self, text: str) -> None:
        """One line on standard error, whatever the flags; no failure."""
        self._write(sys.stderr, one_line(text))

    def rejection(self, error: AssociationRejected) -> None:
        """The four lines of an A-ASSOCIATE-RJ, to the trace, whatever the flags. A failure."""
        self._failed = True
        self._trace(rejection_text(error))

    def error(self, text: str) -> None:
        """A line of the trace with -E or -V: more about a failure."""
        if self._asked.error or self._asked.verbose:
            self._trace(text)

    def note(self, text: str) -> None:
        """A line of the trace with -W or -V."""
        if self._asked.warning or self._asked.verbose:
            self._trace(text)

    def detail(self, text: str) -> None:
        """A line of the trace with -D."""
        if self._asked.debug:
            self._trace(text)

    def sent(self, path: str, status: int) -> None:
        """Print, with -V, that a file was sent and how the peer answered. A `failure` is for the caller to print."""
        if self._asked.verbose:
            self._trace(f"sent {one_line(path)}: status {status:04X}")

    def received(self, path: str, status: int) -> None:
        """Print, with -V, that a file came and how we answered."""
        if self._asked.verbose:
            self._trace(f"received {one_line(path)}: status {status:04X}")

    def total(self, text: str) -> None:
        """Print, with -V, one line on all files together."""
        if self._asked.verbose:
            self._trace(text)

    def record(self, text: str) -> None:
        """One record of C-FIND, whole, without its last line's end: to standard output, or to the -L file alone.

        Raises OutputFailed or BrokenPipeError where standard output takes nothing.
        """
        if not self._logged(text, self.failure):
            self._write(sys.stdout, text)

    def close(self) -> None:
        """Write out what is left; may be repeated."""
        if self._log is not None:
            with suppress(OSError):
                self._log.close()

    def _trace(self, text: str) -> None:
        if not self._logged(text, self.warn):
            self._write(sys.stderr, text)

    def _logged(self, text: str, complain: Callable[[str], None]) -> bool:
        """Whether the -L file has taken it; one that does not is done without from then on."""
        if self._log is None:
            return False
        try:
            self._log.write(text + "\n")
        except OSError as error:
            self.close()
            self._log = None
            why = (error.strerror or str(error)).lower()
            complain(f"log file {self._asked.log_file} cannot be written ({why}): not used any more")
            return False
        return True

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        if stream is sys.stderr:
            # One message is one line; a broken standard error must not change what the command does.
            with suppress(OSError):
                stream.write(text + "\n")
                stream.flush()
        else:
            stream.write(text + "\n")


_RESULTS = {1: "rejected-permanent", 2: "rejected-transient"}
_BY_ACSE = "DICOM UL service-provider (ACSE related function)"
_BY_PRESENTATION = "DICOM UL service-provider (Presentation related function)"
# gdcmscu's words, which scripts look for; it reads the source one too low (PS3.8 table 9-21: 1 is the service-user).
_SOURCES = {1: _BY_ACSE, 2: _BY_PRESENTATION, 3: _BY_PRESENTATION}
_REASONS = {
    1: {
        1: "1 - no-reason-given",
        2: "2 - application-context-name-not-supported",
        3: "3 - calling-AE-title-not-recognized",
        4: "4-6 - reserved",
        5: "4-6 - reserved",
        6: "4-6 - reserved",
        7: "7 - called-AE-title-not-recognized",
        8: "8-10 - reserved",
        9: "8-10 - reserved",
        10: "8-10 - reserved",
    },
    2: {1: "no-reason-given", 2: "protocol-version-not-supported"},
    3: {1: "1 - temporary-congestion", 2: "2 - local-limit-exceeded"},
}


def rejection_text(error: AssociationRejected) -> str:
    """The four lines, as gdcmscu prints them."""
    reason = _REASONS.get(error.source, {}).get(error.reason, f"{error.reason} - reserved")
    return (
        "PDULength: 4\n"
        f"Result: {_RESULTS.get(error.result, f'{error.result} - unknown')}\n"
        f"Source: {_SOURCES.get(error.source, f'{error.source} - unknown')}\n"
        f"Reason: {reason}"
    )

"""Standard output that is never lost in silence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from dicomferry.models.rules.errors import OutputFailed


class Output(TextIOWrapper):
    """Standard output that says so when it takes nothing, and takes everything from then on. None: it is closed."""

    def __init__(self, given: TextIOWrapper | None) -> None:
        if given is None:
            # Not the next best file that is opened, such as the database, becomes standard output.
            os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
            given = os.fdopen(1, "w", closefd=False)
        super().__init__(
            given.detach(),
            given.encoding,
            given.errors,
            line_buffering=given.line_buffering,
            write_through=given.write_through,
        )

    def write(self, text: str) -> int:
        """Write text; raises OutputFailed. An empty text is a library's way to find out what kind of file this is."""
        if text != "":
            with self._named():
                super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered; raises OutputFailed."""
        with self._named():
            super().flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            mute()
            raise OutputFailed(f"cannot write to standard output: {(error.strerror or str(error)).lower()}") from None


def mute() -> None:
    """Nothing more is written to standard output, and Python does not mind at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

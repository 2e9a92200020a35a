"""The log file of the roles: who writes into it, and how it is kept from growing without end.

Each process appends by itself and opens the file anew when it was moved away. So whoever stands over the roles may move
it when it has grown, and nothing is lost: neither a line nor the file that held it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from dicomferry.models import telemetry
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.settings import Settings, prepare_home
from dicomferry.workers import parent


def of_role(settings: Settings) -> Path | None:
    """The file that this process writes its log to, where a parent wants that or one is set; None is standard error."""
    below = parent.is_watched() and not parent.shares_output()
    return settings.log_file if below or settings.log.file else None


def configure(role: str, settings: Settings, *, quiet: Iterable[str] = ()) -> None:
    """Write the log of this process to its file, or to standard error.

    Raises ConfigurationError where the file cannot be written.
    """
    file = of_role(settings)
    try:
        if file is not None:
            prepare_home(settings.home)
            make(file)
        telemetry.configure(role, level=settings.log.level, form=settings.log.format, file=file, quiet=quiet)
    except OSError as error:
        raise ConfigurationError(f"log file {file}: {error.strerror or error}; set log.file") from None


def make(file: Path) -> None:
    """The file, its owner's alone, and its folder, where they are missing. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))


def rotate(settings: Settings) -> bool:
    """Move the file away if it has grown beyond its size: NAME.1 is the last one, NAME.2 the one before it. For one
    process at a time; never raises.
    """
    file, most = settings.log_file, settings.log.max_bytes
    try:
        if not most or file.stat().st_size < most:
            return False
    except OSError:
        return False
    with contextlib.suppress(OSError):
        for number in range(settings.log.keep - 1, 0, -1):
            older = _former(file, number)
            if older.exists():
                older.replace(_former(file, number + 1))
        file.replace(_former(file, 1))
        make(file)
        return True
    return False


def _former(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")

"""Logs of the standing roles: one JSON object or plain text a line, UIDs and ids only, never a patient's name."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterable
from logging.handlers import WatchedFileHandler
from pathlib import Path

import structlog


def configure(
    role: str, *, level: str = "info", form: str = "json", file: Path | None = None, quiet: Iterable[str] = ()
) -> None:
    """Send structlog's and the standard library's records from this level on to a file, or to standard error; as JSON
    lines, or with `form` plain as text.

    The file is opened anew where it was moved away, by us or by logrotate. Of the loggers in `quiet` only warnings and
    worse are let through.
    """
    host = socket.gethostname()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        # Not by a context variable: a thread does not have those of the one that began it.
        lambda _logger, _method, event: {"role": role, "host": host, **event},
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        handler = WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    # pydicom's warnings quote values, whoever they name; what matters of them is said in our own words.
    handler.addFilter(lambda record: record.name.partition(".")[0] != "pydicom")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(
                    [structlog.dev.ConsoleRenderer(colors=False)]
                    if form == "plain"
                    else [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]
                ),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module. Silent until `configure`: a command line has its own words, and stdout is for results."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        logging.getLogger("dicomferry").addHandler(logging.NullHandler())
    found: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return found

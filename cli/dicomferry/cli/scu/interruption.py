"""Interruptions: INT and TERM end a run with 130, whatever it is doing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dicomferry.cli.scu.beginning import exit_at_once

SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], Any] | int | None


@contextmanager
def restored() -> Iterator[None]:
    """After it the handlers are what they were before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        _handle(before)


@contextmanager
def raising() -> Iterator[None]:
    """Within it either signal raises KeyboardInterrupt. Once that has happened the handler stays, because putting
    things away is not to be interrupted; what is outside of the main thread is left alone.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupted = _Raise()
    _handle(dict.fromkeys(SIGNALS, interrupted))
    try:
        yield
    finally:
        if interrupted.times:  # whatever became of it on its way here
            raise KeyboardInterrupt
        _handle(before)


def ignore() -> None:
    """From now on: everything is done, and Python is at its end."""
    _handle(dict.fromkeys(SIGNALS, signal.SIG_IGN))


def _handle(handlers: Mapping[int, Handler]) -> None:
    """Install them, if this is the thread that can."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Raise:
    times = 0

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.times += 1
        if self.times == 1:
            raise KeyboardInterrupt
        # The second is the first one passed on by a program that was interrupted with us; the third means it.
        if self.times > 2:
            exit_at_once()

"""What INT and TERM do to a run of `dicomferry scu`, in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from dicomferry.cli.scu.interruption import SIGNALS, raising, restored

THREE = """
import os, signal
from dicomferry.cli.scu.interruption import raising
with raising():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        print("put away", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("not reached", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_raises_and_the_second_does_not(number: int) -> None:
    """What puts things away is not interrupted; afterwards the handlers are what they were."""
    before = [signal.getsignal(one) for one in SIGNALS]
    put_away = False
    with restored(), pytest.raises(KeyboardInterrupt), raising():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            put_away = True
    assert put_away and [signal.getsignal(one) for one in SIGNALS] == before


@pytest.mark.parametrize("swallow", [KeyboardInterrupt, BaseException])
def test_an_interruption_that_is_swallowed_is_one(swallow: type[BaseException]) -> None:
    """Callbacks may do so; and an error that took its place is not what ended the run."""
    with restored(), pytest.raises(KeyboardInterrupt), raising():
        with suppress(swallow):
            os.kill(os.getpid(), signal.SIGINT)
        raise OSError("whatever came of it")


def test_without_one_nothing_is_changed() -> None:
    """An error passes as it is."""
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(OSError, match="mine"), raising():
        raise OSError("mine")
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_the_third_ends_it() -> None:
    """At once, with the same exit status, whatever is being put away."""
    done = subprocess.run([sys.executable, "-c", THREE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "put away\n", "interrupted\n")

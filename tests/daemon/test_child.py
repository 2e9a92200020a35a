"""A child process that ends: what is said of it, and when it is started again."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from dicomferry.daemon.child import Child


def test_without_a_file_a_child_writes_where_we_do(capfd: pytest.CaptureFixture[str]) -> None:
    """As in a container, where what a role says is looked for in the container's output."""
    program = "import os, sys; print(os.environ['_DICOMFERRY_OUTPUT']); print('told', file=sys.stderr)"
    child = Child("worker", [sys.executable, "-c", program], log_file=None)
    child.start()
    assert child.wait_end(30)
    child.kill()
    assert capfd.readouterr() == ("inherited\n", "told\n")
    assert child.last_lines() == ""


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_an_end_is_told_with_its_cause_and_the_new_start(tmp_path: Path, program: str, how: str) -> None:
    """First how it ended and in how many seconds it is started again, then that it was; nothing in between."""
    once = f"import os, time\nif os.path.exists('been'): time.sleep(60)\nopen('been', 'w')\n{program}"
    before = os.getcwd()
    os.chdir(tmp_path)
    child = Child("worker", [sys.executable, "-c", once], log_file=tmp_path / "log")
    try:
        child.start()
        assert child.wait_end(30)
        assert child.keep_up() == f"ended ({how}); starting it again in 1 s"
        assert child.keep_up() is None
        told = None
        deadline = time.monotonic() + 30
        while told is None and time.monotonic() < deadline:
            time.sleep(0.05)
            told = child.keep_up()
        assert told == f"was started again, process {child.pid}"
        assert child.keep_up() is None and child.is_running
        child.terminate()
        assert child.wait_end(30)
        told = child.keep_up()
        assert told is not None and told.startswith(f"ended (killed by signal {int(signal.SIGTERM)}); ")
    finally:
        child.kill()
        os.chdir(before)

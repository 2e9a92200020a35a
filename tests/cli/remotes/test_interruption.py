"""Ctrl-C while `dicomferry remote echo` waits, and while any command begins."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from support import scripted_peer as peer

# A shell that starts the tests in the background has it ignored, which children inherit.
HEARING: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_test_of_a_mute_peer(greeted: bool, times: int) -> None:
    """Ctrl-C while it says nothing, before and after the association is there: exit 130, one line; also where somebody
    presses it again and again.
    """
    holder: list[subprocess.Popen[str]] = []

    def interrupt(_: peer.Conversation) -> None:
        for _number in range(times):
            holder[0].send_signal(signal.SIGINT)

    waiting = [*peer.opening(), peer.expect_message(data_set=False)] if greeted else [peer.expect(peer.RQ)]
    with peer.ScriptedPeer([*waiting, interrupt, peer.until_end]) as scripted:
        # Its thread waits for the connection, so the process is in the list when it is needed.
        command = [sys.executable, "-m", "dicomferry.cli.main", "remote", "echo", f"MUTE@127.0.0.1:{scripted.port}"]
        holder.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **HEARING))
        said, told = holder[0].communicate(timeout=60)
    assert (holder[0].returncode, said) == (130, "")
    assert set(told.splitlines()) == {"dicomferry: interrupted"}
    assert times > 1 or told.count("\n") == 1


def test_an_interrupted_start() -> None:
    """Ctrl-C before any command is there, while modules are imported: the same."""
    code = (
        "import os, signal, sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'dicomferry.cli.root':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "sys.argv = ['dicomferry', 'remote', 'list']\n"
        "from dicomferry.cli.main import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **HEARING)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "dicomferry: interrupted\n")

"""Rounds of receiving that end with a kill, with removals beside: what was answered for is there, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[3]


def round_of(folder: Path, seed: int) -> dict[str, object]:
    """What came of it: see `support.reception_rounds`."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "support.reception_rounds", str(folder), str(seed)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("seed", [3, 4])
def test_a_process_that_is_killed_loses_nothing(tmp_path: Path, seed: int) -> None:
    """What its log has the record of is torn besides, as a power cut may leave it."""
    assert round_of(tmp_path, seed)["wrong"] == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_round_loses_anything(tmp_path: Path) -> None:
    """The same twenty times."""
    found = {}
    for seed in range(100, 120):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found[seed] = round_of(folder, seed)["wrong"]
    assert found == {seed: [] for seed in found}

"""Whatever call of ingest, journal, index or removal goes wrong: what was answered with 0x0000 is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.faulty_ingest import KINDS, WAYS

STEP = 41
"""One call in so many is tried where there is little time; each manner begins at another one."""


def tried(folder: Path, way: str, kind: str, first: int, step: int) -> dict[str, object]:
    """What came of it: see `support.faulty_ingest`."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "support.faulty_ingest", str(folder), way, kind, str(first), str(step)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_call_that_goes_wrong_loses_nothing(tmp_path: Path, way: str, kind: str) -> None:
    """Errors of a full or broken disk, writes that are cut short, the end of the process, at some of the calls: after a
    restart all is whole on disk and indexed, no row is without its file, nothing is left over.
    """
    found = tried(tmp_path, way, kind, 1 + 7 * KINDS.index(kind), STEP)
    assert found["lost"] == {} and int(str(found["tried"])) > 3


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_call_that_goes_wrong_loses_anything(tmp_path: Path, way: str, kind: str) -> None:
    """The same at each of the calls."""
    found = tried(tmp_path, way, kind, 1, 1)
    assert found["lost"] == {} and found["tried"] == found["calls"]

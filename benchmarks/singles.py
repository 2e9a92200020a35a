"""Single images of a list, moved and got from Orthanc: of one series, and each of a series of its own.

No other program takes such a list. BENCHMARK_BEFORE names the folder with another checkout's `dicomferry`
(its .venv/bin); then that one is measured in the same run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import WORK, Row, interleave, sized
from support import samples
from support.installation import Installation
from support.peers import Orthanc
from support.process import free_port

IMAGES = 503
FEW, MANY = 53, IMAGES
FEW_BEFORE, MANY_BEFORE = 7, 61
"""One request after the other has the same rate for any number, and takes long."""
TITLES = {"now": "FERRYNOW", "before": "FERRYBEFORE"}
KINDS = {"one series": 6.0, "a series each": None}
"""How the images lie, and the least ratio to the older one that is wanted."""
DOES = "asks for each image by its UID, fetches, writes, flushes, indexes, proves each, records"


@dataclass(frozen=True)
class Side:
    """One checkout's running installation."""

    installation: Installation
    home: Path


def run(rounds: int) -> Iterator[Row]:
    """Move and get; each run starts with an empty archive."""
    before = os.environ.get("BENCHMARK_BEFORE")
    ports = {name: free_port() for name in TITLES}
    with contextlib.ExitStack() as stack:
        orthanc = stack.enter_context(Orthanc(modalities={TITLES[name]: port for name, port in ports.items()}))
        lists = _fill(orthanc)
        now = stack.enter_context(_side(orthanc, "now", ports["now"], None))
        older = stack.enter_context(_side(orthanc, "before", ports["before"], before)) if before else None
        for kind, rows in lists.items():
            for verb, target in (("move", KINDS[kind]), ("get", 4.0 if KINDS[kind] else None)):
                row = Row(f"{verb} of {IMAGES} single images, {kind}", "/s", "", None, DOES)
                ours = sized(partial(_fetched, now, verb, rows), FEW, MANY, MANY - FEW)
                theirs = None
                if older:
                    row.against, row.target, row.they_do = "the older checkout", target, DOES
                    numbers = FEW_BEFORE, MANY_BEFORE
                    theirs = sized(partial(_fetched, older, verb, rows), *numbers, MANY_BEFORE - FEW_BEFORE)
                yield interleave(row, ours, theirs, rounds)


def _fill(orthanc: Orthanc) -> dict[str, list[str]]:
    """The images, made once and kept; by kind the rows of a request file."""
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        study = f"singles {kind}"
        rows = found[kind] = []
        for index in range(IMAGES):
            series = study if kind == "one series" else f"{study} {index}"
            path = WORK / "singles" / kind / f"{index:05}.dcm"
            sop = samples.uid("sop", study, index)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                names = {"study": samples.uid("study", study), "series": samples.uid("series", series)}
                path.write_bytes(samples.instance_bytes("MR", 128, sop=sop, number=index, **names))
            orthanc.upload(path.read_bytes())
            rows.append(f"{samples.uid('study', study)},{samples.uid('series', series)},{sop}\n")
    return found


@contextlib.contextmanager
def _side(orthanc: Orthanc, name: str, port: int, folder: str | None) -> Iterator[Side]:
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home, scp__port=port, ae_title=TITLES[name])
        if folder:
            installation.script = (str(Path(folder) / "dicomferry"),)
        installation.run("remote", "add", "orthanc", f"ORTHANC@127.0.0.1:{orthanc.port}", "--no-probe")
        with installation.up():
            yield Side(installation, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _fetched(side: Side, verb: str, rows: list[str], number: int) -> float:
    """The seconds from typing the command to its end, which is when each image is proven."""
    requests = side.home / "requests.csv"
    requests.write_text("StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID\n" + "".join(rows[:number]))
    began = time.perf_counter()
    job_id = int(side.installation.run("submit", verb, "orthanc", "--from-csv", requests, "--wait").stdout)
    seconds = time.perf_counter() - began
    job = side.installation.show(job_id)
    if job["state"] != "succeeded":
        raise RuntimeError(f"not everything came: {job}")
    side.installation.run("archive", "remove", "--job", job_id, "--yes")
    return seconds

"""C-MOVE from Orthanc into our archive, proven and flushed, against movescu into storescp, which does neither."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import flushing
from benchmarks.harness import WORK, Measured, Row, interleave
from benchmarks.receivers import ENVIRONMENT
from support import samples
from support.installation import Installation
from support.peers import Orthanc, StoreScp

INSTANCES = 2_000
STUDIES = 4
TITLE = "DICOMFERRY"
ROWS = ((1, 1.0), (4, 1.0))
"""Moves in flight on both sides, and the least ratio wanted."""


def run(rounds: int) -> None:
    """One move after the other, and four at once. Each run starts with an empty archive."""
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        ours_at = int(installation.environment["DICOMFERRY_SCP__PORT"])
        with StoreScp() as scp, Orthanc(modalities={TITLE: ours_at, scp.aet: scp.port}) as orthanc:
            studies = _fill(orthanc)
            requests = home.parent / f"{home.name}.csv"
            requests.write_text("StudyInstanceUID\n" + "".join(f"{study}\n" for study in studies))
            installation.run("remote", "add", "orthanc", f"ORTHANC@127.0.0.1:{orthanc.port}", "--no-probe")
            with installation.up():
                for moves, target in ROWS:
                    installation.run("remote", "set", "orthanc", "--max-moves", moves, "--no-probe")
                    row = Row(f"C-MOVE, {INSTANCES} MR, {moves} in flight", "/s", "movescu to storescp +B", target)
                    theirs = _theirs(orthanc, scp, studies, moves)
                    interleave(row, lambda: _ours(installation, requests), theirs, rounds)
                    row = Row(f"{row.name}, limit", "/s", "movescu + flush loop", None)
                    limit = _limit(theirs, moves)
                    interleave(row, lambda: _ours(installation, requests), limit, rounds)
            requests.unlink()
    finally:
        flushing.remove()
        shutil.rmtree(home, ignore_errors=True)


def _fill(orthanc: Orthanc) -> list[str]:
    """The images, made once and kept for the next time; their studies."""
    folder = WORK / f"retrieve-{INSTANCES}"
    share = INSTANCES // STUDIES
    for index in range(INSTANCES):
        path = folder / f"{index:05}.dcm"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            samples.mr_instance(path, study=f"retrieve {index // share}", series=index // share, number=index % share)
        orthanc.upload(path.read_bytes())
    return [samples.uid("study", f"retrieve {number}") for number in range(STUDIES)]


def _ours(installation: Installation, requests: Path) -> Measured:
    """The rate that `jobs show` gives, from the job's start to its end."""
    job_id = int(installation.run("submit", "move", "orthanc", "--from-csv", requests, "--wait").stdout)
    job = installation.show(job_id)
    if (job["received"], job["verified"]) != (INSTANCES, "uids"):
        raise RuntimeError(f"not everything came: {job}")
    installation.run("archive", "remove", "--job", job_id, "--yes")
    return Measured(job["rate_instances_per_s"])


def _theirs(orthanc: Orthanc, scp: StoreScp, studies: list[str], moves: int) -> Callable[[], Measured]:
    def move(study: str) -> None:
        subprocess.run(
            ["movescu", "-S", "-aec", orthanc.aet, "-aem", scp.aet, "-k", "QueryRetrieveLevel=STUDY",
             "-k", f"StudyInstanceUID={study}", "127.0.0.1", str(orthanc.port)],
            check=True, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def once() -> Measured:
        for path in scp.files():
            path.unlink()
        began = time.perf_counter()
        with ThreadPoolExecutor(moves) as pool:
            list(pool.map(move, studies))
        seconds = time.perf_counter() - began
        if len(scp.files()) != INSTANCES:
            raise RuntimeError(f"storescp has {len(scp.files())} files")
        return Measured(INSTANCES / seconds)

    return once


def _limit(theirs: Callable[[], Measured], moves: int) -> Callable[[], Measured]:
    """Their streams, then what it takes to make as many files durable: one after the other."""
    files = sorted((WORK / f"retrieve-{INSTANCES}").glob("*.dcm"))
    shares = [files[number::moves] for number in range(moves)]
    return lambda: Measured(INSTANCES / (INSTANCES / theirs().rate + flushing.seconds(shares)))

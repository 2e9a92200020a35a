"""C-MOVE from Orthanc into our archive, proven and flushed, against movescu into storescp, which does neither."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.harness import WORK, Row, interleave, sized
from benchmarks.receivers import ENVIRONMENT
from support import samples
from support.installation import Installation
from support.peers import Orthanc, StoreScp

STUDY, FEW = 501, 101
"""Images of each of the four studies of the larger run, and of the one of the smaller run."""
STUDIES = 4
INSTANCES = STUDY * STUDIES
TITLE = "DICOMFERRY"
ROWS = ((1, 0.7), (4, 0.8))
"""Moves in flight on both sides, and the least ratio wanted."""
DOES = "asks what there is, fetches, writes, flushes, indexes, proves that all came, records"
THEY_DO = "fetches, writes; flushes, proves and records nothing"


def run(rounds: int) -> Iterator[Row]:
    """One move after the other, and four at once. Each run starts with an empty archive."""
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        ours_at = int(installation.environment["DICOMFERRY_SCP__PORT"])
        with StoreScp() as scp, Orthanc(modalities={TITLE: ours_at, scp.aet: scp.port}) as orthanc:
            lists = _fill(orthanc)
            requests = home.with_suffix(".few.csv"), home.with_suffix(".many.csv")
            for path, studies in zip(requests, lists, strict=True):
                path.write_text("StudyInstanceUID\n" + "".join(f"{study}\n" for study in studies))
            installation.run("remote", "add", "orthanc", f"ORTHANC@127.0.0.1:{orthanc.port}", "--no-probe")
            with installation.up():
                for moves, target in ROWS:
                    installation.run("remote", "set", "orthanc", "--max-moves", moves, "--no-probe")
                    more = INSTANCES - FEW
                    ours = sized(partial(_ours, installation), *requests, more)
                    theirs = sized(partial(_theirs, orthanc, scp, moves), *lists, more)
                    row = Row(
                        f"C-MOVE, {INSTANCES} MR, {moves} in flight",
                        "/s",
                        "movescu to storescp +B",
                        target,
                        DOES,
                        THEY_DO,
                    )
                    yield interleave(row, ours, theirs, rounds)
            for path in requests:
                path.unlink()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _fill(orthanc: Orthanc) -> tuple[list[str], list[str]]:
    """The images, made once and kept for the next time; the studies of the smaller and of the larger run."""
    sizes = {"few": FEW} | {f"many {number}": STUDY for number in range(STUDIES)}
    for study, size in sizes.items():
        for index in range(size):
            path = WORK / "retrieve" / study / f"{index:05}.dcm"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                samples.mr_instance(path, study=f"retrieve {study}", series=study, number=index)
            orthanc.upload(path.read_bytes())
    few, *many = (samples.uid("study", f"retrieve {study}") for study in sizes)
    return [few], many


def _ours(installation: Installation, requests: Path) -> float:
    """The seconds from typing the command to its end: listed, fetched, flushed, indexed and proven."""
    began = time.perf_counter()
    job_id = int(installation.run("submit", "move", "orthanc", "--from-csv", requests, "--wait").stdout)
    seconds = time.perf_counter() - began
    job = installation.show(job_id)
    if job["verified"] != "uids":
        raise RuntimeError(f"not everything came: {job}")
    installation.run("archive", "remove", "--job", job_id, "--yes")
    return seconds


def _theirs(orthanc: Orthanc, scp: StoreScp, moves: int, studies: list[str]) -> float:
    def move(study: str) -> None:
        subprocess.run(
            ["movescu", "-S", "-aec", orthanc.aet, "-aem", scp.aet, "-k", "QueryRetrieveLevel=STUDY",
             "-k", f"StudyInstanceUID={study}", "127.0.0.1", str(orthanc.port)],
            check=True, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    for path in scp.files():
        path.unlink()
    began = time.perf_counter()
    with ThreadPoolExecutor(moves) as pool:
        list(pool.map(move, studies))
    seconds = time.perf_counter() - began
    if len(scp.files()) != (INSTANCES if len(studies) == STUDIES else FEW):
        raise RuntimeError(f"storescp has {len(scp.files())} files")
    return seconds

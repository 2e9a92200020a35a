"""C-FIND through submit, Redis, a Celery worker and the record, from an SCP with answers encoded beforehand."""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from benchmarks.harness import Measured, Row, interleave, median, timed_process
from benchmarks.receivers import ENVIRONMENT
from benchmarks.through_queue import memory
from support.find_scp import Asked, FindScp, Reply, final, identifier, pending
from support.installation import Installation, Up

MATCHES = 20_000
WANTED = 2_000.0
"""Matches a second, recorded."""
_KEYS = ("PatientName", "StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "ModalitiesInStudy")


def run(rounds: int) -> None:
    """Studies as archives describe them; DCMTK's findscu, which records nothing, to compare with."""
    # Encoded once, and numbered in the bytes: as many data sets cost longer than a run.
    template = pending(_study(1_000_000))
    answers = [template.replace(b"1000000", str(1_000_000 + number).encode()) for number in range(MATCHES)]
    answers.append(final())

    def reply(_asked: Asked) -> Reply:
        return answers

    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        with FindScp(reply) as scp, installation.up() as up:
            asked = [word for key in ("StudyInstanceUID", *_KEYS) for word in ("-k", key)]
            theirs = ["findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", *asked, "127.0.0.1", str(scp.port)]
            row = Row(f"C-FIND, {MATCHES} matches into rows", "/s", "findscu, nothing kept", None)
            interleave(
                row,
                lambda: _ours(installation, up, scp.address, asked),
                lambda: timed_process(theirs, MATCHES, ENVIRONMENT),
                rounds,
            )
            reached = "reached" if median(row.ours) >= WANTED else "NOT reached"
            print(f"  wanted {WANTED:,.0f}/s: {reached}", flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _study(number: int) -> bytes:
    return identifier(
        QueryRetrieveLevel="STUDY",
        SpecificCharacterSet="ISO_IR 100",
        RetrieveAETitle="FINDSCP",
        PatientID=f"PID{number}",
        PatientName=f"Müller^Jérôme {number}",
        StudyDate="20260115",
        StudyTime="101112",
        AccessionNumber=f"A{number}",
        StudyDescription="Thorax",
        ModalitiesInStudy=["CT", "SR"],
        StudyInstanceUID=f"1.2.826.0.1.3680043.8.498.{number}",
        StudyID=str(number),
        InstanceAvailability="ONLINE",
    )


def _ours(installation: Installation, up: Up, address: str, asked: list[str]) -> Measured:
    """The rate from the job's start to its end, and the memory of each process."""
    job = installation.json("submit", "find", address, *asked, "--wait")
    assert job["state"] == "succeeded" and job["matches"] == MATCHES
    return Measured(MATCHES / _seconds(job), rss_mb=memory(up.roles()))


def _seconds(job: dict[str, str]) -> float:
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()

"""C-FIND, whole commands, from an SCP with answers encoded beforehand, against findscu."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Row, command, interleave, sized
from benchmarks.receivers import ENVIRONMENT
from support.find_scp import FindScp, final, identifier, pending
from support.installation import SCRIPT, Installation

FEW, MANY = 997, 19_997
THEY_DO = "asks, prints each match"
_KEYS = ("PatientName", "StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "ModalitiesInStudy")


def run(rounds: int) -> Iterator[Row]:
    """Studies as archives describe them, through the queue and by `scu`, against DCMTK's findscu, which prints them."""
    # Encoded once, and numbered in the bytes: as many data sets cost longer than a run.
    template = pending(_study(1_000_000))
    answers = [template.replace(b"1000000", str(1_000_000 + number).encode()) for number in range(MANY)]
    home = Path(tempfile.mkdtemp(prefix="dicomferry-bench-"))
    try:
        installation = Installation(home)
        with (
            FindScp(lambda _: [*answers[:FEW], final()]) as small,
            FindScp(lambda _: [*answers, final()]) as large,
            installation.up(),
        ):
            asked = [word for key in ("StudyInstanceUID", *_KEYS) for word in ("-k", key)]
            level = ["findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", *asked, "127.0.0.1"]
            theirs = sized(partial(_asked, level), small, large, MANY - FEW)
            scu = [*SCRIPT, "scu", "--find", "--studyroot", "--study", *_scu_keys(), "127.0.0.1"]
            printed = sized(partial(_asked, scu), small, large, MANY - FEW)
            yield interleave(
                Row("scu --find, matches printed", "/s", "findscu", 0.8, "asks, prints each match", THEY_DO),
                printed,
                theirs,
                rounds,
            )
            found = sized(partial(_found, installation, asked), small, large, MANY - FEW)
            yield interleave(
                Row(
                    "submit find --wait, matches into rows",
                    "/s",
                    "findscu",
                    None,
                    "asks, a row for each match, waits for the end",
                    THEY_DO,
                ),
                found,
                theirs,
                rounds,
            )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _scu_keys() -> list[str]:
    numbers = ("20,d", "10,10", "8,20", "8,30", "8,50", "8,1030", "8,61")
    return [word for number in numbers for word in ("-k", number)]


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


def _asked(argv: list[str], scp: FindScp) -> float:
    return command([*argv, str(scp.port)], ENVIRONMENT)


def _found(installation: Installation, asked: list[str], scp: FindScp) -> float:
    """The seconds from typing the command to its end."""
    began = time.perf_counter()
    installation.run("submit", "find", scp.address, *asked, "--wait")
    return time.perf_counter() - began

"""The second half of `dicomferry demo`: what was sent is found, fetched back by C-MOVE and C-GET, accounted for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.record.archive import index
from dicomferry.models.record.database import Database

Run = Callable[..., int]
"""Runs one command of ours and shows what it prints; its exit code."""


def run(command: Run, database: Database, folder: Path, studies: dict[str, set[str]]) -> bool:
    """Fetch these studies (UID -> its instances), the largest by C-MOVE, the others by C-GET; whether all is here."""
    largest = max(studies, key=lambda study: len(studies[study]))
    requests = folder / "requests.csv"
    requests.write_text("StudyInstanceUID\n" + "".join(f"{study}\n" for study in sorted(studies) if study != largest))
    found = ("-k", "PatientID", "-k", "StudyDate", "-k", "ModalitiesInStudy")
    codes = [
        command("submit", "find", "archive", "--level", "study", *found, "--wait", show_progress=True),
        command("jobs", "matches", "last", "--limit", "5"),
        command("submit", "move", "archive", "-k", f"StudyInstanceUID={largest}", "--wait", show_progress=True),
        command("jobs", "show", "last"),
        command("submit", "get", "archive", "--from-csv", str(requests), "--wait", show_progress=True),
        command("jobs", "report", "last"),
    ]
    sent = set().union(*studies.values())
    here = {str(row["sop_instance_uid"]) for row in index.listing(database)}
    jobs = [job_documents.show(database, job_id) for job_id in _newest(database, 2)]
    proven = all((job["state"], job["verified"], job["missing"]) == ("succeeded", "uids", 0) for job in jobs)
    click.echo(f"\nOur archive lists {len(here)} SOP Instance UIDs; the other one has {len(sent)}:")
    click.echo(f"  {'the two sets are equal' if here == sent else 'THE TWO SETS DIFFER'}")
    return here == sent and proven and not any(codes)


def _newest(database: Database, number: int) -> list[int]:
    return [int(job["id"]) for job in job_documents.listing(database, limit=number)]

"""The table of jobs: what each one is about, how far it is, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.layout import Brief, Column
from dicomferry.cli.jobs import words as job_words
from dicomferry.models.documents.shapes import JobDocument
from dicomferry.models.rules.spec import RETRIEVES

COLUMNS = (
    Column(heading="id", right=True),
    Column(heading="kind", rank=4),
    Column(heading="remote", rank=1, least=8, middle=True),
    Column(heading="state", outcome=True),
    Column(heading="items", rank=5, right=True),
    Column(heading="done", rank=5, right=True),
    Column(heading="failed", rank=2, right=True),
    Column(heading="submitted", brief="age", rank=3),
    Column(heading="reason", rank=1, least=18),
    Column(heading="label", rank=7, least=8),
)


def show(found: Iterable[JobDocument]) -> None:
    """Print it."""
    render.table(COLUMNS, map(_cells, found))


def _cells(job: JobDocument) -> tuple[object, ...]:
    whole, done, failed = _numbers(job)
    return (
        job["id"],
        job["kind"],
        job["remote"],
        job_words.state(job),
        whole,
        done,
        failed,
        words.lately(job["submitted_at"]),
        _reason(job),
        job["label"],
    )


def _reason(job: JobDocument) -> Brief:
    if job["reason"] == job["state"]:
        return Brief("", "")
    brief = job_words.waiting_for(job, brief=True) or job["reason"] or ""
    return Brief(job_words.waiting_for(job) or job_words.reason(job) or "", brief)


def _numbers(job: JobDocument) -> tuple[str, str, str]:
    """How many instances (of an echo or a find, requests) there are, are done, have failed; `+`: more may be found.

    Where no instance of a retrieve failed, but requests did, those are told: `3 rows`.
    """
    more = "" if job["planned"] else "+"
    if more and not job["items"]["total"]:
        return "", "", ""
    if job["kind"] not in RETRIEVES:
        items = job["items"]
        return (
            words.number(items["total"]) + more,
            words.number(items["succeeded"] + items["warning"]),
            words.number(items["failed"]),
        )
    instances, requests = job["instances"], job["requests"]
    whole = "?" if job["expected"] is None else words.number(job["expected"])
    failed = words.number(instances["failed"])
    if requests["failed"] and not instances["failed"]:
        failed = words.plural(requests["failed"], "row")
    return whole + more, words.number(job["received"] or 0), failed

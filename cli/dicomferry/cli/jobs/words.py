"""Jobs and items in words: what came of them, what they wait for, what to do about it."""

from __future__ import annotations

from datetime import datetime

from dicomferry.cli.frame.words import (
    clock,
    duration,
    lately,
    matches,
    number,
    plural,
    printable,
    rate,
    title,
)
from dicomferry.models.documents.shapes import ItemDocument, JobDocument, ReportDocument, ShownJob
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.spec import RETRIEVES

FEW = 10
"""Instances that no speed is told of."""


def seconds_of(job: JobDocument, since: str | None = None) -> float | None:
    """How long an ended job took, from its start or from `since`, when it was tried again last."""
    started = since or job["started_at"] or job["submitted_at"]
    if not (job["finished_at"] and started):
        return None
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(started)).total_seconds()


def sentence(
    job: JobDocument,
    *,
    already_there: int = 0,
    unverified: int = 0,
    already_here: int = 0,
    truncated: int = 0,
    again: str | None = None,
) -> str:
    """What came of a job, in one sentence: `job 7: 9,997 of 10,000 proven at PACS1, 3 failed, 41 s, 244/s`.

    `unverified` were to be looked for after they were confirmed, and nobody could be asked; `already_here` lay in the
    archive before; `truncated` are so at their source; `again` is when the job was tried again last: the time is told
    from then on.
    """
    items = job["items"]
    parts = []
    if job["kind"] == Kind.ECHO:
        parts.append(_echoed(job))
    elif job["kind"] == Kind.FIND:
        parts.append(_found(job))
    elif job["kind"] in RETRIEVES:
        from dicomferry.cli.jobs import retrieve_words

        parts += retrieve_words.parts(job)
        parts += [retrieve_words.here_before(already_here)] * bool(already_here)
        parts += [f"{number(truncated)} truncated at source"] * bool(truncated)
    elif job["kind"] != Kind.STORE:
        parts.append(
            f"the {job['kind']} at {title(job)} {job['state']}" + (f": {job['reason']}" if job["reason"] else "")
        )
    elif not items["total"] and not job["planned"]:
        parts.append(f"{job['state']} before anything was found")
    elif not job["expected"]:
        parts.append("nothing to send")
        parts += [f"{number(items['skipped'])} skipped"] * bool(items["skipped"])
    else:
        parts += _proven(job, job["expected"], job["received"] or 0)
        parts += [f"{number(unverified)} confirmed but not verified"] * bool(unverified)
        others = (
            ("failed", items["failed"] - unverified),
            ("cancelled", items["cancelled"]),
            ("skipped", items["skipped"]),
        )
        parts += [f"{number(count)} {state}" for state, count in others if count]
        warned = items["warning"] - already_there
        parts += [f"{number(already_there)} already there"] * bool(already_there)
        parts += [f"{number(warned)} with a warning"] * bool(warned)
        parts += [f"{number(items['pending'])} left to do"] * bool(items["pending"])
    seconds = seconds_of(job, again)
    if seconds is not None:
        parts.append(duration(seconds))
    moved = (job["received"] or 0) - already_here
    # A few say nothing of the speed, and what lay here, or was done in an earlier try, did not move now.
    if job["rate_instances_per_s"] and moved >= FEW and not already_here and again is None:
        parts.append(rate(job["rate_instances_per_s"]))
    return f"job {job['id']}: {', '.join(parts)}"


def _proven(job: JobDocument, expected: int, good: int) -> list[str]:
    """How many of how many; as long as more may be found, the second number is not the whole."""
    of, proven = number(expected), f"{number(good)} proven at {title(job)}"
    if job["planned"]:
        ended = "cancelled, " if job["state"] == "cancelled" else ""
        return [f"{ended}{number(good)} of {of} proven at {title(job)}"]
    if job["state"] == "cancelled":
        return [f"cancelled after {of} instances were found (the search for more was stopped)", proven]
    return [f"{of} instances found so far", proven]


def _echoed(job: JobDocument) -> str:
    if job["state"] == "succeeded":
        return f"{title(job)} answered"
    if job["state"] == "cancelled":
        return f"cancelled before {title(job)} {'answered' if job['attempts'] else 'was asked'}"
    return f"the echo of {title(job)} {job['state']}" + (f": {job['reason']}" if job["reason"] else "")


def _found(job: JobDocument) -> str:
    found = f"{matches(job['matches'] or 0)} at {title(job)}"
    if job["state"] == "succeeded":
        return found + (f", {job['reason']}" if job["reason"] else "")
    left = f", {found} so far" if job["matches"] else ""
    return f"the find {job['state']}" + (f": {job['reason']}" if job["reason"] else "") + left


def item_line(item: ItemDocument) -> str:
    """Which item it is, what came of it, and what to do about it."""
    name = item["path"] or item["sop_instance_uid"]
    if name is None and item["identifier"]:
        from dicomferry.cli.jobs import retrieve_words

        name = retrieve_words.request_name(item["identifier"], item["row"])
    return named_line(name or "the request", item)


def named_line(name: str, item: ItemDocument | ReportDocument) -> str:
    """What came of an item of this name, and what to do about it."""
    words = [text for text in (item["reason"], item["detail"]) if text]
    status = f" ({item['status']})" if item["status"] else ""
    text = printable(name) + (f": {printable('; '.join(words))}" if words else "") + status
    return text + (f"; {item['advice']}" if item["advice"] else "")


def reason(job: JobDocument) -> str | None:
    """The reason word, and what exactly was met: `unreachable: 10.0.0.5:104: connection refused`."""
    return f"{job['reason']}: {printable(job['detail'])}" if job["detail"] else job["reason"]


def nothing_found(job: ShownJob, *, inside: bool) -> str:
    """Where no DICOM file was found; `inside`: folders in there were not looked into."""
    paths = [str(path) for path in job["paths"]]
    more = f" and {plural(len(paths) - 3, 'path')} more" if len(paths) > 3 else ""
    hint = "; the folders inside were not looked into: submit again with -r" if inside else ""
    return f"no DICOM file was found in {', '.join(paths[:3])}{more}{hint}"


def state(job: JobDocument) -> str:
    """The state for people: what waits for anything but its turn is called so; documents keep the derived state."""
    return "waiting" if job["waiting_for"] and job["state"] in ("pending", "running") else str(job["state"])


def waiting_for(job: JobDocument, *, brief: bool = False) -> str | None:
    """What a job waits for and until when: `unreachable, in 9m`; None for one that does not wait."""
    if state(job) != "waiting":
        return None
    starts = job["waiting_for"] == "not before"
    what = job["waiting_for"] if brief else reason(job)
    if not job["not_before"]:
        return str(what)
    due = lately(job["not_before"])
    if brief:
        return f"starts {due.brief}" if starts else f"{what}, {due.brief}"
    return f"{what}, {'starts' if starts else 'next try'} {due.full}"


def waiting_line(job: JobDocument, now: datetime) -> str:
    """Why a job waits, when it goes on, and that nobody has to watch it."""
    due = clock(datetime.fromisoformat(job["not_before"]), now) if job["not_before"] else None
    if job["reason"] == "not before":
        return f"job {job['id']}: starts {due or 'now'}; Ctrl-C leaves the job queued"
    if job["reason"] in ("window", "limit"):
        why = "outside of its window, which opens" if job["reason"] == "window" else "at its limit, goes on"
        return f"{job['remote']}: {why} {due or 'now'}; Ctrl-C leaves the job queued"
    advice = f" ({job['reason_text']})" if job["reason_text"] else ""
    next_try = f", next try {due}" if due else ""
    return f"{job['remote']}: {reason(job)}{advice}{next_try}; Ctrl-C leaves the job queued"


def not_rung(job_id: int, url: str, problem: str) -> str:
    """The sentence that the broker could not be told of a job, and nothing is lost. No `url`: the embedded one."""
    return (
        f"job {job_id} is recorded, but no worker was woken for it, because the broker {url or 'of `dicomferry up`'} "
        f"did not answer ({problem.rstrip('.')}); it starts by itself soon after the broker and a worker are there"
    )


def held_line(job: JobDocument) -> str:
    """Why a job is held, and how it goes on."""
    why = reason(job) or "held by a person"
    advice = f"; {job['reason_text']}" if job["reason_text"] and why != "held by a person" else ""
    return f"job {job['id']} is held: {why}{advice}; go on with `dicomferry jobs release {job['id']}`"

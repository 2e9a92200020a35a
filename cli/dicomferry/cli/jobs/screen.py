"""One job on one screen: what it asked for, what it waits for, what came of it, what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from dicomferry.cli.frame import render, words
from dicomferry.cli.jobs import words as job_words
from dicomferry.models.documents.shapes import AskedDocument, EventDocument, ShownJob
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.spec import RETRIEVES

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database

_REASONS_SHOWN = 3
_KEYS_SHOWN = 3
"""Requests of a retrieve whose keys are named."""
_SEARCH = {
    "pending": " so far; more are being looked for",
    "running": " so far; more are being looked for",
    "held": " so far; the search goes on when the job is released",
    "cancelled": " so far; the search for more was stopped",
}


def show(database: Database, job: ShownJob, history: Sequence[EventDocument]) -> None:
    """Print it. `history` are its events, those of many chunks folded, oldest first."""
    from dicomferry.cli.jobs import wait

    address = f" ({job['remote_address']})" if job["remote"] != job["remote_address"] else ""
    retrieve = job["kind"] in RETRIEVES
    where = f"from {job['remote']}{address}" if retrieve else f"to {job['remote']}{address}"
    onward = f" to {job['destination']}" if job["destination"] else ""
    render.heading(f"job {job['id']}: {job['kind']} {where}{onward}", job_words.state(job))
    render.pairs(_pairs(database, job))
    for event in history:
        event_line(event)
    if job["finished_at"]:
        render.line(wait.end_sentence(database, job))
    for step in _next_steps(database, job):
        render.line(step)


def _pairs(database: Database, job: ShownJob) -> Iterator[tuple[str, str | None]]:
    several = _several_failures(database, job["id"]) if job["finished_at"] else None
    waits = job_words.state(job) == "waiting"
    yield "label", job["label"]
    yield from _asked(job)
    yield "waits for" if waits else "reason", several or job_words.reason(job)
    # One advice is not for several reasons; what to do where nothing was found is said at the end.
    yield "advice", None if several or job["reason"] == "nothing to do" else job["reason_text"]
    if job["state"] != "held":
        yield "starts" if job["waiting_for"] == "not before" else "next try", _due(job["not_before"])
    if job["kind"] in RETRIEVES:
        from dicomferry.cli.jobs import retrieve_words

        yield from retrieve_words.screen(database, job)
    else:
        yield "items", _items(job)
    yield "matches", words.number(job["matches"]) if job["matches"] is not None else None
    yield "received" if job["kind"] in RETRIEVES else "sent", words.size(job["bytes"]) if job["bytes"] else None
    yield "proof", _proof(job)
    yield "listed", words.when(job["listed_at"]) or None
    yield "accepted", f"{words.when(job['accepted_at'])}: {job['accepted_reason']}" if job["accepted_at"] else None
    yield "priority", job["priority"] if job["priority"] != "normal" else None
    yield "window", "ignored: it runs outside of the remote's hours as well" if job["ignore_window"] else None
    yield "submitted", words.when(job["submitted_at"])
    yield "started", words.when(job["started_at"])
    yield "finished", words.when(job["finished_at"])
    yield "attempts", words.number(job["attempts"]) if job["attempts"] else None


def _proof(job: ShownJob) -> str | None:
    found = {"uids": "per instance", "counts": "numbers only", "none": "none"}.get(job["verified"] or "")
    if found and job["kind"] in RETRIEVES:
        from dicomferry.cli.jobs import retrieve_words

        return found + retrieve_words.basis(job)
    return found


def _items(job: ShownJob) -> str | None:
    """How many files or requests came to what; a job of one request, such as an echo, is in its state."""
    if job["kind"] != Kind.STORE and job["kind"] not in RETRIEVES:
        return None
    items = cast("dict[str, int]", job["items"])
    numbers = {state: number for state, number in items.items() if number}
    total = numbers.pop("total", 0)
    counted = ", ".join(f"{words.number(number)} {state}" for state, number in numbers.items()) or "none"
    whole = f"{words.number(total)}: " if len(numbers) > 1 else ""
    return whole + counted + ("" if job["planned"] else _SEARCH[job["state"]])


def _due(moment: str | None) -> str | None:
    return f"{words.when(moment)} ({words.lately(moment).brief})" if moment else None


def _asked(job: ShownJob) -> Iterator[tuple[str, str | None]]:
    """What the job asked for: files, keys, the rows of a CSV file."""
    asked, kind = job["asked"], job["kind"]
    if kind == Kind.STORE:
        more = len(job["paths"]) - _KEYS_SHOWN
        named = [*job["paths"][:_KEYS_SHOWN], *([f"{words.number(more)} more"] if more > 0 else [])]
        yield "files", ", ".join(named) + (" and the folders inside" if job["recursive"] else "")
    elif "keys" in asked:
        level = f"at {asked['level']} level, {asked['root']} root" if asked["level"] else "of the worklist"
        yield "asks for", f"{_spelled(asked['keys']) or 'all there is'}; {level}"
    elif kind in RETRIEVES:
        yield "asks for", _requests(asked)
    yield "options", ", ".join(_option(name, value) for name, value in asked["options"].items()) or None


def _option(name: str, value: object) -> str:
    """An option as it was given on the command line: `--verify`, `--trust-answers StudyDate`."""
    if isinstance(value, (list, tuple)):
        from dicomferry.workers.finding import keys

        value = ",".join(keys.spelled(str(one)) for one in value)
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")


def _requests(asked: AskedDocument) -> str:
    level = f"at {asked['level']} level"
    first = [_spelled(one["keys"]) for one in asked["first"][:_KEYS_SHOWN]]
    more = asked["requests"] - len(first)
    named = "; ".join([*first, *([f"{words.number(more)} more"] if more else [])])
    if asked["csv"] is None and asked["requests"] == 1:
        return f"{named}; {level}"
    return f"{words.plural(asked['requests'], 'request')} of {asked['csv'] or 'a CSV file'} {level}: {named}"


def _spelled(given: Iterable[Sequence[str]]) -> str:
    from dicomferry.cli.jobs.retrieve_words import spelled_keys

    return spelled_keys(given)


def _several_failures(database: Database, job_id: int) -> str | None:
    """`2 cannot understand (0xC000), 1 truncated`, where there is more than one reason."""
    from dicomferry.models.documents import jobs

    found = jobs.failures(database, job_id)
    if len(found) < 2:
        return None
    top = [
        f"{words.number(number)} {reason or 'failed'}" + (f" (0x{status:04X})" if status is not None else "")
        for status, reason, number in found[:_REASONS_SHOWN]
    ]
    rest = sum(number for _, _, number in found[_REASONS_SHOWN:])
    return ", ".join([*top, f"{words.number(rest)} for other reasons"] if rest else top)


def event_line(event: EventDocument) -> None:
    """Print one event."""
    brief = render.room() is not None
    moment, until = words.time_of(event["at"]), words.time_of(event.get("until"))
    more = (
        f"; and {words.number(event['more'])} more until {until.brief if brief else until.full}"
        if event.get("more")
        else ""
    )
    shown = f"{moment.brief:<11}" if brief else moment.full
    render.paragraph(f"  {shown}  {event['kind']:<13}  ", f"{event['text']}{more}")


def _next_steps(database: Database, job: ShownJob) -> Iterator[str]:
    from dicomferry.cli.jobs import wait

    job_id = job["id"]
    if job["items"]["failed"]:
        yield f"see `dicomferry jobs items {job_id} --state failed`"
    if job["finished_at"]:
        step = wait.after_the_end(database, job)
    elif job["state"] == "held":
        step = f"go on with `dicomferry jobs release {job_id}`"
    else:
        step = f"follow it with `dicomferry jobs wait {job_id}`"
    if step:
        yield step
    if job["matches"]:
        yield f"see `dicomferry jobs matches {job_id}`"

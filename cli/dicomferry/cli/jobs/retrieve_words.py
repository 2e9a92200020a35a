"""A retrieve in words: what was expected, what is here, what is missing, and what was done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from dicomferry.cli.frame import words
from dicomferry.cli.frame.words import number, plural, printable
from dicomferry.models.documents.shapes import ExpectedDocument, JobDocument, MoveDocument

if TYPE_CHECKING:
    from dicomferry.models.record.database import Database

PROOFS = {"uids": "proven", "counts": "here by number only", "none": "here, proven by nothing"}
_EXPECTATIONS = {
    "images": "each instance, as C-FIND lists them",
    "counts": "numbers only: the remote lists no instances",
    "unknown": "nothing: the remote answers no query",
}
_SIZES = ("as a whole", "in lists", "singly")
MISSING_SHOWN = 5


def proof(job: JobDocument) -> str:
    """`proven`, or what there is instead of a proof."""
    if job["received"] == 0:
        return "here"
    return PROOFS.get(job["verified"] or "", "here")


_BASES = {"list": " by its list alone", "set aside": " by its list, its numbers set aside"}


def basis(job: JobDocument) -> str:
    """What a proof rests on where that is less than a list that a number confirms."""
    return _BASES.get(job.get("basis") or "", "") if job["verified"] == "uids" and job["received"] else ""


def balance(job: JobDocument) -> str:
    """`900 of 900 proven from PACS1`, in the sentence about a job's end."""
    received, expected = job["received"] or 0, job["expected"]
    come = number(received) if expected is None else f"{number(received)} of {number(expected)}"
    source = words.title(job)
    if job["destination"]:
        proven = job["verified"] == "uids" and received
        way = (
            f"proven at {job['destination']}, from {source}{basis(job)}" if proven else f"sent to {job['destination']}"
        )
        return f"{come} {way}" if proven or not received else f"{come} {way}, {source} says"
    return f"{come} {proof(job)}, from {source}{basis(job)}"


def parts(job: JobDocument) -> Iterator[str]:
    """The pieces of the sentence about a job's end."""
    if job["expected"] is None and not job["received"] and not job["items"]["total"]:
        yield f"{job['state']} before anything was asked for"
        return
    ended = "cancelled, " if job["state"] == "cancelled" else ""
    failed = job["requests"]["failed"]
    empty = job["reason"] == "no match" or (job["state"] == "succeeded" and not job["received"])
    if job["expected"] == 0 and empty:
        yield f"nothing was found at {words.title(job)}"
    else:
        yield ended + balance(job).replace(" proven, from ", " proven from ")
    for count, what in ((job["missing"], "missing"), (job["surplus"], "surplus"), (job["conflicts"], "in conflict")):
        if count:
            yield f"{number(count)} {what}"
    if failed and not job["missing"]:
        # Where instances are missing those say it; a request that matched nothing has none.
        yield f"{plural(failed, 'request')} failed"
    # Instances that are missing were told as such.
    instances = 0 if job["missing"] else job["instances"]["pending"]
    left = [(instances, "instance"), (job["requests"]["pending"], "request")]
    if any(count for count, _ in left):
        yield " and ".join(plural(count, noun) for count, noun in left if count) + " left to do"


def here_before(count: int) -> str:
    """`40 were here already`."""
    return f"{number(count)} {'was' if count == 1 else 'were'} here already"


def screen(database: Database, job: JobDocument) -> list[tuple[str, str | None]]:
    """Names and values for `jobs show`: requests, instances, proof, what is missing and what was done about it."""
    from dicomferry.models.documents import jobs, retrieves
    from dicomferry.models.record.retrieves.expected import ALREADY_HERE
    from dicomferry.models.rules.state import ItemState

    requests = Counter(request["state"] for request in retrieves.requests(database, job["id"]))
    before = jobs.reasons(database, job["id"], ItemState.SUCCEEDED).get(ALREADY_HERE, 0)
    moves = retrieves.moves(database, job["id"])
    return [
        ("requests", ", ".join(f"{number(count)} {state}" for state, count in sorted(requests.items())) or None),
        ("instances", _instances(job, before)),
        ("known", _EXPECTATIONS.get(job["expectation"] or "")),
        ("asked", _asked(moves)),
        ("answers", _answers(moves)),
        *[("missing" if not place else "", text) for place, text in enumerate(missing_lines(database, job))],
    ]


def _instances(job: JobDocument, before: int) -> str | None:
    found = [(job["expected"], "expected"), (job["received"], "here"), (job["missing"], "missing")]
    found += [(job["surplus"] or None, "surplus"), (job["conflicts"] or None, "in conflict")]
    told = [f"{number(count)} {name}" for count, name in found if count is not None]
    more = "" if job["planned"] or job["finished_at"] else "; more may be found"
    return ", ".join([*told, *([here_before(before)] if before else [])]) + more or None


def _asked(moves: Sequence[MoveDocument]) -> str | None:
    """How often, how, and for how much at once: `C-MOVE 6 as a whole, 2 in lists`, studies and series being wholes."""
    sizes = Counter((move["method"], _size(move["asked"])) for move in moves)
    methods = dict.fromkeys(method for method, _ in sizes)
    return (
        "; ".join(
            f"C-{method.upper()} "
            + ", ".join(
                f"{number(sizes[method, size])} {name}" for size, name in enumerate(_SIZES) if sizes[method, size]
            )
            for method in methods
        )
        or None
    )


def _size(instances: int | None) -> int:
    """Which of the sizes a request has that names so many instances; None for one that names none."""
    return 0 if instances is None else 1 if instances > 1 else 2


def _answers(moves: Sequence[MoveDocument]) -> str | None:
    """The final answers by number: `0x0000 5 times, none (aborted) 1 time`."""
    found = Counter((move["status"], move["reason"]) for move in moves)
    return (
        ", ".join(
            f"{status or 'none'}{f' ({printable(reason)})' if reason else ''} {plural(count, 'time')}"
            for (status, reason), count in found.most_common()
        )
        or None
    )


def missing_lines(database: Database, job: JobDocument) -> list[str]:
    """Some instances that did not come, each with its reason, and how many more there are."""
    from dicomferry.models.documents import retrieves

    if not job["missing"]:
        return []
    absent = (row for row in retrieves.instances(database, job["id"]) if is_missing(row["state"]))
    shown = [_missing(row) for row in islice(absent, MISSING_SHOWN)]
    items = job["instances"]
    named = min(job["missing"], items["pending"] + items["failed"] + items["cancelled"])
    if named > len(shown):
        more = f"and {number(named - len(shown))} more"
        shown.append(f"{more}: `dicomferry jobs report {job['id']} --by instance`")
    if job["missing"] > named:
        also = "and " if shown else ""
        shown.append(f"{also}{number(job['missing'] - named)} that {words.title(job)} says it has and does not list")
    return shown


def is_missing(state: str) -> bool:
    """Whether an instance of the report did not come; one that another request has is not missing."""
    return state not in ("succeeded", "warning", "skipped")


def _missing(row: ExpectedDocument) -> str:
    told = [text for text in (row["reason"], row["detail"], row["status"]) if text]
    return printable(f"{row['sop_instance_uid']}: {', '.join(told) or 'not here yet'}")


def request_name(identifier: Iterable[Sequence[str]], row: int | None) -> str:
    """`row 5: AccessionNumber=007`."""
    named = spelled_keys(identifier)
    return f"row {row}: {named}" if row is not None else named or "the request"


def spelled_keys(identifier: Iterable[Sequence[str]]) -> str:
    """`AccessionNumber=007, StudyDate`: a key without a value is one that was to be told."""
    from dicomferry.workers.finding import keys

    return ", ".join(
        f"{keys.spelled(path)}={_shortened(value)}" if value else keys.spelled(path) for path, value in identifier
    )


def _shortened(value: Any) -> str:
    first, _, rest = str(value).partition("\\")
    return f"{first} and {number(rest.count(chr(92)) + 1)} more" if rest else first

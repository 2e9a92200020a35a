"""`dicomferry jobs report` of a retrieve: by request, by study, by instance; for people, spreadsheets and programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.layout import Column
from dicomferry.cli.frame.render import Row
from dicomferry.cli.jobs import retrieve_words, wait
from dicomferry.models.documents import jobs, retrieve_report, retrieves
from dicomferry.models.record.database import Database
from dicomferry.models.rules.spec import Retrieve
from dicomferry.workers.finding import keys

_STUDY = (
    Column(heading="study", least=24, middle=True),
    Column(heading="expected", rank=1, right=True),
    Column(heading="here", right=True),
    Column(heading="missing", right=True),
    Column(heading="surplus", rank=1, right=True),
    Column(heading="conflicts", rank=1, right=True),
    Column(heading="size", rank=4, right=True),
    Column(heading="asked", rank=5, right=True),
    Column(heading="answers", rank=3, least=12),
    Column(heading="last arrival", rank=2),
)
_REQUEST = {
    "row": Column(heading="row", right=True),
    "expected": Column(heading="expected", rank=2, right=True),
    "received": Column(heading="here", right=True),
    "missing": Column(heading="missing", right=True),
    "state": Column(heading="state", outcome=True),
    "status": Column(heading="status", rank=3),
    "reason": Column(heading="reason", least=14),
}
_REQUEST_KEYS = (
    "expectation", "verified", "basis", "listed_at", "expected", "received", "missing", "state", "status", "reason",
    "detail",
)  # fmt: skip


def show(database: Database, job_id: int, *, by: str | None, form: str | None, missing: bool) -> None:
    """Print the report; `missing` leaves out what is complete. Raises OutOfReach."""
    if form == "json" and by is None and not missing:
        render.sections(_whole(database, job_id))
        return
    if by == "request":
        columns, found = _requests(database, job_id)
    elif by == "instance":
        columns, found = retrieve_report.INSTANCE_KEYS, retrieve_report.instances(database, job_id)
    else:
        columns, found = retrieve_report.STUDY_KEYS, iter(retrieve_report.studies(database, job_id))
    if missing:
        found = (row for row in found if _lacks(row))
    if form == "csv":
        found = map(_flat, found)
    texts = {"request": _request_table, "instance": _instance_table}
    text = texts.get(by or "study", _study_table)
    render.rows(found, form, columns=columns, text=text)
    if form is None:
        job = jobs.show(database, job_id)
        render.line(wait.end_sentence(database, job))


def _whole(database: Database, job_id: int) -> Iterator[tuple[str, object]]:
    """The parts of one document with everything; what may be long is an iterator."""
    yield "job", jobs.show(database, job_id)
    yield "requests", _requests(database, job_id)[1]
    yield "studies", iter(retrieve_report.studies(database, job_id))
    yield "instances", retrieve_report.instances(database, job_id)
    yield "moves", iter(retrieves.moves(database, job_id))


def _lacks(row: Row) -> bool:
    if "expected" in row and isinstance(row["expected"], bool):
        return retrieve_words.is_missing(row["state"]) and row["expected"]
    return bool(row["missing"]) or row.get("state") == "failed"


def _requests(database: Database, job_id: int) -> tuple[Sequence[str], Iterator[Row]]:
    """(columns, rows): the row, keys and remarks of each request as they were given, and what came of it."""
    spec = retrieves.spec_of(database, job_id)
    asked = list(retrieves.requests(database, job_id))
    names = list(dict.fromkeys(keys.spelled(path) for one in asked for path, _ in one["identifier"]))
    taken = {"row", *names, *_REQUEST_KEYS}
    others = [(place, name) for place, name in enumerate(spec.columns) if name and name not in taken]
    remarks = _remarks(spec)

    def rows() -> Iterator[Row]:
        for one in asked:
            given = {keys.spelled(path): value for path, value in one["identifier"]}
            noted = remarks.get(one["row"], ())
            expected, received = one["expected"], one["received"]
            yield {
                "row": one["row"],
                **{name: given.get(name) for name in names},
                **{name: noted[place] if place < len(noted) else None for place, name in others},
                **{name: one.get(name) for name in _REQUEST_KEYS},
                "missing": None if expected is None else max(0, expected - received),
            }

    return ("row", *names, *(name for _, name in others), *_REQUEST_KEYS), rows()


def _remarks(spec: Retrieve) -> dict[int | None, Sequence[str]]:
    return {row: noted for (row, _), noted in zip(spec.identifiers, spec.remarks, strict=False)}


def _flat(row: Row) -> Row:
    """Lists and counts in one cell each."""
    return {
        name: " ".join(f"{key}:{count}" for key, count in value.items())
        if isinstance(value, dict)
        else " ".join(map(str, value))
        if isinstance(value, list)
        else value
        for name, value in row.items()
    }


def _study_table(found: Iterable[Row]) -> None:
    cells = (
        (
            row["StudyInstanceUID"] or "(no study)", _count(row["expected"]), _count(row["received"]),
            _count(row["missing"]), _count(row["surplus"] or None), _count(row["conflicts"] or None),
            words.size(row["bytes"]), row["attempts"],
            " ".join(f"{status}:{count}" for status, count in row["statuses"].items()),
            words.lately(row["last_arrival"]),
        )
        for row in found
    )  # fmt: skip
    render.table(_STUDY, cells)


def _request_table(found: Iterable[Row]) -> None:
    rows = list(found)
    hidden = {"expectation", "detail"}
    names = [name for name in (rows[0] if rows else ()) if name not in hidden]
    columns = [_REQUEST.get(name) or Column(heading=name, rank=1, least=14, middle=True) for name in names]
    render.table(columns, [[row[name] for name in names] for row in rows])


def _instance_table(found: Iterable[Row]) -> None:
    for row in found:
        told = ", ".join(str(text) for text in (row["status"], row["reason"], row["detail"], row["file"]) if text)
        render.paragraph(render.coloured(f"{row['state']:<9}") + "  ", f"{row['SOPInstanceUID']}  {told}")


def _count(value: int | None) -> str | None:
    return None if value is None else words.number(value)

"""The status of an installation: what runs, what waits, and the next step worth taking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.installation import connect, is_absent, settings
from dicomferry.cli.remotes import state as remote_state
from dicomferry.cli.status.broker import broker
from dicomferry.models import disks
from dicomferry.models.disks import Disk
from dicomferry.models.documents import status
from dicomferry.models.documents.status_shapes import (
    DatabaseDocument,
    DifferenceDocument,
    RecordStatus,
    RoleDocument,
    StatusDocument,
)
from dicomferry.models.record import schema
from dicomferry.models.record.database import hide_password
from dicomferry.models.record.remotes import book
from dicomferry.models.rules.errors import ConfigurationError, DicomferryError, OutOfReach
from dicomferry.models.settings import Settings


def show(*, as_json: bool = False, next_step: bool = False) -> None:
    """Print the status; raises what kept the database from being read, after all else is printed."""
    found = settings()
    asked, known, remotes, problem = _look(found)
    document = _document(found, asked, known)
    if as_json:
        render.document(document)
    else:
        _text(document)
        if next_step and known is not None:
            render.line("")
            render.line(f"next: {advise(known['jobs'], known['roles'], remotes)}")
    if problem:
        raise problem


def _look(found: Settings) -> tuple[DatabaseDocument, RecordStatus | None, int, DicomferryError | None]:
    """The database, what its record says, the number of remotes, and what kept the database from being read."""
    asked: DatabaseDocument = {"url": hide_password(found.database), "reachable": None, "version": None}
    nothing = status.of_nothing(found)
    if is_absent(found):
        return asked, nothing, 0, None
    try:
        database = connect(found)
        asked["version"] = schema.current(database)
        asked["reachable"] = True
        if asked["version"] is None and found.is_sqlite:
            return asked, nothing, 0, None
        schema.require_current(database)
        return asked, status.of_record(found, database), len(book.names(database)), None
    except OutOfReach as error:
        asked["reachable"] = False
        return asked, None, 0, error
    except ConfigurationError as error:
        return asked, None, 0, error


def _document(found: Settings, asked: DatabaseDocument, known: RecordStatus | None) -> StatusDocument:
    return {
        "roles": known and known["roles"],
        "broker": broker(found),
        "database": asked,
        "scp": known and known["scp"],
        "lanes": known and known["lanes"],
        "jobs": known and known["jobs"],
        "waiting": known and known["waiting"],
        "remotes": known and known["remotes"],
        "disks": known["disks"] if known else status.own_disks(found),
        "differs": known["differs"] if known else [],
    }


def _text(document: StatusDocument) -> None:
    broker = document["broker"]
    none = "not running" if broker["url"] == "embedded" else "not asked"
    taken = {True: "answers", False: f"cannot be rung: {broker['why']}", None: none}[broker["reachable"]]
    database = document["database"]
    state = {
        True: f"version {database['version']}" if database["version"] else "without tables yet",
        False: "out of reach",
        None: "not there yet",
    }[database["reachable"]]
    rows: list[tuple[str, str | None]] = [
        (name, _role(role)) for role in document["roles"] or [] for name in [role["role"]]
    ]
    if document["roles"] == []:
        rows.append(("worker", "none is running"))
    rows += [
        ("broker", f"{broker['url']}: {taken}"),
        ("database", f"{database['url']}: {state}"),
    ]
    if document["scp"] is not None:
        scp = document["scp"]
        state = "listens" if scp["running"] else "not running"
        kept = f"{words.plural(scp['instances'], 'instance')}, {words.size(scp['bytes'])}"
        rows.append(
            ("storage SCP", f"{scp['ae_title']}, port {scp['port']}: {state}; archive {scp['archive']}: {kept}")
        )
        for path in scp["log_damaged"]:
            what = "what was received lately may be missing: ask for it again; see whether the disk is sound"
            rows.append(("reception log", f"damaged, {path}: {what}, then delete the file and start the role again"))
        if scp["unindexed"]:
            left = words.plural(scp["unindexed"], "file")
            rows.append(("without a row", f"{left} of the archive: `dicomferry archive verify --repair` says why"))
    rows += [(f"disk of {disk['what']}", _disk(disk)) for disk in document["disks"]]
    rows += [("note", _difference(one)) for one in document["differs"]]
    rows += [(f"{lane} lane", _counts(numbers, "empty")) for lane, numbers in (document["lanes"] or {}).items()]
    if document["jobs"] is not None:
        waits = f" ({words.number(document['waiting'])} of these wait)" if document["waiting"] else ""
        active = {state: number for state, number in document["jobs"].items() if state in ("pending", "running")}
        others = {state: number for state, number in document["jobs"].items() if state not in active}
        told = [_counts(active, "") + waits, _counts(others, "")]
        rows.append(("jobs", ", ".join(filter(None, told)) or "none yet"))
    rows += [(f"remote {one['name']}", remote_state.sentence(one)) for one in document["remotes"] or []]
    render.pairs(rows, indent="")


def _disk(disk: Disk) -> str:
    free, reserve = words.size(disk["free"]), words.size(disk["reserve"])
    told = f"{disk['path']}: {free} free, {reserve} of these are kept free"
    if disks.is_short(disk):
        what = "retrieves wait and nothing is taken in" if disk["what"] == "archive" else "make room"
        return f"{told}: FULL, {what}"
    return f"{told}: nearly full, make room" if disks.is_near(disk) else told


def _difference(one: DifferenceDocument) -> str:
    who = f"the {one['role']} on {one['host']}, process {one['pid']}"
    return f"{who}, runs with {one['setting']} {one['runs']}; here it is {one['here']}"


def _role(role: RoleDocument) -> str:
    silent = (datetime.now(UTC) - datetime.fromisoformat(role["seen_at"])).total_seconds()
    slots = f"{words.plural(role['slots'], 'slot')}, " if role["slots"] else ""
    remark = f"; {role['remark']}" if role["remark"] else ""
    return f"on {role['host']}, process {role['pid']}, {slots}last seen {words.duration(max(silent, 0))} ago{remark}"


def _counts(numbers: dict[str, int], none: str) -> str:
    return ", ".join(f"{words.number(number)} {state}" for state, number in numbers.items() if number) or none


def advise(jobs: Mapping[str, int], roles: Sequence[RoleDocument], remotes: int) -> str:
    """The next step worth taking, by the number of jobs in each state, what runs, and how many remotes there are."""
    waiting = jobs["pending"] + jobs["running"]
    works = any(role["role"] == "worker" for role in roles)
    if jobs["held"] and (works or not waiting):
        return f"{words.plural(jobs['held'], 'job')} held; why: `dicomferry jobs list --state held`"
    if not remotes and not any(jobs.values()):
        return "add a remote archive: `dicomferry remote add pacs1 AET@HOST:PORT`"
    if not works:
        waits = f"{words.plural(waiting, 'job')} waiting for a worker" if waiting else "no worker is running"
        return f"{waits}: start one with `dicomferry up`"
    if waiting:
        return "follow the newest job: `dicomferry jobs wait last`"
    if not any(jobs.values()):
        return "test a remote with `dicomferry remote echo NAME`, send files with `dicomferry submit store NAME PATH`"
    return "see what came of the newest job: `dicomferry jobs show last`"

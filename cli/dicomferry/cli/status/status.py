"""The status of an installation: what runs, what waits, and the next step worth taking."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.installation import connect, is_absent, settings
from dicomferry.cli.remotes import state as remote_state
from dicomferry.cli.status.broker import broker
from dicomferry.models import disks
from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.documents import remotes as remote_documents
from dicomferry.models.record import presence, role_facts, schema
from dicomferry.models.record.archive import index, unindexed
from dicomferry.models.record.database import Database, hide_password
from dicomferry.models.record.remotes import book
from dicomferry.models.rules import text
from dicomferry.models.rules.errors import ConfigurationError, DicomferryError, OutOfReach
from dicomferry.models.rules.kind import Lane
from dicomferry.models.rules.state import JobState
from dicomferry.models.settings import Settings


def show(*, as_json: bool = False, next_step: bool = False) -> None:
    """Print the status; raises what kept the database from being read, after all else is printed."""
    found = settings()
    document, remotes, problem = _collect(found)
    if as_json:
        render.document(document)
    else:
        _text(document)
        if next_step and problem is None:
            render.line("")
            render.line(f"next: {advise(document, remotes)}")
    if problem:
        raise problem


def _collect(found: Settings) -> tuple[dict[str, Any], int, DicomferryError | None]:
    """The document, the number of remotes, and what kept the database from being read."""
    document: dict[str, Any] = {
        "roles": [],
        "broker": broker(found),
        "database": {"url": hide_password(found.database), "reachable": None, "version": None},
        "scp": None,
        "lanes": {lane.value: {"pending": 0, "running": 0, "held": 0} for lane in Lane},
        "jobs": {state.value: 0 for state in JobState},
        "waiting": 0,
        "remotes": [],
        "disks": _own_disks(found),
        "differs": [],
    }
    if is_absent(found):
        return document, 0, None
    try:
        database = connect(found)
        version = schema.current(database)
        document["database"] |= {"reachable": True, "version": version}
        if version is None and found.is_sqlite:
            return document, 0, None
        schema.require_current(database)
        document |= _rows(found, database)
        return document, len(book.names(database)), None
    except OutOfReach as error:
        document["database"]["reachable"] = False
        return document | {"roles": None, "lanes": None, "jobs": None, "waiting": None, "remotes": None}, 0, error
    except ConfigurationError as error:
        return document | {"roles": None, "lanes": None, "jobs": None, "waiting": None, "remotes": None}, 0, error


def _rows(found: Settings, database: Database) -> dict[str, Any]:
    roles = [
        {
            "role": role.role,
            "host": role.host,
            "pid": role.pid,
            "slots": role.slots,
            "started_at": text.moment(role.started_at),
            "seen_at": text.moment(role.seen_at),
            "facts": role.facts,
            "disks": role.disks,
            "remark": role.remark,
        }
        for role in presence.alive(database)
    ]
    running = next((role for role in reversed(roles) if role["role"] == "scp"), None)
    return {
        "roles": roles,
        "scp": _scp(found, database, running),
        "disks": running["disks"] if running and running["disks"] else _own_disks(found),
        "differs": _differences(found, roles),
        "lanes": job_documents.lanes(database),
        "jobs": job_documents.counts(database),
        "waiting": job_documents.waiting(database),
        "remotes": remote_documents.exceptions(database),
    }


def _scp(found: Settings, database: Database, running: dict[str, Any] | None) -> dict[str, Any]:
    """The storage SCP that runs, by what it wrote down when it began; without one, what the settings say here."""
    instances, size = index.count(database)
    facts = (running and running["facts"]) or role_facts.of_role("scp", found)
    return {
        **{key: facts[key] for key in ("ae_title", "host", "port")},
        "running": running is not None,
        "archive": facts["archive"],
        "instances": instances,
        "bytes": size,
        "unindexed": unindexed.count(database),
    }


def _own_disks(found: Settings) -> list[dict[str, Any]]:
    """What this machine sees, while no storage SCP says what it sees."""
    return [dict(disk) for disk in disks.of(found)] if found.home.exists() else []


def _differences(found: Settings, roles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a role runs with other settings, or another version, than this command has."""
    return [
        {"role": role["role"], "host": role["host"], "pid": role["pid"], "setting": key, "here": here, "runs": runs}
        for role in roles
        if role["facts"]
        for key, here in role_facts.of_role(role["role"], found).items()
        # Under `up` the roles have the embedded broker's address in their settings.
        if key != "broker" and (runs := role["facts"].get(key)) != here
    ]


def _text(document: dict[str, Any]) -> None:
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
        if scp["unindexed"]:
            left = words.plural(scp["unindexed"], "file")
            rows.append(("without a row", f"{left} of the archive: `dicomferry archive verify --repair` says why"))
    rows += [(f"disk of {disk['what']}", _disk(disk)) for disk in document["disks"]]
    rows += [("note", _difference(one)) for one in document["differs"]]
    if document["lanes"] is not None:
        rows += [(f"{lane} lane", _counts(numbers, "empty")) for lane, numbers in document["lanes"].items()]
        waits = f" ({words.number(document['waiting'])} of these wait)" if document["waiting"] else ""
        active = {state: number for state, number in document["jobs"].items() if state in ("pending", "running")}
        others = {state: number for state, number in document["jobs"].items() if state not in active}
        told = [_counts(active, "") + waits, _counts(others, "")]
        rows.append(("jobs", ", ".join(filter(None, told)) or "none yet"))
        rows += [(f"remote {one['name']}", remote_state.sentence(one)) for one in document["remotes"]]
    render.pairs(rows, indent="")


def _disk(disk: dict[str, Any]) -> str:
    free, reserve = words.size(disk["free"]), words.size(disk["reserve"])
    told = f"{disk['path']}: {free} free, {reserve} of these are kept free"
    if disks.is_short(disk):
        what = "retrieves wait and nothing is taken in" if disk["what"] == "archive" else "make room"
        return f"{told}: FULL, {what}"
    return f"{told}: nearly full, make room" if disks.is_near(disk) else told


def _difference(one: dict[str, Any]) -> str:
    who = f"the {one['role']} on {one['host']}, process {one['pid']}"
    return f"{who}, runs with {one['setting']} {one['runs']}; here it is {one['here']}"


def _role(role: dict[str, Any]) -> str:
    silent = (datetime.now(UTC) - datetime.fromisoformat(role["seen_at"])).total_seconds()
    slots = f"{words.plural(role['slots'], 'slot')}, " if role["slots"] else ""
    remark = f"; {role['remark']}" if role["remark"] else ""
    return f"on {role['host']}, process {role['pid']}, {slots}last seen {words.duration(max(silent, 0))} ago{remark}"


def _counts(numbers: dict[str, int], none: str) -> str:
    return ", ".join(f"{words.number(number)} {state}" for state, number in numbers.items() if number) or none


def advise(document: dict[str, Any], remotes: int) -> str:
    """The next step worth taking."""
    jobs = document["jobs"]
    waiting = jobs["pending"] + jobs["running"]
    works = any(role["role"] == "worker" for role in document["roles"])
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

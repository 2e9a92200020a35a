"""The status of an installation: what runs, what waits, and the next step worth taking."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dicomferry.cli import remote_state, render, words
from dicomferry.cli.broker_probe import broker
from dicomferry.cli.record import connect, is_absent, settings
from dicomferry.models import governor_view, instance_store, job_view, presence, remote_store, schema
from dicomferry.models.database import Database, hide_password
from dicomferry.models.errors import ConfigurationError, DicomferryError, OutOfReach
from dicomferry.models.settings import Settings
from dicomferry.models.state import JobState


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
        "lanes": {lane: {"pending": 0, "running": 0, "held": 0} for lane in ("quick", "bulk")},
        "jobs": {state.value: 0 for state in JobState},
        "remotes": [],
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
        return document, len(remote_store.names(database)), None
    except OutOfReach as error:
        document["database"]["reachable"] = False
        return document | {"roles": None, "lanes": None, "jobs": None, "remotes": None}, 0, error
    except ConfigurationError as error:
        return document | {"roles": None, "lanes": None, "jobs": None, "remotes": None}, 0, error


def _rows(found: Settings, database: Database) -> dict[str, Any]:
    roles = [
        {
            "role": role.role,
            "host": role.host,
            "pid": role.pid,
            "slots": role.slots,
            "started_at": job_view.moment(role.started_at),
            "seen_at": job_view.moment(role.seen_at),
        }
        for role in presence.alive(database)
    ]
    return {
        "roles": roles,
        "scp": _scp(found, database, running=any(role["role"] == "scp" for role in roles)),
        "lanes": job_view.lanes(database),
        "jobs": job_view.counts(database),
        "remotes": governor_view.exceptions(database),
    }


def _scp(found: Settings, database: Database, *, running: bool) -> dict[str, Any]:
    instances, size = instance_store.count(database)
    return {
        "ae_title": found.ae_title,
        "host": found.scp.host,
        "port": found.scp.port,
        "running": running,
        "archive": str(found.archive),
        "instances": instances,
        "bytes": size,
    }


def _text(document: dict[str, Any]) -> None:
    broker_words = {True: "answers", False: "does not answer", None: "not running"}
    if document["broker"]["url"] != "embedded":
        broker_words[None] = "not asked"
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
        ("broker", f"{document['broker']['url']}: {broker_words[document['broker']['reachable']]}"),
        ("database", f"{database['url']}: {state}"),
    ]
    if document["scp"] is not None:
        scp = document["scp"]
        state = "listens" if scp["running"] else "not running"
        kept = f"{words.plural(scp['instances'], 'instance')}, {words.size(scp['bytes'])}"
        rows.append(
            ("storage SCP", f"{scp['ae_title']}, port {scp['port']}: {state}; archive {scp['archive']}: {kept}")
        )
    if document["lanes"] is not None:
        rows += [(f"{lane} lane", _counts(numbers, "empty")) for lane, numbers in document["lanes"].items()]
        rows.append(("jobs", _counts(document["jobs"], "none yet")))
        rows += [(f"remote {one['name']}", remote_state.sentence(one)) for one in document["remotes"]]
    render.pairs(rows, indent="")


def _role(role: dict[str, Any]) -> str:
    silent = (datetime.now(UTC) - datetime.fromisoformat(role["seen_at"])).total_seconds()
    slots = f"{words.plural(role['slots'], 'slot')}, " if role["slots"] else ""
    return f"on {role['host']}, process {role['pid']}, {slots}last seen {words.duration(max(silent, 0))} ago"


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

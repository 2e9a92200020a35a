"""The document of an installation's status: what runs, what waits, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Sequence

from dicomferry.models import disks
from dicomferry.models.disks import Disk
from dicomferry.models.documents import jobs, remotes
from dicomferry.models.documents.status_shapes import (
    DifferenceDocument,
    RecordStatus,
    RoleDocument,
    StorageScpDocument,
)
from dicomferry.models.record import presence, role_facts
from dicomferry.models.record.archive import index, unindexed
from dicomferry.models.record.database import Database
from dicomferry.models.rules import text
from dicomferry.models.rules.kind import Lane
from dicomferry.models.rules.state import JobState
from dicomferry.models.settings import Settings


def of_nothing(settings: Settings) -> RecordStatus:
    """What there is to say where no record is yet."""
    return {
        "roles": [],
        "scp": None,
        "lanes": {lane.value: {"pending": 0, "running": 0, "held": 0} for lane in Lane},
        "jobs": {state.value: 0 for state in JobState},
        "waiting": 0,
        "remotes": [],
        "disks": own_disks(settings),
        "differs": [],
    }


def of_record(settings: Settings, database: Database) -> RecordStatus:
    """What the record knows, held against the settings that are in force here. Raises OutOfReach."""
    roles = [_role(one) for one in presence.alive(database)]
    running = next((role for role in reversed(roles) if role["role"] == "scp"), None)
    return {
        "roles": roles,
        "scp": _storage_scp(settings, database, running),
        "disks": (running and running["disks"]) or own_disks(settings),
        "differs": _differences(settings, roles),
        "lanes": jobs.lanes(database),
        "jobs": jobs.counts(database),
        "waiting": jobs.waiting(database),
        "remotes": remotes.exceptions(database),
    }


def own_disks(settings: Settings) -> list[Disk]:
    """What this machine sees, while no storage SCP says what it sees."""
    return disks.of(settings) if settings.home.exists() else []


def _role(role: presence.Role) -> RoleDocument:
    return {
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


def _storage_scp(settings: Settings, database: Database, running: RoleDocument | None) -> StorageScpDocument:
    """The storage SCP that runs, by what it wrote down when it began; without one, what the settings say here."""
    instances, size = index.count(database)
    facts = (running and running["facts"]) or role_facts.of_role("scp", settings)
    return {
        "ae_title": facts["ae_title"],
        "host": facts["host"],
        "port": facts["port"],
        "public_host": facts.get("public_host"),
        "public_port": facts.get("public_port"),
        "running": running is not None,
        "archive": facts["archive"],
        "instances": instances,
        "bytes": size,
        "unindexed": unindexed.count(database),
        "log_damaged": facts.get("log_damaged", []),
    }


def _differences(settings: Settings, roles: Sequence[RoleDocument]) -> list[DifferenceDocument]:
    """Where a role runs with other settings, or another version, than this command has."""
    return [
        {"role": role["role"], "host": role["host"], "pid": role["pid"], "setting": key, "here": here, "runs": runs}
        for role in roles
        if role["facts"]
        for key, here in role_facts.of_role(role["role"], settings).items()
        # Under `up` the roles have the embedded broker's address in their settings.
        if key != "broker" and (runs := role["facts"].get(key)) != here
    ]

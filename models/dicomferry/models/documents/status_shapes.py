"""The keys of the document of an installation's status."""

from __future__ import annotations

from typing import Any, TypedDict

from dicomferry.models.disks import Disk
from dicomferry.models.documents.shapes import ExceptionDocument


class BrokerDocument(TypedDict):
    """The broker: `url` (password hidden, or `embedded`); `reachable` is whether it takes a write, None where there is
    nothing to ask; `why` it does not.
    """

    url: str
    reachable: bool | None
    why: str | None


class DatabaseDocument(TypedDict):
    """The database: its address without a password, whether it answers (None: not asked), its tables' version."""

    url: str
    reachable: bool | None
    version: str | None


class RoleDocument(TypedDict):
    """A role that runs. `facts` are version and settings that it began with, `remark` is what it says of itself."""

    role: str
    host: str
    pid: int
    slots: int
    started_at: str
    seen_at: str
    facts: dict[str, Any] | None
    disks: list[Disk] | None
    remark: str | None


class StorageScpDocument(TypedDict):
    """The storage SCP and its archive; `bytes` and `instances` are of the index, `unindexed` files have no row.
    `log_damaged` are files of the reception log that were found damaged and are kept.

    `public_host` and `public_port` are what archives are told, where that was set.
    """

    ae_title: str
    host: str
    port: int
    public_host: str | None
    public_port: int | None
    running: bool
    archive: str
    instances: int
    bytes: int
    unindexed: int
    log_damaged: list[str]


class DifferenceDocument(TypedDict):
    """A setting, or the version, of which a role `runs` with another value than there is `here`."""

    role: str
    host: str
    pid: int
    setting: str
    here: Any
    runs: Any


class RecordStatus(TypedDict):
    """What the record and the roles say."""

    roles: list[RoleDocument]
    scp: StorageScpDocument | None
    lanes: dict[str, dict[str, int]]
    jobs: dict[str, int]
    waiting: int
    remotes: list[ExceptionDocument]
    disks: list[Disk]
    differs: list[DifferenceDocument]


class StatusDocument(TypedDict):
    """The status of an installation; what the record says is None where the database cannot be read."""

    roles: list[RoleDocument] | None
    broker: BrokerDocument
    database: DatabaseDocument
    scp: StorageScpDocument | None
    lanes: dict[str, dict[str, int]] | None
    jobs: dict[str, int] | None
    waiting: int | None
    remotes: list[ExceptionDocument] | None
    disks: list[Disk]
    differs: list[DifferenceDocument]

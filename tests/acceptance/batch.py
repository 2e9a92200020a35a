"""One store job on its way through a slow relay, and what has to be true of it at its end."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from dicomferry.models.record.tables.jobs import JobRow
from support import samples
from support.installation import Installation, Up, until
from support.peers import Orthanc, StoreScp
from support.record import Record, assert_consistent
from support.relay import Relay
from support.samples import Sample

from .conftest import LEASE_SECONDS

SLOW = 1_200_000.0
"""Bytes a second: about 120 instances."""
DOUBLES_PER_DEATH = 100
BACK_AT_WORK = LEASE_SECONDS + 60
"""A lease, a turn of the sweep, and what a busy machine takes to start processes."""


class Batch:
    """One store job on its way through a slow relay to a peer, and what has to be true of it at its end."""

    def __init__(self, installation: Installation, record: Record, peer: StoreScp | Orthanc, relay: Relay) -> None:
        self.installation = installation
        self.record = record
        self.peer = peer
        self.relay = relay
        self.job_id = 0
        self.expected: set[str] = set()

    @property
    def remote(self) -> str:
        return f"{self.peer.aet}@127.0.0.1:{self.relay.port}"

    def submit(self, tree: Sequence[Sample]) -> int:
        self.expected = samples.uids(tree)
        self.job_id = self.installation.submit("store", self.remote, "-r", folder_of(tree))
        return self.job_id

    def begin(self, tree: Sequence[Sample]) -> "subprocess.Popen[str]":
        """Submit, and go on as soon as the job is on record: a plan may be ready before the command has ended."""
        self.expected = samples.uids(tree)
        command = self.installation.start("submit", "store", self.remote, "-r", folder_of(tree))
        newest = sa.select(sa.func.max(JobRow.id))
        self.job_id = until(lambda: self.record.one(newest), "the job is on record", pause=0.005)
        return command

    def wait_done(self, number: int) -> None:
        until(lambda: self.record.done(self.job_id) >= number, f"{number} instances have arrived")

    def has_found(self, number: int) -> bool:
        """Whether the plan has recorded this many items."""
        return self.record.items_found(self.job_id) >= number

    def goes_on(self) -> None:
        """Until something more has arrived."""
        now = self.record.done(self.job_id)
        until(lambda: self.record.done(self.job_id) > now, "the job is at work again", BACK_AT_WORK)

    def finish(self, deaths: int, *, fast: bool = True) -> None:
        """The end of the job, as if nothing had happened; `deaths` processes were killed meanwhile."""
        if fast:
            self.relay.rate = None
        job = self.installation.wait_job(self.job_id, 180)
        counts = {name: number for name, number in job["items"].items() if number}
        assert (job["state"], counts) == ("succeeded", {"total": len(self.expected), "succeeded": len(self.expected)})
        self.installation.run("jobs", "wait", self.job_id)
        assert self.record.uids(self.job_id) == self.expected
        if isinstance(self.peer, Orthanc):
            assert self.peer.instances() == self.expected
        else:
            assert set(self.peer.received()) == self.expected
            doubles = self.peer.stores() - len(self.expected)
            assert doubles <= DOUBLES_PER_DEATH * deaths, self.record.story(self.job_id)
        assert_consistent(self.record)


def folder_of(tree: Sequence[Sample]) -> Path:
    return Path(os.path.commonpath([sample.path.parent for sample in tree]))


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def busy(batch: Batch, up: Up) -> int:
    """The pid of a pool process that sends at this moment, and will for a while."""

    def find() -> int | None:
        pool = up.roles().pool
        rows = [row for row in batch.record.running(batch.job_id, "store") if row.pid in pool]
        longest = max(rows, key=lambda row: row.left, default=None)
        return longest.pid if longest is not None and longest.left > 100 else None

    pid: int = until(find, "a pool process sends")
    return pid

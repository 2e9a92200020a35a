"""Every fault after every other one, in an order and at moments that a seed picks, on one installation.

What one fault leaves behind must not hurt the next job: nothing is started afresh but what a fault has killed.
`CRASH_ROUNDS=20 CRASH_SEED=1 make test-long PYTEST="tests/acceptance/test_crash_rounds.py"` for twenty seeds.
"""

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import sqlalchemy as sa
from redis import Redis

from dicomferry.models.record.tables.jobs import AttemptRow, JobRow
from dicomferry.workers.doorbell.celery_app import create
from dicomferry.workers.doorbell.tasks import RING
from support import samples
from support.installation import Up, until
from support.peers import PostgresCluster
from support.relay import Relay

from .batch import BACK_AT_WORK, SLOW, Batch, busy, folder_of, kill
from .conftest import LEASE_SECONDS, WORKERS, CountingScp, Install

SEED = int(os.environ.get("CRASH_SEED", "1"))
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))
INSTANCES = 900


class Scene:
    """The installation that lives through all of it."""

    def __init__(self, install: Install, cluster: PostgresCluster | None, folder: Path, dice: random.Random) -> None:
        self.cluster = cluster
        self.dice = dice
        self.tree = samples.make_tree(folder / "tree", INSTANCES, size=64)
        self.many = samples.make_tree(folder / "many", 6000, size=8, per_folder=500, name="many")
        self.installation, self.record = install(database_url=cluster.create_database() if cluster else "")
        self.up = self.start()

    def start(self) -> Up:
        """`up`, ready."""
        self.up = self.installation.start_up()
        self.up.wait_ready()
        return self.up

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """The next job, to a peer of its own."""
        with CountingScp() as peer, Relay(peer.port, SLOW) as relay:
            yield Batch(self.installation, self.record, peer, relay)

    def begin(self, work: Batch) -> None:
        """Submit it, and wait for some moment in its middle."""
        work.submit(self.tree)
        work.wait_done(self.dice.randrange(50, INSTANCES // 2))


# --- the faults: each says how many processes that were sending died of it at most


def a_pool_process_is_killed(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    kill(busy(work, scene.up))
    return 1


def two_pool_processes_are_killed(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    kill(busy(work, scene.up))
    work.goes_on()
    kill(busy(work, scene.up))
    return 2


def celery_is_killed(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    kill(until(lambda: scene.up.roles().celery, "Celery runs"))
    return WORKERS


def the_worker_role_is_killed(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    kill(until(lambda: scene.up.roles().worker, "the worker role runs"))
    return WORKERS


def a_pool_process_is_frozen(scene: Scene, work: Batch) -> int:
    """Beyond its lease; thawed, it finds its fence out of date."""
    scene.begin(work)
    pid = busy(work, scene.up)
    held = [row for row in work.record.running(work.job_id, "store") if row.pid == pid]
    os.kill(pid, signal.SIGSTOP)
    try:
        for row in held:
            end = sa.select(AttemptRow.end).where(AttemptRow.chunk_id == row.chunk_id, AttemptRow.fence == row.fence)
            until(partial(_ended, work, end), "its lease is lost", BACK_AT_WORK)
    finally:
        os.kill(pid, signal.SIGCONT)
    return 1


def _ended(work: Batch, end: sa.Select[Any]) -> bool:
    return work.record.one(end) is not None


def up_is_killed(scene: Scene, work: Batch) -> int:
    """And started again, at once or when nothing of it is left."""
    scene.begin(work)
    scene.up.kill()
    if scene.dice.randrange(2):
        scene.installation.wait_gone()
    scene.start()
    return WORKERS


def the_submitter_is_killed(scene: Scene, work: Batch) -> int:
    """Before its job is on the record, or after: there is a whole job or none."""
    few = scene.tree[:100]
    with CountingScp() as peer:
        before = scene.record.jobs()
        address = f"STORESCP@127.0.0.1:{peer.port}"
        submitter = scene.installation.start("submit", "store", address, folder_of(few))
        time.sleep(scene.dice.uniform(0.2, 2.5))  # any moment will do
        submitter.kill()
        printed = submitter.communicate()[0]
        jobs = [row.id for row in scene.record.rows(sa.select(JobRow.id).order_by(JobRow.id))][before:]
        assert not printed.endswith("\n") or jobs == [int(printed)]
        for job in jobs:
            assert scene.installation.wait_job(job)["state"] == "succeeded"
            assert scene.record.uids(job) == set(peer.received()) == samples.uids(few)
    scene.begin(work)
    return 0


def the_plan_is_killed(scene: Scene, work: Batch) -> int:
    work.relay.rate = None
    work.submit(scene.many)
    until(partial(work.has_found, 1000 * scene.dice.randrange(5)), "the plan has come so far", pause=0.005)
    # Whoever plans cannot write while the job's row is locked, so it is still at it.
    with scene.record.database.engine.connect() as connection, connection.begin():
        connection.execute(sa.select(JobRow.planned).where(JobRow.id == work.job_id).with_for_update())
        planning = work.record.running(work.job_id, "plan")
        for row in planning:
            with suppress(ProcessLookupError):
                kill(row.pid)
    return len(planning)


def the_storage_scp_is_killed(scene: Scene, work: Batch) -> int:
    """A store does not mind."""
    scene.begin(work)
    for child in psutil.Process(scene.up.pid).children():
        if "dicomferry.daemon.storage_scp" in " ".join(child.cmdline()):
            kill(child.pid)
    return 0


def the_broker_is_killed(scene: Scene, work: Batch) -> int:
    """What it knew did not matter."""
    scene.begin(work)
    before = scene.up.roles().broker
    kill(before)
    if scene.dice.randrange(2):
        shutil.rmtree(scene.installation.home / "broker" / "appendonlydir")
    until(lambda: scene.up.roles().broker not in (None, before), "the broker is back")
    return 0


def the_broker_is_mute(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    broker = until(lambda: scene.up.roles().broker, "the broker runs")
    os.kill(broker, signal.SIGSTOP)
    try:
        time.sleep(scene.dice.uniform(1, 2 * LEASE_SECONDS))  # the time that it is mute is what is tested
    finally:
        os.kill(broker, signal.SIGCONT)
    return 0


def everything_in_the_broker_is_wiped(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    with closing(Redis(unix_socket_path=urlsplit(scene.installation.broker_url()).path)) as client:
        for _ in range(4):
            client.flushall()
            time.sleep(scene.dice.uniform(0, 0.5))  # any moment will do
    return 0


def every_message_is_doubled(scene: Scene, work: Batch) -> int:
    scene.begin(work)
    app = create(scene.installation.broker_url(), publisher=True)
    for _ in range(100):
        for lane in ("bulk", "quick"):
            app.send_task(RING, (lane,), queue=lane, expires=60)
        time.sleep(0.02)  # as fast as somebody rings who rings too often
    return 0


def the_database_is_away(scene: Scene, work: Batch) -> int:
    """PostgreSQL restarted; SQLite locked by somebody. Longer than a lease, or shorter."""
    scene.begin(work)
    seconds = scene.dice.uniform(0, 2 * LEASE_SECONDS)
    if scene.cluster:
        scene.cluster.stop()
        time.sleep(seconds)
        scene.cluster.start()
    else:
        with closing(sqlite3.connect(scene.installation.home / "dicomferry.db", timeout=30)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
    return WORKERS


FAULTS: tuple[Callable[[Scene, Batch], int], ...] = (
    a_pool_process_is_killed,
    two_pool_processes_are_killed,
    celery_is_killed,
    the_worker_role_is_killed,
    a_pool_process_is_frozen,
    up_is_killed,
    the_submitter_is_killed,
    the_plan_is_killed,
    the_storage_scp_is_killed,
    the_broker_is_killed,
    the_broker_is_mute,
    everything_in_the_broker_is_wiped,
    every_message_is_doubled,
    the_database_is_away,
)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_fault_after_every_other(database: str, seed: int, install: Install, tmp_path: Path) -> None:
    """Each job ends as if nothing had happened, and `up` is still the same one where nobody killed it."""
    dice = random.Random(f"{seed} {database}")
    with ExitStack() as stack:
        cluster = stack.enter_context(PostgresCluster(fsync=True)) if database == "postgresql" else None
        scene = Scene(install, cluster, tmp_path, dice)
        done: list[str] = []
        for fault in dice.sample(FAULTS, len(FAULTS)):
            done.append(fault.__name__)
            try:
                with scene.batch() as work:
                    work.finish(fault(scene, work))
            except BaseException as error:
                error.add_note(f"seed {seed}, {database}, after: {', '.join(done)}")
                raise
            assert scene.up.process.poll() is None, done
        if cluster:
            # Each costs whoever waits a second. The counters outlive all but a crash of the server.
            assert cluster.execute("SELECT sum(deadlocks) FROM pg_stat_database") == [(0,)]
        scene.up.kill()
        scene.installation.wait_gone()
        scene.record.close()

"""Whatever dies in mid-batch, the job ends as if nothing had happened (laws 1, 2, 4 and 5).

Real processes are killed by pid at a moment that a seed picks (CRASH_SEED in the environment, for other ones), while a
relay keeps the transfer slow enough for that moment to lie in mid-batch. Then the set of SOP Instance UIDs is read back
from the peer, the C-STORE requests that it got are counted, and the rows are checked against each other.
"""

import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.models.record.tables.jobs import AttemptRow, ChunkRow, EventRow, JobRow
from dicomferry.models.rules.state import AttemptEnd, ItemState
from dicomferry.workers.doorbell.celery_app import create
from dicomferry.workers.doorbell.tasks import RING
from support import samples
from support.installation import until
from support.peers import Orthanc, PostgresCluster, RedisServer, StoreScp
from support.record import assert_consistent
from support.relay import Relay
from support.samples import Sample

from .batch import BACK_AT_WORK, SLOW, Batch, busy, folder_of, kill
from .conftest import LEASE_SECONDS, WORKERS, Install, on

SEED = int(os.environ.get("CRASH_SEED", "1"))
INSTANCES = 1200


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Random moments: another sequence for each test and each seed."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return samples.make_tree(tmp_path_factory.mktemp("tree"), INSTANCES, size=64)


@pytest.fixture
def batch(install: Install, storescp: StoreScp) -> Iterator[Callable[..., Batch]]:
    """Makes a batch to storescp, or to another peer; the relay is slow until the batch is to finish."""
    with ExitStack() as stack:

        def make(*, peer: StoreScp | Orthanc | None = None, **settings: object) -> Batch:
            installation, record = install(**settings)
            peer = peer or storescp
            return Batch(installation, record, peer, stack.enter_context(Relay(peer.port, SLOW)))

        yield make


# --- one process dies ---------------------------------------------------------------------------------------


@on("sqlite", "postgresql")
@pytest.mark.parametrize(
    "role", ["pool", pytest.param("celery", marks=pytest.mark.long), pytest.param("worker", marks=pytest.mark.long)]
)
def test_a_killed_process_costs_at_most_what_it_had_not_recorded(
    role: str, database_url: str, batch: Callable[..., Batch], tree: list[Sample], dice: random.Random
) -> None:
    """Kill -9 of a pool process, of Celery's main process, of the worker role: somebody takes over."""
    work = batch(database_url=database_url)
    with work.installation.up() as up:
        work.submit(tree)
        work.wait_done(dice.randrange(100, INSTANCES // 2))
        roles = up.roles()
        dying = [busy(work, up)] if role == "pool" else roles.pool
        kill({"pool": dying[0], "celery": roles.celery, "worker": roles.worker}[role])
        # Orphans go on sending until they notice, a second later; the rest of the job must not be theirs.
        until(lambda: not set(work.installation.pids()) & set(dying), "what was killed and its children are gone")
        work.goes_on()
        deaths = 1 if role == "pool" else WORKERS
        work.finish(deaths=deaths)
        assert up.process.poll() is None
    assert 1 <= work.record.ends(work.job_id)[AttemptEnd.LOST] <= deaths


@on()
def test_pool_processes_killed_one_after_the_other(
    database_url: str, batch: Callable[..., Batch], tree: list[Sample], dice: random.Random
) -> None:
    """Three deaths in one job: the chunks' budgets do not add up to a failure."""
    work = batch(database_url=database_url)
    with work.installation.up() as up:
        work.submit(tree)
        for number in range(3):
            work.wait_done(100 + 250 * number + dice.randrange(100))
            kill(busy(work, up))
        work.finish(deaths=3)


@on()
def test_a_killed_process_and_orthanc(
    database_url: str, batch: Callable[..., Batch], orthanc: Orthanc, tree: list[Sample], dice: random.Random
) -> None:
    """The same towards an archive that is more than a receiver."""
    work = batch(database_url=database_url, peer=orthanc)
    with work.installation.up() as up:
        work.submit(tree)
        work.wait_done(dice.randrange(100, INSTANCES // 2))
        kill(busy(work, up))
        work.finish(deaths=1)


@on("postgresql")
def test_a_frozen_process_loses_its_chunk_and_writes_no_more(
    database_url: str, batch: Callable[..., Batch], tree: list[Sample], dice: random.Random
) -> None:
    """SIGSTOP beyond the lease: another process takes over. SIGCONT: the first one's fence is out of date."""
    work = batch(database_url=database_url)
    with work.installation.up() as up:
        work.submit(tree)
        work.wait_done(dice.randrange(100, INSTANCES // 2))
        pid = busy(work, up)
        frozen = [row for row in work.record.running(work.job_id, "store") if row.pid == pid]
        os.kill(pid, signal.SIGSTOP)
        if not frozen:  # it had ended its chunk before it froze
            os.kill(pid, signal.SIGCONT)
            pytest.fail("the process that was frozen held no chunk")
        attempt = sa.select(AttemptRow.end).where(
            AttemptRow.chunk_id == frozen[0].chunk_id, AttemptRow.fence == frozen[0].fence
        )
        until(lambda: work.record.one(attempt) is AttemptEnd.LOST, "the lease is lost", BACK_AT_WORK)
        taken = sa.select(ChunkRow.fence).where(ChunkRow.id == frozen[0].chunk_id)
        until(lambda: work.record.one(taken) > frozen[0].fence, "another attempt has begun", BACK_AT_WORK)
        os.kill(pid, signal.SIGCONT)
        work.finish(deaths=1)
        assert work.record.one(attempt) is AttemptEnd.LOST


@on("sqlite")
def test_up_killed_leaves_nothing_and_goes_on_when_it_is_back(
    database_url: str, batch: Callable[..., Batch], tree: list[Sample], dice: random.Random
) -> None:
    """Kill -9 of `up` itself: no process of it is alive seconds later; the next `up` finishes the job."""
    work = batch(database_url=database_url)
    first = work.installation.start_up()
    first.wait_ready()
    work.submit(tree)
    work.wait_done(dice.randrange(100, INSTANCES // 2))
    first.kill()
    work.installation.wait_gone()
    with work.installation.up():
        work.goes_on()
        work.finish(deaths=WORKERS)


@on()
def test_up_killed_and_started_again_at_once(
    database_url: str, batch: Callable[..., Batch], tree: list[Sample], dice: random.Random
) -> None:
    """The next `up` begins while the last one's processes are still about to end."""
    work = batch(database_url=database_url)
    first = work.installation.start_up()
    first.wait_ready()
    work.submit(tree)
    work.wait_done(dice.randrange(100, INSTANCES // 2))
    first.kill()
    with work.installation.up():
        work.finish(deaths=WORKERS)


# --- the submitter and the plan -----------------------------------------------------------------------------


@on()
def test_a_killed_submitter_leaves_a_whole_job_or_none(
    database_url: str, install: Install, storescp: StoreScp, tmp_path: Path, dice: random.Random
) -> None:
    """Killed anywhere: a job that is on the record runs, without its ring if need be; an id that was printed is one."""
    tree = samples.make_tree(tmp_path / "small", 20, size=16)
    installation, record = install(database_url=database_url)
    argv = ("submit", "store", f"STORESCP@127.0.0.1:{storescp.port}", "-r", folder_of(tree))
    with installation.up():
        began = time.monotonic()
        installation.run(*argv)
        usual = time.monotonic() - began
        for delay in [dice.uniform(0.3, 1.1) * usual for _ in range(5)]:
            submitter = installation.start(*argv)
            time.sleep(delay)  # any moment will do: this one is rolled
            submitter.kill()
            printed = submitter.communicate()[0]
            if printed.endswith("\n"):
                assert record.show(int(printed))["id"] == int(printed)
        # And once as soon as the id is there.
        submitter = installation.start(*argv)
        assert submitter.stdout is not None
        job_id = int(submitter.stdout.readline())
        submitter.kill()
        submitter.communicate()
        jobs = [row.id for row in record.rows(sa.select(JobRow.id).order_by(JobRow.id))]
        assert job_id in jobs
        for job in jobs:
            assert installation.wait_job(job)["state"] == "succeeded"
            assert record.uids(job) == samples.uids(tree)
            assert record.rows(sa.select(EventRow.id).where(EventRow.job_id == job, EventRow.kind == "submitted"))
    assert set(storescp.received()) == samples.uids(tree)
    assert_consistent(record)


@on()
def test_a_submitter_killed_while_it_rings(
    database_url: str, install: Install, redis_server: RedisServer, storescp: StoreScp, tmp_path: Path
) -> None:
    """The job is on the record before the bell is rung, so the sweep finds it."""
    tree = samples.make_tree(tmp_path / "small", 20, size=16)
    installation, record = install(database_url=database_url, broker_url=redis_server.url)
    with installation.up():
        redis_server.freeze()
        submitter = installation.start("submit", "store", f"STORESCP@127.0.0.1:{storescp.port}", "-r", folder_of(tree))
        until(lambda: record.jobs() == 1, "the job is on the record", pause=0.002)
        submitter.kill()
        submitter.communicate()
        redis_server.thaw()
        assert installation.wait_job(1)["state"] == "succeeded"
    assert set(storescp.received()) == record.uids(1) == samples.uids(tree)
    assert_consistent(record)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Small files, so that there are batches enough to die in."""
    return samples.make_tree(tmp_path_factory.mktemp("many"), 6000, size=8, per_folder=500, name="many")


@on("sqlite")
def test_a_killed_plan_goes_on_where_it_stopped(
    database_url: str, batch: Callable[..., Batch], many: list[Sample], dice: random.Random
) -> None:
    """Kill -9 of the planning process at random batches: no file is left out, none is taken twice."""
    work = batch(database_url=database_url)
    work.relay.rate = None
    deaths = 0
    with work.installation.up():
        command = work.begin(many)
        for after in (0, *sorted(dice.sample(range(1, 5), 2))):
            until(partial(work.has_found, after * 1000), "the plan has come so far", pause=0.005)
            if after and not dice.randrange(3):
                time.sleep(dice.uniform(0, 0.2))  # somewhere in the walk or the transaction
            planning = until(
                lambda: work.record.running(work.job_id, "plan") or work.record.show(work.job_id)["planned"],
                "somebody plans",
                pause=0.005,
            )
            # Whoever plans cannot write while the job's row is locked, so the batch at hand is never the last one.
            with work.record.database.engine.connect() as connection, connection.begin():
                planned = connection.execute(
                    sa.select(JobRow.planned).where(JobRow.id == work.job_id).with_for_update()
                ).scalar_one()
                if planned or planning is True:
                    break
                with suppress(ProcessLookupError):
                    kill(planning[0].pid)
                    deaths += 1
        command.communicate()
        assert command.returncode == 0
        assert deaths, "the plan was ready before it could be killed"
        work.finish(deaths=deaths)


# --- the broker ---------------------------------------------------------------------------------------------


@on()
@pytest.mark.parametrize("lose", [False, True], ids=["killed", "and its file lost"])
def test_the_embedded_broker_dies(
    lose: bool, database_url: str, batch: Callable[..., Batch], tree: list[Sample], dice: random.Random
) -> None:
    """`up` starts it again; what it knew did not matter."""
    work = batch(database_url=database_url)
    with work.installation.up() as up:
        work.submit(tree)
        work.wait_done(dice.randrange(100, INSTANCES // 2))
        before = up.roles().broker
        kill(before)
        if lose:
            shutil.rmtree(work.installation.home / "broker" / "appendonlydir")
        until(lambda: up.roles().broker not in (None, before), "the broker is back")
        work.goes_on()
        work.finish(deaths=0)
        assert up.said("started again")


@on("postgresql")
def test_everything_in_redis_is_wiped(
    database_url: str, batch: Callable[..., Batch], redis_server: RedisServer, tree: list[Sample], dice: random.Random
) -> None:
    """FLUSHALL, again and again."""
    work = batch(database_url=database_url, broker_url=redis_server.url)
    with work.installation.up():
        work.submit(tree)
        for number in sorted(dice.sample(range(0, INSTANCES // 2), 4)):
            work.wait_done(number)
            redis_server.flushall()
        work.finish(deaths=0)


@on()
@pytest.mark.parametrize("seconds", [8.0, 60.0])
@pytest.mark.parametrize("how", ["absent", "mute"])
def test_the_broker_is_away_for_a_while(
    how: str,
    seconds: float,
    database_url: str,
    batch: Callable[..., Batch],
    redis_server: RedisServer,
    tree: list[Sample],
    tmp_path: Path,
    dice: random.Random,
) -> None:
    """What runs goes on; a job submitted meanwhile gets its id with a warning, and runs when the broker is back."""
    work = batch(database_url=database_url, broker_url=redis_server.url)
    small = samples.make_tree(tmp_path / "small", 20, size=16, name="small")
    with work.installation.up() as up:
        work.submit(tree)
        work.wait_done(dice.randrange(50, INSTANCES // 3))
        redis_server.freeze() if how == "mute" else redis_server.kill()
        gone = time.monotonic()
        submitted = work.installation.run("submit", "store", work.remote, "-r", folder_of(small))
        assert submitted.stderr.count("\n") >= 1, "no warning"
        time.sleep(max(0.0, seconds - (time.monotonic() - gone)))  # the time that it is away is what is tested
        redis_server.thaw() if how == "mute" else redis_server.start()
        work.relay.rate = None
        other = work.installation.wait_job(int(submitted.stdout), 180)
        assert other["state"] == "succeeded"
        job = work.installation.wait_job(work.job_id, 180)
        assert (job["state"], job["items"]["succeeded"]) == ("succeeded", len(tree))
        assert up.process.poll() is None
    assert work.record.uids(work.job_id) == samples.uids(tree)
    assert isinstance(work.peer, StoreScp)
    assert set(work.peer.received()) == samples.uids(tree) | samples.uids(small)
    assert work.peer.stores() == len(tree) + len(small), work.record.story(work.job_id)
    assert_consistent(work.record)


@on()
def test_every_message_doubled(
    database_url: str, batch: Callable[..., Batch], redis_server: RedisServer, tree: list[Sample]
) -> None:
    """More than doubled: somebody rings in both lanes all the time. A ring too many finds nothing to claim."""
    work = batch(database_url=database_url, broker_url=redis_server.url)
    over = threading.Event()
    sent = 0

    def double() -> None:
        nonlocal sent
        app = create(redis_server.url, publisher=True)
        while not over.wait(0.02):
            for lane in ("bulk", "quick"):
                app.send_task(RING, (lane,), queue=lane, expires=60)
                sent += 1

    thread = threading.Thread(target=double, daemon=True)
    with work.installation.up():
        thread.start()
        work.submit(tree)
        try:
            work.finish(deaths=0, fast=False)
        finally:
            over.set()
            thread.join(10)
    assert sent > 200
    assert work.record.ends(work.job_id).keys() == {AttemptEnd.COMPLETED}, work.record.story(work.job_id)


# --- the database -------------------------------------------------------------------------------------------


@pytest.mark.long
def test_postgresql_is_restarted(batch: Callable[..., Batch], tree: list[Sample], dice: random.Random) -> None:
    """All its sessions end and it is away for seconds; nothing that was recorded is lost."""
    with PostgresCluster(fsync=True) as cluster:
        work = batch(database_url=cluster.create_database())
        with work.installation.up() as up:
            work.submit(tree)
            for number in (200, 700):
                work.wait_done(number + dice.randrange(100))
                cluster.stop()
                time.sleep(dice.uniform(0, 2 * LEASE_SECONDS))  # shorter and longer than a lease
                cluster.start()
            work.finish(deaths=2 * WORKERS)
            assert up.process.poll() is None
        work.record.close()


@pytest.mark.long
def test_sqlite_is_locked_by_somebody(batch: Callable[..., Batch], tree: list[Sample], dice: random.Random) -> None:
    """A backup tool holds the write lock for 10 s, longer than a lease: everybody waits, nobody fails."""
    work = batch()
    with work.installation.up() as up:
        work.submit(tree)
        work.wait_done(dice.randrange(100, INSTANCES // 2))
        with closing(sqlite3.connect(work.installation.home / "dicomferry.db", timeout=30)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN EXCLUSIVE")
            shown = work.installation.show(work.job_id)  # reading goes on
            assert shown["state"] == "running"
            time.sleep(10)  # the length of the lock is what is tested
            connection.execute("ROLLBACK")
        work.goes_on()
        work.finish(deaths=WORKERS)
        assert up.process.poll() is None
    assert not work.record.uids(work.job_id, ItemState.FAILED)

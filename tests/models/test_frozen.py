"""A client that stands still, a table that is locked, a server that is slow: others go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from dicomferry.models.record import presence, pruning
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases, loss, verbs
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow, MoveRow, TurnRow
from dicomferry.models.rules.errors import LeaseLost, Locked, OutOfReach
from dicomferry.models.rules.state import AttemptEnd, ChunkState
from support import decided
from support.record_site import DONE, LEASE, Site

postgresql_only = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@contextmanager
def holding(url: str, statement: sa.Executable | str) -> Iterator[Database]:
    """Somebody who has locked something and stands still."""
    other = Database(url)
    with other.engine.connect() as connection, connection.begin():
        connection.execute(sa.text(statement) if isinstance(statement, str) else statement)
        yield other
    other.close()


@postgresql_only
@pytest.mark.parametrize("what", ["job", "chunk"])
def test_the_sweep_leaves_out_what_it_cannot_lock(site: Site, url: str, what: str) -> None:
    """The lease of one job is held fast by somebody who stands still: that of another one ends all the same, and the
    first one as soon as it can be had.
    """
    frozen, other = site.echo(), site.echo()
    lease = [site.claim("quick"), site.claim("quick")]
    (stuck,) = [one for one in lease if one.job_id == frozen]
    site.clock.move(LEASE + 1)
    row = (
        sa.select(JobRow.id).where(JobRow.id == frozen)
        if what == "job"
        else sa.select(ChunkRow.id).where(ChunkRow.id == stuck.chunk_id)
    )
    with holding(url, row.with_for_update()):
        assert loss.expire(site.database) == 1
        assert [chunk.state for chunk in site.chunks(other)] == [ChunkState.PENDING]
        assert [chunk.state for chunk in site.chunks(frozen)] == [ChunkState.RUNNING]
    assert loss.expire(site.database) == 1


@postgresql_only
def test_a_turn_that_is_locked_is_somebody_elses(site: Site, url: str) -> None:
    """A role that stands still while it takes its turn holds up no other one."""
    other = presence.register(site.database, "worker", slots=1)
    assert presence.take_turn(site.database, "sweep", site.worker, seconds=10)
    site.clock.move(11)
    with holding(url, sa.select(TurnRow.name).with_for_update()):
        assert presence.take_turn(site.database, "sweep", other, seconds=10) is False
    assert presence.take_turn(site.database, "sweep", other, seconds=10) is True


@postgresql_only
def test_a_lock_is_not_waited_for_for_long(site: Site, url: str) -> None:
    """What somebody else has locked and keeps is told as that, at once where something else can be done instead."""
    query = sa.update(MoveRow).values(status=0)
    with holding(url, "LOCK TABLE move IN ACCESS EXCLUSIVE MODE"):
        with pytest.raises(Locked):
            site.database.write_at_once(lambda connection: connection.execute(query))
        impatient = site.database.impatient()
        with pytest.raises(Locked):
            impatient.read(lambda connection: connection.execute(sa.select(MoveRow.id)).all())
        impatient.close()


@postgresql_only
def test_the_server_ends_who_stands_still(url: str) -> None:
    """Each session has limits of its own, and the server asks by TCP whether its client is still there."""
    database = Database(url)
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    show = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    assert tuple(database.read(lambda c: c.exec_driver_sql(show).one())) == ("10s", "1min", "1min")
    slow = database.write(lambda c: c.exec_driver_sql(show).one(), slow=True)
    assert tuple(slow) == ("1min", "0", "1min")
    assert tuple(database.read(lambda c: c.exec_driver_sql(show).one())) == ("10s", "1min", "1min")
    source = "SELECT source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"
    assert database.read(lambda c: c.exec_driver_sql(source).scalar_one()) == "session"
    database.close()


@postgresql_only
def test_whose_session_was_ended_is_out_of_reach(url: str) -> None:
    """The server ends a transaction that stands still: that is a database out of reach, not a fault of ours."""
    database = Database(url)

    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 1")
        threading.Event().wait(0.2)
        connection.exec_driver_sql("SELECT 1")

    with pytest.raises(OutOfReach):
        database.write(work)
    database.close()


def test_no_connection_left_is_out_of_reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections of a process are waiting for a slow server: whoever wants one more is told so in our words."""
    database = Database(url)

    def none_left() -> None:
        raise exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached")

    monkeypatch.setattr(database.engine, "connect", none_left)
    with pytest.raises(OutOfReach, match="no connection became free"):
        database.read(database.now)
    database.close()


# --- jobs that are gone


def test_an_attempt_whose_job_was_pruned_has_lost_its_lease(site: Site) -> None:
    """A process that slept while its job was cancelled and removed hears so by every write and look, and by no other
    error.
    """
    job_id = site.echo()
    lease = site.claim("quick")
    verbs.cancel(site.database, job_id)
    site.lose()
    site.clock.move(86_400.0)
    list(pruning.prune(site.database, pruning.age(site.database, 3600.0, told_within=3600.0)))
    writes = (
        lambda: site.finish(lease, decision=DONE),
        lambda: leases.renew(site.database, lease, site.worker, lease_seconds=LEASE),
        lambda: leases.signals(site.database, lease, site.worker),
        lambda: leases.record(site.database, lease, ()),
        lambda: site.batch(lease, 1),
        lambda: decided.finish(site.database, lease, end=AttemptEnd.INTERRUPTED, decision=None),
    )
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert site.rows(sa.select(JobRow.id)) == []


# --- what a person asks for is done once


def test_a_persons_verb_is_done_once(site: Site, url: str) -> None:
    """The connection is lost while the commit is answered: the second try finds that the first one was done."""
    patient = Database(url, patience=20, clock=site.clock, monotonic=site.clock.monotonic)
    lost: list[int] = []

    def lose(connection: sa.Connection) -> None:
        lost.append(1)
        if len(lost) % 2:
            connection.connection.commit()
            connection.connection.invalidate()
            raise sa.exc.OperationalError("COMMIT", {}, OSError("lost"), connection_invalidated=True)

    job_id = site.store(1)
    sa.event.listen(patient.engine, "commit", lose)
    verbs.hold(patient, job_id)
    verbs.release(patient, job_id)
    verbs.cancel(patient, job_id)
    assert verbs.retry(patient, job_id) == 1
    assert len(lost) == 8
    assert site.events(job_id)[-7:].count("retry") == 1
    assert site.events(job_id).count("released") == 1
    patient.close()

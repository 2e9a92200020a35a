"""What is asked at every claim, or by every list, is found by an index, however many rows there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.models.documents import job_answers, jobs, retrieve_report
from dicomferry.models.record.archive import index
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims, ledger, verbs
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.state import ItemState
from support.record_site import Site, listening

_BIG = ("item", "chunk", "instance", "arrival")
_Asked = list[tuple[str, Any]]


@contextmanager
def asking(database: Database) -> Iterator[_Asked]:
    """The statements that are run meanwhile, each with its values."""
    found: _Asked = []

    def asked(_connection: Any, _cursor: Any, statement: str, values: Any, *_: object) -> None:
        if not statement.startswith(("PRAGMA", "BEGIN", "SET", "SAVEPOINT")):
            found.append((statement, values))

    with listening(database, "before_cursor_execute", asked):
        yield found


def plan(database: Database, statement: str, values: Any) -> str:
    """How the database would go about a statement, had it many rows."""

    def work(connection: sa.Connection) -> str:
        if database.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            return "\n".join(row[3] for row in rows)
        # With a few rows it would read them all.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values))

    return database.read(work)


def walks(told: str) -> list[str]:
    """The lines of a plan that go through a whole table."""
    wrong = [f"SCAN {table}" for table in (*_BIG, "best", "own")] + [f"Seq Scan on {table}" for table in _BIG]
    # The archive's list begins at the first path and stops where its page ends.
    lines = [line for line in told.splitlines() if not line.endswith("USING INDEX uq_instance_path")]
    return [line for line in lines if any(f"{one} " in f"{line} " for one in wrong)]


@pytest.fixture
def job(site: Site) -> int:
    """A store with a chunk that failed, one that waits, and a plan that is not done."""
    job_id = site.submit_store()
    lease = site.claim_plan(job_id)
    site.batch(lease, 2, 2)
    site.complete(site.claim(), ItemState.FAILED, reason="cannot understand", status=0xC000)
    return job_id


@pytest.mark.parametrize(
    "ask",
    [
        lambda database, job_id: claims.any_due(database, "bulk"),
        lambda database, job_id: database.read(lambda connection: claims.waiting_chunks(connection, job_id)),
        lambda database, job_id: jobs.listing(database),
        lambda database, job_id: jobs.show(database, job_id),
        lambda database, job_id: jobs.failures(database, job_id),
        lambda database, job_id: jobs.reasons(database, job_id, ItemState.WARNING),
        lambda database, job_id: list(jobs.items(database, job_id, state=ItemState.FAILED)),
        lambda database, job_id: job_answers.of_job(database, job_id),
        lambda database, job_id: list(retrieve_report.instances(database, job_id)),
        lambda database, job_id: list(index.listing(database)),
        lambda database, job_id: list(index.listing(database, job_id=job_id)),
        lambda database, job_id: list(index.listing(database, study="1.2.3")),
    ],
    ids=[
        *("due", "waiting", "list", "show", "failures", "reasons", "items", "answers", "report"),
        *("archive", "archive-of-job", "archive-of-study"),
    ],
)
def test_no_table_is_walked(site: Site, job: int, ask: Callable[[Database, int], object]) -> None:
    """A claim, a list or a job that is shown goes through no table that grows with what was sent or received."""
    with asking(site.database) as asked:
        ask(site.database, job)
    assert asked
    for statement, values in asked:
        told = plan(site.database, statement, values)
        assert not walks(told), f"{statement}\n{told}"


def test_answers_are_counted_in_the_index_alone(site: Site, job: int) -> None:
    """How often a job met which answer is counted without a look at its items, of which there may be a million."""
    with asking(site.database) as asked:
        assert jobs.failures(site.database, job) == [(0xC000, "cannot understand", 2)]
    told = plan(site.database, *asked[0])
    assert "COVERING INDEX ix_item_answer" in told or "ix_item_answer" in told, told
    if site.database.is_sqlite:
        assert "TEMP B-TREE" not in told, told


def test_failures_without_a_reason_are_counted_too(site: Site, job: int) -> None:
    """An item of an older version that failed and has no reason is among the failures, though no index has it."""
    (first, *_) = [row for row in site.items(job) if row.state is ItemState.FAILED]
    site.set(sa.update(ItemRow).where(ItemRow.id == first.id).values(reason=None, status=0xA700))
    assert jobs.failures(site.database, job) == [(0xA700, None, 1), (0xC000, "cannot understand", 1)]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_how_much_the_archive_holds_is_read_from_an_index(site: Site) -> None:
    """Instances and bytes are summed without reading the rows of the archive, which are twenty times as large.

    PostgreSQL chooses among indexes by what the table holds, and here that is nothing.
    """
    with asking(site.database) as asked:
        assert index.count(site.database) == (0, 0)
    assert "ix_instance_size" in plan(site.database, *asked[-1])


@pytest.mark.parametrize("number", [2, 12])
def test_a_claim_asks_as_often_whoever_waits(site: Site, number: int) -> None:
    """A claim with 500 jobs whose plans wait asks no more often than with one: the plans' turns are in one question."""
    for _ in range(number):
        site.submit_store()
    with asking(site.database) as asked:
        assert site.try_claim() is not None
    assert len([statement for statement, _ in asked if "not_before" in statement and "SELECT" in statement]) == 1
    assert len(asked) <= 18, "\n".join(statement for statement, _ in asked)


def test_an_end_does_not_count_chunks(site: Site, job: int) -> None:
    """Whether anything of a job is left is asked, not how many chunks it has: a long retrieve has 100,000."""
    with asking(site.database) as asked:
        site.database.write(lambda connection: ledger.derive(connection, job, site.clock()))
    of_chunks = [statement for statement, _ in asked if "chunk" in statement]
    assert of_chunks and not any("count(" in statement.lower() for statement in of_chunks), of_chunks


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_retry_may_take_longer_than_a_statement_does(site: Site) -> None:
    """A job with a million failed items is tried again in one statement, which no limit of the session ends."""
    job = site.store(1)
    site.complete(site.claim(), ItemState.FAILED, reason="cannot understand", status=0xC000)
    limits: list[str] = []

    def asked(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if "statement_timeout" in statement:
            limits.append(statement)

    with listening(site.database, "before_cursor_execute", asked):
        assert verbs.retry(site.database, job) == 1
    assert "statement_timeout = 0" in limits[0]

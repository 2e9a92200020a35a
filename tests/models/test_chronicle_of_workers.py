"""The log's account of jobs and breakers: each step once, ids and words alone."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.daemon.chronicle import Chronicle
from dicomferry.models.record import presence
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.tables.governor import GovernorRow
from support.record_site import Site


class Log:
    """What was logged: (level, message, values)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda message, **values: self.lines.append((level, message, values))

    @property
    def messages(self) -> list[str]:
        return [message for _, message, _ in self.lines]


@pytest.fixture
def log() -> Log:
    return Log()


def test_the_log_knows_jobs(site: Site, log: Log) -> None:
    """Submitted, begun, held, released, ended; nothing of what it asked for, and nothing twice."""
    told = Chronicle(site.database, site.worker, log)
    told.look()
    job_id = site.echo()
    told.look()
    lease = site.claim("quick")
    assert lease is not None
    told.look()
    verbs.hold(site.database, job_id)
    told.look()
    told.look()
    assert log.messages[:2] == ["job submitted", "job begun"]
    assert set(log.messages) >= {"job submitted", "job begun", "job held"}
    assert len(log.messages) == len(set(log.messages))
    assert all(set(values) <= {"job", "kind", "remote", "state", "reason", "items"} for _, _, values in log.lines)
    assert {values["job"] for _, _, values in log.lines} == {job_id}


def test_breakers_are_told(site: Site, log: Log) -> None:
    """When one opens, and when it closes; one that was open before the first look is told of when it closes."""

    def breaker(**values: object) -> None:
        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(GovernorRow))
            connection.execute(sa.insert(GovernorRow).values(remote_id=site.remote_id, failures=1, **values))

        site.database.write(work)

    told = Chronicle(site.database, site.worker, log)
    told.look()
    breaker(broken_since=site.clock(), reason="unreachable")
    told.look()
    told.look()
    assert log.lines == [("warning", "breaker opened", {"remote": "PACS1", "reason": "unreachable"})]
    other = Chronicle(site.database, site.worker, log)
    other.look()
    breaker(broken_since=None)
    told.look()
    other.look()
    assert log.messages[1:] == ["breaker closed"] * 2


def test_of_several_roles_one_tells(site: Site, log: Log) -> None:
    """Whoever has the turn."""
    other = presence.register(site.database, "worker", slots=1)
    both = [Chronicle(site.database, site.worker, log), Chronicle(site.database, other, log)]
    for one in both:
        one.look()
    site.echo()
    for one in both:
        one.look()
    assert log.messages == ["job submitted"]


def test_what_happened_before_is_not_told_again(site: Site, log: Log) -> None:
    """A role that begins tells nothing of what it finds."""
    site.echo()
    Chronicle(site.database, site.worker, log).look()
    assert log.lines == []

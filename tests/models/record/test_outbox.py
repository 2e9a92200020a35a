"""What is to be told: written with what it tells of, told by one at a time."""

from __future__ import annotations

import sqlalchemy as sa

from dicomferry.models.record import outbox
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.outbox import Channel, Notification
from dicomferry.models.record.tables.jobs import EventRow
from dicomferry.models.record.tables.schedules import NotificationRow
from dicomferry.models.rules.state import ItemState
from support.record_site import Site, together

BOTH = tuple(Channel)
LEASE = 60.0


def _all(site: Site) -> list[tuple[int | None, int, str, str]]:
    query = sa.select(NotificationRow.__table__).order_by(NotificationRow.id)
    return [(row.job_id, row.number, row.state, row.channel) for row in site.rows(query)]


def _take(site: Site) -> Notification:
    found = outbox.take(site.database, seconds=LEASE)
    assert found is not None
    return found


def _events(site: Site) -> list[str]:
    query = sa.select(EventRow.text).where(EventRow.kind.in_(("notified", "notify_failed"))).order_by(EventRow.id)
    return [row.text for row in site.rows(query)]


def test_each_end_of_a_job_is_told_by_each_channel(site: Site) -> None:
    """Once for every end, also for one after a retry, and when it is held; not for what lies between."""
    job = site.echo()
    assert _all(site) == []
    site.refused(site.claim("quick"))
    assert _all(site) == [(job, 1, "held", "webhook"), (job, 1, "held", "command")]
    verbs.release(site.database, job)
    site.complete(site.claim("quick"), ItemState.FAILED, reason="no answer")
    verbs.retry(site.database, job)
    site.complete(site.claim("quick"))
    assert [row[1:3] for row in _all(site)[::2]] == [(1, "held"), (2, "failed"), (3, "succeeded")]


def test_one_courier_has_it_for_its_time(site: Site) -> None:
    """Of several that look at once one gets it; whoever dies with it leaves it to the next one."""
    site.echo()
    site.complete(site.claim("quick"))
    outbox.pass_over(site.database, channels=[Channel.WEBHOOK], states=["succeeded"])
    answers = together(*[lambda: outbox.take(site.database, seconds=LEASE)] * 4)
    assert sum(isinstance(answer, Notification) for answer in answers) == 1
    assert outbox.take(site.database, seconds=LEASE) is None
    site.clock.move(LEASE + 1)
    assert _take(site).tries == 2


def test_what_nobody_wants_is_passed_over(site: Site) -> None:
    """A channel that is not set up and a state that is not asked for: not pending, and not told later."""
    site.echo()
    site.complete(site.claim("quick"))
    outbox.pass_over(site.database, channels=BOTH, states=["failed"])
    assert outbox.take(site.database, seconds=LEASE) is None
    outbox.pass_over(site.database, channels=BOTH, states=["succeeded"])
    assert outbox.take(site.database, seconds=LEASE) is None


def test_the_history_says_what_was_told(site: Site) -> None:
    """The first failure, the end of trying, and what went out; not each try."""
    site.echo()
    site.complete(site.claim("quick"))
    webhook = _take(site)
    for _ in range(3):
        outbox.not_told(site.database, webhook, "webhook https://x: answer 503", again_in=10)
        assert outbox.take(site.database, seconds=LEASE).channel is Channel.COMMAND  # type: ignore[union-attr]
        site.clock.move(LEASE + 11)
        webhook = _take(site)
        assert webhook.channel is Channel.WEBHOOK
    outbox.told(site.database, webhook, "webhook https://x: 204")
    command = _take(site)
    outbox.not_told(site.database, command, "command tell: exit 3", again_in=None)
    assert _events(site) == [
        "webhook https://x: answer 503; it is tried again",
        "webhook https://x: 204",
        "command tell: exit 3; given up",
    ]
    site.clock.move(86400)
    assert outbox.take(site.database, seconds=LEASE) is None


def test_who_was_too_slow_writes_nothing(site: Site) -> None:
    """Its time ran out and another one has it: what it has to say does not count."""
    site.echo()
    site.complete(site.claim("quick"))
    outbox.pass_over(site.database, channels=[Channel.WEBHOOK], states=["succeeded"])
    slow = _take(site)
    site.clock.move(LEASE + 1)
    quick = _take(site)
    outbox.told(site.database, quick, "webhook https://x: 200")
    outbox.not_told(site.database, slow, "webhook https://x: no answer", again_in=10)
    assert _events(site) == ["webhook https://x: 200"]
    assert outbox.take(site.database, seconds=LEASE) is None

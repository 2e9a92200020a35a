"""Requests that kill whoever runs them: each is held alone, named, and the others of its job go on."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from dicomferry.models.record.jobs import leases, loss, plans, verbs
from dicomferry.models.record.tables.jobs import EventRow
from dicomferry.models.rules import ending, retry, spec
from dicomferry.models.rules.situation import Account, AttemptFacts, Death
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState
from support.record_site import LEASE, Site

NUMBER = 10


def retrieve(site: Site) -> int:
    """A retrieve of some studies, planned: a chunk for each."""
    rows = tuple((number, (("0020000D", f"1.2.3.{number}"),)) for number in range(2, 2 + NUMBER))
    job_id = verbs.submit(site.database, spec.GetSpec(identifiers=rows, level="study"), site.remote_id)
    lease = site.claim_plan(job_id)
    common = {"kind": "request", "is_first": True, "state": ItemState.PENDING}
    chunks = [[{**common, "row": row, "identifier": [list(key) for key in keys]}] for row, keys in rows]
    plans.add_batch(site.database, lease, cursor=b"end", chunks=chunks, decided=())
    site.finish(lease, planned=True)
    return job_id


@pytest.mark.parametrize(("killers", "seed"), list(itertools.product(range(6), range(2))))
def test_requests_that_kill_their_worker(site: Site, killers: int, seed: int) -> None:
    """Of the requests of a retrieve any number kills its worker, five times each; the others are run meanwhile."""
    job_id = retrieve(site)
    rows = {item.chunk_id: item.row for item in site.items(job_id)}
    deadly = set(random.Random(seed).sample(sorted(rows.values()), killers))
    deaths = finished = 0
    for _ in range(NUMBER * retry.MAX_DEATHS * 2):
        lease = site.try_claim()
        if lease is None:
            if not any(chunk.state is ChunkState.PENDING for chunk in site.chunks(job_id)):
                break
            site.clock.move(retry.LONGEST_AFTER_DEATH)
        elif rows[lease.chunk_id] in deadly:
            deaths += 1
            site.clock.move(LEASE + 1)
            assert loss.expire(site.database) == 1
        else:
            finished += 1
            site.complete(lease)
    assert (deaths, finished) == (retry.MAX_DEATHS * killers, NUMBER - killers)
    states = {rows[chunk.id]: chunk.state for chunk in site.chunks(job_id)}
    assert {row for row, state in states.items() if state is ChunkState.HELD} == deadly
    assert sum(state is ChunkState.DONE for state in states.values()) == NUMBER - killers
    assert site.state(job_id) is (JobState.HELD if killers else JobState.SUCCEEDED)
    query = sa.select(EventRow.text).where(EventRow.job_id == job_id, EventRow.kind == "held")
    told = site.database.read(lambda connection: connection.execute(query).scalars().all())
    assert len(told) == killers and all(any(f"request {row}:" in text for text in told) for row in deadly)


@pytest.mark.parametrize("deaths", range(1, 9))
def test_the_pause_after_a_death_doubles(deaths: int) -> None:
    """One second after the first, then twice as long each time, a minute at most."""
    now = datetime(2026, 11, 30, tzinfo=UTC)
    decision = ending.decided(Death(deaths=deaths, blamed=True), AttemptFacts(now=now))
    assert decision is not None and decision.at is not None
    assert (decision.at - now).total_seconds() == min(2 ** (deaths - 1), 60)
    assert decision.next is ending.Next.RETRY


def test_who_is_not_blamed_is_held_in_the_end() -> None:
    """Five deaths in a row of which nobody knows on what: that chunk alone is held."""
    now = datetime(2026, 11, 30, tzinfo=UTC)
    account = [Account(end=AttemptEnd.LOST, cause=Death(deaths=deaths, blamed=False)) for deaths in range(1, 6)]
    ends = [ending.of(one, AttemptFacts(now=now, left=1)) for one in account]
    assert [one.chunk for one in ends] == [ChunkState.PENDING] * 4 + [ChunkState.HELD]
    assert {one.along for one in ends} == {ending.Along.NOBODY}


def test_chunks_made_later_are_not_held_along(site: Site) -> None:
    """A plan goes on while one of its chunks is held for its deaths: what it finds is sent."""
    job_id = site.submit_store()
    lease = site.claim_plan(job_id)
    site.batch(lease, 1)
    for _ in range(retry.MAX_DEATHS):
        (chunk,) = [one for one in site.chunks(job_id) if one.state is ChunkState.PENDING]
        claimed = site.claim()
        assert claimed.chunk_id == chunk.id
        site.clock.move(LEASE + 1)
        leases.renew(site.database, lease, site.planner, lease_seconds=LEASE)
        loss.expire(site.database)
        site.clock.move(retry.LONGEST_AFTER_DEATH)
        leases.renew(site.database, lease, site.planner, lease_seconds=LEASE)
    site.batch(lease, 1)
    assert [chunk.state for chunk in site.chunks(job_id)] == [ChunkState.HELD, ChunkState.PENDING]

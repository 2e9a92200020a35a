"""What a plan writes: whole batches, once, under its fence."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from dicomferry.models.record.jobs import plans, verbs
from dicomferry.models.record.jobs.items import pending_items
from dicomferry.models.rules.state import ChunkState, ItemState, JobState
from support.record_site import Site


def test_a_batch_is_items_chunks_and_cursor(site: Site) -> None:
    """All in one step: the chunks may be claimed at once, decided items stay with the plan."""
    job = site.submit_store(priority="high")
    lease = site.claim_plan(job)
    decided = [
        *site.files(1, state=ItemState.FAILED, reason="unreadable", is_first=False),
        *site.files(2, state=ItemState.SKIPPED, reason="not DICOM", is_first=False),
    ]
    assert site.batch(lease, 3, 2, decided=decided, cursor=b"/data/\xff") == (False, 2)
    plan, first, second = site.chunks(job, plan=True)
    assert (plan.cursor, plan.total, plan.failed, plan.skipped) == (b"/data/\xff", 3, 1, 2)
    assert [(chunk.total, chunk.kind, chunk.lane) for chunk in (first, second)] == [
        (3, "store", "bulk"),
        (2, "store", "bulk"),
    ]
    assert {(chunk.state, chunk.remote_id, chunk.priority) for chunk in (first, second)} == {
        (ChunkState.PENDING, site.remote_id, verbs.PRIORITIES["high"])
    }
    assert len(site.items(job)) == 8
    assert {item.kind for item in site.items(job)} == {"instance"}
    assert site.state(job) is JobState.RUNNING
    site.check()


def test_batches_add_up(site: Site) -> None:
    """Numbers of the plan grow, the cursor moves on."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    for number in range(1, 4):
        decided = site.files(1, state=ItemState.SKIPPED, is_first=False)
        assert site.batch(lease, 1, decided=decided) == (False, number)
    assert site.chunk(lease).skipped == 3
    site.check()


def test_a_batch_that_ran_again_counts_once(site: Site) -> None:
    """The connection is lost in the commit and the write runs again: the cursor tells that the batch is there."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    values = {
        "cursor": b"/data/z",
        "chunks": [site.files(2)],
        "decided": site.files(1, state=ItemState.SKIPPED, is_first=False),
    }
    first = plans.add_batch(site.database, lease, **values)  # type: ignore[arg-type]
    before = site.everything()
    assert plans.add_batch(site.database, lease, **values) == first  # type: ignore[arg-type]
    assert site.everything() == before
    assert len(site.items(job)) == 3


@pytest.mark.parametrize("verb", ["cancel", "hold"])
def test_a_stop_writes_nothing(site: Site, verb: str) -> None:
    """Once cancel or hold is asked the plan learns it from its next batch, which is not written."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 1)
    getattr(verbs, verb)(site.database, job)
    before = site.everything()
    assert site.batch(lease, 5, decided=site.files(1, state=ItemState.FAILED)) == (True, 0)
    assert site.everything() == before


def test_a_batch_is_whole_or_not_there(site: Site) -> None:
    """A batch that cannot be written leaves nothing, its cursor included."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 1)
    before = site.everything()
    with pytest.raises(sa.exc.StatementError):
        plans.add_batch(
            site.database,
            lease,
            cursor=b"/data/z",
            chunks=[site.files(1), [{**site.files(1)[0], "state": None}]],
            decided=[],
        )
    assert site.everything() == before


def test_a_uid_that_was_taken_meanwhile(site: Site) -> None:
    """Two first files of one UID cannot be: whoever comes second waits without that claim, to be compared when it is
    tried.
    """
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 1)
    taken = site.items(job)[0].sop_instance_uid
    chunks = [site.files(1), site.files(1, sop_instance_uid=taken)]
    plans.add_batch(site.database, lease, cursor=b"/data/z", chunks=chunks, decided=[])
    assert [(row.sop_instance_uid == taken, row.is_first, row.state) for row in site.items(job)] == [
        (True, True, "pending"),
        (False, True, "pending"),
        (True, False, "pending"),
    ]


def test_one_file_speaks_for_a_uid(site: Site) -> None:
    """Duplicates and conflicts name the same UID without taking its place; other jobs have their own firsts."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 1)
    first = site.items(job)[0]
    twins = site.files(2, sop_instance_uid=first.sop_instance_uid, is_first=False, state=ItemState.SKIPPED)
    site.batch(lease, decided=twins)
    found = plans.firsts_of(site.database, job, [first.sop_instance_uid, "9.9.9", first.sop_instance_uid])
    assert found == {first.sop_instance_uid: first.path}
    assert plans.firsts_of(site.database, site.submit_store(), [first.sop_instance_uid]) == {}
    assert plans.firsts_of(site.database, job, []) == {}


def test_firsts_of_many_uids(site: Site) -> None:
    """More than one query's worth of parameters."""
    job = site.submit_store()
    lease = site.claim_plan(job)
    site.batch(lease, 500, 101)
    uids = [item.sop_instance_uid for item in site.items(job)]
    assert set(plans.firsts_of(site.database, job, [*uids, *map(str, range(600))])) == set(uids)


def test_pending_items_come_in_the_order_of_the_walk_but_for_the_charged(site: Site) -> None:
    """What was in flight when an association broke goes to the chunk's end; what is finished is left out."""
    job = site.store(4)
    lease = site.claim()
    outcomes = site.outcomes(lease)
    broken = [
        type(outcome)(item_id=outcome.item_id, state=ItemState.PENDING, charges=charges)
        for outcome, charges in zip(outcomes[:2], (2, 1), strict=True)
    ]
    site.finish(lease, decision=None, outcomes=[*broken, outcomes[3]])
    rows = pending_items(site.database, lease.chunk_id)
    assert [row.id for row in rows] == [outcomes[2].item_id, outcomes[1].item_id, outcomes[0].item_id]
    assert len(site.items(job)) == 4


def test_what_a_file_turned_out_to_hold_is_written_down(site: Site) -> None:
    """An item that the plan could not read gets its identity at the retry."""
    job = site.store(1)
    lease = site.claim()
    [item] = site.items(job)
    plans.identify_item(site.database, lease, item.id, {"sop_instance_uid": "1.9", "size": 5})
    [item] = site.items(job)
    assert (item.sop_instance_uid, item.size, item.state) == ("1.9", 5, ItemState.PENDING)

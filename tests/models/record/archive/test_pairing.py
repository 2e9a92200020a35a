"""Which retrieve an arrival belongs to, and what it does to items that nobody works on; on either database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.documents import retrieve_report, retrieves
from dicomferry.models.record.archive import index, pairing
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.record.retrieves import blind, closing, expected, moves, proofs, request
from dicomferry.models.record.retrieves.expected import Listed
from dicomferry.models.record.retrieves.moves import FinalAnswer
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules import ending, spec
from dicomferry.models.rules.ending import Decision
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.proof import Basis, Finding, Verified
from dicomferry.models.rules.rounds import Ask, Missing
from dicomferry.models.rules.state import AttemptEnd, ChunkState, ItemState, JobState
from dicomferry.models.rules.target import Target
from dicomferry.workers.retrieval import plan
from support import decided
from support.record_site import Clock, Site, together

STUDY = "0020000D"
AET = "FERRY"


class _Still:
    """A heartbeat that has nothing to say."""

    stop = False

    def require_lease(self) -> None:
        """It is kept."""

    def progress(self, _bytes: int) -> None:
        """Noted."""


def came(number: int, uid: str, *, study: str = "1", move: int | None = None, aet: str = AET) -> Received:
    """The `number`-th C-STORE of one association."""
    return Received(
        path=f"{study}/2/{uid}.dcm",
        size=100,
        sop_instance_uid=uid,
        sop_class_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2",
        study_instance_uid=study,
        series_instance_uid="2",
        relation="first",
        flaw=None,
        stored_at=datetime(2026, 11, 22, tzinfo=UTC),
        arrival=Arrival(
            association="a" * 32,
            number=number,
            outcome="stored",
            calling_ae_title="PACS",
            called_ae_title=AET,
            address="127.0.0.1",
            message_id=number,
            originator_ae_title=aet if move else None,
            originator_message_id=move,
            at=datetime(2026, 11, 22, tzinfo=UTC),
        ),
    )


class Desk:
    """Retrieves, step by step."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.database = site.database

    def submit(self, *studies: str, destination: str | None = None, rows: Sequence[int] = ()) -> int:
        """A move job of a request for each study, planned; in these `rows` of a file, if any."""
        numbers: Sequence[int | None] = rows or [None] * len(studies)
        identifiers = tuple((row, ((STUDY, study),)) for row, study in zip(numbers, studies, strict=True))
        what = spec.MoveSpec(identifiers=identifiers, destination=destination)
        job_id = verbs.submit(self.database, what, self.site.remote_id)
        lease = self.site.claim_plan(job_id)
        assert plan.run(self.database, lease, _Still(), lambda: None)  # type: ignore[arg-type]
        self.site.finish(lease, planned=True)
        return job_id

    def claim(self) -> Lease:
        self.site.set(sa.update(ChunkRow).where(ChunkRow.state == ChunkState.PENDING).values(not_before=self.now()))
        return self.site.claim()

    def now(self) -> datetime:
        return self.site.clock()

    def expect(self, lease: Lease, *uids: str, study: str = "1") -> int:
        """The request expects these; its item."""
        request_id = request.of_chunk(self.database, lease.chunk_id).item_id
        expected.expect(
            self.database,
            lease,
            request_id,
            [Listed(uid, "1.2.3", study, "2") for uid in uids],
            targets=[Target(study=study, count=len(uids))],
            expectation="images",
            expected=len(uids),
        )
        return request_id

    def ask(self, lease: Lease, request_id: int, study: str = "1") -> int:
        """A C-MOVE; its message id."""
        _, message_id = moves.begin_move(
            self.database,
            lease,
            request_id,
            Ask(Target(study=study)),
            rounds=0,
            method="move",
            ae_title=AET,
            destination=None,
        )
        return message_id

    def wait(self, lease: Lease, seconds: float = 300.0) -> None:
        """The attempt ends; what is missing waits for the next round."""
        decision = Decision(next=ending.Next.RETRY, at=self.now() + timedelta(seconds=seconds), reason=pairing.NOT_YET)
        decided.finish(self.database, lease, end=AttemptEnd.COMPLETED, decision=decision)

    def mark(self, lease: Lease) -> int:
        """An attempt looks at what has come; how much of what it waits for that is."""
        found = self.database.read(lambda connection: expected.arrived(connection, lease, refetch=False))
        expected.mark_arrived(self.database, lease, found)
        return len(found)

    def give_up(self, lease: Lease, request_id: int) -> None:
        """What is missing is not delivered."""

        def last(connection: sa.Connection) -> None:
            def lost(one: Missing) -> Outcome:
                return Outcome(item_id=one.item_id, state=ItemState.FAILED, reason=pairing.NOT_DELIVERED)

            proofs.conclude(connection, {request_id: Finding(word=Verified.UIDS, basis=Basis.NUMBER)})
            closing.close(connection, lease, [request_id], missing_as=lost)

        decided.finish(self.database, lease, end=AttemptEnd.COMPLETED, decision=None, last=last)

    def arrive(self, *received: Received) -> list[tuple[int | None, int | None]]:
        """(job, move) of each arrival that there is now."""
        index.record(self.database, received)
        rows = self.site.rows(sa.select(ArrivalRow.__table__).order_by(ArrivalRow.id))
        return [(row.job_id, row.move_id) for row in rows]

    def states(self, job_id: int) -> list[tuple[str, str | None]]:
        """(state, reason) of its items."""
        return [(row.state.value, row.reason) for row in self.site.items(job_id)]


@pytest.fixture
def desk(site: Site) -> Desk:
    return Desk(site)


def test_the_originator_pairs(desk: Desk) -> None:
    """Message id and AE title name the move, also for an instance that nobody expects."""
    job_id = desk.submit("1")
    lease = desk.claim()
    message_id = desk.ask(lease, desk.expect(lease, "1.1"))
    assert desk.arrive(came(1, "1.1", move=message_id), came(2, "1.9", move=message_id)) == [(job_id, 1)] * 2
    numbers = retrieves.numbers(desk.database, job_id)
    assert (numbers.expected, numbers.received, numbers.surplus) == (1, 0, 1)


def test_another_study_is_none_that_was_asked_for(desk: Desk) -> None:
    """It came along with the move: on record with it, as surplus, and unsolicited."""
    job_id = desk.submit("1")
    lease = desk.claim()
    message_id = desk.ask(lease, desk.expect(lease, "1.1"))
    assert desk.arrive(came(1, "7.1", study="7", move=message_id)) == [(None, 1)]
    assert retrieves.numbers(desk.database, job_id).surplus == 1
    assert [row["sop_instance_uid"] for row in retrieves.surplus(desk.database, job_id)] == ["7.1"]


def test_what_a_list_of_jobs_shows_is_kept(desk: Desk) -> None:
    """Bytes of what came for a job, each arrival once however often it is recorded; conflicts; and surplus, until an
    item names it.
    """
    job_id = desk.submit("1")
    lease = desk.claim()
    request_id = desk.expect(lease, "1.1")
    message_id = desk.ask(lease, request_id)
    one, two = came(1, "1.1", move=message_id), came(2, "1.9", move=message_id)
    desk.arrive(one, two)
    desk.arrive(two, came(3, "1.9", move=message_id), came(4, "5.5", study="5"))
    (job,) = job_documents.listing(desk.database)
    assert (job["bytes"], job["surplus"], job["conflicts"]) == (300, 1, 0)
    found = blind.archived(desk.database, lease, Target(study="1"), refetch=False)
    blind.add_archived(desk.database, lease, request_id, found)
    (job,) = job_documents.listing(desk.database)
    assert (job["surplus"], list(retrieves.surplus(desk.database, job_id))) == (0, [])
    again = came(5, "1.1", move=message_id)
    assert again.arrival is not None
    conflict = replace(
        again, path="1/2/1.1~2.dcm", relation="conflict", arrival=replace(again.arrival, outcome="conflict")
    )
    desk.arrive(conflict)
    (job,) = job_documents.listing(desk.database)
    assert (job["bytes"], job["conflicts"]) == (400, 1)


def test_a_row_is_shown_with_what_came_of_its_instances(desk: Desk) -> None:
    """Whoever asked for them: the same row again, one whose instances another row has, and all once they came late."""
    job_id = desk.submit("1", "1", "*", rows=(2, 3, 4))
    lease = desk.claim()
    request_id = desk.expect(lease, "1.1", "1.2")
    desk.ask(lease, request_id)
    desk.arrive(came(1, "1.1"))
    assert desk.mark(lease) == 1
    desk.give_up(lease, request_id)
    lease = desk.claim()
    desk.give_up(lease, desk.expect(lease, "1.1", "1.2"))

    def told() -> list[tuple[object, ...]]:
        rows = retrieves.requests(desk.database, job_id)
        return [(one["row"], one["expected"], one["received"], one["state"], one["reason"]) for one in rows]

    assert told() == [(row, 2, 1, "failed", "not delivered") for row in (2, 3, 4)]
    requests = [row for row in desk.site.items(job_id) if row.kind == "request"]
    assert sorted((row.row, row.state.value) for row in requests) == [(2, "failed"), (3, "skipped"), (4, "skipped")]
    desk.arrive(came(2, "1.2"))
    late = "arrived late"
    assert told() == [(row, 2, 2, "succeeded", why) for row, why in ((2, late), (3, late), (4, None))]
    (study,) = retrieve_report.studies(desk.database, job_id)
    assert (study["rows"], study["expected"], study["received"], study["missing"]) == ([2, 3, 4], 2, 2, 0)
    numbers = retrieves.numbers(desk.database, job_id)
    assert (numbers.expected, numbers.received, numbers.missing) == (2, 2, 0)
    assert job_documents.show(desk.database, job_id)["state"] == "succeeded"


def test_a_remote_is_under_repair_while_the_second_round_runs(desk: Desk) -> None:
    """And only if the first one left something that the archive could not send."""
    job_id = desk.submit("1")
    lease = desk.claim()
    request_id = desk.expect(lease, "1.1")
    desk.ask(lease, request_id)
    assert not moves.is_repair(desk.database, lease.chunk_id)
    moves.note_answer(desk.database, lease, 1, FinalAnswer(status=0xB000, failed=0))
    desk.site.set(sa.update(ChunkRow).where(ChunkRow.job_id == job_id).values(round=1))
    assert book.repairing(desk.database) == []
    moves.note_answer(desk.database, lease, 1, FinalAnswer(status=0xB000, failed=2))
    assert [one.ae_title for one in book.repairing(desk.database)] == ["PACS1"]
    assert moves.is_repair(desk.database, lease.chunk_id)
    desk.wait(lease)
    assert book.repairing(desk.database) == []
    desk.site.set(sa.update(ChunkRow).where(ChunkRow.job_id == job_id).values(round=2))
    desk.claim()
    assert book.repairing(desk.database) == []


def test_somebody_elses_move_is_not_ours(desk: Desk) -> None:
    """Another station's message id means nothing here."""
    desk.submit("1")
    lease = desk.claim()
    message_id = desk.ask(lease, desk.expect(lease, "1.1"))
    assert desk.arrive(came(1, "1.9", move=message_id, aet="OTHER")) == [(None, None)]


def test_without_originator_the_expected_uid_pairs(desk: Desk) -> None:
    """With the retrieve that runs before the one that waits; nobody's is nobody's."""
    waiting = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1", "1.2")
    desk.wait(lease)
    running = desk.submit("1")
    mine = desk.site.claim()
    assert mine.job_id == running
    desk.expect(mine, "1.1")
    assert desk.arrive(came(1, "1.1"), came(2, "1.2"), came(3, "1.3")) == [
        (running, None),
        (waiting, None),
        (None, None),
    ]


def test_a_move_to_somebody_else_expects_nothing_here(desk: Desk) -> None:
    """What comes here is not what was sent there."""
    job_id = desk.submit("1", destination="ELSEWHERE")
    lease = desk.claim()
    desk.expect(lease, "1.1")
    desk.wait(lease)
    assert desk.arrive(came(1, "1.1")) == [(None, None)]
    assert desk.states(job_id)[1] == ("pending", None)


def test_what_comes_while_a_chunk_runs_is_left_to_its_attempt(desk: Desk) -> None:
    """Two that write the same items would count them twice."""
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1")
    desk.arrive(came(1, "1.1"))
    assert desk.states(job_id)[1] == ("pending", None)
    assert desk.mark(lease) == 1
    assert desk.states(job_id)[1] == ("succeeded", None)
    desk.site.check()


def test_a_waiting_chunk_is_due_when_the_last_one_came(desk: Desk) -> None:
    """Before that, its next round is put off for as long as something still arrives, never brought forward."""
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1", "1.2")
    desk.wait(lease, 3.0)
    desk.arrive(came(1, "1.1"))
    assert desk.states(job_id)[1:] == [("succeeded", None), ("pending", None)]
    later = desk.now() + timedelta(seconds=pairing.STRAGGLE_SECONDS)
    assert desk.site.chunk(lease).not_before == later
    desk.arrive(came(2, "1.2"))
    chunk = desk.site.chunk(lease)
    assert (chunk.not_before, chunk.state) == (desk.now(), ChunkState.PENDING)
    desk.site.check()


def test_what_comes_late_is_made_good(desk: Desk) -> None:
    """Item, request, chunk and job, once all of the request's instances are here."""
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.give_up(lease, desk.expect(lease, "1.1", "1.2"))
    assert desk.site.state(job_id) is JobState.FAILED
    assert desk.arrive(came(1, "1.1")) == [(job_id, None)]
    assert desk.site.state(job_id) is JobState.INCOMPLETE
    assert desk.site.job(job_id).verified == "uids"
    desk.site.check()
    desk.arrive(came(2, "1.2"))
    assert desk.site.state(job_id) is JobState.SUCCEEDED
    assert desk.states(job_id) == [("succeeded", "arrived late")] * 3
    desk.site.check()


def test_a_cancelled_item_stays_cancelled(desk: Desk) -> None:
    """What arrives then is kept, and the job is as its owner wanted it."""
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1")
    desk.wait(lease)
    verbs.cancel(desk.database, job_id)
    desk.arrive(came(1, "1.1"))
    assert desk.site.state(job_id) is JobState.CANCELLED
    assert {state for state, _ in desk.states(job_id)} == {"cancelled"}


def test_a_batch_that_is_written_twice_counts_once(desk: Desk) -> None:
    """A commit whose answer was lost is repeated."""
    job_id = desk.submit("1")
    lease = desk.claim()
    message_id = desk.ask(lease, desk.expect(lease, "1.1"))
    desk.wait(lease)
    batch = [came(1, "1.1", move=message_id), came(2, "1.9", move=message_id)]
    assert desk.arrive(*batch) == desk.arrive(*batch) == [(job_id, 1)] * 2
    assert retrieves.numbers(desk.database, job_id).received == 1


def test_overlapping_requests_of_a_job(desk: Desk) -> None:
    """The second one's instance is skipped, and both expect it."""
    job_id = desk.submit("1", "1")
    first, second = desk.site.claim(), None
    desk.expect(first, "1.1")
    desk.wait(first)
    second = desk.site.claim()
    request_id = desk.expect(second, "1.1", "1.2")
    assert [row.state for row in desk.site.items(job_id) if row.request_id == request_id] == [
        ItemState.SKIPPED,
        ItemState.PENDING,
    ]
    # Twice is once: whoever died in between goes on.
    assert desk.expect(second, "1.1", "1.2") == request_id
    assert len(desk.site.items(job_id)) == 5
    desk.site.check()


def test_what_is_here_already(desk: Desk) -> None:
    """An instance that is archived is not expected to come."""
    desk.arrive(came(1, "1.1"))
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1", "1.2")
    assert desk.mark(lease) == 1
    assert desk.states(job_id)[1:] == [("succeeded", "already here"), ("pending", None)]
    assert [one.uid for one in expected.missing(desk.database, lease.chunk_id)] == ["1.2"]


def test_what_a_restart_finds_was_brought_by_the_job_that_waited(desk: Desk) -> None:
    """A storage SCP that dies takes the arrivals of what it had published with it; what was here before is nobody's."""
    earlier = replace(came(1, "1.1"), arrival=None, stored_at=desk.now() - timedelta(hours=1))
    desk.arrive(earlier)
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, "1.1", "1.2", "1.3")
    later = desk.now() + timedelta(seconds=5)
    found, unasked = (replace(came(0, uid), arrival=None, stored_at=later) for uid in ("1.2", "1.9"))
    desk.arrive(found, unasked, came(2, "1.3"))
    listed = {row["sop_instance_uid"] for row in index.listing(desk.database, job_id=job_id)}
    assert listed == {"1.2", "1.3"}
    assert index.extent(desk.database, job_id=job_id)[0] == 2


def test_message_ids_are_not_used_again_for_long(desk: Desk) -> None:
    """1 to 65,535 over all moves of an installation, then 1 again."""
    desk.submit("1")
    lease = desk.claim()
    request_id = desk.expect(lease, "1.1")
    assert [desk.ask(lease, request_id) for _ in range(3)] == [1, 2, 3]


def test_late_arrivals_and_a_retry_at_once(desk: Desk, clock: Clock) -> None:
    """Whoever is first, the numbers agree with the items."""
    jobs = []
    for study in map(str, range(1, 9)):
        jobs.append(desk.submit(study))
        lease = desk.claim()
        uids = [f"{study}.{n}" for n in range(1, 6)]
        desk.give_up(lease, desk.expect(lease, *uids, study=study))

    def arrive(studies: Sequence[int]) -> None:
        for study in studies:
            batch = [
                replace(came(study * 10 + n, f"{study}.{n}", study=str(study)), stored_at=clock()) for n in range(1, 6)
            ]
            index.record(desk.database, batch)

    def retry_all() -> None:
        for job_id in jobs:
            verbs.retry(desk.database, job_id)

    for outcome in together(lambda: arrive(range(1, 9)), retry_all, lambda: arrive(range(8, 0, -1))):
        assert outcome is None or "nothing to retry" in str(outcome), outcome
    desk.site.check()
    instances = desk.site.rows(sa.select(ItemRow.state).where(ItemRow.request_id.is_not(None)))
    assert {row.state for row in instances} == {ItemState.SUCCEEDED}

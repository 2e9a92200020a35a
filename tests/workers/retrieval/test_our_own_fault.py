"""What is our own side's fault, or no instance's, is told so: a full disk, a refusal of ours, a mute archive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicomferry.cli.jobs import retrieve_words
from dicomferry.models.documents import job_answers, retrieves
from dicomferry.models.record.archive import calls
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.workers import runner
from dicomferry.workers.retrieval import refusals
from support import samples
from support.caller import association
from support.misbehaviour import NAMED
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import IMPATIENT, STUDY, TITLE, Site, flat
from support.samples import Sample
from support.scp import StorageScp

FULL = {"what": "archive", "path": "/archive", "free": 0, "size": 100, "reserve": 20}
ENDLESS = 10**15


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A study of three instances, of this test alone."""
    return [
        samples.instance(tmp_path / f"{number}.dcm", study=(request.node.name, 1), series=1, number=number, size=8)
        for number in range(1, 4)
    ]


def archive(here: Site, held: list[Sample], **manners: Any) -> QrPeer:
    return QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(**manners))


def submit(here: Site, peer: QrPeer, held: list[Sample], method: str) -> int:
    job_id: int = getattr(here, method)(peer.address, (STUDY, held[0].study_instance_uid))
    return job_id


def chunk_of(here: Site, job_id: int) -> Any:
    query = sa.select(ChunkRow.__table__).where(ChunkRow.job_id == job_id, ChunkRow.kind != "plan")
    return here.rows(query)[-1]


def charges(here: Site, job_id: int) -> set[int]:
    return {row.charges for row in here.rows(sa.select(ItemRow.charges).where(ItemRow.job_id == job_id))}


def run_until_it_waits(here: Site, job_id: int, reason: str) -> Any:
    """Run what is due until the job's chunk waits for this reason."""
    for _ in range(10):
        runner.run_one(here.environment, "bulk")
        chunk = chunk_of(here, job_id) if here.rows(sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id)) else None
        if chunk is not None and chunk.reason == reason:
            return chunk
    raise AssertionError(here.story(job_id))


@pytest.mark.parametrize("method", ["move", "get"])
def test_while_our_disk_is_short_nothing_is_asked_for(
    here: Site, held: list[Sample], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, `disk full`, nobody is charged, and it goes on by itself when there is room."""
    short = True
    monkeypatch.setattr(calls, "short_disk", lambda _: FULL if short else None)
    with archive(here, held) as peer:
        job_id = submit(here, peer, held, method)
        chunk = run_until_it_waits(here, job_id, "disk full")
        assert peer.retrieves == [] and charges(here, job_id) == {0}
        assert (chunk.round, "scp.reserve_bytes" in chunk.advice) == (0, True)
        short = False
        calls.room_again(here.database)
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 3)


@pytest.mark.parametrize("method", ["move", "get"])
def test_a_full_disk_is_not_the_archives_fault(
    held: list[Sample], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive says that its sub-operations failed; it was our 0xA700: known to the job, to each request and to
    `explain`, and neither a charge nor a round.
    """
    monkeypatch.setattr(refusals, "no_room", lambda *_, **__: None)
    with StorageScp(**flat(IMPATIENT), scp__reserve_bytes=ENDLESS) as scp:
        here = Site(scp)
        own = here.settings.scp.model_copy(update={"reserve_bytes": ENDLESS})
        settings = here.settings.model_copy(update={"scp": own})
        here.environment = replace(here.environment, settings=settings)
        with archive(here, held) as peer:
            job_id = submit(here, peer, held, method)
            chunk = run_until_it_waits(here, job_id, "disk full")
            asked = len(peer.retrieves)
        assert asked == 1 and chunk.round == 0 and charges(here, job_id) == {0}
        (move,) = retrieves.moves(here.database, job_id)
        assert move["refused_here"] is not None
        (refused,) = move["refused_here"]
        assert (refused["status"], refused["number"], set(refused["uids"])) == (0xA700, 3, samples.uids(held))
        (told,) = job_answers.refused_here(here.database, job_id)
        assert (told["status"], told["number"], told["why"]) == ("0xA700", 3, "disk is full to its reserve")
        _, met = job_answers.of_job(here.database, job_id)
        assert "disk full" in {one.answer.reason for one in met}


@pytest.mark.parametrize("method", ["move", "get"])
def test_what_our_side_refused_is_told_with_what_did_not_come(here: Site, held: list[Sample], method: str) -> None:
    """0xA900, and why: with the instance that is missing, and with the request."""
    with QrPeer(
        Catalogue(held), destinations={TITLE: here.scp.port}, manners=NAMED["an instance under another UID"]
    ) as peer:
        job_id = submit(here, peer, held, method)
        job = here.drive(job_id)
    assert (job["state"], job["received"]) == ("incomplete", 2)
    (missing,) = [item for item in here.items(job_id) if item["state"] == "failed" and item["kind"] == "instance"]
    assert "our side answered 0xA900" in missing["detail"] and "command and data set differ" in missing["detail"]
    assert {told["status"] for told in job_answers.refused_here(here.database, job_id)} == {"0xA900"}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["silent, and deaf to C-CANCEL", "pending for ever, until it is cancelled"])
def test_an_archive_that_is_mute_is_asked_three_times(held: list[Sample], name: str, count: int) -> None:
    """However small the study: as a whole, in a smaller request, once more, then a person is asked. No instance is
    blamed, and after a release it is the same.
    """
    waits: dict[str, dict[str, float]] = {
        "timeouts": {**IMPATIENT["timeouts"], "first_answer": 0.3},
        "retry": {**IMPATIENT["retry"], "give_up_after": 600},
    }
    with StorageScp(**flat(IMPATIENT)) as scp:
        here = Site(scp, **waits)
        here.tune(cancel_seconds=0.1)
        with QrPeer(Catalogue(held[:count]), destinations={TITLE: scp.port}, manners=NAMED[name]) as peer:
            job_id = submit(here, peer, held, "move")
            job = here.drive(job_id)
            assert (job["state"], job["reason"], len(peer.retrieves)) == ("held", "no progress", 3), here.story(job_id)
        asked = dict(retrieve_words.screen(here.database, job))["asked"]
        assert asked == ("C-MOVE 1 as a whole, 1 in lists, 1 singly" if count == 3 else "C-MOVE 1 as a whole, 2 singly")
        instances = [item for item in here.items(job_id) if item["kind"] == "instance"]
        assert {(item["state"], item["attempts"]) for item in instances} <= {("pending", 0)}, here.story(job_id)


@pytest.mark.parametrize(("title", "reason"), [("OTHER", "archive cannot reach us"), ("UNHEARD OF", "not delivered")])
def test_another_archives_call_is_not_this_ones(here: Site, held: list[Sample], title: str, reason: str) -> None:
    """Two archives on one host: one calls us while the other cannot. What calls under a title that belongs to another
    remote is that one; under a title that nobody has, it may be this one.
    """
    if title == "OTHER":
        book.add(here.database, "other", "OTHER@127.0.0.1:1")

    def retrieve(retrieval: Retrieval) -> None:
        with association(here.scp.port, calling=title) as there:
            there.release()
        retrieval.final(0xC000, completed=None, failed=None, warning=None)

    with archive(here, held, retrieve=retrieve) as peer:
        job_id = submit(here, peer, held, "move")
        job = here.drive(job_id)
    reasons = {job["reason"]} if job["state"] == "held" else here.reasons(job_id)
    assert reasons == {reason}, here.story(job_id)
    if title == "OTHER":
        events = " ".join(event["text"] for event in job["events"])
        assert "OTHER called from its address" in events and "--also-from OTHER" in events

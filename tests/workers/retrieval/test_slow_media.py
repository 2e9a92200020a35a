"""What an archive has on slow media: asked for once, looked for until it is back, and a person asked in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicomferry.models.documents import jobs
from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules import spec
from dicomferry.models.rules.state import JobState
from support import samples
from support.inline import Inline
from support.misbehaviour import out_of_resources, said
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import STUDY
from support.samples import Sample

HOUR = 3600.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    waits = {"quiet": 1.0, "settle": 300.0}
    with Inline(tmp_path, monkeypatch, timeouts=waits, retry={"give_up_after": 2 * HOUR}) as running:
        yield running


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A study of two series, two instances each."""
    return [
        samples.instance(
            tmp_path / f"{series}-{number}.dcm", study=(request.node.name, 1), series=series, number=number, size=8
        )
        for series in (1, 2)
        for number in (1, 2)
    ]


def submit(site: Inline, peer: QrPeer, held: list[Sample]) -> int:
    keys = ((STUDY, held[0].study_instance_uid),)
    return site.submit(peer.address, spec.GetSpec(identifiers=((None, keys),)))


def archive(
    held: list[Sample],
    find: Callable[[QrPeer, str, list[Dataset]], list[Dataset] | int],
    retrieve: Callable[[Retrieval], None] = Retrieval.well,
) -> QrPeer:
    return QrPeer(Catalogue(held), manners=Manners(find=find, retrieve=retrieve))


def looks(peer: QrPeer) -> int:
    """How often it was asked what there is of the study."""
    return sum(query.QueryRetrieveLevel == "STUDY" for query in peer.queries)


def until_recalled(retrieval: Retrieval) -> None:
    """Nothing on the first request."""
    if retrieval.nth == 1:
        out_of_resources(retrieval)
    else:
        retrieval.well()


def test_what_stays_away_is_held(site: Inline, held: list[Sample]) -> None:
    """It is asked for once, looked for at growing pauses without any charge, asked for once more when the time is over,
    and then a person is asked; released, it is asked for again.
    """
    with archive(held, lambda _, __, answers: said(answers, "NEARLINE"), out_of_resources) as peer:
        began = site.clock()
        job_id = submit(site, peer, held)
        assert site.drain(job_id) is JobState.HELD
        waited = (site.clock() - began).total_seconds()
        (chunk,) = site.chunks(job_id)
        assert (chunk.reason, chunk.round, len(peer.retrieves)) == ("nearline", 0, 2)
        assert "administrator" in chunk.advice
        assert 2 * HOUR <= waited < 2 * HOUR + 601
        assert len(site.attempts(job_id)) == 14, "after 5 minutes, then every 10"
        items = [row for row in site.items(job_id) if row.kind == "instance"]
        assert {(row.state.value, row.reason, row.charges) for row in items} == {("pending", "nearline", 0)}
        peer.manners = Manners()
        verbs.release(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
        assert len(peer.retrieves) == 3
    job = jobs.show(site.database, job_id)
    assert (job["verified"], job["received"]) == ("uids", 4)


def test_what_is_back_is_fetched(site: Inline, held: list[Sample]) -> None:
    """While it is away it is looked for and not asked for; no round counts."""
    with archive(held, lambda peer, _, a: said(a, "OFFLINE" if looks(peer) < 6 else "ONLINE"), until_recalled) as peer:
        job_id = submit(site, peer, held)
        site.run_due()
        job = jobs.show(site.database, job_id)
        assert (job["state"], job["reason"]) == ("running", "nearline")
        assert "shelf" in (job["reason_text"] or "") and "4 OFFLINE" in (job["detail"] or "")
        assert site.drain(job_id) is JobState.SUCCEEDED
        assert len(peer.retrieves) == 2
    (chunk,) = site.chunks(job_id)
    assert chunk.round == 0
    assert len(site.attempts(job_id)) == 5, "the request, three looks in vain, and one that found it"


def test_the_rest_does_not_wait_for_it(site: Inline, held: list[Sample]) -> None:
    """What is online comes at once, what is recalled when it is back, and only that is asked for then."""
    away = samples.uids(held[2:])

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
        slow = [one for one in answers if "SOPInstanceUID" in one and one.SOPInstanceUID in away]
        said(slow, "NEARLINE" if looks(peer) < 4 else "ONLINE")
        return answers

    def retrieve(retrieval: Retrieval) -> None:
        if retrieval.nth > 1:
            return retrieval.well()
        retrieval.store([one for one in retrieval.wanted if one.sop_instance_uid not in away])
        retrieval.failed_uids = sorted(away)
        return retrieval.final()

    with archive(held, find, retrieve) as peer:
        job_id = submit(site, peer, held)
        site.run_due()
        assert jobs.show(site.database, job_id)["received"] == 2
        assert site.drain(job_id) is JobState.SUCCEEDED
        assert [set(one.wanted) for one in peer.retrieves] == [samples.uids(held), away]


def test_the_word_of_the_series_counts_for_its_images(site: Inline, held: list[Sample]) -> None:
    """Some archives say it above the images only."""

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
        return said(answers, "" if level != "SERIES" else "NEARLINE" if looks(peer) < 3 else "ONLINE")

    with archive(held, find, until_recalled) as peer:
        job_id = submit(site, peer, held)
        site.run_due()
        assert jobs.show(site.database, job_id)["reason"] == "nearline"
        assert site.drain(job_id) is JobState.SUCCEEDED


def test_an_archive_that_lists_no_images_is_waited_for_as_well(site: Inline, held: list[Sample]) -> None:
    """Then the word of the study counts."""

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        return 0xA900 if level == "IMAGE" else said(answers, "NEARLINE" if looks(peer) < 4 else "ONLINE")

    with archive(held, find, until_recalled) as peer:
        job_id = submit(site, peer, held)
        site.run_due()
        assert jobs.show(site.database, job_id)["reason"] == "nearline"
        assert site.drain(job_id) is JobState.SUCCEEDED
        assert len(peer.retrieves) == 2
    assert jobs.show(site.database, job_id)["verified"] == "counts"

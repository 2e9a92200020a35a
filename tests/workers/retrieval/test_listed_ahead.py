"""What is to come of the next study is listed while the last one arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from dicomferry.models.record.tables.governor import GovernorRow
from dicomferry.models.record.tables.jobs import AttemptRow
from dicomferry.models.rules import spec
from dicomferry.workers import runner
from support import samples
from support import scripted_peer as peers
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import IMPATIENT, STUDY, TITLE, Site, archived, site
from support.samples import Sample
from support.scripted_peer import Step


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    # A list that is older than `settle` is made anew, however slow this machine is.
    with site(timeouts={**IMPATIENT["timeouts"], "settle": 60.0}) as running:
        yield running


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """Two studies of two images."""
    return [
        samples.instance(
            tmp_path / f"{study}-{number}.dcm", study=(request.node.name, study), series=1, number=number, size=8
        )
        for study in (1, 2)
        for number in (1, 2)
    ]


def lists_of(queries: list[Dataset], study: str) -> int:
    """How often the images of a study were listed."""
    return sum(one.QueryRetrieveLevel == "IMAGE" and one.StudyInstanceUID == study for one in queries)


def test_the_next_study_is_listed_while_one_arrives(here: Site, held: list[Sample]) -> None:
    """One move in flight: a second slot lists the next study meanwhile, over an association of its own, moves nothing,
    and then finds nothing more to do. The list is made once, and the move that follows goes by it.
    """
    studies = list(dict.fromkeys(one.study_instance_uid for one in held))
    seen: list[tuple[bool, bool, int, int]] = []

    def slowly(retrieval: Retrieval) -> None:
        if retrieval.nth == 1:
            began, goes_on = (runner.run_one(here.environment, "bulk") for _ in range(2))
            seen.append((began, goes_on, lists_of(peer.queries, studies[1]), len(peer.retrieves)))
        retrieval.well()

    with QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(retrieve=slowly)) as peer:
        rows: tuple[spec.Identifier, ...] = tuple((row, ((STUDY, study),)) for row, study in enumerate(studies))
        job = here.drive(here.submit(peer.address, spec.MoveSpec(identifiers=rows)))
        here.check(job["id"])
        assert lists_of(peer.queries, studies[1]) == 1
        assert [one.uids for one in peer.retrieves] == [(study,) for study in studies]
    assert seen == [(True, False, 1, 1)]
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 4)
    assert samples.uids(held) <= set(archived(here.scp))
    attempts = here.rows(sa.select(AttemptRow.detail).where(AttemptRow.job_id == job["id"]).order_by(AttemptRow.id))
    assert [row.detail for row in attempts].count("listed while no move was free") == 1


def test_what_is_here_already_is_done_without_a_move(here: Site, held: list[Sample]) -> None:
    """A study that is listed ahead and lies here ends then and there: it needs no move."""
    first, second = dict.fromkeys(one.study_instance_uid for one in held)
    ended: list[str] = []

    def slowly(retrieval: Retrieval) -> None:
        if first in retrieval.uids:
            assert runner.run_one(here.environment, "bulk")
            ended.extend(one["reason"] for one in here.items(later) if one["kind"] == "instance" and one["reason"])
        retrieval.well()

    later = 0
    with QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(retrieve=slowly)) as peer:
        here.drive(here.move(peer.address, (STUDY, second)))
        rows: tuple[spec.Identifier, ...] = tuple((row, ((STUDY, one),)) for row, one in enumerate((first, second)))
        later = here.submit(peer.address, spec.MoveSpec(identifiers=rows))
        job = here.drive(later)
        assert [one.uids for one in peer.retrieves] == [(second,), (first,)]
    assert (job["state"], job["verified"]) == ("succeeded", "uids")
    assert ended == ["already here", "already here"]


def test_an_archive_without_room_for_a_list_is_not_blamed(here: Site, held: list[Sample]) -> None:
    """It rejects every association but one while it moves: what could not be listed ahead is listed with its move, and
    neither the chunk nor the remote waits for anything.
    """
    studies = list(dict.fromkeys(one.study_instance_uid for one in held))
    moving: list[bool] = []

    def slowly(retrieval: Retrieval) -> None:
        if retrieval.nth == 1:
            moving.append(True)
            assert runner.run_one(here.environment, "bulk")
            assert not runner.run_one(here.environment, "bulk"), "it is not tried a second time"
            moving.clear()
        retrieval.well()

    def greet(_: int) -> list[Step] | None:
        return [peers.send(peers.rejection(2, 3, 2))] if moving else None

    manners = Manners(retrieve=slowly, greet=greet)
    with QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=manners) as peer:
        rows: tuple[spec.Identifier, ...] = tuple((row, ((STUDY, study),)) for row, study in enumerate(studies))
        job = here.drive(here.submit(peer.address, spec.MoveSpec(identifiers=rows)))
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 4)
    attempts = here.rows(sa.select(AttemptRow.end).where(AttemptRow.job_id == job["id"]).order_by(AttemptRow.id))
    assert [row.end for row in attempts].count("interrupted") == 1
    assert not [event for event in job["events"] if "rejected" in event["text"]]
    known = here.rows(sa.select(GovernorRow.__table__))
    assert {(row.failures, row.broken_since, row.learned_associations) for row in known} == {(0, None, None)}

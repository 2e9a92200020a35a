"""Requests for single images of one archive share associations, lists of UIDs and moves; each has an end of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from dicomferry.models.documents import retrieves
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules import spec
from support import samples
from support.qr_catalogue import Catalogue, values_of
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import IMAGE, SERIES, STUDY, TITLE, Site, archived
from support.samples import Sample

MANY = 6


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A series of six images, of this test alone."""
    return images_of(tmp_path, request.node.name, lambda _: 1)


def images_of(folder: Path, name: str, series: Callable[[int], int]) -> list[Sample]:
    return [
        samples.instance(folder / f"{number}.dcm", study=(name, 1), series=series(number), number=number, size=8)
        for number in range(1, MANY + 1)
    ]


def archive(here: Site, held: list[Sample], **manners: Any) -> QrPeer:
    return QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(**manners))


def one_by_one(held: list[Sample]) -> tuple[spec.Identifier, ...]:
    """A request, a row, for each of these."""
    return tuple(
        (
            number,
            ((STUDY, one.study_instance_uid), (SERIES, one.series_instance_uid), (IMAGE, one.sop_instance_uid)),
        )
        for number, one in enumerate(held, start=2)
    )


def fetched(here: Site, peer: QrPeer, held: list[Sample], *, get: bool = False, name: str | None = None) -> int:
    """The job that has fetched these, a request each, when it has ended."""
    kind = spec.GetSpec if get else spec.MoveSpec
    job_id = here.submit(name or peer.address, kind(identifiers=one_by_one(held), level="image"))
    here.drive(job_id)
    here.check(job_id)
    return job_id


def told(here: Site, job_id: int) -> list[tuple[int | None, str, str | None, str | None]]:
    """(row, state, reason, verified) of each request."""
    found = retrieves.requests(here.database, job_id)
    return [(one["row"], one["state"], one["reason"], one["verified"]) for one in found]


def asked(here: Site, job_id: int) -> list[int | None]:
    """How many UIDs each move named."""
    return [move["asked"] for move in retrieves.moves(here.database, job_id)]


def chunks(here: Site, job_id: int) -> int:
    """How many chunks the requests of a job wait in."""
    return len(here.rows(sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id, ChunkRow.kind != "plan")))


@pytest.mark.parametrize("get", [False, True])
def test_images_of_a_series_come_with_one_request(here: Site, held: list[Sample], get: bool) -> None:
    """Six rows of one series: one association for the list, one for one C-MOVE or C-GET with six UIDs; each row has its
    instance, its proof and its end, and what came is paired with that one request (PS3.4 C.4.2.2.1).
    """
    with archive(here, held) as peer:
        job_id = fetched(here, peer, held, get=get)
        assert peer.associations == 2
    assert asked(here, job_id) == [MANY]
    assert told(here, job_id) == [(row, "succeeded", None, "uids") for row in range(2, 2 + MANY)]
    assert (here.show(job_id)["verified"], here.show(job_id)["received"]) == ("uids", MANY)
    (move,) = retrieves.moves(here.database, job_id)
    rows = here.rows(sa.select(ArrivalRow.move_id).where(ArrivalRow.job_id == job_id))
    assert [row.move_id for row in rows] == [move["id"]] * MANY
    own = {one["request_id"]: one["sop_instance_uid"] for one in retrieves.instances(here.database, job_id)}
    assert len(own) == MANY and set(own.values()) == samples.uids(held)


def test_images_of_several_series_share_their_associations(here: Site, tmp_path: Path) -> None:
    """Rows of six series: a request each, over the same two associations; each arrival belongs to its own request, and
    each request to the row that asked for it.
    """
    held = images_of(tmp_path, "several", lambda number: number)
    with archive(here, held) as peer:
        job_id = fetched(here, peer, held)
        assert peer.associations == 2
    assert asked(here, job_id) == [1] * MANY
    assert {state for _, state, _, _ in told(here, job_id)} == {"succeeded"}
    moves = {move["id"]: move for move in retrieves.moves(here.database, job_id)}
    rows = here.rows(sa.select(ArrivalRow.move_id).where(ArrivalRow.job_id == job_id))
    assert sorted(row.move_id for row in rows) == sorted(moves)
    requests = {row.id: row.targets[0][2] for row in here.rows(sa.select(ItemRow.__table__)) if row.kind == "request"}
    assert all(requests[move["item_id"]] == move["series_instance_uid"] for move in moves.values())


def test_the_remotes_number_of_uids_bounds_a_request(here: Site, held: list[Sample]) -> None:
    """A remote's `max_uids` is the most that one request names; the others follow on the same association."""
    with archive(here, held) as peer:
        book.add(here.database, "few", peer.address, max_uids=4)
        job_id = fetched(here, peer, held, name="few")
        assert peer.associations == 2
    assert asked(here, job_id) == [4, 2]
    assert {state for _, state, _, _ in told(here, job_id)} == {"succeeded"}


def test_an_absent_image_fails_alone(here: Site, held: list[Sample]) -> None:
    """A UID that the archive does not list is `no match` for its row; the others come."""
    absent, *present = held
    with archive(here, present) as peer:
        job_id = fetched(here, peer, held)
    assert asked(here, job_id) == [MANY - 1]
    first, *others = told(here, job_id)
    assert first[:3] == (2, "failed", "no match")
    assert others == [(row, "succeeded", None, "uids") for row in range(3, 2 + MANY)]
    assert absent.sop_instance_uid not in set(archived(here.scp))


# --- archives that do it otherwise


def refuses_lists(retrieval: Retrieval) -> None:
    """0xA900 to a list of UIDs."""
    if len(retrieval.uids) > 1:
        retrieval.final(0xA900, completed=0)
    else:
        retrieval.well()


def takes_the_first(retrieval: Retrieval) -> None:
    """Of a list the first alone, and success."""
    retrieval.store(retrieval.wanted[:1])
    retrieval.hang_up()
    retrieval.final(0x0000, remaining=None, completed=1)


def gives_up_lists(retrieval: Retrieval) -> None:
    """0x0110 to a list, for one of it that it cannot read; nothing is sent."""
    bad = retrieval.peer.catalogue.samples[0].sop_instance_uid
    if bad in retrieval.uids:
        retrieval.final(0x0110, completed=None, failed=None, warning=None, remaining=None)
    else:
        retrieval.well()


def sends_the_series(retrieval: Retrieval) -> None:
    """All of the series, whatever of it is asked for."""
    retrieval.wanted = retrieval.peer.catalogue.samples
    retrieval.well()


@pytest.mark.parametrize("manner", [refuses_lists, takes_the_first])
def test_an_archive_that_takes_no_lists_is_asked_one_by_one(
    here: Site, held: list[Sample], manner: Callable[[Retrieval], None]
) -> None:
    """A list that is refused, or of which the first alone is sent: what is left is asked for by single UIDs over the
    same association, in the same attempt, and the job's history says so.
    """
    with archive(here, held, retrieve=manner) as peer:
        job_id = fetched(here, peer, held)
        assert peer.associations == 2
    single = MANY if manner is refuses_lists else MANY - 1
    assert asked(here, job_id) == [MANY, *[1] * single]
    assert told(here, job_id) == [(row, "succeeded", None, "uids") for row in range(2, 2 + MANY)]
    assert here.rounds(job_id) == [0] * (1 + single)
    assert "takes no lists of UIDs" in " ".join(event["text"] for event in here.show(job_id)["events"])


def test_one_bad_image_does_not_sink_its_list(here: Site, held: list[Sample]) -> None:
    """An archive that gives a whole list up for one image: the others come in the same attempt, and end with it; that
    one is tried by itself, and its row alone fails.
    """
    with archive(here, held, retrieve=gives_up_lists) as peer:
        job_id = fetched(here, peer, held)
    first, *others = told(here, job_id)
    assert first[:3] == (2, "failed", "not delivered")
    assert others == [(row, "succeeded", None, "uids") for row in range(3, 2 + MANY)]


def test_an_archive_that_answers_by_series_is_asked_once(here: Site, held: list[Sample]) -> None:
    """All of the series comes for a list of some of it: what was asked for is here, what was not is surplus, and
    nothing is asked for a second time.
    """
    with archive(here, held, retrieve=sends_the_series) as peer:
        job_id = fetched(here, peer, held[:3])
    assert asked(here, job_id) == [3]
    assert told(here, job_id) == [(row, "succeeded", None, "uids") for row in range(2, 5)]
    assert here.show(job_id)["surplus"] == 3


def first_value_only(_: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
    return answers[:1] if level == "IMAGE" else answers


def test_a_query_that_takes_the_first_of_a_list_loses_nobody(here: Site, held: list[Sample]) -> None:
    """What a query for a list of UIDs does not list is asked for by itself before it is called absent."""
    with archive(here, held, find=first_value_only) as peer:
        job_id = fetched(here, peer, held)
        queries = [len(values_of(query, "SOPInstanceUID")) for query in peer.queries]
    assert queries == [MANY, *[1] * (MANY - 1)]
    assert told(here, job_id) == [(row, "succeeded", None, "uids") for row in range(2, 2 + MANY)]


def no_queries(_: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
    return 0xC000 if level == "IMAGE" else answers


def test_an_archive_that_lists_no_images_is_asked_for_each_by_itself(here: Site, held: list[Sample]) -> None:
    """Without a list of images nobody can tell which of several came: each row goes on in a chunk of its own."""
    with archive(here, held, find=no_queries) as peer:
        job_id = fetched(here, peer, held)
    assert chunks(here, job_id) == MANY
    assert asked(here, job_id) == [1] * MANY
    assert {(state, verified) for _, state, _, verified in told(here, job_id)} == {("succeeded", "none")}


def test_what_is_missing_is_retried_by_row(here: Site, held: list[Sample]) -> None:
    """`jobs retry` of rows that shared a chunk asks for the failed ones alone; the others keep their end."""
    absent, *present = held
    with archive(here, present) as peer:
        job_id = fetched(here, peer, held)
        peer.catalogue.add([absent])
        verbs.retry(here.database, job_id)
        here.drive(job_id)
        here.check(job_id)
    assert asked(here, job_id) == [MANY - 1, 1]
    assert told(here, job_id) == [(row, "succeeded", None, "uids") for row in range(2, 2 + MANY)]


def test_an_association_that_breaks_ends_the_rows_that_are_whole(here: Site, tmp_path: Path) -> None:
    """Where the archive aborts at one image, the rows whose image came are proven and ended with that attempt; the one
    that it broke at is charged alone.
    """
    held = images_of(tmp_path, "breaks", lambda number: number)
    bad = held[-1].sop_instance_uid

    def breaks(retrieval: Retrieval) -> None:
        if bad in retrieval.uids:
            retrieval.abort()
        retrieval.well()

    with archive(here, held, retrieve=breaks) as peer:
        job_id = fetched(here, peer, held)
    *others, last = told(here, job_id)
    assert others == [(row, "succeeded", None, "uids") for row in range(2, 1 + MANY)]
    assert last[:2] == (1 + MANY, "failed")
    assert asked(here, job_id).count(1) == MANY - 1 + 3

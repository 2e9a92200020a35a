"""What comes and cannot be used: it counts as nothing, is asked for again, and the job says what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from dicomferry.cli.jobs import wait
from dicomferry.models.record.archive import index
from dicomferry.models.rules.query import Key
from support import samples
from support.compare import body
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import STUDY, TITLE, Site, archived
from support.samples import Sample


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A study of one series of three instances, of this test alone."""
    return [
        samples.instance(tmp_path / f"{number}.dcm", study=(request.node.name, 1), series=1, number=number, size=8)
        for number in range(1, 4)
    ]


def ill_encoded(one: Sample) -> Sample:
    """The same data set, with native pixels, under a transfer syntax that encapsulates them (PS3.5 A.4)."""
    path = one.path.with_name(f"ill-{one.path.name}")
    ds = dcmread(one.path)
    path.write_bytes(samples.file_bytes(samples.meta(ds, RLELossless), body(one.path)))
    return replace(one, path=path, transfer_syntax_uid=str(RLELossless))


def cut(one: Sample, size: int = 20) -> Sample:
    """The same without its last bytes."""
    path = one.path.with_name(f"cut-{size}-{one.path.name}")
    path.write_bytes(one.path.read_bytes()[:-size])
    return replace(one, path=path)


def peer_of(here: Site, held: list[Sample], sent: list[list[Sample]]) -> QrPeer:
    """An archive that sends these in the place of its own: in its first answer, its second, the last ones for ever."""

    def retrieve(retrieval: Retrieval) -> None:
        others = {one.sop_instance_uid: one for one in sent[min(retrieval.nth, len(sent)) - 1]}
        retrieval.wanted = [others.get(one.sop_instance_uid, one) for one in retrieval.wanted]
        retrieval.store()
        retrieval.hang_up()
        retrieval.final()

    return QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(retrieve=retrieve))


def study_of(held: list[Sample]) -> Key:
    return STUDY, held[0].study_instance_uid


@pytest.mark.parametrize("method", ["move", "get"])
def test_what_is_ill_encoded_is_asked_for_again_in_plain_syntaxes_alone(
    here: Site, held: list[Sample], method: str
) -> None:
    """It does not count; in the next round no other context is accepted than Explicit and Implicit Little Endian."""
    bad = ill_encoded(held[1])
    refused: list[list[str]] = []

    def retrieve(retrieval: Retrieval) -> None:
        if retrieval.nth == 1:
            retrieval.wanted = [held[0], bad, held[2]]
            retrieval.store()
        else:
            retrieval.wanted = [bad]
            retrieval.store()
            refused.append(list(retrieval.failed_uids))
            retrieval.failed_uids.clear()
            retrieval.store([held[1]])
        retrieval.hang_up()
        retrieval.final()

    peer = QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(retrieve=retrieve))
    with peer:
        job_id = getattr(here, method)(peer.address, study_of(held))
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 3)
    assert refused == [[bad.sop_instance_uid]]
    rows = {row["current"]: row for row in _rows(here, bad)}
    assert rows[False]["flaw"].startswith("pixels:") and rows[True]["flaw"] is None


@pytest.mark.parametrize("method", ["move", "get"])
def test_what_never_comes_well_leaves_the_job_incomplete(here: Site, held: list[Sample], method: str) -> None:
    """With what is wrong with it; what came is kept, and counts for no later retrieve either."""
    bad = ill_encoded(held[1])
    with peer_of(here, held, [[bad]]) as peer:
        job_id = getattr(here, method)(peer.address, study_of(held))
        job = here.drive(job_id)
        assert len(peer.stores) > 3, "it was asked for again"
    assert (job["state"], job["received"], job["expected"]) == ("incomplete", 2, 3)
    (lost,) = [item for item in here.items(job_id) if item["kind"] == "instance" and item["state"] == "failed"]
    assert (lost["sop_instance_uid"], lost["reason"]) == (bad.sop_instance_uid, "came flawed")
    assert lost["detail"].startswith("pixels:")
    with peer_of(here, held, [[]]) as peer:
        again = here.drive(getattr(here, method)(peer.address, study_of(held)))
        assert peer.stores == [bad.sop_instance_uid]
    assert (again["state"], again["received"]) == ("succeeded", 3)


@pytest.mark.parametrize("method", ["move", "get"])
def test_what_is_truncated_at_its_source_is_told_as_a_warning(here: Site, held: list[Sample], method: str) -> None:
    """The same truncated bytes twice are the archive's own: they count, and the end sentence tells their number. One
    that comes well the second time was cut on its way.
    """
    first, second = cut(held[0]), cut(held[1])
    with peer_of(here, held, [[first, second], [first]]) as peer:
        job_id = getattr(here, method)(peer.address, study_of(held))
        job = here.drive(job_id)
        stores = len(peer.stores)
        later = here.drive(getattr(here, method)(peer.address, study_of(held)))
        assert len(peer.stores) == stores, "it is known to be so"
    assert (job["state"], job["received"]) == ("succeeded", 3)
    told = {item["sop_instance_uid"]: (item["state"], item["reason"]) for item in here.items(job_id)}
    assert told[first.sop_instance_uid] == ("warning", "truncated at source")
    assert told[second.sop_instance_uid] == ("succeeded", None)
    assert "1 truncated at source" in wait.end_sentence(here.database, here.show(job_id))
    assert (later["state"], later["received"]) == ("succeeded", 3)
    assert archived(here.scp)[second.sop_instance_uid].stat().st_size > second.path.stat().st_size - 400


def test_garbage_under_a_uid_is_nothing(here: Site, held: list[Sample], tmp_path: Path) -> None:
    """A data set that cannot be read proves nothing: it is asked for again, and what comes well then counts."""
    path = tmp_path / "garbage.dcm"
    ds = dcmread(held[0].path)
    path.write_bytes(samples.file_bytes(samples.meta(ds, held[0].transfer_syntax_uid), b"\x5a\xa5" * 500))
    garbage = replace(held[0], path=path)
    with peer_of(here, held, [[garbage], []]) as peer:
        job = here.drive(here.move(peer.address, study_of(held)))
    assert (job["state"], job["received"]) == ("succeeded", 3)
    flaws = sorted(row["flaw"] or "" for row in _rows(here, garbage))
    assert flaws[0] == "" and flaws[1].startswith("unreadable:")


def _rows(here: Site, one: Sample) -> list[Any]:
    return [row for row in index.listing(here.database) if row["sop_instance_uid"] == one.sop_instance_uid]

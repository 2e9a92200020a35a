"""What of the archive counts as what a retrieve expects: an instance of a series of a study, whose file is there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.uid import UID

from dicomferry.models.documents import retrieve_report
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.state import JobState
from dicomferry.models.settings import Settings
from support import samples
from support.installation import until
from support.peers import StoreScp
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import SERIES, STUDY, TITLE, Site, archived
from support.samples import Sample


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A study of one series of four instances, of this test alone."""
    return [
        samples.instance(tmp_path / f"{number}.dcm", study=(request.node.name, 1), series=1, number=number, size=8)
        for number in range(1, 5)
    ]


def archive(here: Site, held: list[Sample], **more: object) -> QrPeer:
    return QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, **more)  # type: ignore[arg-type]


def filed_as(one: Sample, *, study: str | None = None, series: str | None = None) -> Sample:
    """The same instance in a file that names another study or series."""
    path = one.path.with_name(f"other-{len(list(one.path.parent.iterdir()))}-{one.path.name}")
    ds = dcmread(one.path)
    ds.StudyInstanceUID = UID(study or one.study_instance_uid)
    ds.SeriesInstanceUID = UID(series or one.series_instance_uid)
    ds.save_as(path)
    return replace(
        one, path=path, study_instance_uid=str(ds.StudyInstanceUID), series_instance_uid=str(ds.SeriesInstanceUID)
    )


def sending(others: list[Sample]) -> Manners:
    """An archive that lists what it holds and sends these instead, where they are of the same UID."""
    files = {one.sop_instance_uid: one for one in others}

    def retrieve(retrieval: Retrieval) -> None:
        retrieval.store([files.get(one.sop_instance_uid, one) for one in retrieval.wanted])
        retrieval.hang_up()
        retrieval.final()

    return Manners(retrieve=retrieve)


def numbers(job: dict[str, object]) -> tuple[object, ...]:
    return job["state"], job["verified"], job["received"], job["expected"]


def test_a_file_of_another_study_proves_nothing(here: Site, held: list[Sample]) -> None:
    """An instance that lies here as part of another study is asked for: what is expected is study, series and UID."""
    moved = [filed_as(one, study=samples.uid("merged", one.study_instance_uid)) for one in held]
    with archive(here, held) as first, archive(here, moved) as second:
        here.drive(here.move(first.address, (STUDY, held[0].study_instance_uid)))
        job = here.drive(here.move(second.address, (STUDY, moved[0].study_instance_uid)))
        assert len(second.stores) == 4
        again = here.drive(here.move(first.address, (STUDY, held[0].study_instance_uid)))
        assert len(first.stores) == 4, "its own files are current in their study still"
    assert numbers(job) == ("succeeded", "uids", 4, 4)
    assert job["conflicts"] == 4, "another content under a UID that is archived already is told"
    assert numbers(again) == ("succeeded", "uids", 4, 4)


@pytest.mark.parametrize("method", ["move", "get"])
def test_what_comes_under_another_study_is_kept_and_not_asked_for_again(
    here: Site, held: list[Sample], method: str
) -> None:
    """Its item fails with both UIDs, the job is incomplete, and `jobs retry` judges what lies here without fetching."""
    stray = filed_as(held[1], study=samples.uid("stray", held[1].study_instance_uid))
    with archive(here, held, manners=sending([stray])) as peer:
        job_id = getattr(here, method)(peer.address, (STUDY, held[0].study_instance_uid))
        job = here.drive(job_id)
        assert len(peer.stores) == 4, "it is not asked for again"
        verbs.retry(here.database, job_id)
        again = here.drive(job_id)
        assert len(peer.stores) == 4
    for one in (job, again):
        assert numbers(one)[0] == "incomplete" and one["received"] == 3
        assert one["surplus"] == 0
    (lost,) = [item for item in here.items(job_id) if item["state"] == "failed" and item["kind"] == "instance"]
    assert (lost["sop_instance_uid"], lost["reason"]) == (stray.sop_instance_uid, "filed elsewhere")
    assert held[1].study_instance_uid in lost["detail"] and stray.study_instance_uid in lost["detail"]
    assert stray.sop_instance_uid in archived(here.scp)
    here.check(job_id)


@pytest.mark.parametrize("method", ["move", "get"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_is_gone_when_its_request_ends_proves_nothing(
    here: Site, held: list[Sample], method: str, whole: bool
) -> None:
    """What came and was removed before the end is `file gone`, the job incomplete, and a retry fetches that one alone;
    also where something else did not come.
    """
    first, last = held[0], held[-1]
    removed: list[Path] = []

    def removing(retrieval: Retrieval) -> None:
        retrieval.store([one for one in retrieval.wanted if whole or one != last])
        until(lambda: first.sop_instance_uid in archived(here.scp), "it has its row")
        for path in here.scp.files:
            if first.sop_instance_uid in path.name and not removed:
                path.unlink()
                removed.append(path)
        retrieval.hang_up()
        retrieval.final()

    key = (STUDY, first.study_instance_uid)
    with archive(here, held, manners=Manners(retrieve=removing)) as peer:
        job_id = getattr(here, method)(peer.address, key)
        job = here.drive(job_id)
        sent = len(peer.stores)
        lost = {one["sop_instance_uid"]: one["reason"] for one in here.items(job_id) if one["state"] == "failed"}
        verbs.retry(here.database, job_id)
        again = here.drive(job_id)
    assert (job["state"], job["received"], sent) == ("incomplete", 3, 4) if whole else ("incomplete", 2, 3)
    assert lost[first.sop_instance_uid] == "file gone"
    assert (again["state"], len(peer.stores)) == (("succeeded", 5) if whole else ("incomplete", 4))
    here.check(job_id)


def test_one_uid_in_two_series_is_two_instances(here: Site, held: list[Sample]) -> None:
    """Each is proven by an arrival of its own series, and the second content is told as a conflict."""
    twin = filed_as(held[0], series=samples.uid("second series", held[0].series_instance_uid))

    def without_twin(retrieval: Retrieval) -> None:
        retrieval.store([one for one in retrieval.wanted if one.path != twin.path])
        retrieval.hang_up()
        retrieval.final()

    key = (STUDY, held[0].study_instance_uid)
    with archive(here, [*held, twin], manners=Manners(retrieve=without_twin)) as peer:
        job_id = here.move(peer.address, key)
        job = here.drive(job_id)
    assert (job["state"], job["received"], job["expected"], job["conflicts"]) == ("incomplete", 4, 5, 0)
    with archive(here, [*held, twin]) as peer:
        whole = here.drive(here.move(peer.address, key))
        assert len(peer.stores) == 1
    assert numbers(whole) == ("succeeded", "uids", 5, 5)
    assert whole["conflicts"] == 1
    assert {one["reason"] for one in here.items(whole["id"]) if one["kind"] == "instance"} == {"already here", None}


@pytest.mark.parametrize("method", ["move", "get"])
@pytest.mark.parametrize("known", [True, False])
def test_an_archive_that_coerces(here: Site, held: list[Sample], method: str, known: bool) -> None:
    """It lists other UIDs than its files carry. Where the address book says so, what its request brought counts by the
    SOP Instance UID, the report shows both, and a later request fetches nothing; else everything is filed elsewhere
    until the address book says so, and a retry judges anew what lies here without fetching.
    """
    name = f"coercing-{method}-{known}"
    study, series = samples.uid("own study", name), samples.uid("own series", name)
    others = [filed_as(one, study=study, series=series) for one in held]
    with archive(here, held, manners=sending(others)) as peer:
        book.add(here.database, name, peer.address, coerces="study,series" if known else None)
        job_id = getattr(here, method)(name, (STUDY, held[0].study_instance_uid))
        job = here.drive(job_id)
        if not known:
            assert (job["state"], job["received"]) == ("failed", 0)
            assert here.reasons(job_id) == {"filed elsewhere"}
            book.change(here.database, name, None, coerces="series,study")
            verbs.retry(here.database, job_id)
            job = here.drive(job_id)
        later = here.drive(getattr(here, method)(name, (STUDY, held[0].study_instance_uid)))
        assert len(peer.stores) == 4
    assert numbers(job) == numbers(later) == ("succeeded", "uids", 4, 4)
    rows = list(retrieve_report.instances(here.database, job_id))
    assert {(row["StudyInstanceUID"], row["filed_study"], row["filed_series"]) for row in rows} == {
        (held[0].study_instance_uid, study, series)
    }
    assert all(row["file"] for row in rows)


def test_a_coerced_study_lies_under_one_study(here: Site, held: list[Sample]) -> None:
    """What of a listed study lies under another study than the rest of it is no part of it, coercion or not."""
    study, stray = samples.uid("coerced to", 1), samples.uid("coerced to", 2)
    others = [filed_as(one, study=study if number else stray) for number, one in enumerate(reversed(held))]
    with archive(here, held, manners=sending(others)) as peer:
        book.add(here.database, "coercing-apart", peer.address, coerces="study")
        job_id = here.move("coercing-apart", (STUDY, held[0].study_instance_uid))
        job = here.drive(job_id)
    assert (job["state"], job["received"]) == ("incomplete", 3)
    assert here.reasons(job_id) == {"filed elsewhere"}


def test_coercion_of_series_leaves_studies_as_they_are(here: Site, held: list[Sample]) -> None:
    """Only the levels that were named may differ."""
    others = [filed_as(one, series=samples.uid("other series", one.sop_instance_uid)) for one in held]
    others[0] = filed_as(held[0], study=samples.uid("other study", held[0].sop_instance_uid))
    with archive(here, held, manners=sending(others)) as peer:
        book.add(here.database, "coercing-series", peer.address, coerces="series")
        job = here.drive(here.move("coercing-series", (STUDY, held[0].study_instance_uid)))
    assert (job["state"], job["received"]) == ("incomplete", 3)


def test_a_row_without_its_file_proves_nothing(here: Site, held: list[Sample]) -> None:
    """A file that was removed by hand is asked for again, one that was cut as well; what lies here whole is not."""
    key = (STUDY, held[0].study_instance_uid)
    with archive(here, held) as peer:
        here.drive(here.move(peer.address, key))
        files = archived(here.scp)
        files[held[0].sop_instance_uid].unlink()
        cut = files[held[1].sop_instance_uid]
        cut.write_bytes(cut.read_bytes()[:-10])
        job_id = here.move(peer.address, key)
        job = here.drive(job_id)
        assert sorted(peer.stores[4:]) == sorted(one.sop_instance_uid for one in held[:2])
        assert numbers(job) == ("succeeded", "uids", 4, 4)
        files = archived(here.scp)
        assert files[held[1].sop_instance_uid] != cut, "the good one counts from now on"
        assert all(files[one.sop_instance_uid].stat().st_size for one in held)
        third = here.drive(here.move(peer.address, key))
        assert len(peer.stores) == 6
    assert numbers(third) == ("succeeded", "uids", 4, 4)


def test_what_lies_here_is_looked_at_once(here: Site, held: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for which nothing had to be asked has just looked at each of its files: one stat an instance."""
    looked: list[str] = []
    stat = os.stat

    def counting(path: Any, **more: Any) -> os.stat_result:
        if more.get("dir_fd") is not None and str(path).endswith(".dcm"):
            looked.append(str(path))
        return stat(path, **more)

    key = (STUDY, held[0].study_instance_uid)
    with archive(here, held) as peer:
        here.drive(here.move(peer.address, key))
        with monkeypatch.context() as watched:
            watched.setattr(os, "stat", counting)
            job = here.drive(here.move(peer.address, key))
        assert len(peer.stores) == 4
    assert numbers(job) == ("succeeded", "uids", 4, 4)
    assert len(looked) == len(set(looked)) == 4


def test_a_worker_that_does_not_see_the_archive_asks_the_storage_scp(
    here: Site, held: list[Sample], tmp_path: Path
) -> None:
    """Not seeing is never missing: nothing is fetched that is there, and what is gone is found by who sees it."""
    key = (STUDY, held[0].study_instance_uid)
    far = replace(here.environment, settings=_elsewhere(here, tmp_path))
    with archive(here, held) as peer:
        here.drive(here.move(peer.address, key))
        archived(here.scp)[held[3].sop_instance_uid].unlink()
        near, here.environment = here.environment, far
        try:
            job = here.drive(here.move(peer.address, key))
        finally:
            here.environment = near
        assert peer.stores[4:] == [held[3].sop_instance_uid]
    assert numbers(job) == ("succeeded", "uids", 4, 4)


def test_an_archive_out_of_sight_lets_the_job_wait(here: Site, held: list[Sample], tmp_path: Path) -> None:
    """A C-GET writes into no folder that is not the archive: an empty mount point stays empty, nobody is charged."""
    far = replace(here.environment, settings=_elsewhere(here, tmp_path))
    near, here.environment = here.environment, far
    try:
        with archive(here, held) as peer:
            job_id = here.get(peer.address, (STUDY, held[0].study_instance_uid))
            job = here.drive(job_id)
            assert peer.stores == []
        assert (job["state"], job["reason"]) == (JobState.HELD.value, "archive out of sight")
    finally:
        here.environment = near
    assert not list(tmp_path.glob("empty/**/*.dcm"))
    verbs.cancel(here.database, job_id)


def _elsewhere(here: Site, folder: Path) -> Settings:
    """The site's settings with a folder for its archive that is not the archive."""
    (folder / "empty").mkdir()
    scp = here.settings.scp.model_copy(update={"archive": folder / "empty"})
    return here.settings.model_copy(update={"scp": scp})


def test_a_destination_that_shows_one_of_two_series(here: Site, held: list[Sample]) -> None:
    """One UID in two series, sent elsewhere: what the destination lists in one series proves nothing of the other."""
    twin = filed_as(held[0], series=samples.uid("second series", held[0].series_instance_uid))
    with (
        archive(here, [held[0], twin]) as peer,
        StoreScp() as sink,
        QrPeer(Catalogue(held[:1]), aet="THERE2") as there,
    ):
        book.add(here.database, "there2", f"THERE2@127.0.0.1:{there.port}")
        peer.destinations["THERE2"] = sink.port
        job_id = here.move(peer.address, (STUDY, twin.study_instance_uid), destination="THERE2")
        job = here.drive(job_id)
    assert numbers(job) == ("incomplete", "uids", 1, 2)
    assert endings(here, job_id) == {
        held[0].series_instance_uid: ("succeeded", None),
        twin.series_instance_uid: ("failed", "not at the destination"),
    }


def test_a_series_that_is_refused_leaves_the_other_one(here: Site, held: list[Sample]) -> None:
    """One UID in two series, of which the archive refuses one for good: the other one is asked for all the same."""
    twin = filed_as(held[0], series=samples.uid("second series", held[0].series_instance_uid))

    def one_series(retrieval: Retrieval) -> None:
        if twin.path in {one.path for one in retrieval.wanted}:
            retrieval.final(0xA900)
        else:
            retrieval.well()

    with archive(here, [twin, held[0]], manners=Manners(retrieve=one_series)) as peer:
        job_id = here.get(peer.address, (STUDY, twin.study_instance_uid), level="series")
        job = here.drive(job_id)
    assert numbers(job) == ("incomplete", "uids", 1, 2)
    found = endings(here, job_id)
    assert found[held[0].series_instance_uid] == ("succeeded", None)
    assert found[twin.series_instance_uid][0] == "failed"


def endings(here: Site, job_id: int) -> dict[str, tuple[str, str | None]]:
    """State and reason of a job's instances, by series."""
    query = sa.select(ItemRow.__table__).where(ItemRow.job_id == job_id, ItemRow.request_id.is_not(None))
    return {row.series_instance_uid: (str(row.state), row.reason) for row in here.rows(query)}


def test_series_that_lie_here_are_told_apart(here: Site, held: list[Sample]) -> None:
    """A request for one series counts nothing of the same UIDs in another series."""
    other = samples.uid("apart", held[0].series_instance_uid)
    twins = [filed_as(one, series=other) for one in held]
    with archive(here, [*held, *twins]) as peer:
        key = (STUDY, held[0].study_instance_uid)
        here.drive(here.move(peer.address, key, (SERIES, held[0].series_instance_uid), level="series"))
        job = here.drive(here.move(peer.address, key, (SERIES, other), level="series"))
        assert len(peer.stores) == 8
    assert numbers(job) == ("succeeded", "uids", 4, 4)

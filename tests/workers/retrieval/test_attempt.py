"""A retrieve attempt by attempt: what is asked for, what is not asked for again, and what an arrival too late means."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from dicomferry.cli.jobs import retrieve_words
from dicomferry.models.documents import retrieve_report, retrieves
from dicomferry.models.record.archive import calls
from dicomferry.models.record.jobs import loss, verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow, WorkerRow
from dicomferry.models.rules import ending, spec
from dicomferry.models.rules.state import JobState
from dicomferry.workers import runner
from dicomferry.workers.dimse.names import Names
from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.retrieval import get_association, watch
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation
from support import samples, studies
from support.compare import assert_same_object
from support.misbehaviour import NAMED
from support.peers import StoreScp
from support.qr_catalogue import Catalogue
from support.qr_messages import CANCELLED
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import IMAGE, IMPATIENT, PATIENT, SERIES, STUDY, TITLE, Site, archived, site
from support.samples import Sample
from support.scripted_peer import Answer


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A study of two series, four and six instances, of this test alone."""
    return [
        samples.instance(
            tmp_path / f"{series}-{number}.dcm", study=(request.node.name, 1), series=series, number=number, size=8
        )
        for series, count in ((1, 4), (2, 6))
        for number in range(1, count + 1)
    ]


def archive(here: Site, held: list[Sample], **more: object) -> QrPeer:
    return QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, **more)  # type: ignore[arg-type]


def study_of(held: list[Sample]) -> tuple[str, str]:
    return STUDY, held[0].study_instance_uid


def test_get_brings_everything(here: Site, held: list[Sample]) -> None:
    """C-GET: on the association itself, into the same archive, each arrival with its job and its request."""
    with archive(here, held) as peer:
        job_id = here.get(peer.address, study_of(held))
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"], job["expected"]) == ("succeeded", "uids", 10, 10)
    assert samples.uids(held) <= set(archived(here.scp))
    rows = here.rows(sa.select(ArrivalRow.__table__))
    mine = [row for row in rows if row.job_id == job_id]
    (move,) = retrieves.moves(here.database, job_id)
    assert {(row.move_id, row.calling_ae_title) for row in mine} == {(move["id"], "ARCHIVE")}
    assert list((here.scp.archive.root / ".ferry" / get_association.FOLDER).iterdir()) == []
    here.check(job_id)


class Unfit(Names):
    """A look-up of host names that has a fault of its own."""

    def within(self, host: str, seconds: float) -> tuple[str, ...]:
        raise RuntimeError("no look-up today")


def test_a_fault_of_ours_before_anything_is_asked(here: Site, held: list[Sample]) -> None:
    """An error while an attempt looks round ends that attempt, with the error on record; the next one does the work."""
    sound = here.environment
    with archive(here, held) as peer:
        job_id = here.move(peer.address, study_of(held))
        here.environment = replace(sound, names=Unfit())
        while here.show(job_id)["attempts"] < 1 or not here.show(job_id)["reason"]:
            assert runner.run_one(here.environment, "bulk")
        assert here.show(job_id)["detail"] == "RuntimeError: no look-up today"
        here.environment = sound
        verbs.release(here.database, job_id)
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 10)


@pytest.mark.parametrize("method", ["move", "get"])
def test_one_association_at_a_time(here: Site, held: list[Sample], method: str) -> None:
    """Whether it lists, fetches, fetches the rest or looks again: an attempt has room for one association."""

    def first_short(retrieval: Retrieval) -> None:
        retrieval.store(retrieval.wanted[:6] if retrieval.nth == 1 else retrieval.wanted)
        retrieval.hang_up()
        retrieval.final()

    with archive(here, held, manners=Manners(retrieve=first_short)) as peer:
        job = here.drive(getattr(here, method)(peer.address, study_of(held)))
        assert (job["state"], job["received"], peer.most_at_once) == ("succeeded", 10, 1)
        assert len(peer.retrieves) > 1 and peer.associations > 2


def test_what_is_here_is_not_fetched_again(here: Site, held: list[Sample]) -> None:
    """Whole series that are missing are asked for as such, and of the others the instances that are missing."""
    with archive(here, held) as peer:
        uid = held[0].sop_instance_uid
        keys = (study_of(held), (SERIES, held[0].series_instance_uid), (IMAGE, uid))
        assert here.drive(here.move(peer.address, *keys, level="image"))["state"] == "succeeded"
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
        asked = sorted((one.level, len(one.wanted)) for one in peer.retrieves[1:])
        stores = len(peer.stores)
        again = here.drive(here.move(peer.address, study_of(held)))
        assert len(peer.stores) == stores, "all of it was here"
        anew = here.drive(here.move(peer.address, study_of(held), refetch=True))
        assert len(peer.stores) == stores + 10
    assert asked == [("IMAGE", 3), ("SERIES", 6)]
    for one in (job, again, anew):
        assert (one["state"], one["verified"], one["received"]) == ("succeeded", "uids", 10)
    reasons = {item["reason"] for item in here.items(job_id) if item["sop_instance_uid"] == uid}
    assert reasons == {"already here"}


@pytest.mark.parametrize("method", ["move", "get"])
def test_an_archive_that_takes_one_encoding_for_all(method: str, here: Site, tmp_path: Path) -> None:
    """What it could not send in the encoding that was chosen is asked for again, once, the compressed ones first."""
    *_, mixed = studies.of_study(studies.six(tmp_path, 10, name=f"one encoding, {method}")).values()
    compressed = {one.sop_instance_uid for one in mixed if one.transfer_syntax_uid == RLELossless}
    assert len(compressed) == 3 and len(mixed) == 15

    def choose(abstract: str, syntaxes: list[str]) -> Answer:
        return (0 if {*syntaxes} & {RLELossless, ExplicitVRLittleEndian} else 4), syntaxes[0]

    with archive(here, mixed, manners=Manners(one_syntax=True, choose=choose)) as peer:
        job_id = getattr(here, method)(peer.address, study_of(mixed))
        job = here.drive(job_id)
        assert [set(one.wanted) for one in peer.retrieves] == [samples.uids(mixed), compressed]
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 15)
    assert here.rounds(job_id) == [0, 1]
    kept = archived(here.scp)
    for one in mixed:
        assert_same_object(one.path, kept[one.sop_instance_uid])


# What of the study tells a C-GET which classes to propose where the archive lists no images.
TOLD = {
    "SOP classes": ("SOPClassesInStudy",),
    "modalities": ("ModalitiesInStudy",),
    "modality": ("Modality",),
    "nothing": (),
}


@pytest.mark.parametrize("told", TOLD)
def test_the_classes_of_a_get_are_asked_for(told: str, here: Site, tmp_path: Path) -> None:
    """IMAGE level refused: SOPClassesInStudy, else the modalities of study or series, else what is common; rare classes
    are proposed where they are known and only there.
    """
    rare = "1.2.840.10008.5.1.4.1.1.481.1" if told != "SOP classes" else "1.2.840.10008.5.1.4.1.1.78.7"

    def made(number: int) -> Sample:
        ds = samples.dataset("CT", 8, SOPClassUID=rare, Modality="RTIMAGE", InstanceNumber=number)
        ds.StudyInstanceUID = UID(samples.uid("study", "classes", told))
        ds.SOPInstanceUID = UID(samples.uid("sop", "classes", told, number))
        return samples.write(tmp_path / f"{number}.dcm", ds)

    held = [made(1), made(2)]

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        for answer in answers:
            for keyword in {"SOPClassesInStudy", "ModalitiesInStudy", "Modality"} - set(TOLD[told]):
                if keyword in answer:
                    setattr(answer, keyword, None)
        return 0xC000 if level == "IMAGE" else answers

    asked: list[set[str]] = []

    def retrieve(retrieval: Retrieval) -> None:
        classes = {abstract for abstract, _ in retrieval.line.contexts.values()}
        asked.append({one for one in classes if ".5.1.4.1.1." in one})
        retrieval.well()

    with archive(here, held, manners=Manners(find=find, retrieve=retrieve)) as peer:
        job = here.drive(here.get(peer.address, study_of(held)))
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "counts", 2)
    assert len(asked) == 1
    assert asked[0] == {rare} if told != "nothing" else len(asked[0]) > 20


class Killed(BaseException):
    """Stands for a worker that ends where it is."""


def test_after_a_worker_died_only_the_rest_is_asked_for(
    here: Site, held: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before and after its death is here, whoever asked for it."""

    def half_of_it(retrieval: Retrieval) -> None:
        if retrieval.nth > 1:
            return retrieval.well()
        retrieval.store(retrieval.wanted[:7])
        retrieval.hang_up()
        return None

    with archive(here, held, manners=Manners(retrieve=half_of_it)) as peer:
        job_id = here.move(peer.address, study_of(held))
        assert runner.run_one(here.environment, "bulk")
        follow = watch.follow

        def dies(situation: Situation, progress: Progress, *_: object) -> None:
            while progress.came < 7:
                watch.look(situation, progress, now=True)
            raise Killed

        monkeypatch.setattr(watch, "follow", dies)
        with pytest.raises(Killed):
            runner.run_one(here.environment, "bulk")
        monkeypatch.setattr(watch, "follow", follow)
        assert loss.expire(here.database, everything=True) == 1
        job = here.drive(job_id)
        assert [len(one.wanted) for one in peer.retrieves[1:]] == [3]
    assert (job["state"], job["received"]) == ("succeeded", 10)
    here.check(job_id)


def _say_that_it_ended(here: Site, at: datetime | None) -> None:
    """The storage SCP's row says that it ended then, or that it did not, whatever else it writes there."""
    row = sa.update(WorkerRow).where(WorkerRow.role == "scp").values(ended_at=at)
    here.database.write(lambda connection: connection.execute(row))


def test_without_a_storage_scp_nothing_is_asked(here: Site, held: list[Sample]) -> None:
    """The move waits, says why, charges nobody, and goes on when there is one."""
    with archive(here, held) as peer:
        job_id = here.move(peer.address, study_of(held))
        _say_that_it_ended(here, datetime.now(UTC))
        while runner.run_one(here.environment, "bulk"):
            pass
        job = here.show(job_id)
        assert (job["state"], job["reason"]) == ("running", ending.NO_SCP)
        assert peer.associations == 0
        _say_that_it_ended(here, None)
        calls.begin(here.database)
        assert here.drive(job_id)["state"] == "succeeded"


def test_a_late_arrival_makes_the_job_good(here: Site, held: list[Sample]) -> None:
    """What was given up comes after all: the item, the request and the job are succeeded."""
    withheld = held[3].sop_instance_uid

    def one_short(retrieval: Retrieval) -> None:
        retrieval.store([one for one in retrieval.wanted if one.sop_instance_uid != withheld])
        retrieval.hang_up()
        retrieval.final()

    with archive(here, held, manners=Manners(retrieve=one_short)) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
        assert (job["state"], job["received"], here.reasons(job_id)) == ("incomplete", 9, {"not delivered"})
        assert here.rounds(job_id) == [0, 1, 2]
        peer.manners = Manners()
        # Another job brings it, so that it comes without a word of the first one.
        keys = (study_of(held), (SERIES, held[3].series_instance_uid), (IMAGE, withheld))
        assert here.drive(here.move(peer.address, *keys, level="image"))["state"] == "succeeded"
    job = here.show(job_id)
    assert (job["state"], job["verified"], job["received"], job["missing"]) == ("succeeded", "uids", 10, 0)
    assert "arrived" in {event["kind"] for event in job["events"]}
    here.check(job_id)


def test_retry_asks_for_the_rest_with_fresh_rounds(here: Site, held: list[Sample]) -> None:
    """`retry` begins with what is missing, and with the first round."""
    withheld = held[3].sop_instance_uid

    def one_short(retrieval: Retrieval) -> None:
        retrieval.store([one for one in retrieval.wanted if one.sop_instance_uid != withheld])
        retrieval.hang_up()
        retrieval.final()

    with archive(here, held, manners=Manners(retrieve=one_short)) as peer:
        job_id = here.move(peer.address, study_of(held))
        assert here.drive(job_id)["state"] == "incomplete"
        peer.manners = Manners()
        verbs.retry(here.database, job_id)
        assert here.drive(job_id)["state"] == "succeeded"
        assert peer.retrieves[-1].wanted == (withheld,)
    assert here.rounds(job_id) == [0, 1, 2, 0]
    here.check(job_id)


def test_a_cancelled_move_is_cancelled_at_the_archive(here: Site, held: list[Sample]) -> None:
    """C-CANCEL; what came until then stays, the rest is cancelled."""
    jobs: list[int] = []

    def until_cancelled(retrieval: Retrieval) -> None:
        retrieval.store(retrieval.wanted[:4])
        retrieval.hang_up()
        verbs.cancel(here.database, jobs[0])
        assert retrieval.listen(20)
        retrieval.final(CANCELLED)

    with archive(here, held, manners=Manners(retrieve=until_cancelled)) as peer:
        jobs.append(here.move(peer.address, study_of(held)))
        job = here.drive(jobs[0])
        assert peer.cancels == 1
    assert job["state"] == "cancelled"
    states = [item["state"] for item in here.items(jobs[0]) if item["kind"] == "instance"]
    assert states.count("succeeded") == 4 and states.count("cancelled") == 6
    (move,) = retrieves.moves(here.database, jobs[0])
    assert move["reason"] == "broken off"
    here.check(jobs[0])


@pytest.mark.parametrize("how", ["hold", "window"])
@pytest.mark.parametrize("method", ["move", "get"])
def test_a_retrieve_that_has_to_stop_goes_on_later(here: Site, held: list[Sample], method: str, how: str) -> None:
    """Held by a person, or the window closes: C-CANCEL, what came stays, and later only the rest is asked for."""
    name = f"{method}-{how}"

    def stop() -> None:
        if how == "hold":
            verbs.hold(here.database, jobs[0])
        else:
            book.change(here.database, name, None, window={"tz": "UTC", "hours": _closed_now()})

    def until_stopped(retrieval: Retrieval) -> None:
        retrieval.store(retrieval.wanted[:4])
        if method == "move":
            retrieval.hang_up()
        if len(peer.retrieves) > 1:
            retrieval.store(retrieval.wanted[4:])
            retrieval.final(0)
            return
        stop()
        assert retrieval.listen(20)
        retrieval.final(CANCELLED)

    jobs: list[int] = []
    with archive(here, held, manners=Manners(retrieve=until_stopped)) as peer:
        book.add(here.database, name, peer.address)
        jobs.append(getattr(here, method)(name, study_of(held)))
        while here.state(jobs[0]) is not JobState.HELD and here.show(jobs[0])["reason"] != "window":
            runner.run_one(here.environment, "bulk")
        assert peer.cancels == 1
        assert here.show(jobs[0])["received"] == 4
        if how == "hold":
            verbs.release(here.database, jobs[0])
        else:
            book.change(here.database, name, None, window={"hours": ""})
        job = here.drive(jobs[0])
        assert (job["state"], job["received"]) == ("succeeded", 10)
        assert not set(peer.retrieves[1].wanted) & set(peer.stores[:4])
    here.check(jobs[0])


def _closed_now() -> str:
    """One hour of the day, half a day from now."""
    hour = (datetime.now(UTC).hour + 12) % 24
    return f"daily {hour:02}:00-{hour + 1:02}:00"


def test_overlapping_requests_fetch_each_instance_once(here: Site, held: list[Sample]) -> None:
    """The second request's instances are duplicates; both succeed and have them, and the job counts each once."""
    with archive(here, held) as peer:
        keys = (study_of(held), (SERIES, held[0].series_instance_uid))
        both_series = (study_of(held), ("00080060", "*"))
        what = spec.MoveSpec(identifiers=((1, keys), (2, both_series)), level="series")
        job_id = here.submit(peer.address, what)
        job = here.drive(job_id)
        assert sorted(peer.stores) == sorted(samples.uids(held))
    assert (job["state"], job["received"], job["items"]["skipped"]) == ("succeeded", 10, 4)
    assert (job["expected"], job["missing"]) == (10, 0)
    both = list(retrieves.requests(here.database, job_id))
    assert [(one["expected"], one["received"], one["state"]) for one in both] == [
        (4, 4, "succeeded"), (10, 10, "succeeded"),
    ]  # fmt: skip
    (study,) = retrieve_report.studies(here.database, job_id)
    assert (study["rows"], study["expected"], study["received"]) == ([1, 2], 10, 10)
    assert here.rows(sa.select(ChunkRow.round).where(ChunkRow.job_id == job_id))
    here.check(job_id)


def test_an_older_file_is_not_reported_as_what_came(here: Site, held: list[Sample]) -> None:
    """With `refetch`, an instance that does not come again has no file, size or syntax in the report of that job."""
    with archive(here, held) as peer:
        assert here.drive(here.get(peer.address, study_of(held)))["state"] == "succeeded"
    with archive(here, held, manners=NAMED["one instance never comes"]) as peer:
        job_id = here.move(peer.address, study_of(held), refetch=True)
        assert here.drive(job_id)["received"] == 9
    rows = list(retrieve_report.instances(here.database, job_id))
    assert [bool(row["file"] and row["bytes"] and row["transfer_syntax"]) for row in rows if row["received"]] == [
        True
    ] * 9
    (lost,) = (row for row in rows if not row["received"])
    assert (lost["file"], lost["bytes"], lost["transfer_syntax"], lost["arrivals"]) == (None, None, None, 0)


@pytest.mark.parametrize("lost", [False, True])
def test_the_same_row_again_takes_the_outcome_of_the_first(here: Site, held: list[Sample], lost: bool) -> None:
    """It is asked once, listed once, and neither row says that it succeeded where an instance did not come."""
    manners = NAMED["one instance never comes"] if lost else Manners()
    with archive(here, held, manners=manners) as peer:
        keys = (study_of(held),)
        what = spec.MoveSpec(identifiers=((2, keys), (3, (*keys, (PATIENT, "*"))), (4, keys), (5, keys)))
        job_id = here.submit(peer.address, what)
        job = here.drive(job_id)
    came = 9 if lost else 10
    assert (job["state"], job["expected"], job["received"]) == ("incomplete" if lost else "succeeded", 10, came)
    told = [
        (one["row"], one["expected"], one["received"], one["state"], one["reason"])
        for one in retrieves.requests(here.database, job_id)
    ]
    outcome = ("failed", "not delivered") if lost else ("succeeded", None)
    assert told == [(row, 10, came, *outcome) for row in (2, 3, 4, 5)]
    items = [item for item in here.items(job_id) if item["kind"] == "request"]
    by_row = {item["row"]: item for item in items}
    assert {by_row[row]["detail"] for row in (4, 5)} == {"the same as row 2"}
    assert {item["state"] for item in items} == {"skipped", "failed" if lost else "succeeded"}
    (study,) = retrieve_report.studies(here.database, job_id)
    assert (study["rows"], study["expected"], study["received"]) == ([2, 3, 4, 5], 10, came)
    here.check(job_id)


def test_what_a_dead_get_published_is_indexed(here: Site, held: list[Sample]) -> None:
    """A process died between file and row: the next one finds the file by the journal that it left."""
    root = here.settings.archive
    folder = root / ".ferry" / get_association.FOLDER
    folder.mkdir(exist_ok=True)
    (folder / "dead.lock").write_bytes(b"")
    one = held[0]
    place = f"{one.study_instance_uid}/{one.series_instance_uid}"
    journal = Journal(folder / "dead.journal")
    journal.enter(place)
    journal.close()
    (root / place).mkdir(parents=True, mode=0o700)
    (root / place / f"{one.sop_instance_uid}.dcm").write_bytes(one.path.read_bytes())
    living = os.open(folder / "living.lock", os.O_CREAT | os.O_RDWR)
    import fcntl

    fcntl.flock(living, fcntl.LOCK_EX)
    assert get_association.take_over(Archive(root), here.database) == 1
    assert one.sop_instance_uid in archived(here.scp)
    assert [path.name for path in folder.iterdir()] == ["living.lock"]
    os.close(living)
    (folder / "living.lock").unlink()


def test_a_job_that_was_never_planned_has_no_numbers(here: Site) -> None:
    """Nothing is said to be missing before it is known what is to come."""
    job_id = here.move("NOBODY@127.0.0.1:1", (STUDY, "1.2.3"))
    numbers = retrieves.numbers(here.database, job_id)
    assert (numbers.expectation, numbers.expected, numbers.received, numbers.missing) == (None, None, 0, None)
    assert verbs.cancel(here.database, job_id) is JobState.CANCELLED
    assert here.rows(sa.select(ItemRow.id).where(ItemRow.job_id == job_id)) == []


def test_what_goes_elsewhere_is_seen_there(here: Site, held: list[Sample], storescp: StoreScp) -> None:
    """`destination`: nothing arrives here; without a way to ask the destination the archive is believed, and that is
    said.
    """
    with archive(here, held) as peer:
        peer.destinations[storescp.aet] = storescp.port
        job_id = here.move(peer.address, study_of(held), destination=storescp.aet)
        job = here.drive(job_id)
    assert set(storescp.received()) == samples.uids(held)
    assert (job["state"], job["verified"], job["received"], job["expected"]) == ("succeeded", "none", 10, 10)
    assert retrieve_words.balance(job) == "10 of 10 sent to STORESCP, ARCHIVE says"
    assert samples.uids(held).isdisjoint(archived(here.scp))
    here.check(job_id)


def test_a_destination_that_answers_is_asked(here: Site, held: list[Sample], tmp_path: Path) -> None:
    """What it does not list is asked for again, and then not at the destination."""
    lost = held[5].sop_instance_uid
    with archive(here, held) as peer, StoreScp() as sink:
        there = QrPeer(Catalogue([one for one in held if one.sop_instance_uid != lost]), aet="THERE")
        with there:
            book.add(here.database, "there", f"THERE@127.0.0.1:{there.port}")
            peer.destinations["THERE"] = sink.port
            job_id = here.move(peer.address, study_of(held), destination="THERE")
            job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"]) == ("incomplete", "uids", 9)
    assert retrieve_words.balance(job) == "9 of 10 proven at THERE, from ARCHIVE"
    assert here.reasons(job_id) == {"not at the destination"}
    assert here.rounds(job_id) == [0, 1, 2]


def test_what_was_never_sent_is_not_said_to_have_been(here: Site, held: list[Sample]) -> None:
    """An archive that answers only that it cannot has told of no delivery: its word stands, with a hint at the
    destination, which many do not distinguish.
    """
    with archive(here, held, manners=Manners(retrieve=lambda retrieval: retrieval.final(0xC000))) as peer:
        peer.destinations["NOBODY"] = here.scp.port
        job_id = here.move(peer.address, study_of(held), destination="NOBODY")
        job = here.drive(job_id)
    assert (job["state"], job["received"], here.reasons(job_id)) == ("failed", 0, {"not delivered"})
    assert {item["detail"] for item in here.items(job_id) if item["kind"] == "instance"} == {
        "the archive answered 0xC000; 0 completed, 0 failed, 0 with warnings; "
        "does it know AE title NOBODY as a destination?"
    }
    assert retrieve_words.balance(job) == "0 of 10 sent to NOBODY"


@pytest.mark.parametrize("lists", ["numbers", "nothing"])
def test_what_nobody_lists_and_went_elsewhere_is_counted_by_the_answers(
    here: Site, held: list[Sample], lists: str
) -> None:
    """Neither archive nor destination lists an instance: what is told as sent is the archive's number, and its word."""

    def find(_: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        return answers if lists == "numbers" and level != "IMAGE" else 0xC000

    def retrieve(retrieval: Retrieval) -> None:
        retrieval.final(0x0000, completed=10)

    with archive(here, held, manners=Manners(find=find, retrieve=retrieve)) as peer:
        peer.destinations["NOBODY"] = here.scp.port
        job = here.drive(here.move(peer.address, study_of(held), destination="NOBODY"))
    assert (job["state"], job["verified"], job["received"], job["missing"] or 0) == ("succeeded", "none", 10, 0)
    come = "10 of 10" if lists == "numbers" else "10"
    assert retrieve_words.balance(job) == f"{come} sent to NOBODY, ARCHIVE says"


PATIENT_WAITS = {**IMPATIENT["timeouts"], "quiet": 3600, "settle": 3600}
"""Whoever waits for either does not come to an end in a test."""


@pytest.mark.parametrize("lists", [True, False], ids=["listed", "believed"])
def test_an_unknown_destination_is_not_waited_for(held: list[Sample], lists: bool) -> None:
    """Where every answer is a failure without a sub-operation nothing is under way: asked once more, then the end, and
    neither `quiet` nor `settle` is spent.
    """

    def refuses(retrieval: Retrieval) -> None:
        retrieval.final(0xC000)

    manners = Manners(retrieve=refuses) if lists else Manners(retrieve=refuses, find=lambda *_: 0xC000)
    with site(timeouts=PATIENT_WAITS) as patient, archive(patient, held, manners=manners) as peer:
        peer.destinations["NOBODY"] = patient.scp.port
        job_id = patient.move(peer.address, study_of(held), destination="NOBODY")
        job = patient.drive(job_id)
        assert (job["state"], job["verified"], job["received"]) == ("failed", "none", 0)
        told = [item["detail"] for item in patient.items(job_id) if item["state"] == "failed"]
        assert any("does it know AE title NOBODY as a destination?" in (detail or "") for detail in told)
        assert set(patient.rounds(job_id)) == {0, 1}
        patient.check(job_id)


def test_what_was_begun_elsewhere_is_waited_for(here: Site, held: list[Sample]) -> None:
    """An archive that told of sub-operations before it failed gets all its rounds, also where its last answer has no
    counters; so does one that failed only at first.
    """

    def breaks_off(retrieval: Retrieval) -> None:
        retrieval.pending(completed=2)
        retrieval.final(0xC000, completed=None, failed=None, warning=None)

    def at_first(retrieval: Retrieval) -> None:
        if retrieval.nth == 1:
            breaks_off(retrieval)
        else:
            retrieval.final(0xC000)

    for manners in (breaks_off, at_first):
        with archive(here, held, manners=Manners(retrieve=manners)) as peer:
            peer.destinations["NOBODY"] = here.scp.port
            job_id = here.move(peer.address, study_of(held), destination="NOBODY")
            job = here.drive(job_id)
        assert (job["state"], here.reasons(job_id)) == ("failed", {"not delivered"})
        assert set(here.rounds(job_id)) == {0, 1, 2}
        assert retrieves.moves(here.database, job_id)[0]["completed"] == 2
        here.check(job_id)


def test_fewer_completed_than_asked_for_names_nobody(here: Site, held: list[Sample], storescp: StoreScp) -> None:
    """To somebody else: an answer of success that counts five of ten tells of none of them that it went. They are asked
    for again, one by one in the end, and those that never went are not delivered.
    """
    mine = samples.uids(held[:5])

    def five(retrieval: Retrieval) -> None:
        retrieval.store([one for one in retrieval.wanted if one.sop_instance_uid in mine])
        retrieval.hang_up()
        retrieval.final()

    with archive(here, held, manners=Manners(retrieve=five)) as peer:
        peer.destinations[storescp.aet] = storescp.port
        job_id = here.move(peer.address, study_of(held), destination=storescp.aet)
        job = here.drive(job_id)
    good = {item["sop_instance_uid"] for item in here.items(job_id) if item["state"] == "succeeded"}
    assert good == mine
    assert (job["state"], job["verified"], job["received"], job["expected"]) == ("incomplete", "none", 5, 10)
    assert here.reasons(job_id) == {"not delivered"}
    assert here.rounds(job_id) == [0, 1, 1, *[2] * 6], "a list of four was counted whole, one of six was not"


def test_a_number_that_is_known_has_to_be_sent(here: Site, held: list[Sample], storescp: StoreScp) -> None:
    """An archive that lists no images says how many there are, and that is kept: five of ten are not all."""

    def find(_: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        return 0xC000 if level == "IMAGE" else answers

    def five(retrieval: Retrieval) -> None:
        retrieval.store(retrieval.wanted[:5])
        retrieval.hang_up()
        retrieval.final()

    with archive(here, held, manners=Manners(find=find, retrieve=five)) as peer:
        peer.destinations[storescp.aet] = storescp.port
        job_id = here.move(peer.address, study_of(held), destination=storescp.aet)
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["expectation"], job["expected"]) == ("failed", "none", "counts", 10)
    assert "5 of 10" in (here.request(job_id)["detail"] or "")

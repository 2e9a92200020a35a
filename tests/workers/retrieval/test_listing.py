"""Lists that are not whole: what an archive says of more than it lists, what is done then, and what it is called."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicomferry.cli.jobs import retrieve_words, wait
from dicomferry.models.documents import retrieve_report, retrieves
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book
from support import samples
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import IMAGE, PATIENT, SERIES, STUDY, TITLE, Site
from support.samples import Sample

NUMBERS = ("NumberOfPatientRelatedInstances", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances")
Find = Callable[[QrPeer, str, list[Dataset]], list[Dataset] | int]


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> list[Sample]:
    """A study of two series of three, of this test alone."""
    return made(tmp_path, request.node.name)


def made(folder: Path, name: str, number: int = 1) -> list[Sample]:
    return [
        samples.instance(
            folder / f"{number}-{series}-{image}.dcm", study=(name, number), series=series, number=image, size=8,
            patient_id=name[:16],
        )
        for series in (1, 2)
        for image in (1, 2, 3)
    ]  # fmt: skip


def archive(
    here: Site, held: list[Sample], find: Find, retrieve: Callable[[Retrieval], None] = Retrieval.well
) -> QrPeer:
    return QrPeer(Catalogue(held), destinations={TITLE: here.scp.port}, manners=Manners(find=find, retrieve=retrieve))


def study_of(held: list[Sample]) -> tuple[str, str]:
    return STUDY, held[0].study_instance_uid


def hiding(hidden: list[Sample], **numbers: int | None) -> Find:
    """Lists all but these at IMAGE level, and numbers by keyword where those are given (None: empty)."""
    uids = samples.uids(hidden)

    def find(_: QrPeer, __: str, answers: list[Dataset]) -> list[Dataset]:
        answers = copy.deepcopy([one for one in answers if one.get("SOPInstanceUID") not in uids])
        for one in answers:
            for keyword in NUMBERS:
                if keyword in one and keyword in numbers:
                    setattr(one, keyword, numbers[keyword])
        return answers

    return find


NO_NUMBERS: dict[str, int | None] = dict.fromkeys(NUMBERS)


def without(hidden: list[Sample]) -> Callable[[Retrieval], None]:
    """Sends all but these, and does not say a word of them."""
    uids = samples.uids(hidden)

    def retrieve(retrieval: Retrieval) -> None:
        retrieval.wanted = [one for one in retrieval.wanted if one.sop_instance_uid not in uids]
        retrieval.well()

    return retrieve


def verdict(job: dict[str, Any]) -> tuple[object, ...]:
    return job["state"], job["verified"], job["reason"], job["received"], job["expected"]


def test_more_said_than_listed_is_not_proven(here: Site, held: list[Sample]) -> None:
    """What hides is asked for: listed again after `settle`, the short series asked for whole, once; then it is told."""
    hidden = held[4:]
    listed: list[int] = []
    send = without(hidden)

    def lists() -> int:
        return sum(query.QueryRetrieveLevel == "IMAGE" for query in peer.queries)

    def counting(retrieval: Retrieval) -> None:
        listed.append(lists())
        send(retrieval)

    with archive(here, held, hiding(hidden), counting) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
        asked = [(one.level, one.uids) for one in peer.retrieves]
        listed.append(lists())
    assert verdict(job) == ("incomplete", "counts", "listing not whole", 4, 6)
    assert asked == [("STUDY", (held[0].study_instance_uid,)), ("SERIES", (held[4].series_instance_uid,))]
    first, second, last = listed
    assert (first, last) == (2, second), "two series, listed before each request and not behind them"
    # A list that was older than `settle` when the last instance came has been looked at in between as well.
    assert second in (4, 6)
    request = here.request(job_id)
    assert request["detail"] == (
        "4 of 4 listed are here, the archive says 6: hidden or rejected objects, or a stale count; ask its "
        "administrator"
    )
    assert "proven" not in retrieve_words.balance(job)
    here.check(job_id)


def test_what_the_archive_lists_later_is_fetched(here: Site, held: list[Sample]) -> None:
    """An archive that was importing: the second list is whole, and so is the proof; it tells of its own moment."""
    hidden = held[4:]
    first = hiding(hidden)

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        early = sum(query.QueryRetrieveLevel == "IMAGE" for query in peer.queries) <= 2
        return first(peer, level, answers) if early else answers

    with archive(here, held, find, without([])) as peer:
        withheld = peer.catalogue
        for one in hidden:
            withheld.remove(one.sop_instance_uid)
        withheld.add(hidden)
        job = here.drive(here.move(peer.address, study_of(held)))
    assert verdict(job) == ("succeeded", "uids", None, 6, 6)
    assert job["basis"] == "number" and job["listed_at"] > job["submitted_at"]


def test_as_many_as_it_says_are_here_by_number(here: Site, held: list[Sample]) -> None:
    """What nobody listed came: its number is here, and that is what it is called."""
    with archive(here, held, hiding(held[4:])) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
    assert verdict(job) == ("succeeded", "counts", None, 6, 6)
    assert "6 of 6 here by number only" in wait.end_sentence(here.database, job)


def test_a_retry_lists_again_at_once(here: Site, held: list[Sample]) -> None:
    """Once its administrator has found the rest, `jobs retry` brings it; what is here is not fetched again."""
    hidden = held[4:]
    with archive(here, held, hiding(hidden), without(hidden)) as peer:
        job_id = here.move(peer.address, study_of(held))
        assert here.drive(job_id)["state"] == "incomplete"
        stores = len(peer.stores)
        peer.manners = Manners()
        assert verbs.retry(here.database, job_id) == 1
        job = here.drive(job_id)
        assert len(peer.stores) == stores + len(hidden)
    assert verdict(job) == ("succeeded", "uids", None, 6, 6)


def test_numbers_that_are_wrong_for_good(here: Site, held: list[Sample]) -> None:
    """`--numbers ignored`: the list is the measure, nothing is asked twice, and the end says so."""
    with archive(here, held, hiding([], NumberOfStudyRelatedInstances=9)) as peer:
        book.add(here.database, "liar", peer.address, numbers="ignored")
        job_id = here.move("liar", study_of(held))
        job = here.drive(job_id)
        assert len(peer.retrieves) == 1
    assert verdict(job) == ("succeeded", "uids", None, 6, 6)
    assert job["basis"] == "set aside"
    assert "6 of 6 proven from ARCHIVE by its list, its numbers set aside" in wait.end_sentence(here.database, job)


def test_numbers_that_are_set_aside_afterwards(here: Site, held: list[Sample]) -> None:
    """What is expected is the list alone then: nothing is told as missing of a job that has succeeded."""
    hidden = held[4:]
    with archive(here, held, hiding(hidden), without(hidden)) as peer:
        book.add(here.database, "stale", peer.address)
        job_id = here.move("stale", study_of(held))
        job = here.drive(job_id)
        assert verdict(job) == ("incomplete", "counts", "listing not whole", 4, 6)
        assert retrieve_words.missing_lines(here.database, job) == ["2 that ARCHIVE says it has and does not list"]
        book.change(here.database, "stale", None, numbers="ignored")
        verbs.retry(here.database, job_id)
        job = here.drive(job_id)
    assert (*verdict(job), job["missing"]) == ("succeeded", "uids", None, 4, 4, 0)
    assert "4 of 4 proven from ARCHIVE by its list, its numbers set aside" in wait.end_sentence(here.database, job)


def test_a_list_without_a_number_stands_alone(here: Site, held: list[Sample]) -> None:
    """It is proven, and said to be so by its list alone, on the screen and in the report."""
    with archive(here, held, hiding([], **NO_NUMBERS)) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
    assert verdict(job) == ("succeeded", "uids", None, 6, 6)
    assert "6 of 6 proven from ARCHIVE by its list alone" in wait.end_sentence(here.database, job)
    (request,) = retrieves.requests(here.database, job_id)
    assert (request["verified"], request["basis"]) == ("uids", "list") and request["listed_at"]


def test_a_number_below_the_list_is_noted(here: Site, held: list[Sample]) -> None:
    """It changes nothing."""
    with archive(here, held, hiding([], NumberOfStudyRelatedInstances=4)) as peer:
        job = here.drive(here.move(peer.address, study_of(held)))
        assert len(peer.retrieves) == 1
    assert verdict(job) == ("succeeded", "uids", None, 6, 6)
    assert any("the archive says 4 of" in event["text"] for event in job["events"])


def test_the_numbers_of_what_was_not_asked_for_bind_nobody(here: Site, held: list[Sample]) -> None:
    """A series is asked for: its study's number, and its patient's, say nothing of it."""
    find = hiding([], NumberOfStudyRelatedInstances=90, NumberOfPatientRelatedInstances=900)
    with archive(here, held, find) as peer:
        keys = study_of(held), (SERIES, held[0].series_instance_uid)
        job = here.drive(here.move(peer.address, *keys, level="series"))
    assert verdict(job) == ("succeeded", "uids", None, 3, 3)


def test_failed_sub_operations_that_name_nobody_expected(here: Site, held: list[Sample]) -> None:
    """All that is listed is here, and the archive could not send something else: not proven, and told."""

    def retrieve(retrieval: Retrieval) -> None:
        retrieval.store()
        retrieval.failed_uids += ["1.2.3.4"] * 2
        retrieval.hang_up()
        retrieval.final(failed_list=False)

    with archive(here, held, hiding([], **NO_NUMBERS), retrieve) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["reason"]) == ("incomplete", "counts", "listing not whole")
    assert "tells of 2 more, of which 2 failed" in here.request(job_id)["detail"]


def test_failed_sub_operations_that_came_all_the_same(here: Site, held: list[Sample]) -> None:
    """What failed at first was listed, and comes when it is asked for again: nothing is left to explain."""

    def retrieve(retrieval: Retrieval) -> None:
        retrieval.store(retrieval.wanted[2:] if retrieval.nth == 1 else None)
        if retrieval.nth == 1:
            retrieval.failed_uids += [one.sop_instance_uid for one in retrieval.wanted[:2]]
        retrieval.hang_up()
        retrieval.final(failed_list=False)

    with archive(here, held, hiding([], **NO_NUMBERS), retrieve) as peer:
        job = here.drive(here.move(peer.address, study_of(held)))
    assert verdict(job) == ("succeeded", "uids", None, 6, 6)


def test_a_known_cap_where_no_number_confirms(here: Site, tmp_path: Path) -> None:
    """As many studies of a patient as it lists at most: all of them come, and the job says that there may be more."""
    studies = [made(tmp_path, "cap", number) for number in (1, 2, 3)]
    held = [one for study in studies for one in study]
    with archive(here, held, lambda _, level, answers: answers[:2] if level == "STUDY" else answers) as peer:
        book.add(here.database, "capped", peer.address, find_cap=2)
        job = here.drive(here.move("capped", (PATIENT, "cap")))
        images = here.drive(here.move("capped", study_of(held)))
    assert verdict(job) == ("incomplete", "none", "maybe truncated", 12, 12)
    assert images["verified"] == "uids", "one study that is named by its key"


@pytest.mark.parametrize("both", [False, True], ids=["alone", "beside another"])
def test_a_study_that_lists_nothing_below_is_asked_for(here: Site, tmp_path: Path, both: bool) -> None:
    """Nothing below and no number is unknown, not empty: it is moved, and proven by nothing; others stay as listed."""
    name = f"mute {both}"
    good, mute = made(tmp_path, name, 1), made(tmp_path, name, 2)

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        if level != "STUDY" and peer.queries[-1].StudyInstanceUID == mute[0].study_instance_uid:
            return []
        return hiding([], **NO_NUMBERS)(peer, level, answers)

    with archive(here, [*good, *mute] if both else mute, find) as peer:
        job_id = here.move(peer.address, (PATIENT, name))
        job = here.drive(job_id)
        assert len(peer.stores) == len(peer.retrieves) * 6
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "none", 12 if both else 6)
    assert "here, proven by nothing" in wait.end_sentence(here.database, job)


def test_a_study_that_is_empty_by_its_number(here: Site, held: list[Sample]) -> None:
    """Zero only where the archive says 0: then there is no match, and nothing is asked for."""
    find = hiding(held, NumberOfStudyRelatedInstances=0, NumberOfSeriesRelatedInstances=0)
    with archive(here, held, find) as peer:
        job = here.drive(here.move(peer.address, study_of(held)))
        assert peer.retrieves == []
    assert (job["state"], job["reason"]) == ("failed", "no match")


def test_what_is_listed_of_a_mute_archive_is_looked_for_by_its_uid(here: Site, held: list[Sample]) -> None:
    """One series lists nothing, there are no numbers: the study is asked for, and each listed instance has to come."""
    second, lost = held[3].series_instance_uid, held[1]

    def find(peer: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
        if level == "IMAGE" and peer.queries[-1].SeriesInstanceUID == second:
            return []
        return hiding([], **NO_NUMBERS)(peer, level, answers)

    with archive(here, held, find, without([lost])) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"]) == ("incomplete", "none", 5)
    assert here.reasons(job_id) == {"not delivered"}


def test_matches_without_their_unique_key(here: Site, held: list[Sample]) -> None:
    """They are counted and named, with a reason of their own; what could be named is fetched."""
    nameless = held[3].series_instance_uid

    def find(_: QrPeer, __: str, answers: list[Dataset]) -> list[Dataset]:
        answers = copy.deepcopy(answers)
        for one in answers:
            if one.get("SeriesInstanceUID") == nameless:
                one.SeriesInstanceUID = ""
        return answers

    with archive(here, held, find) as peer:
        job_id = here.move(peer.address, study_of(held), ("00080060", "MR"), level="series")
        job = here.drive(job_id)
    assert verdict(job) == ("incomplete", "none", "no unique key", 3, 3)
    assert "1 match without a unique key" in here.request(job_id)["detail"]


def test_one_that_was_replaced_during_the_move(
    here: Site, held: list[Sample], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The number is the same and something unexpected came: it is listed again, and what is new is fetched."""
    new = samples.instance(tmp_path / "new.dcm", study=(request.node.name, 1), series=1, number=9, size=8)
    assert new.series_instance_uid == held[0].series_instance_uid

    def retrieve(retrieval: Retrieval) -> None:
        if retrieval.nth == 1:
            retrieval.peer.catalogue.remove(held[0].sop_instance_uid)
            retrieval.peer.catalogue.add([new])
            retrieval.store([*retrieval.wanted, new])
        else:
            retrieval.store()
        retrieval.hang_up()
        retrieval.final()

    with archive(here, held, lambda _, __, answers: answers, retrieve) as peer:
        job_id = here.move(peer.address, study_of(held))
        job = here.drive(job_id)
    assert (job["state"], job["verified"], job["received"]) == ("succeeded", "uids", 7)
    assert new.sop_instance_uid in {item["sop_instance_uid"] for item in here.items(job_id)}


def test_a_job_that_is_accepted_stays_what_it_is(here: Site, held: list[Sample]) -> None:
    """Recorded with its reason, still incomplete, never called proven; a retry takes it back."""
    hidden = held[5:]
    with archive(here, held, hiding(hidden), without(hidden)) as peer:
        job_id = here.move(peer.address, study_of(held))
        here.drive(job_id)
        verbs.accept(here.database, job_id, "a rejected object, says their administrator")
        job = here.show(job_id)
        assert (job["state"], job["verified"]) == ("incomplete", "counts")
        assert job["accepted_reason"] == "a rejected object, says their administrator" and job["accepted_at"]
        assert "closed as it is by a person" in (wait.after_the_end(here.database, job) or "")
        assert wait.exit_code(job) == 1
        verbs.retry(here.database, job_id)
        assert here.drive(job_id)["accepted_at"] is None


def test_images_that_are_named_need_no_number(here: Site, held: list[Sample]) -> None:
    """Their UIDs are the measure; nothing is said of a list."""
    with archive(here, held, hiding([], **NO_NUMBERS)) as peer:
        keys = study_of(held), (SERIES, held[0].series_instance_uid), (IMAGE, held[0].sop_instance_uid)
        job = here.drive(here.move(peer.address, *keys, level="image"))
    assert verdict(job) == ("succeeded", "uids", None, 1, 1)
    assert job["basis"] == "number"
    assert list(retrieve_report.studies(here.database, job["id"]))

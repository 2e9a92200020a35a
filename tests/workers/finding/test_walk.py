"""Walking down the levels, and what a retrieve may expect, from a scripted archive."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomferry.models.rules.query import Key, Level, find_model
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse import find as c_find
from dicomferry.workers.dimse.requestor import Association, open_association
from dicomferry.workers.finding import walk
from dicomferry.workers.finding.walk import Expectation
from support import misbehaviour, samples
from support.find_scp import Asked, FindScp, Reply, final, pending
from support.find_scp import identifier as encoded
from support.qr_catalogue import LEVELS, Catalogue
from support.qr_peer import GOOD, Manners, QrPeer
from support.samples import Sample

STUDY, SERIES, IMAGE, PATIENT = "0020000D", "0020000E", "00080018", "00100020"


@pytest.fixture
def held(tmp_path: Path) -> list[Sample]:
    """Two patients; the first one has two studies of two series of two images each, the other one image."""
    made = [
        samples.instance(tmp_path / f"{study}{series}{number}.dcm", study=study, series=series, number=number, size=8)
        for study in ("a", "b")
        for series in (1, 2)
        for number in (1, 2)
    ]
    return [*made, samples.instance(tmp_path / "other.dcm", study="c", patient_id="PAT2", size=8)]


def remote_of(archive: QrPeer) -> Remote:
    return Remote(name="x", ae_title=archive.aet, host="127.0.0.1", port=archive.port, calling_ae_title="TESTER")


def opened(archive: QrPeer, root: str = "study", **changes: object) -> Association:
    remote = replace(remote_of(archive), **changes)  # type: ignore[arg-type]
    return open_association(remote, [c_find.proposal(find_model(root))])


def found(archive: QrPeer, level: Level, *keys: Key, root: str = "study") -> list[walk.DecodedMatch]:
    with opened(archive, root) as association:
        return list(walk.walk(walk.asker(association, find_model(root)), root, level, keys))


@pytest.fixture
def archive(held: list[Sample]) -> Iterator[QrPeer]:
    """One that refuses every identifier which breaks the hierarchical rules, and fails the test for it."""
    with QrPeer(Catalogue(held)) as made:
        yield made


def test_images_of_a_patient(archive: QrPeer, held: list[Sample]) -> None:
    """Studies, their series, their images, each query lawful; each match knows the keys above it."""
    matches = found(archive, Level.IMAGE, (PATIENT, "PAT1"))
    assert {match.unique(Level.IMAGE) for match in matches} == samples.uids(held[:-1])
    assert {match.unique(Level.STUDY) for match in matches} == {one.study_instance_uid for one in held[:-1]}
    assert [query.QueryRetrieveLevel for query in archive.queries] == ["STUDY"] + (["SERIES"] + ["IMAGE"] * 2) * 2
    assert archive.associations == 1


def test_patient_root_walks_the_patient_as_well(archive: QrPeer, held: list[Sample]) -> None:
    """Its id goes along with every query below."""
    matches = found(archive, Level.SERIES, ("00100010", "Ferry*"), root="patient")
    assert len(matches) == 5
    assert [query.QueryRetrieveLevel for query in archive.queries][:2] == ["PATIENT", "STUDY"]
    assert all("PatientID" in query for query in archive.queries)


def test_what_was_asked_of_a_level_above_comes_with_the_match(archive: QrPeer) -> None:
    """The name of the patient beside each series, although no query for series may ask for it."""
    matches = found(archive, Level.SERIES, ("00100010", ""), ("00080020", "20240229"), ("00080060", ""))
    for match in matches:
        attributes = match.attributes()
        assert attributes["00100010"]["Value"] == [{"Alphabetic": "Ferry^Test"}]
        assert attributes["00080060"]["Value"] == ["MR"]
        assert list(attributes) == sorted(attributes)


# --- expectations -----------------------------------------------------------------------------------------------


def expect(
    held: Sequence[Sample], level: Level, *keys: Key, manners: Manners = GOOD, root: str = "study", **changes: object
) -> tuple[Expectation, list[walk.Instance], QrPeer]:
    with QrPeer(Catalogue(held), manners=manners) as archive, opened(archive, root, **changes) as association:
        expectation = Expectation(association, root, level, keys)
        return expectation, list(expectation), archive


@pytest.mark.parametrize("level", list(Level)[1:])
def test_every_instance_is_expected(held: list[Sample], level: Level) -> None:
    """With its SOP class and where it lies; the counts agree."""
    first = held[0]
    keys = {STUDY: first.study_instance_uid, SERIES: first.series_instance_uid, IMAGE: first.sop_instance_uid}
    asked = list(keys.items())[: list(Level).index(level)]
    expectation, instances, _ = expect(held, level, *asked)
    wanted = {Level.STUDY: held[:4], Level.SERIES: held[:2], Level.IMAGE: held[:1]}[level]
    assert {instance.sop_instance_uid for instance in instances} == samples.uids(wanted)
    assert {instance.sop_class_uid for instance in instances} == {first.sop_class_uid}
    assert {instance.availability for instance in instances} == {"ONLINE"} == expectation.availabilities
    assert {instance.study_instance_uid for instance in instances} == {first.study_instance_uid}
    assert (expectation.depth, expectation.count, expectation.listed) == ("images", len(wanted), len(wanted))
    assert expectation.why is None


def test_a_whole_patient(held: list[Sample]) -> None:
    """Patient Root."""
    expectation, instances, _ = expect(held, Level.PATIENT, (PATIENT, "PAT1"), root="patient")
    assert {instance.sop_instance_uid for instance in instances} == samples.uids(held[:-1])
    assert (expectation.depth, expectation.count) == ("images", 8)


def test_where_images_are_not_listed_they_are_counted(held: list[Sample]) -> None:
    """Numbers only, and why."""
    manners = misbehaviour.NAMED["IMAGE level of C-FIND refused"]
    expectation, instances, _ = expect(held, Level.STUDY, (STUDY, held[0].study_instance_uid), manners=manners)
    assert instances == []
    assert (expectation.depth, expectation.count) == ("counts", 4)
    assert expectation.why and "0xC000" in expectation.why


def test_an_empty_list_where_there_are_images_is_no_answer(held: list[Sample]) -> None:
    """Some archives answer success and nothing at IMAGE level."""
    manners = Manners(find=lambda _, level, answers: [] if level == "IMAGE" else answers)
    expectation, _, _ = expect(held, Level.STUDY, (STUDY, held[0].study_instance_uid), manners=manners)
    assert (expectation.depth, expectation.count, expectation.listed) == ("counts", 4, 0)
    assert expectation.why


@pytest.mark.parametrize("name", ["C-FIND refused, C-MOVE accepted", "C-FIND has no presentation context"])
def test_where_nothing_is_answered_nothing_is_known(held: list[Sample], name: str) -> None:
    """Said in the result, not raised."""
    manners = misbehaviour.NAMED[name]
    expectation, instances, _ = expect(held, Level.STUDY, (STUDY, held[0].study_instance_uid), manners=manners)
    assert (instances, expectation.depth, expectation.count) == ([], "unknown", None)
    assert expectation.why


def ignoring(keyword: str, at: str) -> Manners:
    """Does not match on a unique key at a level: lists what has any value of it."""

    def find(archive: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
        if level != at:
            return answers
        asked = copy.deepcopy(archive.queries[-1])
        found: list[Dataset] = []
        for uid in dict.fromkeys(str(getattr(one, keyword)) for one in archive.catalogue.described):
            setattr(asked, keyword, uid)
            found += archive.catalogue.find(asked, LEVELS)
        return found

    return Manners(find=find)


@pytest.mark.parametrize(
    ("keyword", "at"),
    [
        ("StudyInstanceUID", "STUDY"),
        ("StudyInstanceUID", "SERIES"),
        ("SeriesInstanceUID", "IMAGE"),
    ],
)
def test_what_contradicts_a_unique_key_is_left_out_at_every_level(held: list[Sample], keyword: str, at: str) -> None:
    """Neither expected nor counted: the study's own number and list are the measure, and the key is told."""
    expectation, instances, _ = expect(
        held, Level.STUDY, (STUDY, held[0].study_instance_uid), manners=ignoring(keyword, at)
    )
    assert {instance.sop_instance_uid for instance in instances} == samples.uids(held[:4])
    assert (expectation.depth, expectation.count, expectation.listed) == ("images", 4, 4)
    assert expectation.inner == ()
    assert f"this archive does not match on {keyword}" in str(expectation.left_out.sentence)


def test_studies_of_other_patients_are_left_out_below_a_patient(held: list[Sample]) -> None:
    """Patient Root, from an archive that does not match on PatientID below PATIENT."""
    expectation, instances, _ = expect(
        held, Level.PATIENT, (PATIENT, "PAT1"), manners=ignoring("PatientID", "STUDY"), root="patient"
    )
    assert {instance.sop_instance_uid for instance in instances} == samples.uids(held[:-1])
    assert (expectation.depth, expectation.count) == ("images", 8)
    assert "PatientID" in str(expectation.left_out.sentence)


def test_a_study_that_is_not_there_is_not_there_though_others_are_listed(held: list[Sample]) -> None:
    """What is listed in its place counts for nothing."""
    manners = ignoring("StudyInstanceUID", "STUDY")
    expectation, instances, _ = expect(held, Level.STUDY, (STUDY, "1.2.3"), manners=manners)
    assert (instances, expectation.depth, expectation.count) == ([], "images", 0)
    assert expectation.left_out.number == 3


def test_of_several_answers_for_one_study_the_greatest_number_holds(held: list[Sample]) -> None:
    """An archive that keeps a study in two places tells of each, or of none in the last one."""

    def find(_: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
        again = copy.deepcopy(answers)
        for one in again:
            if level == "STUDY":
                one.NumberOfStudyRelatedInstances = 2
            if level == "SERIES":
                one.NumberOfSeriesRelatedInstances = None
        return answers[:1] if level == "IMAGE" else [*answers, *again]

    expectation, _, _ = expect(held, Level.STUDY, (STUDY, held[0].study_instance_uid), manners=Manners(find=find))
    assert (expectation.depth, expectation.count, expectation.listed) == ("images", 4, 2)
    assert [(part.said, part.listed) for part in expectation.inner] == [(2, 1), (2, 1)]


def test_numbers_of_series_do_not_confirm_that_these_are_all_of_a_study(held: list[Sample]) -> None:
    """A study without a number is known by its list alone; where no image is listed those are a number to go by."""

    def find(_: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
        answers = copy.deepcopy(answers)
        for one in answers:
            if level == "STUDY":
                one.NumberOfStudyRelatedInstances = None
        return answers

    study = STUDY, held[0].study_instance_uid
    expectation, _, _ = expect(held, Level.STUDY, study, manners=Manners(find=find))
    assert (expectation.depth, expectation.count, expectation.listed) == ("images", None, 4)

    def mute(archive: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
        return [] if level == "IMAGE" else find(archive, level, answers)

    expectation, _, _ = expect(held, Level.STUDY, study, manners=Manners(find=mute))
    assert (expectation.depth, expectation.count, expectation.listed) == ("counts", 4, 0)


@pytest.mark.parametrize("text", ["3000000000", "9" * 5000, "-4", "four", "4.5", ""])
def test_a_number_that_no_is_can_be_is_none(text: str, held: list[Sample]) -> None:
    """VR IS holds at most 2,147,483,647 (PS3.5 6.2); a negative number of instances says nothing either."""

    def find(_: QrPeer, __: str, answers: list[Dataset]) -> list[Dataset]:
        answers = copy.deepcopy(answers)
        for one in answers:
            for keyword in ("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"):
                if keyword in one:
                    one[keyword] = DataElement(keyword, "LO", text)
        return answers

    expectation, _, _ = expect(held, Level.STUDY, (STUDY, held[0].study_instance_uid), manners=Manners(find=find))
    assert (expectation.depth, expectation.count, expectation.listed) == ("images", None, 4)


def test_what_is_not_there(held: list[Sample]) -> None:
    """Nothing expected, and that for sure."""
    expectation, instances, _ = expect(held, Level.STUDY, (STUDY, "1.2.3"))
    assert (instances, expectation.depth, expectation.count) == ([], "images", 0)


def test_one_relational_query_where_the_remote_takes_it() -> None:
    """Off by default: a remote that does not take it refuses it, or answers nonsense."""

    def reply(asked: Asked) -> Reply:
        found = {"STUDY": {"StudyInstanceUID": "1.2"}, "IMAGE": {"SOPInstanceUID": "1.4", "SeriesInstanceUID": "1.3"}}
        return [pending(encoded(**found[asked.query.QueryRetrieveLevel])), final()]

    with FindScp(reply) as scp:
        remote = replace(scp.remote(), relational=True)
        with open_association(remote, [c_find.proposal(find_model("study"))]) as association:
            (instance,) = Expectation(association, "study", Level.STUDY, ((STUDY, "1.2"),))
    assert (instance.study_instance_uid, instance.series_instance_uid) == ("1.2", "1.3")
    assert [query.QueryRetrieveLevel for query in scp.queries] == ["STUDY", "IMAGE"]
    assert (scp.queries[1].StudyInstanceUID, scp.queries[1].SeriesInstanceUID) == ("1.2", "")

"""What the keys of a retrieve match, of archives that keep to them and of archives that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicomferry.cli.jobs import retrieve_words
from dicomferry.models.documents import jobs
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book, trials
from dicomferry.models.rules import ending, spec
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.ending import Along
from dicomferry.models.rules.errors import DimseFailure
from dicomferry.models.rules.query import Key, Level
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.situation import Account, AttemptFacts, Tried
from dicomferry.models.rules.state import AttemptEnd, ChunkState
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.dimse import identifier
from dicomferry.workers.dimse.find import Match
from dicomferry.workers.dimse.identifier import DecodedIdentifier
from dicomferry.workers.finding.resolution import Resolved, nobodys_value, resolve
from support import find_scp, samples
from support.qr_catalogue import Catalogue
from support.qr_peer import QrPeer
from support.retrieving import STUDY, TITLE, Site
from support.samples import Sample

ACCESSION, PATIENT, NAME, MODALITY, DATE = "00080050", "00100020", "00100010", "00080060", "00080020"
REMOTE = Remote(name="pacs1", ae_title="PACS1", host="127.0.0.1", port=104, calling_ae_title="US")
Query = tuple[str, dict[str, str]]


class Known:
    """Trials without a database."""

    def __init__(self, *matching: str) -> None:
        self.matching = set(matching)

    def matches_on(self, level: str, path: str) -> bool:
        return path in self.matching

    def keep(self, level: str, path: str) -> None:
        self.matching.add(path)

    def drop(self, level: str, path: str) -> None:
        self.matching.discard(path)


class Archive:
    """Answers queries by `list_`; notes them, and how many answers to each were taken."""

    def __init__(self, list_: Callable[[str, dict[str, str]], list[dict[str, object]]]) -> None:
        self.list_ = list_
        self.queries: list[Query] = []
        self.taken: list[int] = []

    def ask(self, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        self.queries.append((str(level), dict(keys)))
        self.taken.append(0)
        for elements in self.list_(str(level), dict(keys)):
            self.taken[-1] += 1
            data = find_scp.identifier(**elements)  # type: ignore[arg-type]
            yield Match(data, identifier.IMPLICIT_LE, False), identifier.decode(data, identifier.IMPLICIT_LE)


def studies(*accessions: str | None, **more: object) -> list[dict[str, object]]:
    """A study each; None: the key does not come back."""
    found = []
    for number, one in enumerate(accessions):
        own: dict[str, object] = {"StudyInstanceUID": f"1.2.{number}", **more}
        found.append(own if one is None else {**own, "AccessionNumber": one})
    return found


def asked(archive: Archive, *keys: Key, known: Known | None = None, trusted: str = "", **more: str) -> Resolved:
    level, root = Level(more.get("level", "study")), more.get("root", "study")
    trust = frozenset(filter(None, trusted.split(",")))
    return resolve(archive.ask, REMOTE, root, level, keys, known or Known(), trust)


def held(archive: Archive, *keys: Key, known: Known | None = None) -> str:
    with pytest.raises(Fault) as fault:
        asked(archive, *keys, known=known)
    assert fault.value.answer.reason == "answers undecided"
    assert fault.value.detail
    return fault.value.detail


def uids(found: Resolved) -> list[str | None]:
    return [one.study for one in found.targets]


def test_what_contradicts_is_no_target() -> None:
    """An archive that ignores a key lists others' studies; those are counted, without a value of theirs."""
    archive = Archive(lambda *_: studies("A0", "A1", "A2"))
    found = asked(archive, (ACCESSION, "A1"))
    assert uids(found) == ["1.2.1"]
    told = "2 studies listed that do not have it: this archive does not match on AccessionNumber"
    assert found.left_out.sentence == told
    nothing = asked(archive, (ACCESSION, "NO-SUCH"))
    assert (nothing.targets, nothing.left_out.number) == ([], 3)
    assert not any(value in str(nothing.left_out.sentence) for value in ("A0", "A1", "A2"))


def test_another_patient_id_contradicts() -> None:
    """And whoever reads it learns that the patient may have been merged there."""
    archive = Archive(lambda *_: studies("A1", PatientID="P2"))
    found = asked(archive, (PATIENT, "P1"))
    assert found.targets == []
    assert "merged or has another ID there" in str(found.left_out.sentence) and "P2" not in str(found.left_out.sentence)


def test_studies_that_contradict_are_not_walked_down() -> None:
    """Of others' studies no series is asked for."""

    def listed(level: str, keys: dict[str, str]) -> list[dict[str, object]]:
        if level == "study":
            return studies("A0", "A1")
        return [{"StudyInstanceUID": keys[STUDY], "SeriesInstanceUID": "1.3", "Modality": "CT"}]

    archive = Archive(listed)
    (target,) = asked(archive, (ACCESSION, "A1"), (MODALITY, "CT"), level="series").targets
    assert (target.study, target.series) == ("1.2.1", "1.3")
    assert [level for level, _ in archive.queries] == ["study", "series"]


def test_the_unique_keys_above_need_not_come_back() -> None:
    """Many archives do not repeat them; one that gives another is not believed."""
    known = ((STUDY, "1.2.0"), (MODALITY, "CT"))
    bare = Archive(lambda *_: [{"SeriesInstanceUID": "1.3", "Modality": "CT"}])
    assert len(asked(bare, *known, level="series").targets) == 1
    other = Archive(lambda *_: [{"StudyInstanceUID": "1.9", "SeriesInstanceUID": "1.3", "Modality": "CT"}])
    assert asked(other, *known, level="series").left_out.number == 1


@pytest.mark.parametrize("value", ["", None])
def test_without_a_value_one_query_tells(value: str | None) -> None:
    """Asked for a value that nobody has, an archive that matches lists nothing: then its answers are taken, and that
    is known from then on.
    """
    archive = Archive(lambda _, keys: studies(value, value) if keys[ACCESSION] == "A1" else [])
    known = Known()
    assert uids(asked(archive, (ACCESSION, "A1"), (DATE, ""), known=known)) == ["1.2.0", "1.2.1"]
    assert [level for level, _ in archive.queries] == ["study", "study"]
    assert archive.queries[1][1].keys() == archive.queries[0][1].keys()
    assert known.matching == {ACCESSION}
    asked(archive, (ACCESSION, "A1"), known=known)
    assert len(archive.queries) == 3


def test_an_archive_that_lists_all_the_same() -> None:
    """Its first answer to that query is the last one that is taken; it is held, with what would be fetched."""
    archive = Archive(lambda *_: studies("", "", ""))
    known = Known()
    told = held(archive, (ACCESSION, "A1"), known=known)
    assert "AccessionNumber" in told and "3 studies would be fetched: 1.2.0, 1.2.1, 1.2.2" in told
    assert archive.taken == [3, 1] and not known.matching
    assert uids(asked(archive, (ACCESSION, "A1"), trusted=ACCESSION)) == ["1.2.0", "1.2.1", "1.2.2"]
    assert len(archive.queries) == 3


def test_an_archive_that_refuses_that_query() -> None:
    """A failure tells nothing."""

    def listed(_: str, keys: dict[str, str]) -> list[dict[str, object]]:
        if keys[ACCESSION] != "A1":
            raise DimseFailure(0xC001, "")
        return studies("")

    assert "would be fetched: 1.2.0" in held(Archive(listed), (ACCESSION, "A1"))


def test_who_was_seen_not_to_match_is_not_asked() -> None:
    """One answer that contradicts says it, and is believed more than what was known."""
    archive = Archive(lambda *_: studies("A7", ""))
    known = Known(ACCESSION)
    assert "1 study would be fetched: 1.2.1" in held(archive, (ACCESSION, "A1"), known=known)
    assert len(archive.queries) == 1 and not known.matching


@pytest.mark.parametrize(("key", "value"), [((ACCESSION, "abc"), "ABC"), ((ACCESSION, "17"), "0017")])
def test_nearly_the_same_value(key: Key, value: str) -> None:
    """Whether the archive means the same is nothing that a query tells: a person says so, also of one that matches."""
    archive = Archive(lambda *_: studies(value))
    assert "case, padding or leading zeros" in held(archive, key, known=Known(ACCESSION))
    assert len(archive.queries) == 1
    assert uids(asked(archive, key, trusted=ACCESSION)) == ["1.2.0"]


def test_text_that_cannot_be_read() -> None:
    """A character set that nobody knows makes a name no proof against it."""
    named = {"SpecificCharacterSet": "ISO_IR 999", "PatientName": "M\u00fcller"}
    archive = Archive(lambda *_: studies("A1", **named))
    held(archive, (NAME, "Doe"))


def test_trust_does_not_take_what_contradicts() -> None:
    """It speaks of answers that do not tell."""
    assert asked(Archive(lambda *_: studies("A7")), (ACCESSION, "A1"), trusted=ACCESSION).targets == []


@pytest.mark.parametrize("vr", ["UI", "DA", "TM", "DT", "IS", "DS", "US", "AT", "SH", "CS", "PN", "FD"])
def test_a_value_that_nobody_has_can_be_sent(vr: str) -> None:
    """In each value representation, as short as the shortest allows."""
    tags = {
        "UI": "0020000D", "DA": DATE, "TM": "00080030", "DT": "0008002A", "IS": "00200013", "DS": "00101030",
        "US": "00280010", "AT": "00280009", "SH": ACCESSION, "CS": MODALITY, "PN": NAME, "FD": "00189073",
    }  # fmt: skip
    value = nobodys_value(vr)
    assert identifier.vr_of(int(tags[vr], 16)) == vr
    assert identifier.encode([(tags[vr], value)], identifier.EXPLICIT_LE)
    assert vr not in ("SH", "CS") or len(value) <= 16


def test_a_hold_for_undecided_answers_is_the_requests_own() -> None:
    """The rest of the job goes on."""
    facts = AttemptFacts(now=datetime(2026, 11, 30, tzinfo=UTC), left=1)

    def end(reason: str) -> tuple[ChunkState, Along]:
        found = ending.of(Account(end=AttemptEnd.ERROR, cause=Tried(fault=local(Reason(reason)))), facts)
        return found.chunk, found.along

    assert end("answers undecided") == (ChunkState.HELD, Along.NOBODY)
    assert end("held by a person") == (ChunkState.HELD, Along.JOB)


# --- over the network -------------------------------------------------------------------------------------------------


class Mute(Catalogue):
    """Matches on PatientID or not, and never tells one."""

    def __init__(self, held: list[Sample], *, matches: bool) -> None:
        super().__init__(held)
        self.matches = matches

    def find(self, identifier: Dataset, levels: tuple[str, ...]) -> list[Dataset]:
        asked = Dataset()
        for element in identifier:
            ignored = element.keyword == "PatientID" and not self.matches
            asked.add_new(element.tag, element.VR, "" if ignored else element.value)
        found = super().find(asked, levels)
        for one in found:
            if "PatientID" in one:
                one.PatientID = ""
        return found


def test_held_and_trusted(here: Site, tmp_path: Path) -> None:
    """One request of three waits for a person, the others go on; then it is released for a key that is trusted."""
    made = [
        samples.instance(tmp_path / f"{key}.dcm", study=("trust", key), patient_id=key, size=8)
        for key in ("T1", "T2", "T3")
    ]
    with QrPeer(Mute(made, matches=False), destinations={TITLE: here.scp.port}) as peer:
        book.add(here.database, "mute", peer.address)
        rows = ((2, ((PATIENT, "T1"),)), (3, ((STUDY, made[1].study_instance_uid),)))
        job_id = here.submit("mute", spec.MoveSpec(identifiers=rows))
        job = here.drive(job_id)
        assert (job["state"], job["reason"]) == ("held", "answers undecided")
        assert {one.sop_instance_uid for one in made} & set(peer.stores) == {made[1].sop_instance_uid}
        assert "3 studies would be fetched" in str(job["detail"])
        book.change(here.database, "mute", None, trust_answers=[PATIENT])
        verbs.release(here.database, job_id)
        assert here.drive(job_id)["state"] == "succeeded"
    assert jobs.show(here.database, job_id)["received"] == 3


def test_an_archive_that_matches_without_telling(here: Site, tmp_path: Path) -> None:
    """C-CANCEL and all: the right study is fetched, and for a week nobody asks again."""
    made = [
        samples.instance(tmp_path / f"{key}.dcm", study=("silent", key), patient_id=key, size=8) for key in ("S1", "S2")
    ]
    with QrPeer(Mute(made, matches=True), destinations={TITLE: here.scp.port}) as peer:
        remote_id = book.resolve_id(here.database, peer.address)
        job = here.drive(here.move(peer.address, (PATIENT, "S1")))
        assert (job["state"], job["received"]) == ("succeeded", 1)
        assert trials.matches_on(here.database, remote_id, "study", PATIENT)


def test_nothing_there_may_be_well(here: Site, tmp_path: Path) -> None:
    """With `allow_empty` no match is an answer, but not where the archive lists what contradicts; a store likewise."""
    made = [samples.instance(tmp_path / "a.dcm", study=("quiet", 1), patient_id="Q1", size=8)]
    with QrPeer(Catalogue(made), destinations={TITLE: here.scp.port}) as peer:
        job = here.drive(here.move(peer.address, (PATIENT, "NOBODY"), allow_empty=True))
        assert (job["state"], job["reason"], job["received"]) == ("succeeded", None, 0)
        assert retrieve_words.balance(job) and "nothing was found" in ", ".join(retrieve_words.parts(job))
        assert here.drive(here.move(peer.address, (PATIENT, "NOBODY")))["state"] == "failed"
    with QrPeer(Careless(made), destinations={TITLE: here.scp.port}) as peer:
        job_id = here.move(peer.address, (PATIENT, "NOBODY"), allow_empty=True)
        assert (here.drive(job_id)["state"], here.request(job_id)["reason"]) == ("failed", "no match")
    empty = tmp_path / "empty"
    empty.mkdir()
    for allow, state in ((True, "succeeded"), (False, "failed")):
        what = spec.StoreSpec(paths=(str(empty),), allow_empty=allow)
        assert here.drive(here.submit(peer.address, what))["state"] == state


class Careless(Catalogue):
    """Matches on unique keys of studies and below only."""

    def find(self, identifier: Dataset, levels: tuple[str, ...]) -> list[Dataset]:
        asked = Dataset()
        for element in identifier:
            asked.add_new(element.tag, element.VR, "" if element.keyword == "PatientID" else element.value)
        return super().find(asked, levels)


def test_what_is_absent_of_a_list(here: Site, tmp_path: Path) -> None:
    """It has a row of its own, the rest is fetched, and the job is incomplete."""
    made = [samples.instance(tmp_path / "a.dcm", study=("list", 1), size=8)]
    absent = samples.uid("study", "absent")
    keys = ((STUDY, f"{made[0].study_instance_uid}\\{absent}"),)
    with QrPeer(Catalogue(made), destinations={TITLE: here.scp.port}) as peer:
        job_id = here.move(peer.address, *keys)
        job = here.drive(job_id)
    assert (job["state"], job["received"]) == ("incomplete", 1)
    failed = [item for item in here.items(job_id) if item["state"] == "failed"]
    assert [(item["kind"], item["reason"], item["identifier"]) for item in failed] == [
        ("request", "no match", [[STUDY, absent]])
    ]

"""Find jobs from submit to their matches, against an SCP that does as it is told: retried, capped, halved, stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from dicomferry.models.documents import jobs as job_documents
from dicomferry.models.record.jobs import matches, verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.record.tables.jobs import MatchRow
from dicomferry.models.rules.answers.lookup import advice_for
from dicomferry.models.rules.spec import FindSpec
from dicomferry.models.rules.state import ItemState, JobState
from support import scripted_peer as peer
from support.find_scp import Asked, FindScp, Reply, final, identifier, pending
from support.inline import Inline, Killed

STUDY, DATE, TIME = "0020000D", "00080020", "00080030"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    with Inline(tmp_path, monkeypatch) as made:
        yield made


def study(number: int, **elements: str) -> bytes:
    return pending(identifier(**{"StudyInstanceUID": f"1.2.{number}", "PatientID": f"P{number}", **elements}))


def studies(count: int) -> list[bytes]:
    return [study(number) for number in range(count)]


def submit(site: Inline, scp: FindScp, *keys: tuple[str, str], **options: Any) -> int:
    return site.submit(scp.address, FindSpec(keys=keys, **options))


def uids(site: Inline, job_id: int) -> list[str]:
    return [row.study_instance_uid for row in matches.listing(site.database, job_id)]


def run(site: Inline, job_id: int) -> JobState:
    """To the job's end."""
    for _ in range(50):
        site.run_next("quick")
        state = JobState(site.job(job_id).state)
        if state not in (JobState.PENDING, JobState.RUNNING):
            site.check()
            return state
        site.wait(job_id)
    raise AssertionError("goes on and on")


def answered(site: Inline, job_id: int) -> tuple[str, str | None, str]:
    """(state, reason, detail) of the one item."""
    (row,) = site.items(job_id)
    return row.state.value, row.reason, row.detail or ""


def test_matches_are_recorded_as_they_came(site: Inline) -> None:
    """Numbers, unique keys, attributes as JSON, the character set, and the bytes themselves."""
    data = identifier(SpecificCharacterSet="ISO_IR 100", StudyInstanceUID="1.2", PatientName="Jérôme")
    with FindScp(lambda _: [pending(data), final()]) as scp:
        job_id = submit(site, scp, ("00100010", "J*"))
        assert run(site, job_id) is JobState.SUCCEEDED
    (row,) = matches.listing(site.database, job_id)
    assert (row.number, row.study_instance_uid, row.character_set, row.flaw) == (1, "1.2", "ISO_IR 100", None)
    assert json.loads(row.attributes)["00100010"]["Value"] == [{"Alphabetic": "Jérôme"}]
    assert answered(site, job_id) == ("succeeded", None, "1 match")
    shown = job_documents.show(site.database, job_id)
    assert (shown["matches"], shown["reason"]) == (1, None)
    assert (scp.queries[0].StudyInstanceUID, scp.queries[0].PatientName) == ("", "J*")


def test_a_find_without_a_match_succeeded(site: Inline) -> None:
    """The question was answered."""
    with FindScp(lambda _: [final()]) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is JobState.SUCCEEDED
    assert job_documents.show(site.database, job_id)["matches"] == 0


def test_a_retried_find_never_doubles(site: Inline) -> None:
    """An abort in the middle: what the first attempt recorded goes when the second one asks."""
    site.tune(records={"matches": 10, "seconds": 1000.0})

    def reply(asked: Asked) -> Reply:
        return [*studies(55), peer.send(peer.abort_pdu())] if asked.number == 1 else [*studies(60), final()]

    with FindScp(reply) as scp:
        job_id = submit(site, scp)
        site.run_next("quick")
        assert site.job(job_id).state is JobState.RUNNING
        assert len(uids(site, job_id)) == 50, "what was recorded so far is listed"
        assert run(site, job_id) is JobState.SUCCEEDED
    assert uids(site, job_id) == [f"1.2.{number}" for number in range(60)]
    assert job_documents.show(site.database, job_id)["matches"] == 60
    assert site.ends(job_id) == ["error", "completed"]


@pytest.mark.parametrize("after_commit", [False, True])
@pytest.mark.parametrize("at", [3, 5])
def test_a_worker_that_dies_in_the_middle(site: Inline, at: int, after_commit: bool) -> None:
    """Whether it died before or after a batch was written: the next one's matches count, each once."""
    site.tune(records={"matches": 10})
    with FindScp(lambda _: [*studies(60), final()]) as scp:
        job_id = submit(site, scp)
        site.database.writes, site.database.crash_at, site.database.after_commit = 0, at, after_commit
        with pytest.raises(Killed):
            site.run_next("quick")
        site.database.crash_at = None
        site.lose()
        assert run(site, job_id) is JobState.SUCCEEDED
    assert uids(site, job_id) == [f"1.2.{number}" for number in range(60)]
    assert site.ends(job_id) == ["lost", "completed"]


def test_a_batch_that_is_written_twice_is_there_once(site: Inline) -> None:
    """A connection lost in the commit runs the transaction again."""
    with FindScp(lambda _: [*studies(3), final()]) as scp:
        job_id = submit(site, scp)
        run(site, job_id)
    (item,) = site.items(job_id)
    row = {
        "job_id": job_id, "item_id": item.id, "fence": 1, "number": 4, "attributes": "{}", "character_set": "",
        "transfer_syntax_uid": "1.2", "data": b"",
    }  # fmt: skip
    for _ in range(2):
        site.database.write(lambda connection: matches.add(connection, item.id, [row]))
    assert len(uids(site, job_id)) == 4


def test_a_cancelled_job_sends_cancel(site: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-CANCEL to the peer, the item cancelled, and the association released."""
    jobs: list[int] = []

    def reply(_: Asked) -> Reply:
        yield study(0)
        verbs.cancel(site.database, jobs[0])
        number = 0
        while True:
            number += 1
            yield study(number)

    with FindScp(reply) as scp:
        jobs.append(submit(site, scp))
        assert run(site, jobs[0]) is JobState.CANCELLED
    assert (scp.cancels, scp.endings) == (1, ["released"])
    assert site.items(jobs[0])[0].state is ItemState.CANCELLED


def test_a_held_find_begins_anew_when_it_is_released(site: Inline) -> None:
    """C-CANCEL to the peer; after the release all matches are there, each once."""
    jobs: list[int] = []

    def reply(_: Asked) -> Reply:
        yield study(0)
        if not site.attempts(jobs[0])[1:]:
            verbs.hold(site.database, jobs[0])
            number = 0
            while True:
                number += 1
                yield study(number)
        yield study(1)
        yield final()

    with FindScp(reply) as scp:
        jobs.append(submit(site, scp))
        assert run(site, jobs[0]) is JobState.HELD
        assert (scp.cancels, scp.endings) == (1, ["released"])
        verbs.release(site.database, jobs[0])
        site.bell.ring("quick")
        assert run(site, jobs[0]) is JobState.SUCCEEDED
    assert uids(site, jobs[0]) == ["1.2.0", "1.2.1"]
    assert site.ends(jobs[0]) == ["interrupted", "completed"]


@pytest.mark.parametrize(
    ("status", "state", "reason", "tries"),
    [
        (0xA900, JobState.FAILED, "identifier does not match SOP class", 1),
        (0xC001, JobState.FAILED, "unable to process", 2),
        (0x0122, JobState.FAILED, "SOP class not supported", 1),
        (0x0124, JobState.HELD, "not authorized", 1),
        (0x4711, JobState.FAILED, "status 0x4711", 2),
    ],
)
def test_what_a_status_leads_to(site: Inline, status: int, state: JobState, reason: str, tries: int) -> None:
    """One table for all of them; each has an advice."""
    with FindScp(lambda _: [final(status)]) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is state
    assert len(scp.queries) == tries
    assert job_documents.show(site.database, job_id)["reason"] == reason
    assert advice_for("find", status, reason)


def test_matches_before_a_failure_are_kept(site: Inline) -> None:
    """The job is incomplete then, not failed: something was found, and it is listed."""
    with FindScp(lambda _: [*studies(7), final(0xA900)]) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is JobState.INCOMPLETE
    assert len(uids(site, job_id)) == 7
    assert answered(site, job_id)[2] == "after 7 matches"


def test_a_model_that_is_not_offered(site: Inline) -> None:
    """Final, with what to try instead."""
    with FindScp(lambda _: [], choose=lambda *_: (3, "1.2.840.10008.1.2")) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is JobState.FAILED
    assert "--root" in (job_documents.show(site.database, job_id)["reason_text"] or "")


def test_a_worklist_has_no_level(site: Inline) -> None:
    """Its model, its keys inside of sequences, and no (0008,0052)."""
    with FindScp(lambda _: [pending(identifier(PatientID="1")), final()]) as scp:
        job_id = submit(site, scp, ("00400100[0].00080060", "CT"), worklist=True)
        assert run(site, job_id) is JobState.SUCCEEDED
    (asked,) = scp.queries
    assert "QueryRetrieveLevel" not in asked
    assert asked.ScheduledProcedureStepSequence[0].Modality == "CT"


# --- limits of the remote ---------------------------------------------------------------------------------------


def test_a_round_number_is_warned_of(site: Inline) -> None:
    """Succeeded, and says that it may not be all, and what to do."""
    with FindScp(lambda _: [*studies(100), final()]) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is JobState.SUCCEEDED
    assert answered(site, job_id) == ("warning", "maybe truncated", "100 matches")
    shown = job_documents.show(site.database, job_id)
    assert shown["reason"] == "maybe truncated"
    assert "--split" in (shown["reason_text"] or "")


@pytest.mark.parametrize("status", [0xA700, 0xB001])
def test_out_of_resources_after_matches_is_a_limit(site: Inline, status: int) -> None:
    """Not a failure: what came is there, and that it is not all is said."""
    with FindScp(lambda _: [*studies(7), final(status)]) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is JobState.SUCCEEDED
    assert answered(site, job_id)[:2] == ("warning", "maybe truncated")


def test_a_round_number_below_a_study_means_nothing(site: Inline) -> None:
    """A series of 100 images is no list that was cut off."""
    images = [pending(identifier(SOPInstanceUID=f"1.9.{number}")) for number in range(100)]
    with FindScp(lambda _: [*images, final()]) as scp:
        keys = ((STUDY, "1.2"), ("0020000E", "1.3"))
        job_id = submit(site, scp, *keys, level="image")
        run(site, job_id)
    assert answered(site, job_id) == ("succeeded", None, "100 matches")


# --- halving ----------------------------------------------------------------------------------------------------

Held = Sequence[tuple[int, str, str]]
"""Number, StudyDate and StudyTime of each study."""


def archive_of(held: Held, cap: int, status: int = 0, blind: bool = False) -> Callable[[Asked], Reply]:
    """Matches dates and times as an archive does, lists `cap` of them at most; a `blind` one matches on neither."""

    def reply(asked: Asked) -> Reply:
        found = [one for one in held if blind or all(map(_in_range, *_asked_and_held(asked.query, one)))]
        listed = [study(number, StudyDate=day, StudyTime=clock) for number, day, clock in found[:cap]]
        return [*listed, final(status if len(found) > cap else 0)]

    return reply


def _asked_and_held(query: Dataset, one: tuple[int, str, str]) -> tuple[list[str], list[str]]:
    return [str(query.get("StudyDate") or ""), str(query.get("StudyTime") or "")], [one[1], one[2]]


def _in_range(asked: str, held: str) -> bool:
    if not asked:
        return True
    first, between, last = asked.partition("-")
    return bool(held) and (first <= held and (not last or held <= last) if between else asked == held)


def many(count: int) -> Held:
    """Spread over ten years, some days with more than others, some at the very minute in the middle."""
    days = [date(2016, 1, 1) + timedelta(days=number * 17 % 3650 if number % 3 else 1000) for number in range(count)]
    clocks = ["120000", "235959.5", "000000", "101112"]
    return [(number, f"{day:%Y%m%d}", clocks[number % 4]) for number, day in enumerate(days)]


def capped_at(site: Inline, scp: FindScp, cap: int) -> None:
    """The address book knows the limit."""
    book.add(site.database, "pacs", scp.address, find_cap=cap)


def split(site: Inline, *keys: tuple[str, str], **options: Any) -> int:
    return site.submit("pacs", FindSpec(keys=keys, split=True, **options))


@pytest.mark.parametrize("status", [0, 0xA700, 0xB001])
def test_halves_until_it_fits(site: Inline, status: int) -> None:
    """Every study with a date once, whichever way the archive stops; and it says what is not covered."""
    held = many(300)
    with FindScp(archive_of(held, 40, status)) as scp:
        capped_at(site, scp, 40)
        job_id = split(site)
        assert run(site, job_id) is JobState.INCOMPLETE
    found = uids(site, job_id)
    assert sorted(found) == sorted({f"1.2.{number}" for number, _, _ in held})
    state, reason, detail = answered(site, job_id)
    assert (state, reason) == ("failed", "split leaves gaps")
    assert "300 matches in" in detail
    assert "not covered: studies without a StudyDate and studies without a StudyTime on 2018-09-27" in detail
    assert advice_for("find", None, reason)


def test_days_are_covered_by_their_range(site: Inline) -> None:
    """Who asks for days that each fit into a list has all of them, also those without a time."""
    held = [(number, f"202001{1 + number % 20:02}", "" if number % 7 == 0 else "1200") for number in range(60)]
    with FindScp(archive_of(held, 40)) as scp:
        capped_at(site, scp, 40)
        job_id = split(site, (DATE, "20200101-20200131"))
        assert run(site, job_id) is JobState.SUCCEEDED
    assert answered(site, job_id)[:2] == ("succeeded", None) and len(uids(site, job_id)) == 60


@pytest.mark.parametrize("clock", ["0830", ""])
def test_an_archive_that_does_not_match_on_times(site: Inline, clock: str) -> None:
    """It lists the same for each part of a day, with times of other parts or with none: that ends at the first."""
    held = [(number, "20200101", clock) for number in range(50)]

    def reply(asked: Asked) -> Reply:
        asked.query.StudyTime = ""
        return archive_of(held, 40)(asked)

    with FindScp(reply) as scp:
        capped_at(site, scp, 40)
        job_id = split(site, (DATE, "20200101"))
        assert run(site, job_id) is JobState.INCOMPLETE
    _, reason, detail = answered(site, job_id)
    assert reason == "split not possible" and "StudyTime" in detail
    assert len(scp.queries) < 5


def test_studies_without_a_time_in_a_day_that_was_halved(site: Inline) -> None:
    """They are in no range of times: what was not listed by chance is told as not covered, by its day."""
    held = [(number, "20200101", "" if number % 10 == 0 else f"{number % 24:02}30") for number in range(100)]
    with FindScp(archive_of(held, 40)) as scp:
        capped_at(site, scp, 40)
        job_id = split(site, (DATE, "20200101"))
        assert run(site, job_id) is JobState.INCOMPLETE
    assert {f"1.2.{number}" for number, _, clock in held if clock} <= set(uids(site, job_id))
    assert answered(site, job_id)[1] == "split leaves gaps"
    assert "studies without a StudyTime on 2020-01-01" in answered(site, job_id)[2]


def test_a_match_is_shown_once(site: Inline) -> None:
    """An archive that lists a study once for each image: all answers stay in the record, and the surplus is told."""
    with FindScp(lambda _: [*(study(number % 3) for number in range(12)), study(7), final()]) as scp:
        job_id = submit(site, scp)
        assert run(site, job_id) is JobState.SUCCEEDED
    assert uids(site, job_id) == ["1.2.0", "1.2.1", "1.2.2", "1.2.7"]
    assert job_documents.show(site.database, job_id)["matches"] == 4
    told = "4 matches; 13 answers came, 9 of them repeat another"
    assert answered(site, job_id) == ("warning", "listed more than once", told)
    count = sa.select(sa.func.count()).select_from(MatchRow)
    assert site.database.read(lambda connection: connection.execute(count).scalar()) == 13


def test_patients_of_several_issuers_are_several(site: Inline) -> None:
    """PatientID is unique within what issued it (PS3.3 C.7.1.1)."""
    answers = [identifier(PatientID="P1", IssuerOfPatientID=one) for one in ("A", "B", "B")]
    with FindScp(lambda _: [*map(pending, answers), final()]) as scp:
        job_id = submit(site, scp, ("00100021", ""), level="patient", root="patient")
        assert run(site, job_id) is JobState.SUCCEEDED
    assert job_documents.show(site.database, job_id)["matches"] == 2


def test_matches_that_contradict_their_keys_are_told(site: Inline) -> None:
    """Listed as they came, with their number and the key, and without a value of theirs."""
    found = [study(number, AccessionNumber=f"ACC-{number}") for number in range(4)]
    with FindScp(lambda _: [*found, final()]) as scp:
        job_id = submit(site, scp, ("00080050", "ACC-2"))
        assert run(site, job_id) is JobState.SUCCEEDED
    told = "4 matches; 3 of 4 matches contradict their keys: this archive does not match on AccessionNumber"
    assert answered(site, job_id) == ("warning", "keys not kept to", told)
    assert len(uids(site, job_id)) == 4


def test_what_contradicts_above_is_not_walked_down(site: Inline) -> None:
    """An archive that ignores a key of a study is not asked for the series of all its studies."""

    def reply(asked: Asked) -> Reply:
        if asked.query.QueryRetrieveLevel == "STUDY":
            return [*(study(number, AccessionNumber=f"ACC-{number}") for number in range(9)), final()]
        uid = str(asked.query.StudyInstanceUID)
        return [pending(identifier(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1")), final()]

    with FindScp(reply) as scp:
        job_id = submit(site, scp, ("00080050", "ACC-2"), level="series")
        assert run(site, job_id) is JobState.SUCCEEDED
    assert len(scp.queries) == 2 and uids(site, job_id) == ["1.2.2"]
    assert "8 above them contradict the keys and were not looked into" in answered(site, job_id)[2]


def test_lists_are_for_uids(site: Inline) -> None:
    """Values of other keys are asked for one by one (PS3.4 C.2.2.2.2), and what both bring is there once."""

    def reply(asked: Asked) -> Reply:
        kind = str(asked.query.ModalitiesInStudy)
        numbers = {"CT": (1, 2), "MR": (2, 3)}[kind]
        return [*(study(number, ModalitiesInStudy=kind) for number in numbers), final()]

    with FindScp(reply) as scp:
        job_id = submit(site, scp, ("00080061", "CT\\MR"), (STUDY, "1.2.1\\1.2.2\\1.2.3"))
        assert run(site, job_id) is JobState.SUCCEEDED
    assert [str(one.ModalitiesInStudy) for one in scp.queries] == ["CT", "MR"]
    assert all(len(one.StudyInstanceUID) == 3 for one in scp.queries)
    assert uids(site, job_id) == ["1.2.1", "1.2.2", "1.2.3"]


def test_what_fits_is_asked_once(site: Inline) -> None:
    """Splitting begins with the query as it was asked."""
    with FindScp(archive_of(many(30), 40)) as scp:
        capped_at(site, scp, 40)
        job_id = split(site, (DATE, "20160101-20261231"))
        assert run(site, job_id) is JobState.SUCCEEDED
    assert len(scp.queries) == 1
    assert answered(site, job_id)[2] == "30 matches"


def test_a_minute_with_too_many(site: Inline) -> None:
    """What cannot be halved any more is named, the rest is there: incomplete."""
    held = [*((number, "20200101", "101112") for number in range(50)), (50, "20200101", "111111")]
    with FindScp(archive_of(held, 40)) as scp:
        capped_at(site, scp, 40)
        job_id = split(site, (DATE, "20200101-20200131"))
        assert run(site, job_id) is JobState.INCOMPLETE
    state, reason, detail = answered(site, job_id)
    assert (state, reason) == ("failed", "slice still capped")
    assert "2020-01-01 10:11 to 10:12" in detail
    assert "1.2.50" in uids(site, job_id)


def test_an_archive_that_does_not_match_on_dates(site: Inline) -> None:
    """Found out at the first answer outside of what was asked for, not after thousands of queries."""
    with FindScp(archive_of(many(100), 40, blind=True)) as scp:
        capped_at(site, scp, 40)
        job_id = split(site)
        assert run(site, job_id) is JobState.INCOMPLETE
    assert answered(site, job_id)[1] == "split not possible"
    assert len(scp.queries) < 5


def test_studies_are_halved_on_the_way_down(site: Inline) -> None:
    """A search for series lists all studies first; those are what the date can halve."""

    def reply(asked: Asked) -> Reply:
        if asked.query.QueryRetrieveLevel == "STUDY":
            return archive_of(held, 5)(asked)
        uid = str(asked.query.StudyInstanceUID)
        return [pending(identifier(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", Modality="CT")), final()]

    held = many(12)
    with FindScp(reply) as scp:
        capped_at(site, scp, 5)
        job_id = split(site, (DATE, "20160101-20261231"), ("00080060", "CT"), level="series")
        assert run(site, job_id) is JobState.SUCCEEDED
    assert sorted(uids(site, job_id)) == sorted(f"1.2.{number}" for number, _, _ in held)


@pytest.mark.long
def test_a_hundred_thousand_matches_in_flat_memory(site: Inline) -> None:
    """What is held is a batch, whatever the number."""
    import tracemalloc

    answer = study(7_000_000)

    def reply(_: Asked) -> Reply:
        for number in range(100_000):
            yield answer.replace(b"1.2.7000000", b"1.2.%07d" % (number + 1_000_000))
        yield final()

    with FindScp(reply) as scp:
        job_id = submit(site, scp)
        tracemalloc.start()
        try:
            assert run(site, job_id) is JobState.SUCCEEDED
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert sum(1 for _ in matches.listing(site.database, job_id)) == 100_000
    assert most < 20_000_000

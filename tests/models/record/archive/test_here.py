"""What counts as here where a remote lists other UIDs than its files carry; on either database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomferry.models.record.archive import here
from dicomferry.models.record.archive.here import Found
from dicomferry.models.record.archive.index import Received
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.record.retrieves import expected, request
from dicomferry.models.record.retrieves.expected import Listed
from dicomferry.models.rules.target import Target
from support.record_site import Site

from .test_pairing import Desk, came

PROVEN, LOST = ("succeeded", None), ("failed", "filed elsewhere")


@pytest.fixture
def desk(site: Site) -> Desk:
    """Its remote lists other UIDs of studies and of series than its files carry."""
    book.change(site.database, "PACS1", None, coerces="study,series")
    return Desk(site)


def ours(received: Received, job_id: int) -> Received:
    """The same, come for a job."""
    assert received.arrival
    return replace(received, arrival=replace(received.arrival, job_id=job_id))


def looked(desk: Desk, lease: Lease, *, refetch: bool = False) -> list[Found]:
    return desk.database.read(lambda connection: expected.arrived(connection, lease, refetch=refetch))


def states(desk: Desk, job_id: int) -> list[tuple[str, str | None]]:
    """Of its instances, in the order in which they are expected."""
    return desk.states(job_id)[1:]


def begun(desk: Desk, *uids: str) -> tuple[int, Lease]:
    """A retrieve that expects these of the study `1`."""
    job_id = desk.submit("1")
    lease = desk.claim()
    desk.expect(lease, *uids)
    return job_id, lease


def test_what_comes_as_it_was_listed_is_no_part_of_a_study_that_lies_elsewhere(desk: Desk) -> None:
    """Where a part of a listed study was found under another study, the rest of it counts there alone: a proof names
    no instances of one study that lie under two, whichever came first.
    """
    job_id, lease = begun(desk, "7", "8")
    desk.wait(lease)
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    assert states(desk, job_id) == [("succeeded", None), ("pending", None)]
    desk.arrive(ours(came(2, "8"), job_id))
    assert states(desk, job_id) == [("succeeded", None), ("pending", None)]


def test_what_comes_elsewhere_is_no_part_of_a_study_that_lies_as_it_was_listed(desk: Desk) -> None:
    """The other way round: the first of it counted under the study that was listed."""
    job_id, lease = begun(desk, "7", "8")
    desk.wait(lease)
    desk.arrive(ours(came(1, "7"), job_id))
    desk.arrive(ours(came(2, "8", study="2"), job_id))
    assert states(desk, job_id) == [("succeeded", None), ("pending", None)]


def test_a_study_stays_where_it_was_found_when_a_file_of_it_is_lost(desk: Desk) -> None:
    """Parts under two studies, a file of which was cut, another one that came cut off: the proof stays with the study
    that it named.
    """
    job_id, lease = begun(desk, "7", "8")
    desk.wait(lease)
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    second = replace(came(2, "7", study="2"), path="2/3/7.dcm", series_instance_uid="3")
    desk.arrive(ours(second, job_id))
    truncated = replace(came(3, "8", study="2"), path="2/3/8.dcm", series_instance_uid="3", flaw="truncated: x")
    desk.arrive(replace(truncated, arrival=None))
    desk.arrive(ours(came(4, "8"), job_id))
    assert states(desk, job_id) == [("succeeded", None), ("pending", None)]


def test_it_is_kept_and_told_as_filed_elsewhere_and_heals(desk: Desk) -> None:
    """It came honestly: its item names both UIDs, it is not asked for again, and a file with the rest makes it good."""
    job_id, lease = begun(desk, "7", "8")
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    assert desk.mark(lease) == 1
    desk.arrive(ours(came(2, "8"), job_id))
    assert looked(desk, lease) == []
    assert expected.fail_elsewhere(desk.database, lease) == 1
    assert states(desk, job_id) == [PROVEN, LOST]
    item = desk.site.items(job_id)[2]
    assert item.detail == (
        "listed under study 1, series 2; it lies here under study 1, series 2, and the rest of that study under 2"
    )
    desk.wait(lease)
    desk.arrive(ours(came(3, "8", study="2"), job_id))
    assert states(desk, job_id) == [PROVEN, ("succeeded", "arrived late")]


def test_two_looks_at_once_name_one_study(desk: Desk) -> None:
    """What was seen before somebody else found a part of the study elsewhere does not count any more."""
    job_id, lease = begun(desk, "7", "8")
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    (early,) = looked(desk, lease)
    desk.arrive(ours(came(2, "8"), job_id))
    (late,) = looked(desk, lease)
    assert (early.lies, late.lies) == (("1", "2"), ("1", "1"))
    expected.mark_arrived(desk.database, lease, [early])
    expected.mark_arrived(desk.database, lease, [late])
    assert states(desk, job_id) == [PROVEN, ("pending", None)]


def test_another_retrieve_is_free(desk: Desk) -> None:
    """Where a study lies is a matter of each retrieve: the next one takes what lies as it was listed."""
    job_id, lease = begun(desk, "7")
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    assert desk.mark(lease) == 1
    desk.arrive(came(2, "7"))
    desk.give_up(lease, request.of_chunk(desk.database, lease.chunk_id).item_id)
    _, later = begun(desk, "7")
    assert [one.lies for one in looked(desk, later)] == [("1", "1")]


def test_what_is_fetched_anew_comes_anew(desk: Desk) -> None:
    """With `refetch` what an earlier retrieve brought under another study does not count either."""
    job_id, lease = begun(desk, "7")
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    assert desk.mark(lease) == 1
    desk.give_up(lease, request.of_chunk(desk.database, lease.chunk_id).item_id)
    again, later = begun(desk, "7")
    assert [one.mine for one in looked(desk, later)] == [None]
    assert looked(desk, later, refetch=True) == []
    received = ours(came(2, "7", study="2"), again)
    assert received.arrival
    desk.arrive(replace(received, arrival=replace(received.arrival, outcome="duplicate")))
    assert [one.lies for one in looked(desk, later, refetch=True)] == [("1", "2")]


def test_what_comes_cut_off_is_asked_for_again(desk: Desk) -> None:
    """Under a study under which it would count it is not `filed elsewhere` for that it came truncated."""
    job_id, lease = begun(desk, "7")
    desk.arrive(ours(replace(came(1, "7", study="2"), flaw="truncated: x"), job_id))
    assert looked(desk, lease) == []
    assert expected.fail_elsewhere(desk.database, lease) == 0
    found = desk.database.read(lambda c: here.flaws_of(c, here.asker(c, job_id), expected.awaited(lease.chunk_id)))
    assert list(found.values()) == ["truncated: x"]


def test_what_has_just_come_is_for_the_next_look(desk: Desk) -> None:
    """A file that counts and came after the last look is not judged as filed elsewhere."""
    job_id, lease = begun(desk, "7")
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    assert expected.fail_elsewhere(desk.database, lease) == 0
    assert desk.mark(lease) == 1


def test_one_uid_in_two_series_of_a_study_that_lies_elsewhere(desk: Desk) -> None:
    """The file of one series says nothing of the other one."""
    job_id, lease = begun(desk, "7")
    request_id = request.of_chunk(desk.database, lease.chunk_id).item_id
    expected.expect(
        desk.database,
        lease,
        request_id,
        [Listed("8", "1.2.3", "1", "2"), Listed("8", "1.2.3", "1", "3")],
        targets=[Target(study="1", count=3)],
        expectation="images",
        expected=3,
    )
    desk.arrive(ours(came(1, "7", study="2"), job_id))
    assert desk.mark(lease) == 1
    desk.arrive(ours(came(2, "8"), job_id))
    assert expected.fail_elsewhere(desk.database, lease) == 1
    assert states(desk, job_id) == [PROVEN, LOST, ("pending", None)]

"""`submit store --verify`: what was sent counts when the archive lists it."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from dicomferry.cli.jobs import wait
from dicomferry.models.documents import jobs
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules import spec
from dicomferry.models.rules.state import JobState, Tally
from dicomferry.workers import operations
from dicomferry.workers.attempts.work import Answered, Work
from dicomferry.workers.sending import verification
from support.inline import Inline, Killed, hasty
from support.process import LOOPBACK, free_port

MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


class Forgetful:
    """An archive that confirms what it is sent, if `status` says so, and lists what `lists` says of it, `after` so many
    queries.
    """

    def __init__(
        self, lists: Callable[[str], bool], after: int = 0, status: Callable[[str], int] = lambda _: 0
    ) -> None:
        self.received: list[str] = []
        self.queries = 0
        self._lists = lists
        self._after = after
        self._status = status
        self._lock = threading.Lock()

    def store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self._status(uid)
        if status == 0:
            with self._lock:
                self.received.append(uid)
        return status

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        self.queries += 1
        known = [uid for uid in dict.fromkeys(self.received) if self._lists(uid)] if self.queries > self._after else []
        for uid in known:
            match = Dataset()
            match.QueryRetrieveLevel = asked.QueryRetrieveLevel
            match.StudyInstanceUID, match.SeriesInstanceUID = asked.StudyInstanceUID, asked.SeriesInstanceUID
            match.SOPInstanceUID = uid
            yield 0xFF00, match


@contextmanager
def running(archive: Forgetful, *, finds: bool = True, port: int = 0) -> Iterator[str]:
    """Its address; at a free port unless it is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entity = AE("FORGETFUL")
        entity.add_supported_context(MR)
        if finds:
            entity.add_supported_context(STUDY_ROOT_FIND)
        handlers: list[Any] = [(evt.EVT_C_STORE, archive.store), (evt.EVT_C_FIND, archive.find)]
        port = port or free_port()
        server = entity.start_server((LOOPBACK, port), block=False, evt_handlers=handlers)
        try:
            yield f"FORGETFUL@{LOOPBACK}:{port}"
        finally:
            assert server is not None
            server.shutdown()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    with Inline(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def pauses(site: Inline) -> list[float]:
    """How long it would have waited."""
    return hasty(site)


def submitted(site: Inline, address: str) -> int:
    return site.submit(address, spec.StoreSpec(paths=(os.fspath(site.files),), recursive=True, verify=True))


def test_what_is_listed_succeeded_and_what_is_not_failed(site: Inline, pauses: list[float]) -> None:
    """Confirmed and not listed, however long one waits: failed, with a reason of its own; each was sent once."""
    files = site.mr(6)
    lost = {files[1].sop_instance_uid, files[4].sop_instance_uid}
    archive = Forgetful(lambda uid: uid not in lost)
    with running(archive) as address:
        job_id = submitted(site, address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=6, succeeded=4, failed=2)
    failed = [row for row in site.items(job_id) if row.state == "failed"]
    assert {row.sop_instance_uid for row in failed} == lost
    assert {(row.reason, row.status, row.tries) for row in failed} == {("not found after success", 0, 1)}
    assert len(archive.received) == 6
    assert pauses == list(verification.PAUSES)


def test_an_archive_that_indexes_late_is_waited_for(site: Inline, pauses: list[float]) -> None:
    """What is listed at the second look succeeded."""
    site.mr(3)
    archive = Forgetful(lambda _: True, after=1)
    with running(archive) as address:
        job_id = submitted(site, address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=3, succeeded=3)
    assert {(row.reason, row.status, row.tries) for row in site.items(job_id)} == {(None, 0, 1)}
    assert pauses == [verification.PAUSES[0]]


def test_an_archive_that_answers_no_queries(site: Inline, pauses: list[float]) -> None:
    """What was to be verified and could not be is not done: incomplete, `not verified`, exit code 1. `retry` looks
    again, once the archive answers, and sends nothing.
    """
    site.mr(3)
    archive = Forgetful(lambda _: True)
    with running(archive, finds=False) as address:
        job_id = submitted(site, address)
        assert site.drain(job_id) is JobState.INCOMPLETE
    assert site.tally(job_id) == Tally(total=3, failed=3)
    assert {(row.reason, row.status) for row in site.items(job_id)} == {("not verified", 0)}
    job = jobs.show(site.database, job_id)
    assert (job["verified"], job["reason"], wait.exit_code(job)) == ("none", "not verified", 1)
    assert "0 of 3 proven at FORGETFUL, 3 confirmed but not verified" in wait.end_sentence(site.database, job)
    assert f"jobs retry {job_id}" in (wait.after_the_end(site.database, job) or "")
    assert len(archive.received) == 3 and pauses == []
    with running(archive, port=int(address.rpartition(":")[2])):
        assert verbs.retry(site.database, job_id) == 3
        site.bell.ring("bulk")
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert len(archive.received) == 3
    assert jobs.show(site.database, job_id)["verified"] == "uids"


def test_a_list_is_as_new_as_the_last_send(site: Inline, pauses: list[float]) -> None:
    """One that was refused at first is sent later, and the series is listed again after that."""
    refused: list[str] = []

    def once(uid: str) -> int:
        if refused or uid != made[1].sop_instance_uid:
            return 0
        refused.append(uid)
        return 0xA700

    made = site.mr(4)
    archive = Forgetful(lambda _: True, status=once)
    with running(archive) as address:
        job_id = submitted(site, address)
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert refused and site.tally(job_id) == Tally(total=4, succeeded=4)
    assert not set(pauses) & set(verification.PAUSES), "nothing was waited for"


def test_a_worker_that_dies_before_it_looked(site: Inline, pauses: list[float]) -> None:
    """The next attempt looks, and sends nothing again."""
    site.mr(4)
    archive = Forgetful(lambda _: True)
    site.tune(records={"items": 1})

    def dying(work: Work) -> Iterator[Answered]:
        def once() -> Iterator[Item]:
            for number, row in enumerate(work.feed):
                if number == 4:
                    raise Killed  # all were sent, and the first has come back to be looked for
                yield row

        return operations.store(replace(work, feed=once()))

    with running(archive) as address:
        job_id = submitted(site, address)
        site.change(operations={"store": dying})
        with pytest.raises(Killed):
            site.run_due()
        site.change(operations={})
        site.lose()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=4, succeeded=4)
    assert len(archive.received) == 4

"""A remote that means something else by an answer: its quirk decides, for it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.documents import job_answers, jobs
from dicomferry.models.record.remotes import book
from dicomferry.models.rules.spec import FindSpec, GetSpec
from dicomferry.models.rules.state import JobState
from support import scripted_peer as peer
from support.bench import Bench
from support.find_scp import FindScp, final
from support.inline import Inline
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.scripted_peer import send

STUDY = "0020000D"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    with Inline(tmp_path, monkeypatch, timeouts={"quiet": 0.05, "settle": 0.05}) as made:
        yield made


def known(site: Inline, address: str, *quirks: str) -> str:
    """The remote as the address book has it."""
    book.add(site.database, "odd", address, quirks=quirks)
    return "odd"


def test_a_lack_of_resources_that_is_none(site: Inline) -> None:
    """An archive that says A700 of every malformed object: failed at once, one try each, and the rest goes on."""
    files = site.mr(3)
    bad = files[1].sop_instance_uid
    with Bench(answer=lambda store: 0xA700 if store.uid == bad else 0) as bench:
        job_id = site.store(known(site, bench.address, "store 0xA700=final"))
        assert site.drain(job_id) is JobState.INCOMPLETE
    row = site.item(job_id, bad)
    assert (row.state, row.reason, row.status, row.tries) == ("failed", "out of resources", 0xA700, 1)
    assert len(bench.stores) == 3
    _, (met,) = job_answers.of_job(site.database, job_id)
    assert (met.answer.rule, met.counts) == ("final", {"failed": 1})


def test_a_failure_that_is_a_warning(site: Inline) -> None:
    """What a person declares to be no failure counts as stored, and keeps its status and reason."""
    site.mr(1)
    with Bench(answer=lambda _: 0xC123) as bench:
        job_id = site.store(known(site, bench.address, "store 0xC123=warning"))
        assert site.drain(job_id) is JobState.SUCCEEDED
    (row,) = site.items(job_id)
    assert (row.state, row.reason, row.status) == ("warning", "cannot understand", 0xC123)


def test_a_refusal_that_passes(site: Inline) -> None:
    """A gateway that knows no AE title while it starts: waited out in place of being held."""
    site.mr(1)
    reject = [send(peer.rejection(1, 1, 7))]
    with Bench(greet=lambda n: reject if n < 3 else None) as bench:
        job_id = site.store(known(site, bench.address, "reject 1/1/7=away"))
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.associations == 4  # twice refused, then the look of the breaker, and the store


def test_a_query_that_is_final(site: Inline) -> None:
    """One try in place of two."""
    with FindScp(lambda _: [final(0xC001)]) as scp:
        remote = known(site, scp.address, "find 0xC001=final")
        job_id = site.submit(remote, FindSpec(keys=((STUDY, ""),)))
        while site.run_next("quick"):
            pass
    assert JobState(site.job(job_id).state) is JobState.FAILED
    assert len(scp.queries) == 1


def test_a_retrieve_that_is_held(site: Inline) -> None:
    """An archive whose C000 says that it does not know us."""
    held = site.mr(1)
    manners = Manners(retrieve=lambda retrieval: retrieval.final(0xC000))
    with QrPeer(Catalogue(held), manners=manners) as archive:
        what = GetSpec(identifiers=((None, ((STUDY, held[0].study_instance_uid),)),))
        job_id = site.submit(known(site, archive.address, "get 0xC000=hold"), what)
        assert site.drain(job_id) is JobState.HELD
    assert jobs.show(site.database, job_id)["reason"] == "unable to process"

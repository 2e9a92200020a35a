"""Keeping to the limits of a remote: how long each is made to wait, and whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.models.record.remotes import book
from dicomferry.models.record.remotes.governor import What
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.rules.pacing import BURST_SECONDS, Grant, RateLimits
from dicomferry.workers.attempts import pace
from dicomferry.workers.attempts.pace import AnswerPace, Paces, PlacesInHand, Slowed
from dicomferry.workers.dimse.acceptor import StatusReply
from dicomferry.workers.dimse.names import Names
from support import samples
from support.inline import Inline
from support.qr_catalogue import Catalogue
from support.qr_peer import QrPeer
from support.retrieving import IMPATIENT, STUDY, TITLE, Site, flat
from support.scp import StorageScp


class Giver:
    """Gives so many places of 10 a second at once, the first one at once."""

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self.asked: list[tuple[What, float]] = []
        self.now = 100.0

    def take(self, what: What, least: float) -> Grant | None:
        self.asked.append((what, least))
        return Grant(amount=max(self.amount, least), starts_in=0.0, rate=10.0) if self.amount else None


def test_places_are_used_one_by_one() -> None:
    """At the limit's own pace, several of one transaction; who is late does not wait, and catches up."""
    giver = Giver(4)
    places = PlacesInHand(giver.take, clock=lambda: giver.now)
    assert [places.before("instances") for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert giver.asked == [("instances", 1.0)]
    giver.now += 5.0
    assert places.before("instances") == 0.0
    giver.now += 0.25
    assert [places.before("instances") for _ in range(3)] == pytest.approx([-0.15, -0.05, 0.05])
    assert len(giver.asked) == 2


def test_what_was_sent_is_paid_afterwards() -> None:
    """More than there is left is taken at once, and waited for."""
    giver = Giver(2)
    places = PlacesInHand(giver.take, clock=lambda: giver.now)
    assert places.after("size", 20.0) == pytest.approx(2.0)
    assert giver.asked == [("size", 20.0)]
    giver.now += 2.0
    assert places.after("size", 1.0) == pytest.approx(0.1)
    assert places.after("size", 1.0) == pytest.approx(0.2)
    assert giver.asked == [("size", 20.0), ("size", 1.0)]


def test_no_limit_no_wait() -> None:
    """A limit that was taken away while somebody used it."""
    giver = Giver(0)
    places = PlacesInHand(giver.take, clock=lambda: giver.now)
    assert places.before("requests") == 0.0 and places.after("size", 1e9) == 0.0


class Sink:
    def __init__(self) -> None:
        self.ended = False

    def take(self, spans: list[memoryview]) -> None:
        pass

    def finish(self) -> StatusReply:
        self.ended = True
        return StatusReply(0)

    def discard(self) -> None:
        pass


def test_an_answer_waits_when_all_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the bytes are durable, for five seconds at most; by AE title, or else by address; nobody else waits."""
    slept: list[float] = []
    with Inline(tmp_path, monkeypatch) as site:
        book.add(site.database, "slow", "SLOW@192.0.2.7:104", max_bytes_per_second=1000)
        book.add(site.database, "free", "FREE@192.0.2.8:104")
        paces = Paces(site.database, Names(), sleep=slept.append)
        paces.reload()
        found = paces.of("SLOW", "198.51.100.1")
        assert isinstance(found, AnswerPace) and found is paces.of("OTHER", "192.0.2.7")
        assert paces.of("FREE", "192.0.2.8") is None
        inner = Sink()
        sink = Slowed(inner, found.received)
        sink.take([memoryview(bytes(600)), memoryview(bytes(400))])
        assert not inner.ended and sink.finish() == StatusReply(0)
        assert slept == [pytest.approx(1.0, abs=0.1)]
        found.received(100_000)
        assert slept[1] == pace.MOST_ANSWER_SECONDS
        book.change(site.database, "slow", None, max_bytes_per_second=None)
        paces.reload()
        assert paces.of("SLOW", "192.0.2.7") is None
        assert found.limits == RateLimits(size=1000)


def test_what_comes_for_a_retrieve_keeps_to_the_limit(tmp_path: Path) -> None:
    """Ten instances at five a second, by C-MOVE and by C-GET: all of them, and not sooner."""
    held = [
        samples.instance(tmp_path / f"{number}.dcm", study=("limited", 1), number=number, size=8)
        for number in range(1, 11)
    ]
    scp = StorageScp(**flat(IMPATIENT))
    with QrPeer(Catalogue(held), destinations={TITLE: scp.port}) as peer:
        book.add(scp.database, "limited", peer.address, max_instances_per_second=5.0)
        with scp:
            site = Site(scp)
            key = (STUDY, held[0].study_instance_uid)
            for job_id in (site.move("limited", key), site.get("limited", key, refetch=True)):
                assert site.drive(job_id)["received"] == 10
                times = [row.at for row in site.rows(sa.select(ArrivalRow.at).where(ArrivalRow.job_id == job_id))]
                assert len(times) == 10
                assert (max(times) - min(times)).total_seconds() >= 9 / 5.0 - BURST_SECONDS - 0.1

"""The heartbeat: keeps the lease, hears what is asked, ends what has come to a standstill."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.engine import Connection

from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims, verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.rules.errors import LeaseLost, OutOfReach
from dicomferry.models.rules.state import JobState, Tally
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.tuning import Beats
from support import samples
from support import scripted_peer as peer
from support.bench import Bench, Reply, Store
from support.inline import Inline, hearts_of

_T = TypeVar("_T")
PATIENCE = 20.0


QUICK = Beats(tick=0.01, stuck_grace=0.01)
"""Cancel, hold and drain are looked for a hundred times a second."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """An installation with a lease of one second, renewed each third."""
    with Inline(tmp_path, monkeypatch, lease_seconds=1.0) as made:
        made.tune(beats={"tick": 0.01})
        yield made


class Watched(Database):
    """The record as one heart sees it: each look goes by `look`."""

    def __init__(self, url: str, clock: Callable[[], datetime], look: Callable[[], None]) -> None:
        super().__init__(url, clock=clock)
        self.look = look
        self.looks = threading.Semaphore(0)
        self.renewals = 0

    def write(self, work: Callable[[Connection], _T], **options: Any) -> _T:
        try:
            self.look()
            result = super().write(work, **options)
            self.renewals += 1
            return result
        finally:
            self.looks.release()

    def read(self, work: Callable[[Connection], _T]) -> _T:
        try:
            self.look()
            return super().read(work)
        finally:
            self.looks.release()


class Beating:
    """A heart beside a claimed chunk that no peer disturbs, and the monotonic clock that it looks at."""

    def __init__(self, site: Inline) -> None:
        self.site = site
        self.now = 1000.0
        self.aborted = threading.Event()
        self.exited = threading.Event()
        self.asked = threading.Event()
        self.codes: list[int] = []
        self.trouble: Callable[[], None] = lambda: None
        self.database = Watched(site.settings.database, site.clock, lambda: self.trouble())
        self.job_id = site.echo("NOBODY@127.0.0.1:1")
        found = claims.take(site.database, "quick", site.worker, lease_seconds=30)
        assert found is not None
        self.lease: Lease = found
        self.heart = Heartbeat(
            self.database, found, site.worker, lease_seconds=30, watchdog=100,
            beats=QUICK, clock=lambda: self.now, end_process=self._exit,
        )  # fmt: skip
        self.heart.on_abort(self.aborted.set)

    def _exit(self, code: int) -> None:
        self.codes.append(code)
        self.exited.set()

    @property
    def renewals(self) -> int:
        return self.database.renewals

    def look(self, times: int = 3) -> None:
        """Until the heart has looked so often again, so that what was changed before was seen."""
        while self.database.looks.acquire(blocking=False):
            pass
        for _ in range(times):
            assert self.database.looks.acquire(timeout=PATIENCE)

    def fall_silent(self) -> threading.Event:
        """From now on the record does not answer, until what is returned is set; `asked` tells that it was asked."""
        silent = threading.Event()

        def wait() -> None:
            self.asked.set()
            assert silent.wait(PATIENCE)

        self.trouble = wait
        return silent

    @property
    def lease_until(self) -> float:
        """The lease's end in seconds from now."""
        (row,) = self.site.chunks(self.job_id)
        return float((row.lease_until - self.site.clock.time).total_seconds())


@pytest.fixture
def beats(site: Inline) -> Iterator[Beating]:
    """A heart that does not beat yet."""
    made = Beating(site)
    yield made
    made.database.close()


# --- alone --------------------------------------------------------------------------------------------------


def test_the_lease_is_renewed_each_third(beats: Beating) -> None:
    """Nothing is written before a third of the lease has passed; then the lease lasts its full time again."""
    with beats.heart:
        beats.look()
        assert beats.renewals == 0
        beats.site.clock.move(12)
        assert beats.lease_until == 18
        beats.now += 12
        beats.look()
        assert beats.renewals == 1
        assert beats.lease_until == 30
    assert not beats.heart.stop


@pytest.mark.parametrize("verb", ["cancel", "hold", "drain"])
def test_what_is_asked_is_heard(beats: Beating, verb: str) -> None:
    """Cancel, hold and drain stop the attempt between two items; the lease stays ours and nothing is aborted."""
    with beats.heart:
        if verb == "drain":
            presence.drain(beats.site.database, beats.site.worker)
        else:
            getattr(verbs, verb)(beats.site.database, beats.job_id)
        beats.heart.pause(PATIENCE)
        assert beats.heart.stop
        assert getattr(beats.heart.signals, verb)
        beats.heart.require_lease()
    assert not beats.aborted.is_set()


def test_a_lost_lease_aborts(beats: Beating) -> None:
    """A renewal that finds another fence aborts the association and lets nothing more be done."""
    with beats.heart:
        beats.site.clock.move(31)
        beats.site.sweep()
        beats.now += 12
        assert beats.aborted.wait(PATIENCE)
        assert beats.heart.stop
        with pytest.raises(LeaseLost):
            beats.heart.require_lease()


def test_an_association_that_opens_after_the_loss(beats: Beating) -> None:
    """One that was still being opened when the lease was lost is aborted as soon as it is there."""
    beats.heart.on_abort(None)
    with beats.heart:
        beats.site.clock.move(31)
        beats.site.sweep()
        beats.now += 12
        beats.heart.pause(PATIENCE)
    later = threading.Event()
    beats.heart.on_abort(later.set)
    assert later.is_set()


def away() -> None:
    """A record that cannot be reached."""
    raise OutOfReach("away")


def broken() -> None:
    """An error that nobody thought of."""
    raise RuntimeError("what is this?")


@pytest.mark.parametrize("trouble", [away, broken])
def test_the_record_out_of_reach_for_less_than_the_lease(beats: Beating, trouble: Callable[[], None]) -> None:
    """A renewal that cannot be made is tried at every tick, and nothing happens as long as the lease lasts."""
    with beats.heart:
        beats.look()
        beats.trouble = trouble
        beats.now += 29
        beats.look()
        assert not beats.heart.stop
        beats.trouble = lambda: None
        beats.site.clock.move(29)
        beats.look()
        assert (beats.renewals, beats.lease_until) == (1, 30)
        beats.now += 9
        beats.trouble = trouble
        beats.look()
        assert not beats.heart.stop
    assert not beats.aborted.is_set()


@pytest.mark.parametrize("trouble", [away, broken])
def test_the_record_out_of_reach_for_longer(beats: Beating, trouble: Callable[[], None]) -> None:
    """When the lease is over by our own clock, it counts as lost even if nobody could say so."""
    with beats.heart:
        beats.look()
        beats.trouble = trouble
        beats.now += 31
        assert beats.aborted.wait(PATIENCE)
        with pytest.raises(LeaseLost):
            beats.heart.require_lease()


def test_no_progress(beats: Beating) -> None:
    """Without progress for the watchdog's time the association is aborted; who comes back then is left alone."""
    with beats.heart:
        for _ in range(3):
            for _ in range(9):  # less than the lease at a time: each step is renewed before the next
                beats.now += 11
                beats.look()
            assert not beats.aborted.is_set()
            beats.heart.progress(0)
        beats.now += 101
        assert beats.aborted.wait(PATIENCE)
        assert beats.heart.stop
    assert beats.codes == []


def test_a_main_thread_that_does_not_come_back(beats: Beating) -> None:
    """When even the abort does not free the main thread, the process ends, so that its lease can run out."""
    with beats.heart:
        beats.now += 101
        assert beats.exited.wait(PATIENCE)
    assert beats.aborted.is_set()
    assert beats.codes == [70]


# --- beside an attempt --------------------------------------------------------------------------------------


@pytest.fixture
def hearts(site: Inline) -> list[Heartbeat]:
    """Every heart that an attempt starts."""
    return hearts_of(site)


@pytest.mark.parametrize("verb", ["cancel", "hold", "drain"])
def test_a_stop_between_two_items(site: Inline, hearts: list[Heartbeat], verb: str) -> None:
    """The item in flight is finished and recorded, the next one is not begun, the association is released."""
    files = site.mr(5)

    def answer(store: Store) -> Reply:
        if store.number == 2:
            if verb == "drain":
                presence.drain(site.database, site.worker)
            else:
                getattr(verbs, verb)(site.database, job_id)
            hearts[-1].pause(PATIENCE)
        return 0

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.run_next()
        assert site.run_next()
        assert bench.stores == [file.sop_instance_uid for file in files[:2]]
        (chunk,) = site.chunks(job_id)
        state = {"cancel": "cancelled", "hold": "held", "drain": "pending"}[verb]
        assert (chunk.state, chunk.succeeded, chunk.cancelled) == (state, 2, 3 if verb == "cancel" else 0)
        assert site.ends(job_id) == ["cancelled" if verb == "cancel" else "interrupted"]
        assert {row.charges for row in site.items(job_id)} == {0}
        site.check()
        if verb == "drain":
            site.hire()
        else:
            assert site.job(job_id).state == ("cancelled" if verb == "cancel" else "held")
            (verbs.retry if verb == "cancel" else verbs.release)(site.database, job_id)
            site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.stores == [file.sop_instance_uid for file in files]
    assert bench.associations == 2


@pytest.mark.parametrize("verb", ["cancel", "hold"])
def test_a_stop_does_not_wait_for_a_silent_peer(site: Inline, verb: str) -> None:
    """C-STORE cannot be cancelled: the association is aborted soon, and nobody is charged for it."""
    site.tune(beats={"cancel_grace": 0.0, "stop_grace": 0.0})
    files = site.mr(3)

    def answer(store: Store) -> Reply:
        if store.number != 2:
            return 0
        getattr(verbs, verb)(site.database, job_id)
        return [peer.until_end]

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.run_next()
        assert site.run_next()
        (chunk,) = site.chunks(job_id)
        assert (chunk.state, chunk.succeeded) == ("cancelled" if verb == "cancel" else "held", 1)
        assert site.ends(job_id) == ["cancelled" if verb == "cancel" else "interrupted"]
        assert {row.charges for row in site.items(job_id)} == {0}
        site.check()
        (verbs.retry if verb == "cancel" else verbs.release)(site.database, job_id)
        site.sweep()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted([*(file.sop_instance_uid for file in files), files[1].sop_instance_uid])


def test_a_lease_lost_while_a_peer_is_silent(site: Inline) -> None:
    """The association is aborted, nothing more is written, nobody is charged; whoever is next sends it again."""
    files = site.mr(3)
    writes: list[int] = []
    swept = threading.Event()

    def answer(store: Store) -> Reply:
        if store.number != 2:
            return 0
        site.lose()
        writes.append(site.database.writes)
        swept.set()
        return [peer.until_end]

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.run_next()
        assert site.run_next()
        # The heartbeat may notice before the sweep in the peer's thread has said what it did.
        assert swept.wait(PATIENCE)
        assert writes == [site.database.writes]
        assert site.ends(job_id) == ["lost"]
        assert {(row.state, row.charges) for row in site.items(job_id)} == {("pending", 0)}
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert bench.stores == [files[n].sop_instance_uid for n in (0, 1, 0, 1, 2)]
    assert site.ends(job_id) == ["lost", "completed"]


def test_the_record_away_for_less_than_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending goes on until a hundred outcomes wait to be recorded, then blocks; nothing is sent twice."""
    with Inline(tmp_path, monkeypatch) as site:
        site.tune(records={"seconds": 1e9})
        files = site.mr(150)
        locked = sqlite3.connect(site.settings.home / "dicomferry.db", isolation_level=None, check_same_thread=False)
        sent_when_released: list[int] = []

        def answer(store: Store) -> Reply:
            if store.number == 30:
                locked.execute("BEGIN IMMEDIATE")
                site.database.on_write = blocked
            return 0

        def blocked(_: int) -> None:
            site.database.on_write = lambda _: None
            threading.Timer(0.5, release).start()

        def release() -> None:
            sent_when_released.append(len(bench.stores))
            locked.execute("ROLLBACK")

        with Bench(answer=answer) as bench:
            job_id = site.store(bench.address)
            assert site.drain(job_id) is JobState.SUCCEEDED
        locked.close()
        assert sent_when_released == [100]
        assert sorted(bench.stores) == sorted(samples.uids(files))
        assert site.ends(job_id) == ["completed"]


def test_the_record_away_for_longer_than_patience(site: Inline) -> None:
    """The attempt is given up without a word on the record; at most a hundred instances are sent again."""
    site.tune(records={"seconds": 1e9})
    files = site.mr(150)

    def answer(store: Store) -> Reply:
        if store.number == 30:
            site.database.away = True
        return 0

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.run_next()
        assert site.run_next()
        assert len(bench.stores) == 100
        site.database.away = False
        site.lose()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert site.tally(job_id) == Tally(total=150, succeeded=150)
    assert len(bench.stores) == 250
    assert set(bench.stores) == samples.uids(files)
    assert site.ends(job_id) == ["lost", "completed"]


def test_the_record_away_while_a_peer_is_silent(site: Inline) -> None:
    """A lease that cannot be renewed is over by our own clock: the association is aborted, the peer gets no more."""
    site.mr(2)

    def answer(store: Store) -> Reply:
        if store.number > 1:
            return 0
        site.database.away = True
        return [peer.until_end]

    with Bench(answer=answer) as bench:
        job_id = site.store(bench.address)
        assert site.run_next()
        assert site.run_next()
        assert len(bench.stores) == 1
        site.database.away = False
        site.lose()
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert len(bench.stores) == 3


def test_a_record_that_does_not_answer_takes_nobody_the_watch(beats: Beating) -> None:
    """The heartbeat waits for the database: an attempt that comes to a standstill meanwhile is ended all the same, and
    one whose lease must be over gives it up.
    """
    silent = beats.fall_silent()
    with beats.heart:
        beats.now += 11
        assert beats.asked.wait(PATIENCE)
        assert not beats.aborted.is_set()
        beats.now += 30
        assert beats.aborted.wait(PATIENCE)
        assert beats.heart.lost
        silent.set()


def test_a_standstill_is_seen_while_the_record_does_not_answer(beats: Beating) -> None:
    """The watchdog's time is over while the heartbeat waits: the association is aborted, then the process ends."""
    silent = beats.fall_silent()
    with beats.heart:
        beats.now += 11
        assert beats.asked.wait(PATIENCE)
        beats.now += 100
        assert beats.aborted.wait(PATIENCE)
        silent.set()
        assert beats.heart.gave_up or beats.heart.lost

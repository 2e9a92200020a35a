"""A remote that cannot be used is looked at by one C-ECHO an interval; what it cannot bear it is spared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicomferry.models.documents import remotes
from dicomferry.models.record.remotes import book
from dicomferry.models.rules.state import JobState
from support import samples
from support import scripted_peer as peer
from support.bench import Bench, Store
from support.inline import Inline

Make = Callable[..., Inline]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the installation of this test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Inline(tmp_path, monkeypatch, **settings))


def test_one_look_for_all_that_waits(make: Make) -> None:
    """Two jobs of three chunks: while the remote hangs up, one association an interval, with growing pauses; then an
    echo, and everything arrives.
    """
    site = make()
    site.cut_at(2)
    files = site.mr(6)
    with Bench(greet=lambda n: [peer.close] if n <= 2 else None) as bench:
        book.add(site.database, "bench", bench.address)
        jobs = [site.store("bench"), site.store("bench")]
        site.run_due()
        assert bench.associations == 1
        assert remotes.show(site.database, "bench")["breaker"]["state"] == "open"
        site.clock.move(30)
        site.sweep()
        site.run_due()
        assert bench.associations == 2, "one looks, the others wait for what it finds"
        found = remotes.show(site.database, "bench")["breaker"]
        assert (found["state"], found["failures"], found["reason"]) == ("open", 2, "connection closed")
        site.clock.move(60)
        site.sweep()
        assert [site.drain(job) for job in jobs] == [JobState.SUCCEEDED] * 2
    assert sorted(bench.stores) == sorted([*samples.uids(files)] * 2)
    assert bench.associations == 2 + 1 + 6, "the look, and one for each chunk"
    assert remotes.exceptions(site.database) == []


def test_a_remote_that_goes_down_behind_a_door_that_stays_open(make: Make) -> None:
    """A remote that took something and then hangs up, however often, needs no person: it is down, and comes back."""
    site = make()
    site.cut_at(2)
    files = site.mr(4)
    with Bench(greet=lambda n: [peer.close] if 2 <= n <= 7 else None) as bench:
        book.add(site.database, "bench", bench.address)
        assert site.drain(site.store("bench")) is JobState.SUCCEEDED
    assert sorted(bench.stores) == sorted(samples.uids(files))
    assert bench.associations == 1 + 6 + 1 + 1, "six looks in vain, one that is answered, the second chunk"


def test_a_speed_that_nobody_was_told(make: Make) -> None:
    """Out of resources after others were taken: slower from then on, as `remote show` says; nothing fails."""
    site = make()
    site.mr(12)

    def answer(store: Store) -> int:
        return 0xA700 if store.number == 6 else 0

    with Bench(answer=answer) as bench:
        book.add(site.database, "bench", bench.address)
        job_id = site.store("bench")
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (remotes.show(site.database, "bench")["learned"]["instances_per_second"] or 0) > 0
    assert len(bench.stores) == 13


def test_a_window_that_closes_under_a_running_job(make: Make) -> None:
    """The item under way is finished, the rest waits for the next opening, and then all of it has arrived once."""
    site = make(timeouts={"progress": 30.0})
    site.mr(40)

    def answer(store: Store) -> int:
        if store.number == 5:
            site.clock.move(3 * 3600)
        if store.number >= 5:
            time.sleep(0.3)
        return 0

    with Bench(answer=answer) as bench:
        book.add(site.database, "bench", bench.address, window={"hours": "daily 20:00-04:00", "tz": "UTC"})
        job_id = site.store("bench")
        site.run_due()
        (chunk,) = site.chunks(job_id)
        assert (chunk.state, chunk.reason, chunk.not_before.hour) == ("pending", "window", 20)
        assert 5 <= len(bench.stores) < 40
        assert site.ends(job_id) == ["interrupted"]
        bench.answer = lambda _: 0
        assert site.drain(job_id) is JobState.SUCCEEDED
    assert (len(bench.stores), bench.most) == (40, 1)


def test_waiting_for_a_window_does_not_tire(make: Make) -> None:
    """Of the time after which a person is asked, only the hours count in which the remote might have been used."""
    site = make(retry={"give_up_after": 3 * 3600.0, "first_delay": 3600.0, "max_delay": 3600.0})
    site.mr(1)
    with Bench(greet=lambda _: [peer.send(peer.rejection(2, 3, 2))]) as bench:
        book.add(site.database, "bench", bench.address, window={"hours": "daily 02:00-03:30", "tz": "UTC"})
        job_id = site.store("bench")
        assert site.drain(job_id) is JobState.HELD
    # Tries at 02:00 and 03:00 of two nights, of which 90 minutes each count, and at 02:00 of the third: three hours.
    assert bench.associations == 5
    assert (site.clock.time.day, site.clock.time.hour) == (24, 2)

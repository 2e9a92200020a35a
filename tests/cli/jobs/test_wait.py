"""Waiting for a job: what is said meanwhile, how it ends, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from dicomferry.cli.jobs import wait
from dicomferry.cli.jobs.progress import PLAIN_EVERY, Bar, Plain
from dicomferry.cli.jobs.wait import NO_WORKER, JobWait
from dicomferry.models.documents.shapes import ShownJob
from dicomferry.models.record import presence
from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.models.rules.state import ItemState
from support.desk import ALREADY_THERE, REFUSED, SUCCEEDED, Desk

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def job(state: str = "running", **values: Any) -> Any:
    """A job's document, as far as a wait looks at it."""
    items = {"total": 10, "pending": 10, "succeeded": 0, "warning": 0, "failed": 0, "skipped": 0, "cancelled": 0}
    return {
        "id": 7, "kind": "store", "remote": "pacs1", "remote_address": "PACS1@h:104", "state": state, "reason": None,
        "detail": None, "reason_text": None, "not_before": None, "planned": True, "bytes": 0,
        "items": items | values.pop("items", {}),
        "requests": items | values.pop("requests", {}),
        "instances": items | values.pop("instances", {}),
        "waiting_for": None,
    } | values  # fmt: skip


class Shown:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.updates = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, job: object) -> None:
        self.updates += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Bench:
    """A wait whose time passes only when it sleeps. An exception among the documents is raised by the read."""

    def __init__(
        self, documents: Sequence[ShownJob | Exception], *, workers: Sequence[int] = (), timeout: float | None = None
    ) -> None:
        self.time = 0.0
        self.naps: list[float] = []
        self.ends_at: float | None = None
        self.asked = 0
        self.shown = Shown()
        self._documents: Iterator[ShownJob | Exception] = iter(documents)
        self._workers = list(workers)
        self.watch = JobWait(
            read=self._read,
            state=self._state,
            workers=lambda: self._workers.pop(0) if self._workers else 1,
            shown=self.shown,
            timeout=timeout,
            clock=lambda: self.time,
            sleep=self._sleep,
            now=lambda: NOW,
        )

    def _read(self) -> ShownJob:
        document = next(self._documents)
        if isinstance(document, Exception):
            raise document
        return document

    def _state(self) -> str:
        self.asked += 1
        return "succeeded" if self.ends_at is not None and self.time >= self.ends_at else "running"

    def _sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += seconds


def test_the_end_ends_the_wait() -> None:
    """The whole job is looked at four times a second, however long it takes."""
    bench = Bench([job()] * 200 + [job("succeeded")])
    ended = bench.watch.run()
    assert ended is not None and ended["state"] == "succeeded"
    assert bench.time == pytest.approx(200 * 0.25)
    assert bench.shown.said == [] and bench.shown.updates == 200


@pytest.mark.parametrize("seconds", [0.03, 0.6, 4.1, 19.0, 90.13])
def test_the_last_answer_ends_the_wait_at_once(seconds: float) -> None:
    """A job is seen to end within 20 ms, a long one within a hundredth of the time that it took; not at the next look
    at all of it. A quick job is asked about fifty times a second, one of half a minute at each look alone.
    """
    bench = Bench([])
    bench.ends_at = seconds
    bench.watch.read = lambda: job("succeeded" if bench.time >= seconds else "running")
    assert bench.watch.run() is not None
    assert 0 <= bench.time - seconds <= max(0.021, min(0.25, seconds / 100))
    assert bench.asked <= min(50 * seconds + 1, 400)


def test_who_cannot_be_asked_for_a_moment_has_not_ended() -> None:
    """A database away between two looks says nothing; the next look tells of it, if it is away still."""

    def away() -> str:
        raise OutOfReach("database: gone")

    bench = Bench([job(), job("succeeded")])
    bench.watch.state = away
    assert bench.watch.run() is not None
    assert bench.shown.said == []


@pytest.mark.parametrize("state", ["succeeded", "incomplete", "failed", "cancelled", "held"])
def test_every_end_ends_it_and_so_does_held(state: str) -> None:
    """A held job waits for a person: waiting for it would last for ever."""
    ended = Bench([job(), job(state)]).watch.run()
    assert ended is not None and ended["state"] == state


def test_a_reason_is_told_once_with_the_next_try() -> None:
    """`pacs1: unreachable ..., next try in 10 s; Ctrl-C leaves the job queued`, not at each look."""
    waiting = job("pending", reason="unreachable", detail="h:104: connection refused", reason_text="is the host up?")
    waiting |= {"not_before": "2026-11-22T02:00:10.000Z"}
    other = job("pending", reason="rejected for now", not_before="2026-11-22T02:00:20.000Z")
    bench = Bench([waiting, waiting, job(), waiting, other, waiting, job("succeeded")])
    bench.watch.run()
    assert bench.shown.said == [
        "pacs1: unreachable: h:104: connection refused (is the host up?), next try in 10 s; "
        "Ctrl-C leaves the job queued",
        "pacs1: rejected for now, next try in 20 s; Ctrl-C leaves the job queued",
    ]


def test_each_long_wait_is_told() -> None:
    """Five minutes more without a word look like a standstill; another try in seconds does not, nor each of many."""
    first = job("running", reason="not delivered yet", not_before="2026-11-22T02:00:10.000Z")
    long = first | {"not_before": "2026-11-22T02:05:00.000Z"}
    longer = first | {"not_before": "2026-11-22T02:06:00.000Z"}
    bench = Bench([first] * 300 + [long] * 10 + [longer] * 10 + [first | {"not_before": None}, job("succeeded")])
    bench.watch.run()
    assert [text.partition(", ")[2] for text in bench.shown.said] == [
        "next try in 10 s; Ctrl-C leaves the job queued",
        "next try at 02:05:00; Ctrl-C leaves the job queued",
    ]


def test_a_missing_worker_is_told_at_once() -> None:
    """With the command that starts one; again only after one was there."""
    bench = Bench([job("pending")] * 40 + [job("succeeded")], workers=[0, 0, 1, 0])
    bench.watch.run()
    assert [text.startswith(NO_WORKER) for text in bench.shown.said] == [True, True]


def test_a_job_that_has_ended_needs_no_worker() -> None:
    """Nothing is said about workers when nothing is left to do."""
    bench = Bench([job("succeeded")], workers=[0])
    bench.watch.run()
    assert bench.shown.said == []


def test_the_timeout_ends_the_wait_in_time() -> None:
    """None after exactly so many seconds; 0 looks once."""
    bench = Bench([job()] * 100, timeout=1.0)
    assert bench.watch.run() is None
    assert bench.time == pytest.approx(1.0)
    assert Bench([job()], timeout=0).watch.run() is None
    assert Bench([job("succeeded")], timeout=0).watch.run() is not None


def test_a_database_away_for_a_moment_does_not_end_the_wait() -> None:
    """It is said once for each time that it goes away; after a minute without it the wait gives up."""
    away = OutOfReach("database: gone")
    bench = Bench([job(), away, away, job(), away, job("succeeded")])
    assert bench.watch.run() is not None
    assert len(bench.shown.said) == 2
    forever = Bench([away] * 1000)
    with pytest.raises(OutOfReach):
        forever.watch.run()
    assert 60 <= forever.time < 62


def test_plain_lines_are_few_and_tell_something_new(capsys: pytest.CaptureFixture[str]) -> None:
    """Not more than one in ten seconds, and none when nothing changed."""
    time = [0.0]
    plain = Plain(clock=lambda: time[0])
    for second in range(60):
        time[0] = float(second)
        plain.update(job(items={"total": 4000, "pending": 4000 - 60 * min(second, 30)}, bytes=2_000_000))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and PLAIN_EVERY == 10
    assert lines[0] == "job 7: 600 of 4,000, 2.0 MB, 60/s, 57 s left"


def test_until_it_is_planned_nobody_says_how_much_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """`found so far`, and no time left."""
    time = [0.0]
    plain = Plain(clock=lambda: time[0])
    for second in (0, 5, 11):
        time[0] = float(second)
        plain.update(job(planned=False, items={"total": 1000 + second, "pending": 1000}))
    assert capsys.readouterr().err == "job 7: 11 of 1,011 found so far, 1.0/s\n"


def test_a_retrieve_counts_instances_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Its items are requests as well; how many instances there are is known once each request has been looked up."""
    for expected, text in ((None, "job 7: 40 here so far, 4.0/s\n"), (100, "job 7: 40 of 100, 4.0/s, 15 s left\n")):
        time = [0.0]
        plain = Plain(clock=lambda time=time: time[0])  # type: ignore[misc]
        for second in (0, 10):
            time[0] = float(second)
            plain.update(job(kind="get", items={"total": 160, "pending": 100}, expected=expected, received=4 * second))
        assert capsys.readouterr().err == text


def test_the_bar_takes_every_kind_of_job(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing found yet, not planned yet, on the way, done: the bar shows each, and brackets are no markup."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Bar() as bar:
        bar.update(job("pending", planned=False, items={"total": 0, "pending": 0}))
        bar.update(job(planned=False))
        bar.update(job(items={"pending": 4, "failed": 1}, bytes=5000))
        bar.say("[red]remote[/red] away")
        bar.update(job(items={"pending": 0}))
    told = capsys.readouterr()
    assert told.out == "" and "[red]remote[/red] away" in told.err and "10 of 10" in told.err


# --- the command ---


def test_waiting_for_success(desk: Desk) -> None:
    """Exit 0 and the one sentence on stdout, without items."""
    desk.store_job([SUCCEEDED, SUCCEEDED, ALREADY_THERE], skipped=2)
    told = desk.run("jobs", "wait", "1")
    assert told.stdout.startswith("job 1: 3 of 3 proven at PACS1, 2 skipped, 1 already there, ")
    assert told.stdout.count("\n") == 1 and told.stderr == ""


def test_waiting_for_an_incomplete_job_names_five_failures(desk: Desk) -> None:
    """Exit 1: the sentence, five items with reason and advice, the command for the rest, the command to go on."""
    desk.store_job([SUCCEEDED] * 3 + [REFUSED] * 7)
    told = desk.run("jobs", "wait", "1", code=1).stdout.splitlines()
    assert told[0].startswith("job 1: 3 of 10 proven at PACS1, 7 failed, ")
    assert [line.split(":")[0] for line in told[1:6]] == [f"  /data/000{index}.dcm" for index in range(3, 8)]
    assert all("cannot understand (0xC000); the archive" in line for line in told[1:6])
    assert told[6] == "  and 2 more: `dicomferry jobs items 1 --state failed`"
    assert told[7] == "first do what is said of each item, then `dicomferry jobs retry 1`"
    assert len(told) == 8


def test_a_retry_is_offered_where_it_may_help(desk: Desk) -> None:
    """One item that may go better the next time is enough."""
    desk.store_job([SUCCEEDED, REFUSED, (ItemState.FAILED, "processing failure", 0x0110)])
    told = desk.run("jobs", "wait", "1", code=1).stdout
    assert told.endswith("what is missing is tried again with `dicomferry jobs retry 1`\n")


@pytest.mark.parametrize("inner", [True, False])
def test_nothing_to_send_names_where_it_looked(inner: bool, desk: Desk, tmp_path: Path) -> None:
    """With -r where the folder has folders inside that were not looked into."""
    folder = tmp_path / "images"
    (folder / "inside" if inner else folder).mkdir(parents=True)
    assert desk.remote_id
    desk.run("submit", "store", "pacs1", folder)
    desk.finish(desk.claim(), planned=True)
    for told in (desk.run("jobs", "wait", "1", code=1).stdout, desk.run("jobs", "show", "1").stdout):
        last = told.splitlines()[-1]
        assert last.startswith(f"no DICOM file was found in {folder}") and ("submit again with -r" in last) == inner


def test_waiting_for_a_held_job_ends_at_once(desk: Desk) -> None:
    """Exit 1 with the reason and the command that releases it."""
    verbs.hold(desk.database, desk.echo_job())
    told = desk.run("jobs", "wait", "1", code=1).stdout
    assert told.startswith("job 1 is held: held by a person; go on with `dicomferry jobs release 1`\n")


def test_waiting_for_a_cancelled_job(desk: Desk) -> None:
    """Exit 1; what had arrived before is counted."""
    job_id = desk.planned_job(4)
    verbs.cancel(desk.database, job_id)
    told = desk.run("jobs", "wait", "1", code=1).stdout
    assert told.startswith("job 1: cancelled, 0 of 4 proven at PACS1, 4 cancelled")


def test_not_ended_in_time(desk: Desk) -> None:
    """Exit 1 and nothing on stdout; the job is not touched."""
    desk.echo_job()
    told = desk.run("jobs", "wait", "last", "--timeout", "0", code=1)
    assert told.stdout == "" and "job 1 has not ended within 0 s" in told.stderr
    assert NO_WORKER in told.stderr
    assert desk.json("jobs", "show", "1")["state"] == "pending"


def test_wait_with_json_prints_the_document_alone(desk: Desk) -> None:
    """The sentence goes to stderr then; the exit code is the same."""
    desk.store_job([REFUSED])
    told = desk.run("jobs", "wait", "1", "--json", code=1)
    assert json.loads(told.stdout)["state"] == "failed"
    assert told.stderr.startswith("job 1: 0 of 1 proven at PACS1, 1 failed")


def test_a_job_that_ends_while_it_is_waited_for(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are looked at until they say that it is over."""
    desk.planned_job(2)
    held = desk.claim()
    steps = iter((lambda: desk.wait_for_remote(held), lambda: verbs.cancel(desk.database, 1)))
    told: list[str] = []

    def between_looks(_: float) -> None:
        new = capsys.readouterr().err
        if new or not told:  # the second step once it was told what the first one led to
            step: Callable[[], object] = next(steps)
            step()
        told.append(new)

    code = wait.follow(desk.database, 1, timeout=None, as_json=False, say=print, sleep=between_looks)
    assert code == 1
    assert "pacs1: unreachable (is the host up?), next try " in "".join(told)
    assert capsys.readouterr().out.startswith("job 1: cancelled, 0 of 2 proven at PACS1")


def test_roles_other_than_workers_do_no_work(desk: Desk) -> None:
    """A living scheduler is no worker."""
    presence.register(desk.database, "scheduler", slots=0)
    assert wait.workers_alive(desk.database) == 0
    presence.register(desk.database, "worker", slots=1)
    assert wait.workers_alive(desk.database) == 1

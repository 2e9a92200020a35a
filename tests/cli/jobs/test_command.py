"""`dicomferry jobs`: lists, documents, streams, and the verbs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.models.record import presence
from dicomferry.models.record.jobs import plans, verbs
from dicomferry.models.record.tables.jobs import EventRow
from dicomferry.models.rules.ending import Decision, Next
from dicomferry.models.rules.state import ItemState
from support.desk import ALREADY_THERE, REFUSED, SUCCEEDED, Desk, What

JOB_KEYS = {
    "id", "kind", "remote", "destination", "label", "state", "reason", "reason_text", "planned", "verified",
    "expectation", "submitted_at", "started_at", "finished_at", "not_before", "attempts", "items", "expected",
    "received", "missing", "surplus", "bytes", "rate_instances_per_s",
}  # fmt: skip
ITEM_KEYS = {
    "kind", "row", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "path", "state", "status", "reason",
    "advice", "attempts",
}  # fmt: skip


def test_show_has_its_keys(desk: Desk) -> None:
    """One document with every key of the contract, null and never absent, times in UTC."""
    desk.store_job([SUCCEEDED, REFUSED], label="nightly", skipped=3)
    job = desk.json("jobs", "show", "last")
    assert set(job) >= JOB_KEYS | {"events"}
    assert job["items"] == {
        "total": 5, "pending": 0, "succeeded": 1, "warning": 0, "failed": 1, "skipped": 3, "cancelled": 0,
    }  # fmt: skip
    assert (job["expected"], job["received"], job["missing"]) == (2, 1, 1)
    assert job["state"] == "incomplete" and job["label"] == "nightly" and job["verified"] == "uids"
    assert job["finished_at"].endswith("Z")
    assert {"submitted", "chunk_started", "ended"} <= {event["kind"] for event in job["events"]}
    assert all(set(event) == {"at", "kind", "text"} for event in job["events"])


def test_list_is_newest_first_without_events(desk: Desk) -> None:
    """The same objects as show; --state and --limit leave some out."""
    desk.store_job([SUCCEEDED])
    desk.echo_job()
    desk.echo_job()
    listed = desk.json("jobs", "list")
    assert [job["id"] for job in listed] == [3, 2, 1]
    assert set(listed[0]) >= JOB_KEYS and "events" not in listed[0]
    assert [job["id"] for job in desk.json("jobs", "--state", "succeeded")] == [1]
    assert [job["id"] for job in desk.json("jobs", "list", "--limit", "1")] == [3]
    assert desk.run("jobs", "list", "--state", "odd", code=2).stdout == ""


def test_list_as_lines_and_as_csv(desk: Desk) -> None:
    """The forms say the same; CSV has its header even when there is nothing to list."""
    assert desk.run("jobs", "--csv").stdout.startswith("id,kind,remote")
    assert desk.run("jobs", "--jsonl").stdout == ""
    desk.store_job([SUCCEEDED, SUCCEEDED], label='with, a "comma"')
    (line,) = desk.run("jobs", "--jsonl").stdout.splitlines()
    (row,) = csv.DictReader(io.StringIO(desk.run("jobs", "--csv").stdout))
    assert json.loads(line)["items"]["total"] == int(row["items_total"]) == 2
    assert row["label"] == 'with, a "comma"' and row["planned"] == "true" and row["not_before"] == ""


def test_the_table_is_for_people(desk: Desk) -> None:
    """No table borders, no cut cells in a pipe; thousands have their comma."""
    desk.planned_job(1200, label="x" * 200)
    told = desk.run("jobs").stdout
    assert "1,200" in told and "x" * 200 in told
    assert all(line == line.rstrip() for line in told.splitlines())


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "items", "1"), ("jobs", "report", "1")])
def test_one_form_at_a_time(words: tuple[str, ...], desk: Desk) -> None:
    """Exit 2 for two, instead of one of them."""
    desk.echo_job()
    told = desk.run(*words, "--json", "--csv", code=2)
    assert "--json and --csv: choose one" in told.stderr and told.stdout == ""
    desk.run(*words, "--json", "--json")


@pytest.mark.parametrize("number", ["0", "9" * 20, "many"])
def test_a_limit_is_a_number_that_the_record_can_count_to(number: str, desk: Desk) -> None:
    """Exit 2 and one line."""
    desk.echo_job()
    for words in (("jobs", "list"), ("jobs", "items", "1")):
        told = desk.run(*words, "--limit", number, code=2).stderr
        assert told.startswith("dicomferry: ") and "--limit" in told and told.count("\n") == 1


def test_a_label_cannot_break_the_table(desk: Desk) -> None:
    """Its line breaks and control characters are shown as escapes: one job, one line."""
    desk.planned_job(1, label="a\nb\r\x1b[31m\t")
    assert len(desk.run("jobs").stdout.splitlines()) == 2
    assert "a\\nb\\r\\x1b[31m\\t" in desk.run("jobs").stdout


def test_items_have_their_keys(desk: Desk) -> None:
    """Status as 0xC000, reason and advice beside it; the states can be chosen."""
    desk.store_job([SUCCEEDED, REFUSED, ALREADY_THERE])
    items = desk.json("jobs", "items", "1")
    assert len(items) == 3 and all(set(item) >= ITEM_KEYS for item in items)
    (failed,) = desk.json("jobs", "items", "1", "--state", "failed")
    assert failed["status"] == "0xC000" and failed["reason"] == "cannot understand" and failed["advice"]
    assert failed["path"] == "/data/0001.dcm" and failed["kind"] == "instance" and failed["attempts"] == 1
    told = desk.run("jobs", "items", "1", "--state", "failed").stdout
    assert told.startswith("failed") and "/data/0001.dcm: cannot understand (0xC000); " in told


def test_items_are_streamed_in_every_form(desk: Desk) -> None:
    """As many rows in each form; no items is an empty list, not nothing."""
    desk.planned_job(1001)
    assert len(desk.json("jobs", "items", "1")) == 1001
    assert len(desk.run("jobs", "items", "1", "--jsonl").stdout.splitlines()) == 1001
    assert len(desk.run("jobs", "items", "1", "--csv").stdout.splitlines()) == 1002
    assert len(desk.json("jobs", "items", "1", "--limit", "7")) == 7
    assert desk.json("jobs", "items", "1", "--state", "failed") == []


def test_a_path_that_is_no_utf8_is_shown_all_the_same(desk: Desk) -> None:
    """Bytes and control characters as escapes, in text and JSON, so that a name cannot spoil a terminal."""
    desk.unplanned_job()
    held = desk.claim()
    item = desk.item(0, path=b"/data/caf\xe9\x1b[31m.dcm")
    plans.add_batch(desk.database, held, cursor=None, chunks=[[item]], decided=[])
    (shown,) = desk.json("jobs", "items", "1")
    assert shown["path"] == "/data/caf\\xe9\\x1b[31m.dcm"
    assert "/data/caf\\xe9\\x1b[31m.dcm" in desk.run("jobs", "items", "1").stdout


@pytest.mark.parametrize("command", ["show", "items", "events", "wait", "cancel", "retry", "hold", "release", "report"])
@pytest.mark.parametrize("job", ["99", "seven", "-", str(2**31), str(2**63), "9" * 5000])
def test_no_such_job_is_wrong_usage(command: str, job: str, desk: Desk) -> None:
    """Exit 2, one line on stderr, nothing on stdout, not even the beginning of a list."""
    desk.echo_job()
    told = desk.run("jobs", command, job, *(["--json"] if command in ("items", "report") else []), code=2)
    assert told.stdout == "" and told.stderr.startswith("dicomferry: ") and told.stderr.count("\n") == 1


def test_show_for_people_ends_with_the_next_step(desk: Desk) -> None:
    """One screen: what, where, how many, the last events, the sentence, the next step."""
    desk.store_job([SUCCEEDED, REFUSED], label="odd\x1b[31mlabel")
    told = desk.run("jobs", "show", "1").stdout
    assert told.startswith("job 1: store to pacs1 (PACS1@127.0.0.1:104), incomplete\n")
    assert "1 of 2 proven at PACS1, 1 failed" in told
    then = "first do what is said of each item, then `dicomferry jobs retry 1`"
    assert f"see `dicomferry jobs items 1 --state failed`\n{then}" in told
    assert "\x1b" not in told and len(told.splitlines()) < 30


def test_show_names_the_commonest_reasons_with_their_numbers(desk: Desk) -> None:
    """Not one for all; the rarest are summed up."""
    kinds = [("truncated", None), ("conflict", None), ("changed", None), ("bad uid", None)]
    failed: list[What] = [(ItemState.FAILED, reason, status) for reason, status in kinds]
    desk.store_job([SUCCEEDED, REFUSED, REFUSED, *failed])
    told = desk.run("jobs", "show", "1").stdout
    assert "  reason     2 cannot understand (0xC000), 1 bad uid, 1 changed, 2 for other reasons\n" in told
    assert "  advice " not in told


@pytest.mark.parametrize("verb", ["hold", "cancel"])
def test_nobody_looks_for_the_files_of_a_job_that_was_stopped(verb: str, desk: Desk) -> None:
    """What was found by then is not said to be all, nor that more is being looked for."""
    desk.unplanned_job()
    desk.run("jobs", verb, "1")
    told = desk.run("jobs", "show", "1").stdout
    assert "being looked for" not in told and "so far; the search" in told


def test_an_address_gets_advice_that_can_be_followed(desk: Desk) -> None:
    """`remote set` is for the address book only."""
    decision = Decision(next=Next.HOLD, reason="x", advice="ours must be the one (remote set --calling)")
    for address in ("pacs1", "PACS1@h:104"):
        assert desk.remote_id
        desk.run("submit", "echo", address)
        desk.finish(desk.claim("quick"), decision=decision)
    assert desk.json("jobs", "show", "1")["reason_text"] == "ours must be the one (remote set --calling)"
    assert desk.json("jobs", "show", "2")["reason_text"].endswith("(in the address book: remote add --calling)")


def test_a_job_that_waits_says_what_exactly_was_met(desk: Desk) -> None:
    """The refused address, the unknown host: in the list, on its screen and in its document."""
    desk.planned_job(1)
    desk.wait_for_remote(desk.claim(), detail="h:104: connection refused")
    assert desk.json("jobs", "show", "1")["detail"] == "h:104: connection refused"
    for words in (("jobs",), ("jobs", "show", "1")):
        assert "unreachable: h:104: connection refused" in desk.run(*words).stdout


def test_events_are_the_whole_history(desk: Desk) -> None:
    """Oldest first, in text and JSON."""
    desk.store_job([SUCCEEDED])
    events = desk.json("jobs", "events", "1")
    assert events[0]["kind"] == "submitted" and events[-1]["kind"] == "ended"
    assert len(desk.run("jobs", "events", "1").stdout.splitlines()) == len(events)


def test_report_has_a_row_for_each_item(desk: Desk) -> None:
    """CSV unless JSON is asked for; what was sent, what came of it, and why."""
    desk.store_job([SUCCEEDED, REFUSED], skipped=1)
    rows = list(csv.DictReader(io.StringIO(desk.run("jobs", "report", "1").stdout)))
    assert list(rows[0]) == [
        "path", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "state", "status", "reason", "detail",
        "advice", "attempts", "bytes",
    ]  # fmt: skip
    assert sorted(row["state"] for row in rows) == ["failed", "skipped", "succeeded"]
    assert {row["bytes"] for row in rows} == {"1000"}
    assert desk.run("jobs", "report", "1", "--csv").stdout == desk.run("jobs", "report", "1").stdout
    assert [item["state"] for item in desk.json("jobs", "report", "1")] == [row["state"] for row in rows]


def test_the_verbs_say_what_happened_and_what_comes_next(desk: Desk) -> None:
    """Hold, release, cancel, retry: one line each on stdout, with the command that goes on from there."""
    desk.echo_job()
    assert desk.run("jobs", "hold", "1").stdout == "job 1: held; go on with `dicomferry jobs release 1`\n"
    assert "dicomferry jobs wait 1" in desk.run("jobs", "release", "last").stdout
    assert desk.run("jobs", "cancel", "1").stdout.startswith("job 1: cancelled")
    assert desk.run("jobs", "retry", "1").stdout.startswith("job 1: 1 item tried again")
    assert desk.json("jobs", "cancel", "1")["state"] == "cancelled"


def test_release_and_retry_ring(desk: Desk) -> None:
    """The workers are told; without a broker that is said on stderr and the verb has worked all the same."""
    desk.echo_job()
    desk.run("jobs", "hold", "1")
    assert "broker" in desk.run("jobs", "release", "1").stderr
    desk.run("jobs", "cancel", "1")
    assert "broker" in desk.run("jobs", "retry", "1").stderr


def test_a_broker_url_that_cannot_work_stops_a_verb_before_it_acts(desk: Desk) -> None:
    """Exit 3, and the job is as it was."""
    desk.echo_job()
    desk.run("jobs", "hold", "1")
    told = desk.run("jobs", "release", "1", code=3, DICOMFERRY_BROKER_URL="amqp://x")
    assert told.stderr.startswith("dicomferry: broker_url") and told.stderr.count("\n") == 1
    assert desk.json("jobs", "show", "1")["state"] == "held"


def test_a_verb_that_makes_no_sense_is_refused(desk: Desk) -> None:
    """An ended job is not cancelled, held or released; one that goes on is not retried. Exit 2."""
    desk.store_job([SUCCEEDED])
    for verb in ("cancel", "hold", "release", "retry"):
        assert desk.run("jobs", verb, "1", code=2).stdout == ""
    desk.echo_job()
    assert "only ended jobs" in desk.run("jobs", "retry", "2", code=2).stderr


def test_cancelling_what_runs_says_that_it_is_being_stopped(desk: Desk) -> None:
    """Nobody is told that it has stopped before it has."""
    desk.planned_job(2)
    desk.claim()
    assert "is being stopped" in desk.run("jobs", "cancel", "1").stdout
    assert desk.json("jobs", "show", "1")["state"] == "running"


def test_reading_works_while_nothing_runs(desk: Desk) -> None:
    """No worker, no broker: every reading command answers."""
    desk.store_job([SUCCEEDED])
    presence.leave(desk.database, desk.worker)
    for words in (("jobs",), ("jobs", "show", "1"), ("jobs", "items", "1"), ("jobs", "events", "1"), ("status",)):
        assert desk.run(*words).stdout


def test_a_held_job_shows_why(desk: Desk) -> None:
    """The reason and what to do about it are on the job's screen."""
    verbs.hold(desk.database, desk.echo_job())
    told = desk.run("jobs", "show", "1").stdout
    assert "held by a person" in told and told.rstrip().endswith("go on with `dicomferry jobs release 1`")


def test_a_screen_says_what_was_asked_for(desk: Desk, tmp_path: Path) -> None:
    """Files and options of a store, keys and level of a find, the file, number and first requests of a retrieve."""
    assert desk.remote_id
    (tmp_path / "a.dcm").touch()
    path = tmp_path / "wanted.csv"
    path.write_text("AccessionNumber\n" + "".join(f"A{number}\n" for number in range(30)))
    desk.run("submit", "store", "pacs1", tmp_path, "-r", "--verify")
    desk.run("submit", "find", "pacs1", "-k", "PatientID=17", "-k", "StudyDate")
    desk.run("submit", "move", "pacs1", "--from-csv", path, "--refetch")
    desk.run("submit", "get", "pacs1", "-k", "StudyInstanceUID=1.2")
    store, find, move, get = (desk.run("jobs", "show", number).stdout for number in (1, 2, 3, 4))
    assert f"{tmp_path} and the folders inside" in store and "--verify" in store
    assert "PatientID=17, StudyDate; at study level, study root" in find
    assert f"30 requests of {path} at study level: AccessionNumber=A0; " in move and "--refetch" in move
    assert "27 more" in move and "StudyInstanceUID=1.2; at study level" in get
    asked = desk.json("jobs", "show", "3")["asked"]
    assert (asked["csv"], asked["requests"], len(asked["first"])) == (str(path), 30, 20)
    assert asked["first"][0] == {"row": 2, "keys": [["00080050", "A0"]]}
    assert desk.json("jobs", "show", "2")["asked"]["keys"] == [["00100020", "17"], ["00080020", ""]]


def test_events_of_many_chunks_are_told_once(desk: Desk) -> None:
    """The head of the screen stays on it: each kind once, with how many more; `jobs events` has all."""
    job_id = desk.planned_job(1)
    now = datetime.now(UTC)
    rows = [
        {"job_id": job_id, "at": now, "kind": kind, "text": f"chunk {number} (store) somewhere"}
        for number in range(60)
        for kind in ("chunk_started", "retry")
    ]
    desk.database.write(lambda connection: connection.execute(sa.insert(EventRow), rows))
    told = desk.run("jobs", "show", job_id).stdout
    assert len(told.splitlines()) < 25 and "store job submitted" in told
    assert told.count("chunk_started") == 1 and "; and 60 more until " in told and "; and 59 more until " in told
    assert desk.run("jobs", "events", job_id).stdout.count("chunk_started") == 61


def test_a_job_that_waits_is_called_so(desk: Desk) -> None:
    """In the list and on the screen with what it waits for; the document keeps its state and says it besides."""
    job_id = desk.planned_job(2)
    desk.wait_for_remote(desk.claim(), detail="10.0.0.5:104: connection refused")
    (job,) = desk.json("jobs")
    assert (job["state"], job["waiting_for"]) == ("running", "unreachable")
    assert "  waiting  " in desk.run("jobs").stdout and "unreachable: 10.0.0.5:104" in desk.run("jobs").stdout
    told = desk.run("jobs", "show", job_id).stdout
    assert told.splitlines()[0].endswith(", waiting") and "  waits for  unreachable: 10.0.0.5:104" in told


def test_a_list_without_items_says_so(desk: Desk) -> None:
    """Nothing at all would look like a mistake."""
    desk.store_job([SUCCEEDED])
    told = desk.run("jobs", "items", "1", "--state", "failed")
    assert (told.stdout, told.stderr) == ("", "no item of it is failed\n")

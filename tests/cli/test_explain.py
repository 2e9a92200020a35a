"""`dicomferry explain`: the table of answers at the desk."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from dicomferry.models.record.archive import index
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.record.jobs import plans
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.rules.answers import connections, explanation, statuses
from dicomferry.models.rules.state import ItemState
from support.desk import ALREADY_THERE, REFUSED, SUCCEEDED, Desk

KEYS = {
    "what",
    "services",
    "listed",
    "reason",
    "category",
    "rule",
    "own_rule",
    "advice",
    "what_we_do",
    "checks",
    "clause",
}


def test_a_status(desk: Desk) -> None:
    """What it means for each service, what is done, what to check on which side, and the clause."""
    told = desk.run("explain", "0xA801").stdout
    assert told.startswith("0xA801, answered to C-MOVE: move destination unknown\n")
    for words in ("what to do", "what we do", "check here", "check there", "check between", "PS3.4 C.4.2.1.5"):
        assert words in told
    assert "held at once" in told and "answered to C-STORE, C-FIND, C-FIND of a worklist, C-GET and C-ECHO" in told
    assert desk.run("explain", "a801").stdout == told
    assert "not listed" not in desk.run("explain", "0xA801", "--service", "move").stdout


def test_rows_as_json(desk: Desk) -> None:
    """Stable keys, null where there is nothing."""
    found = desk.json("explain", "rejected", "1/1/7")
    (row,) = found["answers"]
    assert set(row) == KEYS and found["asked"] == "rejected 1/1/7"
    assert (row["what"], row["rule"], row["clause"]) == ("reject 1/1/7", "hold", "PS3.8 9.3.4")
    assert row["checks"]["ours"] and row["checks"]["theirs"]
    (row,) = desk.json("explain", "truncated")["answers"]
    assert (row["services"], row["checks"]["theirs"]) == ([], None)


def test_everything_in_the_table_can_be_asked_for(desk: Desk) -> None:
    """Statuses, what happens to connections, and reason words; quotes or none."""
    for service, rows in statuses.SERVICES.items():
        for row in rows:
            assert row.name[:6] in desk.run("explain", row.name[:6], "--service", service).stdout
    for key in connections.CONNECTIONS:
        assert desk.run("explain", *key.split()).stdout.startswith(key)
    for word in explanation.reason_words():
        assert "what we do" in desk.run("explain", word).stdout


def test_a_job(desk: Desk) -> None:
    """Each answer that it met once, with how often."""
    job_id = desk.store_job([SUCCEEDED, ALREADY_THERE, REFUSED, REFUSED])
    told = desk.run("explain", job_id).stdout
    assert told.startswith(f"job {job_id}: cannot understand (0xC000)\n")
    assert "2 items failed" in told and "already there (0x0111)" in told
    assert desk.run("explain", "last").stdout == told
    found = desk.json("explain", job_id)
    assert (found["job"], found["service"]) == (job_id, "store")
    assert [(one["reason"], one["statuses"], one["counts"]) for one in found["answers"]] == [
        ("cannot understand", ["0xC000"], {"failed": 2}), ("already there", ["0x0111"], {"warning": 1}),
    ]  # fmt: skip


def test_a_job_without_anything_to_explain(desk: Desk) -> None:
    """It says so."""
    job_id = desk.store_job([SUCCEEDED])
    assert "nothing to explain" in desk.run("explain", job_id).stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("no", "mach"), "did you mean 'no match'?"),
        (("43009",), "no job 43009; see `dicomferry jobs list`; as a DIMSE status that number is 0xA801"),
        (("12", "--service", "store"), "leave --service and --remote out"),
        (("0xA700", "--remote", "pacs9"), "no remote 'pacs9' in the address book; did you mean pacs1?"),
    ],
)
def test_what_cannot_be_explained(words: tuple[str, ...], hint: str, desk: Desk) -> None:
    """Exit 2, one line, with what was probably meant."""
    assert desk.database
    told = desk.run("explain", *words, code=2)
    assert hint in told.stderr and told.stderr.count("\n") == 1 and told.stdout == ""


def test_quirks_of_a_remote(desk: Desk) -> None:
    """Set, shown, explained, changed one by one, and taken back."""
    assert desk.database
    quirks = ("--quirk", "store a700=final", "--quirk", "rejected 1/1/7 = away", "--no-probe")
    desk.run("remote", "set", "pacs1", *quirks)
    assert desk.json("remote", "show", "pacs1")["quirks"] == ["reject 1/1/7=away", "store 0xA700=final"]
    assert "reject 1/1/7=away, store 0xA700=final" in desk.run("remote", "show", "pacs1").stdout
    told = desk.run("explain", "0xA700", "--service", "store", "--remote", "pacs1").stdout
    assert "set for pacs1: final" in told and "fails at once" in told
    assert "set for" not in desk.run("explain", "0xA700", "--service", "store").stdout
    desk.run("remote", "set", "pacs1", "--quirk", "reject 1/1/7=", "--no-probe")
    assert desk.json("remote", "show", "pacs1")["quirks"] == ["store 0xA700=final"]
    desk.run("remote", "set", "pacs1", "--quirk", "", "--no-probe")
    assert desk.json("remote", "show", "pacs1")["quirks"] == []


def test_a_quirk_that_makes_no_sense_is_refused(desk: Desk) -> None:
    """Before anything is written, with the words that there are."""
    told = desk.run("remote", "add", "odd", "ODD@h:104", "--quirk", "store 0xA700=done", "--no-probe", code=2)
    assert "warning, final, again, congested, hold" in told.stderr
    assert desk.json("remote", "list") == []


def test_words_are_offered(desk: Desk) -> None:
    """Completion knows the reason words and the newest jobs."""
    from dicomferry.cli.frame import completers

    assert next(item.value for item in completers.answers("truncated")) == "truncated"


def test_a_conflict_names_its_files(desk: Desk) -> None:
    """Both sides of each: those of a store that differ from the first of their UID."""
    job_id = desk.unplanned_job()
    held = desk.claim()
    decided = [
        desk.item(number, state=ItemState.FAILED, reason="conflict", path=b"/data/other%d.dcm" % number)
        | {"detail": f"differs from /data/first{number}.dcm"}
        for number in range(7)
    ]
    plans.add_batch(desk.database, held, cursor=None, chunks=[[desk.item(9)]], decided=decided)
    told = desk.run("explain", job_id).stdout
    assert "/data/other0.dcm: differs from /data/first0.dcm" in told
    assert f"and 2 more: `dicomferry jobs items {job_id} --state failed`" in told
    (answer,) = desk.json("explain", job_id)["answers"]
    assert answer["files"][4]["path"] == "/data/other4.dcm" and len(answer["files"]) == 5


def test_a_conflict_of_what_came_names_both_files(desk: Desk) -> None:
    """Those in the archive: the one that came with another content, and the one that was there first."""
    job_id = int(desk.run("submit", "move", "pacs1", "-k", "StudyInstanceUID=1.2").stdout) if desk.remote_id else 0
    now = datetime.now(UTC)
    for number, (name, relation, outcome) in enumerate(
        (("X.dcm", "first", "stored"), ("X~2.dcm", "conflict", "conflict"))
    ):
        arrival = Arrival(
            association="a", number=number, outcome=outcome, calling_ae_title="PACS1", called_ae_title="FERRY",
            address="127.0.0.1", message_id=1, originator_ae_title=None, originator_message_id=None, at=now,
        )  # fmt: skip
        row = Received(
            path=name, size=10, stored_at=now, sop_instance_uid="1.2.3", sop_class_uid="1.2", transfer_syntax_uid="1.2",
            study_instance_uid="1.2", series_instance_uid="1.2.1", relation=relation, flaw=None, arrival=arrival,
        )  # fmt: skip
        index.record(desk.database, [row])
    change = sa.update(ArrivalRow).values(job_id=job_id)
    desk.database.write(lambda connection: connection.execute(change))
    told = desk.run("explain", job_id).stdout
    assert "conflict" in told and "X~2.dcm: differs from X.dcm" in told and "1 instance kept beside" in told

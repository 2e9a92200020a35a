"""`dicomferry remote`: the address book, and the test of a connection."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.record.remotes import book, governor
from dicomferry.models.record.tables.jobs import ChunkRow
from dicomferry.models.rules.state import ItemState
from support.desk import Desk
from support.peers import StoreScp
from support.process import free_port
from support.scripted_peer import (
    RQ,
    ScriptedPeer,
    accept,
    echo_rsp_command,
    expect,
    expect_message,
    p_data,
    pdv,
    rejection,
)
from support.scripted_peer import send as sends

REMOTE_KEYS = {
    "name", "ae_title", "host", "port", "calling_ae_title", "store_address", "also_from", "charset",
    "max_associations", "max_moves", "max_uids", "find_cap", "relational", "prefer_syntax", "timeouts", "quirks",
    "coerces", "numbers", "trust_answers",
    "window", "max_requests_per_minute", "max_instances_per_second", "max_bytes_per_second",
}  # fmt: skip
STATE_KEYS = {"open", "opens_at", "closes_at", "learned", "breaker", "in_use", "waiting", "held", "recent"}
OPTIONS = (
    "--calling", "US", "--store", "ST@10.0.0.6:105", "--also-from", "GATE", "--also-from", "10.0.0.0/24",
    "--charset", "ISO_IR 100", "--max-associations", "2", "--max-moves", "3", "--max-uids", "50",
    "--find-cap", "500", "--relational", "--numbers", "ignored",
    "--trust-answers", "0008,0050,PatientID",
    "--prefer-syntax", "implicit", "--connect", "1", "--first-answer", "900.5",
    "--max-requests-per-minute", "30", "--max-instances-per-second", "200", "--max-bytes-per-second", "10M",
    "--window", "daily 22:00-6:00", "--window-tz", "Europe/Berlin", "--holiday", "2026-12-25",
    "--blackout", "2026-12-01T10:00/2026-12-01T14:00",
)  # fmt: skip


def test_all_that_was_said_is_kept(desk: Desk) -> None:
    """Every option of add shows up under its key."""
    desk.run("remote", "add", "pacs1", "PACS1@10.0.0.5:104", *OPTIONS, "--no-probe")
    shown = desk.json("remote", "show", "pacs1")
    assert set(shown) == REMOTE_KEYS | STATE_KEYS
    (listed,) = desk.json("remote", "list")
    assert set(listed) == REMOTE_KEYS and listed.items() <= shown.items()
    assert listed == {
        "name": "pacs1", "ae_title": "PACS1", "host": "10.0.0.5", "port": 104, "calling_ae_title": "US",
        "store_address": "ST@10.0.0.6:105", "also_from": ["GATE", "10.0.0.0/24"], "charset": "ISO_IR 100",
        "max_associations": 2, "max_moves": 3, "max_uids": 50, "find_cap": 500, "relational": True,
        "numbers": "ignored",
        "prefer_syntax": "implicit", "timeouts": {"connect": 1.0, "first_answer": 900.5}, "quirks": [],
        "coerces": None,
        "trust_answers": ["00080050", "00100020"],
        "max_requests_per_minute": 30, "max_instances_per_second": 200, "max_bytes_per_second": 10_000_000,
        "window": {
            "hours": "mon-sun 22:00-06:00", "tz": "Europe/Berlin", "holidays": ["2026-12-25"],
            "blackouts": [["2026-12-01T09:00:00Z", "2026-12-01T13:00:00Z"]],
        },
    }  # fmt: skip
    told = desk.run("remote", "show", "pacs1").stdout
    assert "900.5 s" in told and "GATE, 10.0.0.0/24" in told


def test_set_changes_what_is_given_and_nothing_else(desk: Desk) -> None:
    """An empty text or 0 seconds goes back to the default."""
    desk.run("remote", "add", "pacs1", "PACS1@10.0.0.5:104", *OPTIONS, "--no-probe")
    before = desk.json("remote", "show", "pacs1")
    changes = (
        "--calling", "", "--connect", "0", "--acse", "2", "--find-cap", "0", "--hierarchical",
        "--max-associations", "0", "--max-moves", "0", "--max-uids", "0",
    )  # fmt: skip
    desk.run("remote", "set", "pacs1", "OTHER@h:11", *changes, "--no-probe")
    assert desk.json("remote", "show", "pacs1") == before | {
        "ae_title": "OTHER", "host": "h", "port": 11, "calling_ae_title": None, "find_cap": None, "relational": False,
        "timeouts": {"first_answer": 900.5, "acse": 2.0}, "max_associations": 4, "max_moves": 1, "max_uids": 100,
    }  # fmt: skip
    assert "nothing to change" in desk.run("remote", "set", "pacs1", code=2).stderr


def test_hours_and_limits_are_taken_away_one_by_one(desk: Desk) -> None:
    """By an empty text or 0; what was understood is said, and the connection is not tested for that."""
    desk.run("remote", "add", "pacs1", "PACS1@10.0.0.5:104", *OPTIONS, "--no-probe")
    told = desk.run("remote", "set", "pacs1", "--window", "sat-sun open", "--blackout", "")
    assert "sat-sun 00:00-24:00 (Europe/Berlin); " in told.stdout and not told.stderr
    desk.run("remote", "set", "pacs1", "--window", "", "--max-bytes-per-second", "0", "--max-requests-per-minute", "")
    shown = desk.json("remote", "show", "pacs1")
    assert (shown["window"], shown["open"], shown["opens_at"]) == (None, True, None)
    assert (shown["max_bytes_per_second"], shown["max_requests_per_minute"]) == (None, None)
    assert shown["max_instances_per_second"] == 200
    wrong = desk.run("remote", "set", "pacs1", "--window", "mon-fri 22-6", "--window-tz", "UTC", code=2)
    assert "'22' is no time of day" in wrong.stderr
    assert "no size" in desk.run("remote", "set", "pacs1", "--max-bytes-per-second", "fast", code=2).stderr
    assert desk.json("remote", "show", "pacs1") == shown


def test_an_urgent_job_says_so(desk: Desk) -> None:
    """In its document and in its first event."""
    desk.run("remote", "add", "pacs1", "PACS1@10.0.0.5:104", "--no-probe")
    desk.run("submit", "echo", "pacs1", "--ignore-window")
    shown = desk.json("jobs", "show", "last")
    assert shown["ignore_window"] and "outside of the remote's window" in shown["events"][0]["text"]


@pytest.mark.parametrize(
    "words",
    [
        ("pacs1@x", "PACS1@h:104"),
        ("p", "PACS1@h"),
        ("p", "PACS1@h:0"),
        ("p", "SEVENTEEN-LETTERS@h:104"),
        ("p", "PACS1@h:104", "--calling", "back\\slash"),
        ("p", "PACS1@h:104", "--store", "h:104"),
        ("p", "PACS1@h:104", "--also-from", "10.0.0.0/99"),
        ("p", "PACS1@h:104", "--charset", "latin1"),
        ("p", "PACS1@h:104", "--prefer-syntax", "jpeg"),
        ("p", "PACS1@h:104", "--max-moves", "-1"),
        ("p", "PACS1@h:104", "--connect", "-1"),
        ("p", "PACS1@h:104", "--connect", "nan"),
        ("p", "PACS1@h:104", "--connect", "inf"),
        ("p", "PACS1@h:104", "--max-associations", "9" * 20),
        ("p", "PACS1@h:" + "9" * 5000),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(words: tuple[str, ...], desk: Desk) -> None:
    """Exit 2 and one line."""
    told = desk.run("remote", "add", *words, code=2)
    assert told.stderr.startswith("dicomferry: ") and told.stderr.count("\n") == 1 and told.stdout == ""
    assert desk.json("remote", "list") == []


def test_a_name_is_given_once(desk: Desk) -> None:
    """Exit 2 with the command that changes it."""
    assert desk.remote_id
    told = desk.run("remote", "add", "pacs1", "X@h:104", "--no-probe", code=2).stderr
    assert "dicomferry remote set pacs1" in told


def test_remove_takes_it_out(desk: Desk) -> None:
    """It is not listed any more; an unknown name is guessed."""
    assert desk.remote_id
    assert "did you mean pacs1?" in desk.run("remote", "remove", "pasc1", code=2).stderr
    desk.run("remote", "remove", "pacs1")
    assert desk.json("remote", "list") == []


def test_add_tests_the_connection(desk: Desk, storescp: StoreScp) -> None:
    """TCP, association and C-ECHO, one line each with milliseconds."""
    told = desk.run("remote", "add", "pacs1", f"PACS1@127.0.0.1:{storescp.port}").stdout.splitlines()
    assert told[0] == "pacs1 is saved" and "called as DICOMFERRY" in told[1]
    assert [line.split()[:2] for line in told[2:]] == [["TCP", "ok,"], ["association", "ok,"], ["C-ECHO", "ok,"]]
    assert all(line.endswith(" ms") for line in told[2:])


def test_add_saves_even_when_the_test_fails(desk: Desk) -> None:
    """Exit 0, said clearly; the line that failed has its advice, the rest was not reached."""
    told = desk.run("remote", "add", "pacs1", f"PACS1@127.0.0.1:{free_port()}")
    assert "TCP          failed: " in told.stdout and "is their service running" in told.stdout
    assert told.stdout.count("not reached") == 2
    assert "saved all the same" in told.stderr
    assert len(desk.json("remote", "list")) == 1


def test_echo_of_a_peer_that_is_there(desk: Desk, storescp: StoreScp) -> None:
    """Exit 0; by address it needs no database and makes none."""
    found = desk.json("remote", "echo", f"PACS1@127.0.0.1:{storescp.port}")
    assert found["ok"] is True and found["status"] == "0x0000" and found["step"] is None
    assert found["tcp_ms"] > 0 and found["association_ms"] > 0 and found["echo_ms"] > 0
    assert not desk.home.exists()


def test_echo_of_a_peer_that_is_away(desk: Desk) -> None:
    """Exit 1, with the step, the reason and whose side to look at."""
    found = desk.json("remote", "echo", f"PACS1@127.0.0.1:{free_port()}", code=1)
    assert (found["ok"], found["step"], found["reason"]) == (False, "TCP", "unreachable")
    assert found["advice"] and found["tcp_ms"] is None


def test_echo_that_is_rejected(desk: Desk) -> None:
    """The association failed, TCP did not; the advice is that of the reject reason."""
    with ScriptedPeer([expect(RQ), sends(rejection(1, 1, 3))]) as peer:
        told = desk.run("remote", "echo", f"PACS1@127.0.0.1:{peer.port}", code=1).stdout.splitlines()
    assert told[1] == "  TCP          ok"
    assert told[2].startswith("  association  failed: ") and "their side must add our AE title" in told[2]
    assert "release" not in told[2] and "remote set" not in told[2]  # there is no job, and no entry in the book
    assert told[3] == "  C-ECHO       not reached"


def test_echo_that_is_answered_with_a_failure(desk: Desk) -> None:
    """An answer is not success: its status is read."""
    answer = p_data(pdv(echo_rsp_command(1, 0x0122), 3))
    script = [expect(RQ), accept(), expect_message(data_set=False), sends(answer)]
    with ScriptedPeer(script) as peer:
        found = desk.json("remote", "echo", f"PACS1@127.0.0.1:{peer.port}", code=1)
    assert (found["ok"], found["step"], found["status"]) == (False, "C-ECHO", "0x0122")


def test_echo_of_a_peer_that_is_back(desk: Desk, storescp: StoreScp) -> None:
    """What waited for the remote goes on, and a line says so; once it is closed nothing is said."""
    book.change(desk.database, "pacs1", f"PACS1@127.0.0.1:{storescp.port}")
    job_id = desk.store_job([(ItemState.PENDING, None, None)])
    until = datetime.now(UTC) + timedelta(hours=1)

    def broken(connection: sa.Connection) -> None:
        ill = {"failures": 3, "broken_since": until, "probe_at": until, "reason": "unreachable"}
        governor.update(connection, desk.remote_id, ill)
        waits = {"not_before": until, "waits_from": until - timedelta(hours=2), "reason": "unreachable"}
        connection.execute(sa.update(ChunkRow).where(ChunkRow.job_id == job_id).values(**waits))

    desk.database.write(broken)
    assert "what waited for pacs1 goes on" in desk.run("remote", "echo", "pacs1").stderr
    assert desk.json("jobs", "show", str(job_id))["not_before"] is None
    assert "goes on" not in desk.run("remote", "echo", "pacs1").stderr


def test_resume_says_how_much_goes_on(desk: Desk) -> None:
    """One line; a name that is not in the book is exit 2."""
    assert desk.remote_id
    assert desk.run("remote", "resume", "pacs1").stdout == "pacs1: nothing waited for it to answer\n"
    desk.planned_job(1)
    desk.wait_for_remote(desk.claim())
    assert desk.run("remote", "resume", "pacs1").stdout == "pacs1: goes on now with 1 part of jobs\n"
    assert "did you mean pacs1?" in desk.run("remote", "resume", "pacs", code=2).stderr


def test_echo_of_nobody(desk: Desk) -> None:
    """Exit 2 for a name that is not in the address book."""
    assert "address book is empty" in desk.run("remote", "echo", "pacs1", code=2).stderr
    assert desk.remote_id
    assert "did you mean pacs1?" in desk.run("remote", "echo", "pacs", code=2).stderr


# --- completion ---


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_names_the_program(shell: str, desk: Desk) -> None:
    """One script for each shell, without looking at what is installed."""
    told = desk.run("completion", shell).stdout
    assert "_DICOMFERRY_COMPLETE" in told and "dicomferry" in told
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=told, text=True, check=True)


def test_a_shell_that_was_left_out_is_asked_for_in_plain_words(desk: Desk) -> None:
    """The library's own text has tabs and line breaks in it."""
    told = desk.run("completion", code=2).stderr
    assert "Choose from: bash, zsh, fish (see" in told and "\\t" not in told


def _offered(desk: Desk, words: str) -> list[str]:
    told = desk.run(
        _DICOMFERRY_COMPLETE="bash_complete", COMP_WORDS=f"dicomferry {words}", COMP_CWORD=str(words.count(" ") + 1)
    ).stdout
    return [line.partition(",")[2] for line in told.splitlines() if line]


def test_completion_offers_commands_remotes_and_jobs(desk: Desk) -> None:
    """Names of the address book and ids of recent jobs, also with --home on the line."""
    desk.echo_job()
    assert "release" in _offered(desk, "jobs re") and "store" in _offered(desk, "submit ")
    assert _offered(desk, "submit echo pa") == ["pacs1"]
    assert _offered(desk, "jobs show ") == ["last", "1"]
    assert _offered(desk, f"--home {desk.home} remote show ") == ["pacs1"]


def test_completion_never_fails(desk: Desk) -> None:
    """No database, a wrong setting: nothing is offered and nothing is said."""
    assert _offered(desk, "remote show ") == []
    desk.home.mkdir(parents=True)
    (desk.home / "dicomferry.toml").write_text("nonsense")
    assert _offered(desk, "jobs show ") == ["last"]


def test_an_ipv6_address_has_its_brackets(desk: Desk) -> None:
    """Host and port cannot be told apart without them."""
    desk.run("remote", "add", "six", "SIX@[::1]:104", "--no-probe")
    desk.run("submit", "echo", "six")
    job = desk.json("jobs", "show", "1")
    assert job["remote_address"] == "SIX@[::1]:104"
    for words in (("remote", "list"), ("remote", "show", "six"), ("jobs", "show", "1")):
        assert "[::1]:104" in desk.run(*words).stdout


def test_list_in_every_form(desk: Desk) -> None:
    """Text, JSON, one object a line, CSV."""
    assert desk.remote_id
    assert "127.0.0.1:104" in desk.run("remote", "list").stdout
    (line,) = desk.run("remote", "list", "--jsonl").stdout.splitlines()
    assert json.loads(line)["name"] == "pacs1"
    assert desk.run("remote", "list", "--csv").stdout.splitlines()[0].startswith("name,ae_title,host,port")

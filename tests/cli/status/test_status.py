"""Status, settings, database and version, and the installation that has nothing yet."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dicomferry.cli.status.status import advise
from dicomferry.models.record import presence
from dicomferry.models.record.jobs import verbs
from support.desk import SUCCEEDED, Desk
from support.peers import RedisServer
from support.process import free_port

STATUS_KEYS = {"waiting", "roles", "broker", "database", "scp", "lanes", "jobs", "remotes", "disks", "differs"}


@pytest.mark.parametrize(
    ("words", "empty"), [(("jobs", "list"), []), (("jobs",), []), (("remote", "list"), []), (("status",), None)]
)
def test_reading_an_installation_that_has_nothing_makes_nothing(
    words: tuple[str, ...], empty: object, desk: Desk
) -> None:
    """An empty list and exit 0; neither home nor database appear."""
    document = desk.json(*words)
    assert document == empty or set(document) == STATUS_KEYS
    told = desk.run(*words)
    assert "dicomferry" in told.stdout + told.stderr
    assert not desk.home.exists()


def test_a_job_of_an_empty_installation_is_not_found(desk: Desk) -> None:
    """Exit 2, not a new database."""
    for words in (("jobs", "show", "7"), ("jobs", "wait", "last"), ("jobs", "cancel", "1"), ("remote", "show", "x")):
        assert desk.run(*words, code=2).stderr.startswith("dicomferry: ")
    assert not desk.home.exists()


def test_the_home_is_for_its_owner_alone(desk: Desk) -> None:
    """Folders 0700, files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        desk.run("remote", "add", "pacs1", "PACS1@127.0.0.1:104", "--no-probe")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [desk.home, *desk.home.iterdir()]}
    assert {mode for name, mode in modes.items() if name.startswith("dicomferry.db")} == {0o600}
    assert {mode for name, mode in modes.items() if not name.startswith("dicomferry.db")} == {0o700}


def test_status_has_its_keys(desk: Desk) -> None:
    """Roles with their keys, lanes and jobs in numbers, the database with its version."""
    desk.store_job([SUCCEEDED])
    desk.echo_job()
    document = desk.json("status")
    assert set(document) == STATUS_KEYS
    (role,) = document["roles"]
    assert set(role) == {"role", "host", "pid", "slots", "started_at", "seen_at", "remark", "facts", "disks"}
    assert role["role"] == "worker" and role["started_at"].endswith("Z")
    assert document["database"]["reachable"] is True and document["database"]["version"]
    assert document["broker"] == {"url": "embedded", "reachable": None, "why": None}
    assert [disk["what"] for disk in document["disks"]] == ["archive", "home"]
    assert document["lanes"]["quick"] == {"pending": 1, "running": 0, "held": 0}
    assert document["jobs"]["succeeded"] == 1 and document["jobs"]["pending"] == 1


def test_status_of_a_database_out_of_reach_is_still_a_document(desk: Desk) -> None:
    """What can be said is said, then exit 4 with the reason on stderr."""
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/x"
    told = desk.run("status", "--json", code=4, DICOMFERRY_DATABASE_URL=url)
    document = json.loads(told.stdout)
    assert document["database"] == {"url": url.replace("secret", "***"), "reachable": False, "version": None}
    assert document["jobs"] is None and document["lanes"] is None and document["roles"] is None
    assert told.stderr.count("\n") == 1 and "secret" not in told.stderr


def test_the_broker_is_asked(desk: Desk, redis_server: RedisServer) -> None:
    """A broker that takes a write is reachable, one that is away is not."""

    def reachable(url: str) -> object:
        return json.loads(desk.run("status", "--json", DICOMFERRY_BROKER_URL=url).stdout)["broker"]

    assert reachable(redis_server.url) == {"url": redis_server.url, "reachable": True, "why": None}
    away = f"redis://:secret@127.0.0.1:{free_port()}/0"
    refused = {"url": away.replace("secret", "***"), "reachable": False, "why": "Connection refused"}
    assert reachable(away) == refused


def test_the_note_of_a_dead_embedded_broker_is_not_believed(desk: Desk) -> None:
    """What a killed `up` left behind does not count as running."""
    (desk.home / "run").mkdir(parents=True)
    note = {"url": "redis+socket:///gone/broker.sock", "pid": "1", "program": "x", "socket": "/gone/broker.sock"}
    (desk.home / "run" / "broker.json").write_text(json.dumps(note))
    gone = {"url": "embedded", "reachable": False, "why": "No such file or directory"}
    assert desk.json("status")["broker"] == gone


def test_alone_it_shows_the_status_and_the_next_step(desk: Desk) -> None:
    """From nothing to a first job, each step is named when it is due."""
    assert "dicomferry remote add" in desk.run().stdout
    desk.run("remote", "add", "other", "OTHER@127.0.0.1:104", "--no-probe")
    assert "dicomferry up" in desk.run().stdout
    worker = presence.register(desk.database_as_it_is, "worker", slots=1)
    assert "dicomferry submit" in desk.run().stdout
    presence.leave(desk.database_as_it_is, worker)


def _next_step(desk: Desk) -> str:
    status = desk.json("status")
    return advise(status["jobs"], status["roles"], remotes=1)


def test_the_next_step_looks_at_held_jobs_first(desk: Desk) -> None:
    """What waits for a person comes before what waits for a machine."""
    verbs.hold(desk.database, desk.echo_job())
    assert "1 job held" in _next_step(desk)


def test_while_nothing_runs_that_is_the_first_thing_to_mend(desk: Desk) -> None:
    """A held job can wait as long as the others wait for a worker."""
    verbs.hold(desk.database, desk.echo_job())
    desk.echo_job()
    assert "start one with `dicomferry up`" in _next_step(desk)
    assert desk.worker
    assert "1 job held" in _next_step(desk)


def test_every_setting_has_its_origin(desk: Desk) -> None:
    """Default, file, environment or flag; sections by their own variable or as JSON; passwords hidden."""
    desk.home.mkdir(parents=True)
    (desk.home / "dicomferry.toml").write_text('ae_title = "FILE"\n[timeouts]\nacse = 9\nconnect = 9\n')
    told = desk.run(
        "config",
        "show",
        "--json",
        DICOMFERRY_BROKER_URL="redis://:secret@h/0",
        DICOMFERRY_TIMEOUTS__CONNECT="3",
        DICOMFERRY_RETRY='{"first_delay": 2}',
    ).stdout
    found = {row["setting"]: (row["value"], row["source"]) for row in json.loads(told)}
    assert found["ae_title"] == ("FILE", "file")
    assert found["timeouts.acse"] == (9.0, "file")
    assert found["timeouts.connect"] == (3.0, "environment")
    assert found["retry.first_delay"] == (2.0, "environment")
    assert found["retry.max_delay"][1] == "default"
    assert found["broker_url"] == ("redis://:***@h/0", "environment")
    assert found["home"] == (str(desk.home), "environment")
    assert "ae_title" in desk.run("config", "show").stdout


def test_no_secret_of_a_url_is_shown(desk: Desk) -> None:
    """Whatever its parameter is called, in the database's URL, the broker's, a webhook's, and in a command."""
    told = desk.run(
        "config",
        "show",
        DICOMFERRY_DATABASE_URL="postgresql://me:s3cret@h/db?sslmode=require&sslpassword=s3cret",
        DICOMFERRY_BROKER_URL="rediss://h/0?token=s3cret",
        DICOMFERRY_NOTIFY='{"webhook_url": "https://h/s3cret", "secret": "s3cret", "command": "curl \'https://h/s3cret\'"}',
    ).stdout
    assert "s3cret" not in told and "sslmode=require" in told and "curl 'https://h/***'" in told


def test_home_by_flag_is_said_to_be_so(desk: Desk, tmp_path: Path) -> None:
    """A flag is over the environment."""
    rows = desk.json("config", "show", "--home", tmp_path)
    assert rows[0] == {"setting": "home", "value": str(tmp_path), "source": "flag"}


def test_the_database_is_set_up_and_checked(desk: Desk) -> None:
    """`db check` wants `db upgrade` first; doing that twice changes nothing."""
    assert "dicomferry db upgrade" in desk.run("db", "check", code=3).stderr
    assert "from an empty one" in desk.run("db", "upgrade").stdout
    assert "was there already" in desk.run("db", "upgrade").stdout
    assert desk.run("db", "check").stdout.count("\n") == 1


def test_version_is_one_line(desk: Desk) -> None:
    """For bug reports."""
    assert desk.run("version").stdout.startswith("dicomferry ")

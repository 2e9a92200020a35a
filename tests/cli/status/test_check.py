"""What `status` says of what runs elsewhere, of disks and of a broker that refuses; and `status --check`."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator

import pytest

from dicomferry.daemon.pulse import Pulse
from dicomferry.models.record import presence, role_facts
from dicomferry.models.record.presence import Worker
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.models.settings import Settings, prepare_home
from dicomferry.workers.doorbell import tasks
from support.desk import Desk
from support.peers import RedisServer, StoreScp
from support.process import free_port

GIB = 1024**3


def disk(free: int, what: str = "archive") -> dict[str, object]:
    return {"what": what, "path": f"/{what}", "free": free, "size": 100 * GIB, "reserve": GIB}


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    """A server of this test's own: it is made to refuse."""
    with RedisServer(aof=False) as server:
        yield server


def role(desk: Desk, name: str, **scp: object) -> Worker:
    """A role that runs with these settings of the storage SCP."""
    told = Settings(home=desk.home, scp={"port": 11112, **scp})  # type: ignore[arg-type]
    return presence.register(desk.database, name, slots=1, facts=role_facts.of_role(name, told))


# --- what runs ------------------------------------------------------------------------------------------------------


def test_what_runs_is_told_and_not_what_is_set_here(desk: Desk) -> None:
    """The port that the storage SCP wrote down when it began, whatever the environment of the command says; and that
    both differ.
    """
    role(desk, "scp", port=11113)
    document = json.loads(desk.run("status", "--json", DICOMFERRY_SCP__PORT="11115").stdout)
    assert (document["scp"]["port"], document["scp"]["running"]) == (11113, True)
    (differs,) = document["differs"]
    assert (differs["role"], differs["setting"], differs["here"], differs["runs"]) == ("scp", "port", 11115, 11113)
    told = desk.run("status", DICOMFERRY_SCP__PORT="11115").stdout
    assert "runs with port 11113; here it is 11115" in " ".join(told.split())
    assert json.loads(desk.run("status", "--json", DICOMFERRY_SCP__PORT="11113").stdout)["differs"] == []


def test_without_a_storage_scp_the_settings_are_told(desk: Desk) -> None:
    """What would be listened on."""
    assert desk.worker
    scp = json.loads(desk.run("status", "--json", DICOMFERRY_SCP__PORT="11115").stdout)["scp"]
    assert (scp["port"], scp["running"]) == (11115, False)


def test_facts_hold_no_password(desk: Desk) -> None:
    """They stand in the record, for everybody who may read it."""
    told = Settings(home=desk.home, database_url="postgresql://me:s3cret@h/x", broker_url="redis://:s3cret@h/0")
    for name in ("worker", "scp", "scheduler"):
        assert "s3cret" not in json.dumps(role_facts.of_role(name, told))


def test_each_disk_is_shown_and_a_short_one_is_told_before(desk: Desk) -> None:
    """Free space and reserve of archive and home, as the storage SCP sees them; nearly full below twice the reserve."""
    scp = role(desk, "scp")

    def told(free: int) -> str:
        presence.beat(desk.database, scp, [disk(free), disk(50 * GIB, "home")])
        return " ".join(desk.run("status").stdout.split())

    assert "disk of archive /archive: 10.0 GB" in told(10 * GIB) or "disk of archive /archive: 10" in told(10 * GIB)
    assert "full" not in told(10 * GIB).lower().partition("disk of")[2].partition("lane")[0]
    assert "nearly full" in told(2 * GIB - 1)
    assert "FULL, retrieves wait" in told(GIB)
    assert [one["what"] for one in desk.json("status")["disks"]] == ["archive", "home"]


# --- the broker -----------------------------------------------------------------------------------------------------


def test_a_broker_that_refuses_every_write_does_not_answer(desk: Desk, broker: RedisServer) -> None:
    """Full, and read-only: PING would be answered."""
    with broker.client() as client:

        def asked() -> dict[str, object]:
            told = desk.run("status", "--json", DICOMFERRY_BROKER_URL=broker.url).stdout
            found: dict[str, object] = json.loads(told)["broker"]
            return found

        assert asked() == {"url": broker.url, "reachable": True, "why": None}
        client.config_set("maxmemory", "1")
        full = asked()
        assert full["reachable"] is False and "OOM" in str(full["why"])
        assert "cannot be rung: OOM" in " ".join(desk.run("status", DICOMFERRY_BROKER_URL=broker.url).stdout.split())
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", str(free_port()))
        assert asked()["reachable"] is False
        client.replicaof("NO", "ONE")
        assert asked()["reachable"] is True


def test_a_password_is_told_to_the_broker() -> None:
    """One that is right, one that is wrong, and none."""
    from urllib.parse import urlsplit

    from dicomferry.cli.status import broker as broker_probe

    with RedisServer(password="s3cret", aof=False) as server:

        def asked(secret: str) -> tuple[object, str]:
            found = broker_probe._asked("", urlsplit(f"redis://{secret}127.0.0.1:{server.port}/3"))
            return found["reachable"], str(found["why"])

        assert asked(":s3cret@") == (True, "None")
        assert asked(":wrong@")[0] is False and "WRONGPASS" in asked(":wrong@")[1]
        assert asked("")[0] is False and "NOAUTH" in asked("")[1]


def test_a_role_does_not_start_on_a_broker_that_refuses(broker: RedisServer) -> None:
    """`up` and `worker` try a write as well, and say what to do."""
    tasks.require_broker(broker.url)
    with broker.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(OutOfReach, match=r"takes no message.*maxmemory.*make room there"):
            tasks.require_broker(broker.url)


# --- the health check -----------------------------------------------------------------------------------------------


def checked(desk: Desk, *words: str, code: int = 0, **environment: str) -> str:
    told = desk.run("status", "--check", *words, code=code, **environment)
    lines = (told.stdout + told.stderr).splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_nothing_is_not_well(desk: Desk) -> None:
    """Neither database nor role: exit 1, in one line."""
    assert "no database" in checked(desk, code=1)
    assert desk.database
    assert "no worker runs" in checked(desk, code=1)


def test_a_role_that_runs_is_well(desk: Desk) -> None:
    """By its sign of life; another role's says nothing of it."""
    assert desk.worker
    assert checked(desk) == "well: 1 worker"
    assert "no scp runs" in checked(desk, "--role", "worker", "--role", "scp", code=1)
    scp = role(desk, "scp")
    assert checked(desk, "--role", "scp").startswith("well: 1 scp")
    presence.leave(desk.database, scp)
    assert "no scp runs" in checked(desk, "--role", "scp", code=1)


def test_in_a_container_only_its_own_roles_count(desk: Desk) -> None:
    """By the pulse of their loops: a worker elsewhere is no sign that this one lives, and neither the database nor the
    broker is asked, whose absence makes no role ill.
    """
    assert desk.worker
    gone = f"postgresql://me@127.0.0.1:{free_port()}/x"

    def here(*words: str, code: int = 0) -> str:
        return checked(desk, "--here", *words, code=code, DICOMFERRY_DATABASE_URL=gone)

    host = socket.gethostname()
    assert here(code=1).endswith(f"no role of ours runs on {host}")
    assert here("--role", "worker", code=1).endswith(f"no worker runs on {host}")
    Pulse(prepare_home(desk.home), "worker")()
    assert here("--role", "worker") == here() == "well: 1 worker"
    file = desk.home / "run" / f"{host}.worker.alive"
    os.utime(file, (0, time.time() - 3600))
    assert f"the worker on {host}, process {os.getpid()}, stands still: no sign of life for 60 min" in here(code=1)


def test_a_storage_scp_of_this_host_has_to_answer(desk: Desk) -> None:
    """To a C-ECHO, as an archive would ask it."""
    port = free_port()
    Pulse(prepare_home(desk.home), "scp")()
    told = checked(desk, "--here", "--role", "scp", code=1, DICOMFERRY_SCP__PORT=str(port))
    assert "does not answer" in told and "connection refused" in told
    with StoreScp(port=port, aet="DICOMFERRY"):
        assert checked(desk, "--here", "--role", "scp", DICOMFERRY_SCP__PORT=str(port)) == "well: 1 scp"


def test_what_a_role_needs_is_looked_at(desk: Desk) -> None:
    """A worker's broker, a storage SCP's disk, everybody's database."""
    assert desk.worker
    away = f"redis://127.0.0.1:{free_port()}/0"
    assert "cannot be rung" in checked(desk, code=1, DICOMFERRY_BROKER_URL=away)
    scp = role(desk, "scp")
    presence.beat(desk.database, scp, [disk(GIB)])
    assert "full to its reserve" in checked(desk, "--role", "scp", code=1)
    gone = f"postgresql://me:secret@127.0.0.1:{free_port()}/x"
    assert "secret" not in checked(desk, code=1, DICOMFERRY_DATABASE_URL=gone)


def test_a_monitor_may_read_it(desk: Desk) -> None:
    """One document, the same exit status."""
    assert json.loads(desk.run("status", "--check", "--json", code=1).stdout)["well"] is False
    assert desk.worker
    assert desk.json("status", "--check") == {"well": True, "why": None}
    assert "--check" in desk.run("status", "--role", "scp", code=2).stderr

"""`dicomferry up`: what it starts in which order, what it says, and how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from dicomferry.models.rules.state import AttemptEnd
from support import samples
from support.installation import Installation, Up, until
from support.peers import RedisServer, StoreScp, free_port, require
from support.record import assert_consistent
from support.relay import Relay

from .conftest import Install

SLOW = 400_000.0
"""Bytes a second: about 40 instances of the tests' size."""


def heard(manager: socket.socket, state: str) -> None:
    """Wait until the service manager has heard this state."""
    until(lambda: manager.recv(100).decode() == state, f"{state} was said")


def echo(installation: Installation, peer: StoreScp) -> None:
    """A whole round through the queue."""
    installation.run("submit", "echo", f"{peer.aet}@127.0.0.1:{peer.port}", "--wait", "--timeout", 120)


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_service_manager_hears_that_it_is_ready_that_it_lives_and_that_it_stops(
    install: Install, tmp_path: Path
) -> None:
    """sd_notify(3), as systemd's Type=notify and its watchdog want it; of the roles below it nobody else speaks."""
    installation, _ = install()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        installation.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with installation.up() as up:
            heard(manager, "WATCHDOG=1")
            heard(manager, "READY=1")
            assert up.said("ready; Ctrl-C stops")
            assert (
                installation.run("status", "--check", "--here").stdout == "well: 1 scheduler, 1 scp, 1 up, 1 worker\n"
            )
        heard(manager, "STOPPING=1")
        assert "no role of ours runs" in installation.run("status", "--check", "--here", code=1).stderr


# --- start --------------------------------------------------------------------------------------------------


def test_what_runs_is_said_in_order_and_is_there(install: Install, storescp: StoreScp) -> None:
    """Broker, worker, then `ready`: by then a job is answered, and each process that was named exists."""
    installation, _ = install()
    with installation.up() as up:
        until(lambda: up.said("Tell your PACS administrator"), "the last line is there")
        heads = [line.split()[0].rstrip(";") for line in up.lines]
        assert heads == ["broker", "worker", "scp", "scheduler", "database", "home", "log", "ready", "Tell"]
        roles = up.roles()
        assert up.lines[0].endswith(f"process {roles.broker}")
        assert up.lines[1].endswith(f"process {roles.worker}")
        assert len(roles.pool) == 4  # three workers and the slot for quick jobs
        assert str(installation.home) in up.lines[5]
        assert Path(up.lines[6].split(maxsplit=1)[1]).is_file()
        assert "dicomferry submit" in up.lines[7]
        echo(installation, storescp)
        status = installation.json("status")
        assert [role["role"] for role in status["roles"]] == ["worker", "scp", "scheduler"]
        assert status["scp"]["running"] is True
        assert up.lines[-1].startswith("Tell your PACS administrator: AE title DICOMFERRY, host 127.0.0.1, port ")
        up.terminate()
        assert up.wait() == 0
    installation.wait_gone()
    assert not (installation.home / "run" / "broker.json").exists()


def test_a_second_up_on_one_home_is_refused(install: Install, storescp: StoreScp) -> None:
    """Exit 3, one line that names the first one; that one does not notice."""
    installation, _ = install()
    with installation.up() as up:
        before = up.roles()
        second = installation.run("up", code=3)
        (line,) = second.stderr.splitlines()
        assert str(up.pid) in line and "--home" in line
        assert not second.stdout
        assert up.roles() == before
        echo(installation, storescp)


@pytest.mark.long
def test_a_deep_home_has_a_short_socket(isolated_home: Path, storescp: StoreScp) -> None:
    """A unix socket's path ends at 107 bytes; a home may lie deeper."""
    home = isolated_home.joinpath(*["a-folder-with-a-long-name"] * 8, "ein Ordner äöü")
    with Installation(home) as installation, installation.up():
        echo(installation, storescp)


def test_what_it_says_is_heard_through_a_pipe(install: Install) -> None:
    """At once, also where Python was not told to write without a buffer."""
    installation, _ = install()
    del installation.environment["PYTHONUNBUFFERED"]
    with installation.up():  # it waits for the line that says `ready`
        pass


def test_the_folder_that_it_is_started_in_does_not_matter(install: Install, storescp: StoreScp) -> None:
    """A file there that is named like a module of Python's is nobody's business."""
    installation, _ = install()
    for name in ("queue.py", "socket.py", "dl.py"):
        (installation.cwd / name).write_text("raise ImportError\n")
    with installation.up():
        job = installation.submit("echo", f"STORESCP@127.0.0.1:{storescp.port}")
        assert installation.wait_job(job)["state"] == "succeeded"


def test_a_wrong_setting_ends_it_before_anything_starts(install: Install) -> None:
    """Exit 3, one line that names the key."""
    installation, _ = install(workers=0)
    done = installation.run("up", code=3)
    (line,) = done.stderr.splitlines()
    assert "workers" in line
    assert not installation.pids()


def test_postgresql_that_was_not_upgraded(isolated_home: Path, postgres_url: str) -> None:
    """On a shared database `up` changes no tables; it says how to."""
    with Installation(isolated_home, database_url=postgres_url) as installation:
        done = installation.run("up", code=3)
        assert "dicomferry db upgrade" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_postgresql_out_of_reach(isolated_home: Path) -> None:
    """Exit 4, one line."""
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none"
    with Installation(isolated_home, database_url=url) as installation:
        done = installation.run("up", code=4)
        assert len(done.stderr.splitlines()) == 1
        assert "secret" not in done.stderr


# --- end ----------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[None]:
    """As in a terminal: HUP is not ignored, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_term_lets_running_items_finish(
    number: signal.Signals, install: Install, storescp: StoreScp, tmp_path: Path
) -> None:
    """Exit 0; nothing was sent that is not recorded, the rest is pending, and the next `up` sends just that."""
    tree = samples.make_tree(tmp_path / "tree", 800, size=64)
    installation, record = install()
    with Relay(storescp.port, SLOW) as relay:
        with installation.up() as up:
            job = installation.submit("store", f"STORESCP@127.0.0.1:{relay.port}", "-r", tmp_path / "tree")
            until(lambda: record.done(job) >= 50, "50 instances have arrived")
            os.killpg(up.pid, number)  # to everything in the foreground group, as a terminal that is closed does
            assert up.wait() == 0
        installation.wait_gone()
        done = record.done(job)
        shown = installation.show(job)
        assert shown["state"] == "running" and shown["items"]["pending"] == 800 - done > 0
        assert storescp.stores() == done
        assert not record.running(job)
        assert record.ends(job)[AttemptEnd.INTERRUPTED] >= 1
        assert AttemptEnd.LOST not in record.ends(job)
        assert_consistent(record)
        relay.rate = None
        with installation.up():
            assert installation.wait_job(job)["state"] == "succeeded"
    assert storescp.stores() == 800
    assert set(storescp.received()) == samples.uids(tree)
    assert_consistent(record)


def test_a_second_interrupt_ends_it_at_once(install: Install, storescp: StoreScp, tmp_path: Path) -> None:
    """While the peer keeps an item waiting the first Ctrl-C waits too; the second does not."""
    tree = samples.make_tree(tmp_path / "tree", 600, size=64)
    installation, record = install()
    with Relay(storescp.port, SLOW) as relay:
        with installation.up() as up:
            job = installation.submit("store", f"STORESCP@127.0.0.1:{relay.port}", "-r", tmp_path / "tree")
            until(lambda: record.done(job) >= 50, "50 instances have arrived")
            storescp.freeze()
            up.interrupt()
            until(lambda: up.said("Ctrl-C again stops at once"), "it says what it waits for")
            with pytest.raises(subprocess.TimeoutExpired):
                up.process.wait(3)
            up.interrupt()
            assert up.wait(60) == 0
        installation.wait_gone()
        storescp.thaw()
        relay.rate = None
        with installation.up():
            assert installation.wait_job(job)["state"] == "succeeded"
    assert set(storescp.received()) == samples.uids(tree)
    assert_consistent(record)


# --- roles that end -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_role_that_was_killed_comes_back(install: Install, storescp: StoreScp) -> None:
    """Each by its own parent, and it is said."""
    installation, _ = install()
    with installation.up() as up:
        first = up.roles()
        kill(first.celery)
        until(lambda: up.roles().celery not in (None, first.celery), "Celery is back")
        kill(first.worker)
        until(lambda: up.said("worker was started again"), "the worker is back")
        kill(first.broker)
        until(lambda: up.output.count("started again") == 2, "the broker is back")
        assert up.said("broker")
        echo(installation, storescp)
        assert up.process.poll() is None


def test_a_role_that_cannot_be_kept_up_ends_it(install: Install) -> None:
    """Three quick ends in a row: exit 1 with the last lines of that role's log, and nothing is left."""
    installation, _ = install()
    with installation.up() as up:
        gone: set[int] = set()

        def kill_next() -> bool:
            worker = up.roles().worker
            if worker is not None and worker not in gone:
                with suppress(ProcessLookupError):
                    kill(worker)
                gone.add(worker)
            return up.process.poll() is not None

        until(kill_next, "`up` gives up")
        assert up.wait() == 1
        assert up.said("dicomferry: worker ended 3 times in a row")
        assert up.said("whole log: ")
        assert not up.said("Traceback")
    installation.wait_gone()


def test_a_broker_that_cannot_start_ends_it(install: Install) -> None:
    """Its append-only file is broken beyond the tail: exit 1, and the server's own words say so."""
    installation, _ = install()
    with installation.up():
        pass
    manifest = next((installation.home / "broker" / "appendonlydir").glob("*.manifest"))
    manifest.write_text("no manifest at all\n")
    done = installation.run("up", code=1)
    assert "broker" in done.stdout + done.stderr
    assert "manifest" in done.stdout + done.stderr
    assert "ready" not in done.stdout
    installation.wait_gone()


@pytest.mark.long
def test_a_worker_by_hand_follows_the_embedded_broker(install: Install, tmp_path: Path) -> None:
    """`up` again means a broker at another place: the worker beside it begins anew there. All of its log goes where its
    own output goes, its pool's too; both logs are JSON alone.
    """
    installation, _ = install()
    logs = installation.home / "log" / "dicomferry.log", tmp_path / "worker.log"

    def connected() -> list[int]:
        """How many workers have reported in each log that they reached the broker that is there now."""
        note = json.loads((installation.home / "run" / "broker.json").read_text())
        return [log.read_text().count(f"Connected to {note['url']}") for log in logs]

    first = installation.start_up()
    first.wait_ready()
    with logs[1].open("w") as output:
        worker = installation.start("worker", stdout=output, stderr=output)
    until(lambda: connected() == [1, 1], "the worker by hand has the broker")
    first.terminate()
    assert first.wait() == 0
    with installation.up():
        until(lambda: connected() == [1, 1], "it has the new one")
        worker.terminate()
        assert worker.wait(60) == 0
    assert all(json.loads(line) for log in logs for line in log.read_text().splitlines())


# --- brokers by URL -----------------------------------------------------------------------------------------


class SocketRedis(RedisServer):
    """On a unix socket alone, in a folder with a name that has to be quoted in a URL."""

    @property
    def path(self) -> Path:
        return self.folder / "a b%c" / "redis.sock"

    def prepare(self) -> None:
        self.path.parent.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        return [*super().command(), "--port", "0", "--unixsocket", str(self.path)]

    @property
    def url(self) -> str:
        return f"unix://{str(self.path).replace('%', '%25').replace(' ', '%20')}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.path))


class TlsRedis(RedisServer):
    """With TLS alone, under a certificate that it signed itself."""

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def prepare(self) -> None:
        subprocess.run(
            [
                require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(self.folder / "key.pem"),
                "-out", str(self.certificate),
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            *super().command(), "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
            "--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.folder / "key.pem"),
        ]  # fmt: skip

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"rediss://{secret}127.0.0.1:{self.port}/0?ssl_cert_reqs=required&ssl_ca_certs={self.certificate}"

    def client(self) -> redis.Redis:
        return redis.Redis("127.0.0.1", self.port, password=self.password, ssl=True, ssl_ca_certs=str(self.certificate))


@pytest.fixture(
    params=[
        "password",
        pytest.param("socket", marks=pytest.mark.long),
        pytest.param("tls", marks=pytest.mark.long),
        "tls and password",
    ]
)
def broker(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    made: dict[str, Callable[[], RedisServer]] = {
        "password": lambda: RedisServer(password="open-sesame"),
        "socket": SocketRedis,
        "tls": TlsRedis,
        "tls and password": lambda: TlsRedis(password="open-sesame"),
    }
    with made[request.param]() as server:
        yield server


def test_a_broker_by_url(broker: RedisServer, install: Install, storescp: StoreScp) -> None:
    """Password, unix socket, TLS with a private authority: all in broker_url; no password is shown or logged."""
    installation, _ = install(broker_url=broker.url)
    with installation.up() as up:
        assert up.roles().broker is None
        echo(installation, storescp)
        assert installation.json("status")["broker"]["reachable"] is True
        with broker.client() as client:
            assert client.ping()
    assert "open-sesame" not in up.output + installation.log(10_000)


def test_a_tls_broker_that_nobody_vouches_for(install: Install) -> None:
    """Without its authority in the URL the certificate is refused, and the reason is on the screen."""
    with TlsRedis() as broker:
        installation, _ = install(broker_url=broker.url.partition("?")[0])
        done = installation.run("up", code=None)
    assert done.returncode == 4
    assert "certificate" in (done.stdout + done.stderr).lower()
    installation.wait_gone()


@pytest.mark.parametrize(
    ("url", "code", "word"),
    [
        ("amqp://localhost", 3, "broker_url"),
        ("redis://127.0.0.1:{port}/0", 4, "127.0.0.1"),
        ("redis://:shut-sesame@127.0.0.1:{redis}/0", 4, "password"),
    ],
    ids=["no Redis", "nobody there", "wrong password"],
)
def test_a_broker_url_that_does_not_work(url: str, code: int, word: str, install: Install) -> None:
    """Said within seconds, in one line that shows no password."""
    with RedisServer(password="open-sesame") as server:
        installation, _ = install(broker_url=url.format(port=free_port(), redis=server.port))
        done = installation.run("up", code=code)
    said = done.stderr.splitlines()
    (line,) = said
    assert word in line
    assert "shut-sesame" not in done.stdout + done.stderr
    assert "ready" not in done.stdout


@pytest.mark.long
def test_the_broker_of_a_killed_up_is_tidied_away(install: Install) -> None:
    """Its socket's folder goes with the next `up`."""
    installation, _ = install()
    first: Up = installation.start_up()
    first.wait_ready()
    folder = Path(first.lines[0].partition("socket ")[2].partition(",")[0]).parent
    assert folder.is_dir()
    first.kill()
    installation.wait_gone()
    with installation.up() as up:
        assert not folder.exists()
        assert psutil.pid_exists(up.pid)
    shutil.rmtree(folder, ignore_errors=True)

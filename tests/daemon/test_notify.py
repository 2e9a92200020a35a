"""What goes out when a job ends: signed, to a real receiver; to a real command; and what it does not say."""

import base64
import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dicomferry.daemon import notify
from dicomferry.models.documents import jobs
from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.remotes import book
from dicomferry.models.rules import spec
from dicomferry.models.settings import NotifySettings, Settings

SECRET = "very secret"


class Receiver(HTTPServer):
    """Keeps what it got; answers as `answers` say, then 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/token"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        code = self.server.answers.pop(0) if self.server.answers else 204
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path / 'record.db'}")
    schema.upgrade(found)
    book.add(found, "pacs1", "PACS1@127.0.0.1:104")
    yield found
    found.close()


def _ended(database: Database, what: spec.Spec | None = None, label: str = "Mr. Doe") -> int:
    """A job that has ended, with everything in it that might name a patient."""
    found = what or spec.StoreSpec(paths=("/data/Doe^John",))
    job = verbs.submit(database, found, 1, label=label)
    verbs.cancel(database, job)
    return job


Tell = Callable[..., bool]


@pytest.fixture
def tell(database: Database, isolated_home: Path) -> Tell:
    def run(first_pause: float = notify.FIRST_PAUSE, **options: Any) -> bool:
        settings = Settings(home=isolated_home, notify=NotifySettings(**options))
        return notify.tell_next(database, settings, first_pause=first_pause)

    return run


def _told(database: Database, job: int) -> list[tuple[str, str]]:
    return [
        (event["kind"], event["text"])
        for event in jobs.events(database, job)
        if event["kind"] in ("notified", "notify_failed")
    ]


def test_a_receiver_can_tell_that_it_is_from_us(database: Database, receiver: Receiver, tell: Tell) -> None:
    """HMAC-SHA256 over id, time and body; the id stays the same when it is sent again."""
    job = _ended(database)
    assert tell(webhook_url=receiver.url, secret=SECRET)
    ((path, headers, body),) = receiver.got
    assert path == "/hook/token" and headers["content-type"] == "application/json"
    document = json.loads(body)
    assert (document["job"]["id"], document["state"], document["schedule"]) == (job, "cancelled", None)
    assert document["id"] == headers["webhook-id"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    where = receiver.url.removesuffix("/hook/token")
    assert _told(database, job) == [("notified", f"webhook {where}: 204")]
    assert not tell(webhook_url=receiver.url, secret=SECRET), "once"


def test_a_secret_may_be_given_as_base64() -> None:
    """As the libraries of receivers take it; the example is one of Standard Webhooks' own kind."""
    key = bytes(range(24))
    text = "whsec_" + base64.b64encode(key).decode()
    expected = base64.b64encode(hmac.new(key, b"msg.1.{}", hashlib.sha256).digest()).decode()
    assert notify.sign(text, "msg", 1, b"{}") == f"v1,{expected}"


@pytest.mark.parametrize("code", [500, 503, 404, 301, 307])
def test_any_other_answer_is_tried_again(database: Database, receiver: Receiver, tell: Tell, code: int) -> None:
    """With the same id, and to the same place: a receiver that points elsewhere is not followed."""
    receiver.answers = [code]
    job = _ended(database)
    for _ in range(2):
        assert tell(first_pause=0.0, webhook_url=receiver.url, secret=SECRET)
    assert len(receiver.got) == 2 and {path for path, _, _ in receiver.got} == {"/hook/token"}
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    first, second = _told(database, job)
    assert first[0] == "notify_failed" and f"answer {code}; it is tried again" in first[1]
    assert second[0] == "notified"


def test_a_receiver_that_stays_away_is_given_up(database: Database, tell: Tell) -> None:
    """In the end the job's history says so."""
    job = _ended(database)
    assert tell(webhook_url="http://127.0.0.1:1/x", secret=SECRET, give_up_after=1e-6)
    ((kind, text),) = _told(database, job)
    assert kind == "notify_failed" and text.endswith("connection refused; given up")
    assert not tell(webhook_url="http://127.0.0.1:1/x", secret=SECRET)


def test_no_patient_is_named(database: Database, receiver: Receiver, tell: Tell) -> None:
    """Neither label nor paths nor keys nor items; all of them where that is switched on."""
    keys = (("00100010", "Doe^John"),)
    _ended(database, spec.MoveSpec(identifiers=((None, keys),)))
    _ended(database)
    for _ in range(2):
        assert tell(webhook_url=receiver.url, secret=SECRET)
    assert all(b"Doe" not in body for _, _, body in receiver.got)
    _ended(database, spec.MoveSpec(identifiers=((None, keys),)))
    _ended(database)
    for _ in range(2):
        assert tell(webhook_url=receiver.url, secret=SECRET, patient_data=True)
    moved, stored = (json.loads(body)["job"] for _, _, body in receiver.got[2:])
    assert moved["asked"] == [[["00100010", "Doe^John"]]]
    assert stored["paths"] == ["/data/Doe^John"] and stored["label"] == "Mr. Doe" and stored["failed"] == []


def _script(folder: Path, text: str) -> str:
    path = folder / "tell.py"
    path.write_text(text)
    return f"{sys.executable} '{path}'"


def test_a_command_gets_it_by_environment_and_standard_input(database: Database, tell: Tell, tmp_path: Path) -> None:
    """The short of it as variables, all of it as JSON; the webhook's secret is not for it."""
    command = _script(
        tmp_path,
        "import json, os, sys\n"
        f"json.dump([json.load(sys.stdin), dict(os.environ)], open({str(tmp_path / 'got')!r}, 'w'))\n",
    )
    job = _ended(database)
    assert tell(command=command)
    document, environment = json.loads((tmp_path / "got").read_text())
    assert document["job"]["id"] == job
    assert {key: environment[key] for key in environment if key.startswith("FERRY_")} == {
        "FERRY_ID": document["id"],
        "FERRY_STATE": "cancelled",
        "FERRY_REASON": "cancelled",
        "FERRY_JOB": str(job),
        "FERRY_JOB_KIND": "store",
        "FERRY_REMOTE": "pacs1",
        "FERRY_SCHEDULE": "",
        "FERRY_DUE_AT": "",
    }
    assert "DICOMFERRY_NOTIFY__SECRET" not in environment
    assert _told(database, job) == [("notified", f"command {Path(sys.executable).name}: exit 0")]


@pytest.mark.parametrize(
    ("text", "seconds", "told"),
    [
        ("raise SystemExit(3)", 60, "exit 3; given up"),
        ("import os; os.kill(os.getpid(), 9)", 60, "killed by signal 9; given up"),
        ("import time; time.sleep(600)", 0.5, "ended after 0.5 s, its time limit; given up"),
        (None, 60, "no such file or directory; given up"),
    ],
)
def test_a_command_that_fails_is_on_record(
    database: Database, tell: Tell, tmp_path: Path, text: str | None, seconds: float, told: str
) -> None:
    """It had its chance: it is not run again, and the job's history says how it ended."""
    command = "/not/there" if text is None else _script(tmp_path, text)
    job = _ended(database)
    assert tell(command=command, command_timeout=seconds)
    ((kind, said),) = _told(database, job)
    assert kind == "notify_failed" and said.lower().endswith(told)
    assert not tell(command=command)


def test_what_is_not_asked_for_is_not_told(database: Database, receiver: Receiver, tell: Tell) -> None:
    """notify.on names the states; what was passed over is not told later."""
    _ended(database)
    assert not tell(webhook_url=receiver.url, secret=SECRET, on=("failed",))
    assert not tell(webhook_url=receiver.url, secret=SECRET)
    assert receiver.got == []

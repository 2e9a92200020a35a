"""The queue as the rest of the program sees it: broker URLs, and the doorbell without a broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicomferry.models.settings import Settings
from dicomferry.workers.doorbell import lanes


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "redis://:secret@10.0.0.5:6379/3",
        "redis://user:p%40ss@[::1]:6379/0",
        "rediss://:secret@redis.example:6380/0?ssl_cert_reqs=required",
    ],
)
def test_redis_urls_pass_unchanged(url: str) -> None:
    """What kombu understands as it is reaches it as it is, with password, database and options."""
    assert lanes.kombu_url(url) == url


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("unix://:secret@/run/redis.sock", "redis+socket://:secret@/run/redis.sock"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?db=2"),
        ("redis+socket:///run/redis.sock?virtual_host=2", "redis+socket:///run/redis.sock?virtual_host=2"),
        ("unix:///run/my files/a.sock", "redis+socket:///run/my%20files/a.sock"),
        ("unix:///run/my%20files/a.sock", "redis+socket:///run/my%20files/a.sock"),
    ],
)
def test_socket_urls_get_the_form_that_kombu_takes(url: str, form: str) -> None:
    """Both spellings of a unix socket work, with password, with blanks in the path."""
    assert lanes.kombu_url(url) == form


def test_the_broker_in_use(tmp_path: Path) -> None:
    """The one that was set; else that of a running `up`, by its note; else none. A damaged note is no broker."""
    settings = Settings(home=tmp_path)
    assert lanes.broker_url(settings) is None
    note = lanes.embedded_note(tmp_path)
    note.parent.mkdir()
    note.write_text(json.dumps({"url": "redis+socket:///x.sock"}))
    assert lanes.broker_url(settings) == "redis+socket:///x.sock"
    assert lanes.broker_url(Settings(home=tmp_path, broker_url="redis://other")) == "redis://other"
    for damaged in ("", "{}", "[]", '"text"', "\udcff"):
        note.write_text(damaged, errors="surrogateescape")
        assert lanes.broker_url(settings) is None

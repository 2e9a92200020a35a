"""Fixtures for all tests: real peers, and a home that is never the user's own."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from support.peers import DcmQrScp, Orthanc, PostgresCluster, RedisServer, StoreScp

_HOMES = count(1)
LONG_SECONDS = 900
"""So long may a test take that is marked long, unless it says otherwise: it starts dozens of processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def isolated_home(_homes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's own home or settings: HOME and DICOMFERRY_HOME lie in a temporary folder.

    The folder of DICOMFERRY_HOME is not made: making it is the program's business.
    """
    home = _homes / str(next(_HOMES))
    home.mkdir()
    for name in os.environ:
        if name.startswith(("DICOMFERRY_", "XDG_", "CELERY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DICOMFERRY_HOME", str(home / "dicomferry"))
    return home / "dicomferry"


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """One cluster for the whole run. A test that stops or freezes it makes one of its own."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """A fresh database."""
    url = postgres_cluster.create_database()
    yield url
    postgres_cluster.drop_database(url)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def storescp() -> Iterator[StoreScp]:
    with StoreScp() as server:
        yield server


@pytest.fixture
def dcmqrscp() -> Iterator[DcmQrScp]:
    with DcmQrScp() as server:
        yield server


@pytest.fixture
def orthanc() -> Iterator[Orthanc]:
    with Orthanc() as server:
        yield server

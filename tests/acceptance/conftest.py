"""Fixtures of the acceptance tests: the record on either database, a broker of the test's own, homes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.installation import Installation
from support.peers import StoreScp
from support.record import Record

LEASE_SECONDS = 4
WORKERS = 3
DATABASES = ("sqlite", "postgresql")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.acceptance)


def on(*databases: str) -> pytest.MarkDecorator:
    """Runs a test on both databases: on those named in every run, on the other one in the long run."""
    every = [pytest.param(name, marks=() if name in databases else pytest.mark.long) for name in DATABASES]
    return pytest.mark.parametrize("database_url", every, indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty for SQLite in the home, else the URL of a fresh PostgreSQL database. The mark is `on`."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""


class CountingScp(StoreScp):
    """Keeps every instance that it gets, in a file of its own; so what came twice is there twice."""

    def __init__(self, *, port: int | None = None) -> None:
        super().__init__("STORESCP", "--unique-filenames", port=port)

    def stores(self) -> int:
        return len(self.files())


@pytest.fixture
def storescp() -> Iterator[StoreScp]:
    with CountingScp() as server:
        yield server


Install = Callable[..., tuple[Installation, Record]]


@pytest.fixture
def install(isolated_home: Path) -> Iterator[Install]:
    """Makes an installation with short leases and delays, its database set up, and gives its rows too."""
    with ExitStack() as stack:

        def make(database_url: str = "", **settings: object) -> tuple[Installation, Record]:
            known: dict[str, object] = {"lease_seconds": LEASE_SECONDS, "workers": WORKERS}
            known |= {"retry__first_delay": 0.5, "retry__max_delay": 2}
            if database_url:
                known["database_url"] = database_url
            installation = stack.enter_context(Installation(isolated_home, **(known | settings)))
            if database_url:
                installation.run("db", "upgrade")
            record = Record(database_url or f"sqlite:///{isolated_home}/dicomferry.db")
            stack.callback(record.close)
            return installation, record

        yield make

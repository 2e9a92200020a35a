"""Fixtures of the acceptance tests: the record on either database, a broker of the test's own, homes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.installation import Installation
from support.record import Record

LEASE_SECONDS = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty for SQLite in the home, else the URL of a fresh PostgreSQL database."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""


Install = Callable[..., tuple[Installation, Record]]


@pytest.fixture
def install(isolated_home: Path) -> Iterator[Install]:
    """Makes an installation with short leases and delays, its database set up, and gives its rows too."""
    with ExitStack() as stack:

        def make(database_url: str = "", **settings: object) -> tuple[Installation, Record]:
            known: dict[str, object] = {"lease_seconds": LEASE_SECONDS, "workers": 3}
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

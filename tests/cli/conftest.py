"""The desk: a fresh home for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.record import schema
from dicomferry.models.record.database import Database
from support.desk import Desk, desk_at


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with this version's tables: making them takes longer than most tests."""
    path = tmp_path_factory.mktemp("desk") / "template.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def desk(isolated_home: Path, _template: Path) -> Iterator[Desk]:
    with desk_at(isolated_home, _template) as desk:
        yield desk

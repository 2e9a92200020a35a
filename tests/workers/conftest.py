"""The site of the tests that retrieve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.retrieving import Site, site


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """A running storage SCP and a worker beside it, for all tests of one module."""
    with site() as running:
        yield running

"""Long lists in an order that no index has: which rows they are is read once, and then the rows, some at a time.

Paging by the order itself would sort everything that is left again for each page.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.rules.batches import batches


def rows(database: Database, query: sa.Select[*tuple[Any, ...]], key: Any, *order: Any) -> Iterator[Sequence[AnyRow]]:
    """The rows of a query in this order, in lists; `key` is their number, which each row has for its own.

    Each list is read in a transaction of its own, as by `Database.pages`; what is gone by then is left out, and what
    has come since is not in it. Raises OutOfReach.
    """
    numbers = query.with_only_columns(key).order_by(*order)
    # Packed: a list of a million numbers would take five times as much memory.
    chosen = database.read(lambda connection: array("q", connection.execute(numbers).scalars()))
    for some in batches(chosen):
        part = query.where(key.in_(some)).order_by(*order)
        yield database.read(lambda connection, part=part: connection.execute(part).all())  # type: ignore[misc]

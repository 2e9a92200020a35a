"""A row is made, or changed where there is one by its key: in the words of the database that is in use.

The other database's dialect is not loaded for it: that takes a command a tenth of its time and each process megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection


def upsert(
    connection: Connection, row: type, values: Mapping[str, Any], *, key: str, later: Mapping[str, Any]
) -> sa.Executable:
    """INSERT of `values`; where the row's `key` is there already, `later` is what changes."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(row).values(dict(values)).on_conflict_do_update(index_elements=[key], set_=dict(later))
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(row).values(dict(values)).on_conflict_do_update(index_elements=[key], set_=dict(later))

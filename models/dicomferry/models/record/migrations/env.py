"""Run by Alembic: the connection comes from `record.schema`, which holds the lock and the transaction."""

from __future__ import annotations

from alembic import context

from dicomferry.models.record.tables import archive, governor, schedules, trials  # noqa: F401  (their tables are in Base's metadata)
from dicomferry.models.record.tables.jobs import Base

# An index of some rows names its condition for SQLite alone: here it is PostgreSQL's too.
for table in Base.metadata.tables.values():
    for index in table.indexes:
        index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()

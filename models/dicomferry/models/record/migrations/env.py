"""Run by Alembic: the connection comes from `record.schema`, which holds the lock and the transaction."""

from __future__ import annotations

from alembic import context

from dicomferry.models.record.tables import archive, governor, schedules, trials  # noqa: F401  (their tables are in Base's metadata)
from dicomferry.models.record.tables.jobs import Base, of_some_on_postgresql

of_some_on_postgresql(Base.metadata)
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()

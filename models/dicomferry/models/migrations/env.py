"""Run by Alembic: the connection comes from `dicomferry.models.schema`, which holds the lock and the transaction."""

from __future__ import annotations

from alembic import context

from dicomferry.models import archive_tables, governor_tables, schedule_tables, trial_tables  # noqa: F401  (their tables are in Base's metadata)
from dicomferry.models.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()

"""What a command loads before it does anything: its start is most of its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.installation import Installation

_LISTING = """
import gc, json, sys
sys.argv = ["dicomferry", "jobs", "list"]
from dicomferry.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([gc.get_threshold()[0], sorted(sys.modules)]))
"""


def test_a_command_that_reads_loads_no_other_database_and_nothing_of_the_workers(tmp_path: Path) -> None:
    """On SQLite, `jobs list` does without the drivers of PostgreSQL, and without Celery, Redis and pydicom."""
    installation = Installation(tmp_path / "home")
    installation.run("db", "upgrade")
    argv = [sys.executable, "-P", "-c", _LISTING]
    done = subprocess.run(argv, env=installation.environment, capture_output=True, text=True, check=True)
    threshold, modules = json.loads(done.stdout.splitlines()[-1])
    heavy = ("sqlalchemy.dialects.postgresql", "psycopg", "celery", "redis", "pydicom", "alembic", "numpy")
    assert [name for name in heavy if name in modules] == []
    assert threshold > 10_000  # garbage is not looked for among what is imported

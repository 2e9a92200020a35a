"""Schedules and notifications, from the command line to a real scheduler and a real peer."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from dicomferry.models.record.tables.schedules import ScheduleRow
from support.installation import until
from support.peers import StoreScp

from .conftest import Install, on

YEARLY = ("--cron", "0 4 1 1 *", "--tz", "Europe/Berlin")


@on("sqlite")
def test_a_schedule_from_its_first_day_to_its_last(
    install: Install, database_url: str, storescp: StoreScp, tmp_path: Path
) -> None:
    """Added, run by hand, paused, resumed, fired by `up`, told of by a command, removed; nobody waits for a night."""
    told = tmp_path / "told"
    script = tmp_path / "tell.py"
    script.write_text(
        "import json, sys\n"
        f"with open({str(told)!r}, 'a') as file:\n"
        "    file.write(json.dumps(json.load(sys.stdin)) + '\\n')\n"
    )
    installation, record = install(database_url, notify__command=f"{sys.executable} {script}")
    installation.run("remote", "add", "peer", f"{storescp.aet}@127.0.0.1:{storescp.port}")
    saved = installation.run("schedule", "add", "yearly", *YEARLY, "--", "echo", "peer")
    assert "01-01 04:00 +01:00" in saved.stdout and "no scheduler is running" in saved.stderr

    with installation.up() as up:
        assert up.said("scheduler process")
        by_hand = int(installation.run("schedule", "run", "yearly").stdout)
        assert installation.wait_job(by_hand)["state"] == "succeeded"

        assert "is paused" in installation.run("schedule", "pause", "yearly").stdout
        assert "it fires next at" in installation.run("schedule", "resume", "yearly").stdout
        # As if nobody had looked for two years; that clocks bring it about as well is proven elsewhere.
        past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        values = {"next_due": past, "counted_from": past - timedelta(days=2 * 365)}
        record.database.write(lambda connection: connection.execute(sa.update(ScheduleRow).values(**values)))

        def fired() -> dict[str, object] | None:
            runs = installation.json("schedule", "show", "yearly")["runs"]
            return next((run for run in runs if run["state"] == "submitted" and not run["by_hand"]), None)

        run = until(fired, "the scheduler has fired it")
        assert installation.wait_job(run["job"])["state"] == "succeeded"
        until(lambda: told.exists() and len(told.read_text().splitlines()) >= 3, "all of it was told")
        notes = [json.loads(line) for line in told.read_text().splitlines()]
        assert sorted((note["state"], note["schedule"]["name"]) for note in notes) == [
            ("missed", "yearly"), ("succeeded", "yearly"), ("succeeded", "yearly"),
        ]  # fmt: skip

        def last_event() -> str:
            return str(installation.json("jobs", "events", run["job"])[-1]["kind"])

        until(lambda: last_event() == "notified", "the job's history says that it was told of")
        text = installation.run("schedule", "show", "yearly").stdout
        assert "command sent" in text and "missed" in text and "a later one was due" in text
        installation.run("schedule", "remove", "yearly")
        assert installation.json("schedule", "list") == []
        up.terminate()
        assert up.wait() == 0
    installation.wait_gone()

"""The columns of a CSV against the keys of the JSON that the same command prints."""

import csv
import io
import json
from collections.abc import Set
from typing import Any

import pytest

from dicomferry.cli import schedules
from dicomferry.cli.frame import render
from dicomferry.cli.jobs import command
from dicomferry.models.documents import shapes
from dicomferry.models.record.remotes.book import RemoteDocument
from dicomferry.models.rules.state import ItemState
from support.desk import Desk

NOTHING: Set[str] = frozenset()


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (("jobs", "list"), command.NO_JOB_COLUMN),
        (("jobs", "items", "last"), command.NO_ITEM_COLUMN),
        (("jobs", "events", "last"), command.NO_EVENT_COLUMN),
        (("remote", "list"), NOTHING),
        (("schedule", "list"), schedules.NO_COLUMN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_each_key_is_a_column_or_is_left_out_by_name(desk: Desk, words: tuple[str, ...], without: Set[str]) -> None:
    """A key that is added to a document is in the CSV as well, unless somebody says that it is not to be."""
    desk.store_job([(ItemState.FAILED, "unreadable", None)])
    desk.run("remote", "set", "pacs1", "--window", "22:00-06:00", "--connect", "5", "--no-probe")
    desk.run("schedule", "add", "nightly", "--cron", "30 2 * * *", "--tz", "Europe/Berlin", "--", "echo", "pacs1")
    row, *_ = json.loads(desk.run(*words, "--json").stdout)
    table = csv.DictReader(io.StringIO(desk.run(*words, "--csv").stdout))
    columns = table.fieldnames or ()
    inside = {key for key in row for column in columns if column.startswith(f"{key}_")}
    assert {*row} - {*columns} - inside <= without
    assert not without & {*columns}
    (cells, *_) = table
    flat = {**row, **render.flatten(row)}
    assert [key for key in columns if flat.get(key) not in (None, "", {}, []) and not cells[key]] == []


def test_an_object_inside_is_columns_of_its_own() -> None:
    """items.total is items_total; what is left out may be named by its key or by its column."""
    columns = shapes.columns(shapes.JobDocument, without={"requests", "items_pending"})
    assert "items_total" in columns and "requests_total" not in columns and "items_pending" not in columns
    assert "last_run_job" in shapes.columns(shapes.ScheduleDocument)


def test_a_remote_is_shown_with_the_keys_that_it_is_said_to_have(desk: Desk) -> None:
    """Its document is read from the columns of the address book by name."""
    assert desk.remote_id
    found: Any = json.loads(desk.run("remote", "list", "--json").stdout)
    assert {*found[0]} == {*RemoteDocument.__annotations__}

"""What people read of a retrieve: one screen, one sentence, and a report that accounts for each instance."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from dicomferry.cli.root import cli
from dicomferry.models.rules import spec
from support import samples
from support.misbehaviour import NAMED
from support.qr_catalogue import Catalogue
from support.qr_peer import QrPeer
from support.retrieving import STUDY, TITLE, Site, site
from support.samples import Sample


class Told(NamedTuple):
    """A site with one job: of two studies in rows 2 and 5 of a file one instance did not come, and one came besides."""

    site: Site
    job_id: int
    first: list[Sample]
    second: list[Sample]
    surplus: list[Sample]
    missing: str

    def run(self, *words: object, code: int = 0) -> str:
        argv = ["--home", str(self.site.scp.home), *map(str, words)]
        result = CliRunner().invoke(cli, argv, prog_name="dicomferry")
        assert result.exit_code == code, result.output
        return result.stdout

    def json(self, *words: object) -> Any:
        return json.loads(self.run(*words, "--json"))

    def csv(self, *words: object) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.run(*words, "--csv"))))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("held")

    def made(name: str, first: int, last: int) -> list[Sample]:
        return [
            samples.instance(folder / f"{name}{number}.dcm", study=name, series=1, number=number, size=8)
            for number in range(first, last + 1)
        ]

    first, second, surplus = made("first", 1, 6), made("second", 1, 4), made("first", 7, 7)
    missing = first[2].sop_instance_uid
    manners = NAMED["one instance never comes"]

    def retrieve(retrieval: Any) -> None:
        if any(sample.study_instance_uid == first[0].study_instance_uid for sample in retrieval.wanted):
            retrieval.store(surplus, report=False)
            retrieval.completed = 0
        manners.retrieve(retrieval)

    manners_with_more = type(manners)(retrieve=retrieve)
    with site() as here:
        peer = QrPeer(
            Catalogue([*first, *second]), manners=manners_with_more, destinations={TITLE: here.scp.port}, aet="PACS1"
        )
        with peer:
            what = spec.MoveSpec(
                identifiers=tuple(
                    (row, ((STUDY, made[0].study_instance_uid),)) for row, made in ((2, first), (5, second))
                ),
                columns=("Order", "state"),
                remarks=(("o-1", "x"), ("o-2", "y")),
            )
            job_id = here.submit(peer.address, what)
            here.drive(job_id)
        yield Told(here, job_id, first, second, surplus, missing)


def test_the_screen_says_what_is_missing_and_what_was_done_about_it(told: Told) -> None:
    """Requests, instances, how much is known, what was asked and answered, each missing instance with its reason."""
    shown = told.run("jobs", "show", told.job_id)
    lines = {line.split("  ")[1]: line for line in shown.splitlines() if line.startswith("  ")}
    assert "1 failed, 1 succeeded" in lines["requests"]
    assert "10 expected, 9 here, 1 missing, 1 surplus" in lines["instances"]
    assert "each instance, as C-FIND lists them" in lines["known"]
    assert "C-MOVE 2 as a whole, 2 singly" in lines["asked"]
    assert "0x0000 1 time" in lines["answers"] and "0xB000 1 time" in lines["answers"]
    assert told.missing in lines["missing"] and "not delivered" in lines["missing"]
    assert f"job {told.job_id}: 9 of 10 proven from PACS1, 1 missing, 1 surplus" in shown
    assert "kB" in lines["received"]
    assert len(shown.splitlines()) < 40


def test_items_name_requests_by_row_and_keys(told: Told) -> None:
    """A request is known by what stands in the file."""
    listed = told.run("jobs", "items", told.job_id, "--state", "failed")
    assert f"row 2: StudyInstanceUID={told.first[0].study_instance_uid}: not delivered" in listed
    items = told.json("jobs", "items", told.job_id)
    assert [(item["row"], item["state"]) for item in items if item["kind"] == "request"] == [
        (2, "failed"), (5, "succeeded"),
    ]  # fmt: skip
    assert sum(item["kind"] == "instance" for item in items) == 10


def test_a_report_by_study(told: Told) -> None:
    """A row for each: expected, here, missing, surplus, requests and answers, bytes, times."""
    rows = told.csv("jobs", "report", told.job_id)
    found = {row["StudyInstanceUID"]: row for row in rows}
    one, other = (found[made[0].study_instance_uid] for made in (told.first, told.second))
    numbers = ("rows", "expected", "received", "missing", "surplus", "conflicts", "attempts")
    assert [one[name] for name in numbers] == ["2", "6", "5", "1", "1", "0", "3"]
    assert [other[name] for name in numbers] == ["5", "4", "4", "0", "0", "0", "1"]
    assert "0xB000:1" in one["statuses"] and one["first_arrival"] <= one["last_arrival"] and int(one["bytes"]) > 0
    assert list(found) == [told.first[0].study_instance_uid, told.second[0].study_instance_uid]
    table = told.run("jobs", "report", told.job_id)
    assert told.first[0].study_instance_uid in table and "9 of 10 proven from PACS1" in table
    assert told.second[0].study_instance_uid not in told.run("jobs", "report", told.job_id, "--missing")


def test_a_report_by_instance(told: Told) -> None:
    """Each expected instance with what came of it, then what came besides."""
    rows = {row["SOPInstanceUID"]: row for row in told.csv("jobs", "report", told.job_id, "--by", "instance")}
    assert set(rows) == samples.uids([*told.first, *told.second, *told.surplus])
    here, gone = rows[told.first[0].sop_instance_uid], rows[told.missing]
    assert (here["state"], here["received"], here["row"], here["arrivals"]) == ("succeeded", "true", "2", "1")
    assert (told.site.scp.home / "archive" / here["file"]).stat().st_size == int(here["bytes"])
    assert (gone["state"], gone["reason"], gone["received"], gone["file"]) == ("failed", "not delivered", "false", "")
    besides = rows[told.surplus[0].sop_instance_uid]
    assert (besides["state"], besides["expected"], besides["received"]) == ("surplus", "false", "true")
    (row,) = told.csv("jobs", "report", told.job_id, "--by", "instance", "--missing")
    assert row["SOPInstanceUID"] == told.missing


def test_a_report_by_request_is_the_file_with_what_came_of_it(told: Told) -> None:
    """Rows, keys and the site's own columns as they were given; a column that is named like one of ours gives way."""
    rows = told.csv("jobs", "report", told.job_id, "--by", "request")
    assert [(row["row"], row["Order"], row["StudyInstanceUID"]) for row in rows] == [
        ("2", "o-1", told.first[0].study_instance_uid), ("5", "o-2", told.second[0].study_instance_uid),
    ]  # fmt: skip
    assert [(row["state"], row["expected"], row["received"], row["missing"]) for row in rows] == [
        ("failed", "6", "5", "1"), ("succeeded", "4", "4", "0"),
    ]  # fmt: skip


def test_everything_in_one_document(told: Told) -> None:
    """For an auditor's program: the job, its requests, studies, instances, and each C-MOVE with its answer."""
    whole = told.json("jobs", "report", told.job_id)
    assert set(whole) == {"job", "requests", "studies", "instances", "moves"}
    assert [len(whole[name]) for name in ("requests", "studies", "instances", "moves")] == [2, 2, 11, 4]
    assert {move["status"] for move in whole["moves"]} >= {"0x0000", "0xB000"}
    assert whole["job"]["id"] == told.job_id


@pytest.mark.parametrize("by", ["study", "request", "instance"])
def test_a_report_may_be_given_back(told: Told, by: str, tmp_path: Path) -> None:
    """As it is, at the level that it is of: what it names is asked for, what it tells is carried along."""
    path = tmp_path / "report.csv"
    path.write_text(told.run("jobs", "report", told.job_id, "--by", by, "--missing", "--csv"))
    level = "image" if by == "instance" else "study"
    job_id = int(told.run("submit", "move", "PACS1@127.0.0.1:104", "--level", level, "--from-csv", path))
    found = told.json("jobs", "show", job_id)
    assert found["state"] == "pending"
    told.run("jobs", "cancel", job_id)


def test_the_archive_lists_what_a_job_brought(told: Told) -> None:
    """By the pairing of arrivals; and that is what `submit store --from-job` sends, but for what nobody asked for."""
    listed = {row["sop_instance_uid"] for row in told.json("archive", "list", "--job", told.job_id)}
    came = samples.uids([*told.first, *told.second]) - {told.missing}
    assert listed - samples.uids(told.surplus) == came
    job_id = int(told.run("submit", "store", "OTHER@127.0.0.1:104", "--from-job", told.job_id))
    assert {Path(path).stem for path in _paths(told, job_id)} == came
    told.run("jobs", "cancel", job_id)


def _paths(told: Told, job_id: int) -> tuple[str, ...]:
    (row,) = told.site.scp.rows(f"SELECT kind, spec FROM job WHERE id = {job_id}")
    found = spec.from_json(*row)
    assert isinstance(found, spec.StoreSpec)
    return found.paths

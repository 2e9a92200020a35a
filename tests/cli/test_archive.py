"""`dicomferry archive`: what is there, whether it is whole, and its removal."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomferry.models.record.archive import index
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.receiving.archive import place
from support import samples
from support.desk import Desk
from support.samples import Sample

KEYS = {
    "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_instance_uid", "series_instance_uid", "path",
    "size", "relation", "current", "flaw", "stored_at", "arrivals", "calling_ae_title",
}  # fmt: skip


class Shelf:
    """The archive of a desk: files with their rows, as the storage SCP leaves them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.root = desk.home / "archive"
        self.arrivals = 0

    def put(self, study: object = "study", number: int = 1, *, indexed: bool = True) -> Sample:
        """One instance, with a row unless told otherwise."""
        sample = samples.mr_instance(self.root / "new", study=study, number=number)
        folder, stem = place(sample.study_instance_uid, sample.series_instance_uid, sample.sop_instance_uid)
        path = self.root / folder / f"{stem}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.path.rename(path)
        if indexed:
            now = datetime.now(UTC)
            self.arrivals += 1
            arrival = Arrival(
                association="a", number=self.arrivals, outcome="stored",
                calling_ae_title="MOD1", called_ae_title="FERRY", address="127.0.0.1", message_id=1,
                originator_ae_title=None, originator_message_id=None, at=now,
            )  # fmt: skip
            row = Received(
                path=str(path.relative_to(self.root)), size=path.stat().st_size, stored_at=now,
                sop_instance_uid=sample.sop_instance_uid, sop_class_uid=sample.sop_class_uid,
                transfer_syntax_uid=sample.transfer_syntax_uid, study_instance_uid=sample.study_instance_uid,
                series_instance_uid=sample.series_instance_uid, relation="first", flaw=None, arrival=arrival,
            )  # fmt: skip
            index.record(self.desk.database, [row])
        return replace(sample, path=path)

    def belongs_to(self, job_id: int) -> None:
        """All arrivals so far were this job's."""
        with self.desk.database.engine.begin() as connection:
            connection.execute(sa.update(ArrivalRow).values(job_id=job_id))

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.dcm"))


@pytest.fixture
def shelf(desk: Desk) -> Shelf:
    return Shelf(desk)


# --- list -----------------------------------------------------------------------------------------------------


def test_an_empty_home_has_an_empty_archive(desk: Desk) -> None:
    """Looking makes nothing: no file, no table; the forms for programs are empty and whole."""
    assert desk.json("archive", "list") == []
    result = desk.run("archive")
    assert (result.stdout, result.stderr) == ("", "the archive is empty\n")
    assert desk.run("archive", "list", "--paths").stdout == ""
    assert not desk.file.exists()


def test_the_list_has_its_keys(shelf: Shelf) -> None:
    """Each instance with every key, by path; a study or a job narrows it down."""
    one, other = shelf.put("a"), shelf.put("b")
    listed = shelf.desk.json("archive", "list")
    assert [row["path"] for row in listed] == [str(path.relative_to(shelf.root)) for path in shelf.files]
    assert all(set(row) == KEYS for row in listed)
    (row,) = shelf.desk.json("archive", "list", "--study", one.study_instance_uid)
    assert row["sop_instance_uid"] == one.sop_instance_uid
    assert (row["calling_ae_title"], row["arrivals"], row["current"], row["flaw"]) == ("MOD1", 1, True, None)
    assert row["stored_at"].endswith("Z")
    job_id = shelf.desk.echo_job()
    assert shelf.desk.json("archive", "list", "--job", job_id) == []
    shelf.belongs_to(job_id)
    found = shelf.desk.json("archive", "list", "--job", "last", "--study", other.study_instance_uid)
    assert [row["sop_instance_uid"] for row in found] == [other.sop_instance_uid]


def test_the_list_in_other_forms(shelf: Shelf) -> None:
    """Text for people, full paths alone for scripts, JSON lines and CSV; paths go with none of the latter."""
    sample = shelf.put()
    text = shelf.desk.run("archive", "list").stdout
    assert sample.sop_instance_uid in text and "MOD1" in text
    assert shelf.desk.run("archive", "list", "--paths").stdout == f"{sample.path}\n"
    (row,) = csv.DictReader(io.StringIO(shelf.desk.run("archive", "list", "--csv").stdout))
    assert set(row) == KEYS
    assert len(shelf.desk.run("archive", "list", "--jsonl").stdout.splitlines()) == 1
    assert "leave out" in shelf.desk.run("archive", "list", "--paths", "--json", code=2).stderr


def test_what_is_not_there(shelf: Shelf) -> None:
    """A study that never came lists nothing and says so; a job that does not exist is a mistake."""
    shelf.put()
    result = shelf.desk.run("archive", "list", "--study", "1.2.3")
    assert (result.stdout, result.stderr) == ("", "the archive has nothing of that\n")
    assert "no job 77" in shelf.desk.run("archive", "list", "--job", "77", code=2).stderr


# --- verify ---------------------------------------------------------------------------------------------------


def test_a_whole_archive(shelf: Shelf) -> None:
    """Exit 0, numbers that agree, no problem; also with nothing in it."""
    assert shelf.desk.json("archive", "verify")["files"] == 0
    shelf.put()
    assert shelf.desk.json("archive", "verify") == {
        "files": 1, "indexed": 1, "missing_files": 0, "unindexed": 0, "damaged": 0, "temporary": 0, "problems": [],
    }  # fmt: skip
    result = shelf.desk.run("archive", "verify")
    assert result.stdout == f"1 file in {shelf.root}, 1 indexed\n"
    assert result.stderr == ""


def spoil(shelf: Shelf) -> tuple[Sample, Sample, Sample]:
    """One file cut short, one gone, one without a row."""
    damaged, gone, fresh = shelf.put(number=1), shelf.put(number=2), shelf.put(number=3, indexed=False)
    os.truncate(damaged.path, damaged.path.stat().st_size - 100)
    gone.path.unlink()
    return damaged, gone, fresh


def test_what_is_wrong_is_named(shelf: Shelf) -> None:
    """Exit 1, each kind counted and each path named, and the command that mends; nothing is touched unasked."""
    damaged, gone, fresh = spoil(shelf)
    found = shelf.desk.json("archive", "verify", code=1)
    numbers = {key: found[key] for key in ("files", "indexed", "missing_files", "unindexed", "damaged", "temporary")}
    assert numbers == {
        "files": 2, "indexed": 2, "missing_files": 1, "unindexed": 1, "damaged": 1, "temporary": 0,
    }  # fmt: skip
    relative = {
        kind: str(sample.path.relative_to(shelf.root))
        for kind, sample in (("damaged", damaged), ("missing", gone), ("unindexed", fresh))
    }
    assert {problem["kind"]: problem["path"] for problem in found["problems"]} == relative
    result = shelf.desk.run("archive", "verify", code=1)
    for kind, path in relative.items():
        assert f"  {kind}: {path}" in result.stdout
    assert "archive verify --repair" in result.stderr and "sent again" in result.stderr


def test_repair_mends_the_index_alone(shelf: Shelf) -> None:
    """Rows for files, history for rows without one; the damaged file stays, and stays a reason for exit 1."""
    damaged, _, fresh = spoil(shelf)
    result = shelf.desk.run("archive", "verify", "--repair", code=1)
    assert "indexed now" in result.stdout and "history" in result.stdout
    found = shelf.desk.json("archive", "verify", code=1)
    assert (found["missing_files"], found["unindexed"], found["damaged"]) == (0, 0, 1)
    assert {row["sop_instance_uid"] for row in shelf.desk.json("archive", "list")} == samples.uids([damaged, fresh])
    damaged.path.unlink()
    shelf.desk.run("archive", "verify", "--repair", code=1)
    shelf.desk.run("archive", "verify")


# --- remove ---------------------------------------------------------------------------------------------------


def test_remove_says_what_it_removed(shelf: Shelf) -> None:
    """One study's files go, the others stay; a second time there is nothing of it."""
    gone, more, kept = shelf.put("a", 1), shelf.put("a", 2), shelf.put("b")
    result = shelf.desk.run("archive", "remove", "--study", gone.study_instance_uid, "--yes")
    assert result.stdout.startswith("removed 2 instances of 1 study, 6")
    assert shelf.files == [kept.path] and not more.path.exists()
    assert [row["sop_instance_uid"] for row in shelf.desk.json("archive", "list")] == [kept.sop_instance_uid]
    again = shelf.desk.run("archive", "remove", "--study", gone.study_instance_uid, "--yes", code=2)
    assert "nothing of study" in again.stderr


def test_remove_what_a_job_brought(shelf: Shelf) -> None:
    """Of however many studies."""
    job_id = shelf.desk.echo_job()
    shelf.put("a"), shelf.put("b")
    shelf.belongs_to(job_id)
    kept = shelf.put("c")
    assert "2 instances of 2 studies" in shelf.desk.run("archive", "remove", "--job", "last", "--yes").stdout
    assert shelf.files == [kept.path]


@pytest.mark.parametrize("arguments", [[], ["--study", "1.2", "--job", "1"]])
def test_remove_wants_one_thing(desk: Desk, arguments: list[str]) -> None:
    """Everything at once is never meant."""
    assert "--study UID, --job ID or --flawed" in desk.run("archive", "remove", "--yes", *arguments, code=2).stderr


def test_what_counts_for_nothing_can_be_removed(shelf: Shelf) -> None:
    """Damaged and unreadable files, and what should name a study; `--paths` names the good one of an instance alone."""
    good, bad, lost = shelf.put(number=1), shelf.put(number=2), shelf.put(number=3)
    with shelf.desk.database.engine.begin() as connection:
        uid = InstanceRow.sop_instance_uid
        connection.execute(sa.update(InstanceRow).where(uid == bad.sop_instance_uid).values(flaw="pixels: native"))
        connection.execute(
            sa.update(InstanceRow).where(uid == lost.sop_instance_uid).values(flaw="no study: none is named")
        )
    assert "2 instances of 1 study" in shelf.desk.run("archive", "remove", "--flawed", code=2).stderr
    assert "removed 2 instances" in shelf.desk.run("archive", "remove", "--flawed", "--yes").stdout
    assert shelf.files == [good.path]
    assert shelf.desk.run("archive", "list", "--paths").stdout == f"{good.path}\n"
    assert "nothing that is flawed" in shelf.desk.run("archive", "remove", "--flawed", "--yes", code=2).stderr


def test_an_archive_out_of_sight_is_neither_checked_nor_mended(shelf: Shelf) -> None:
    """What cannot be seen is not gone: no row is made history for a disk that is not mounted."""
    shelf.put()
    shelf.desk.run("archive", "adopt", "--yes")
    away = shelf.root.with_name("away")
    shelf.root.rename(away)
    shelf.root.mkdir()
    for command in (("verify", "--repair"), ("remove", "--study", samples.uid("study", "study"), "--yes")):
        assert "is not the archive that this record knows" in shelf.desk.run("archive", *command, code=3).stderr
    assert len(shelf.desk.json("archive", "list")) == 1
    assert "0 of 1 file" in shelf.desk.run("archive", "adopt", code=2).stderr
    shelf.root.rmdir()
    away.rename(shelf.root)
    assert shelf.desk.json("archive", "verify")["missing_files"] == 0


def test_where_nobody_can_be_asked_nothing_goes(shelf: Shelf) -> None:
    """Without a terminal --yes has to be given: exit 2, what would have gone, the way out."""
    sample = shelf.put()
    result = shelf.desk.run("archive", "remove", "--study", sample.study_instance_uid, code=2)
    assert "1 instance of 1 study" in result.stderr and "--yes" in result.stderr
    assert shelf.files == [sample.path]


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\n", 1, 1)])
def test_a_terminal_is_asked(shelf: Shelf, answer: bytes, code: int, left: int) -> None:
    """The question says how much and from where; only yes removes."""
    sample = shelf.put()
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "dicomferry.cli.main", "archive", "remove", "--study", sample.study_instance_uid]
    os.write(ours, answer)
    done = subprocess.run(
        command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, timeout=60,
        env={**os.environ, "DICOMFERRY_HOME": str(shelf.desk.home)},
    )  # fmt: skip
    asked = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, asked
    assert "remove 1 instance of 1 study" in asked and str(shelf.root) in asked
    assert len(shelf.files) == left
    assert (b"removed 1 instance" in done.stdout) == (left == 0)


def test_what_a_pruned_job_brought_is_known_by_its_arrivals(shelf: Shelf) -> None:
    """Listed all the same, and that is said; a job that brought nothing, or never was, is told apart from an error."""
    sample = shelf.put()
    job_id = shelf.desk.echo_job()
    shelf.belongs_to(job_id)
    verbs.cancel(shelf.desk.database, job_id)
    shelf.desk.run("jobs", "prune", "--older-than", "0m", "--yes")
    told = shelf.desk.run("archive", "list", "--job", job_id)
    assert sample.sop_instance_uid in told.stdout and f"job {job_id} was pruned" in told.stderr
    assert len(shelf.desk.json("archive", "list", "--job", job_id)) == 1
    assert "or it was pruned and brought nothing" in shelf.desk.run("archive", "list", "--job", "77", code=2).stderr
    assert "give --yes" in shelf.desk.run("archive", "remove", "--job", job_id, code=2).stderr


@pytest.mark.parametrize("form", [(), ("--json",), ("--paths",)])
def test_what_was_here_before_a_job_is_said(form: tuple[str, ...], shelf: Shelf) -> None:
    """It brought nothing, though what it asked for is here: on stderr, so that the list stays what it is."""
    desk = shelf.desk
    assert desk.remote_id
    job_id = int(desk.run("submit", "move", "pacs1", "-k", "StudyInstanceUID=1.2").stdout)
    chunk = sa.select(ChunkRow.id).where(ChunkRow.job_id == job_id)
    row = {
        "job_id": job_id, "chunk_id": desk.database.read(lambda connection: connection.execute(chunk).scalar_one()),
        "kind": "instance", "is_first": True, "state": ItemState.SUCCEEDED, "reason": "already here",
        "sop_instance_uid": "1.2.3.4",
    }  # fmt: skip
    desk.database.write(lambda connection: connection.execute(sa.insert(ItemRow).values(**row)))
    told = desk.run("archive", "list", "--job", job_id, *form)
    assert f"1 instance that job {job_id} asked for was here already" in told.stderr
    assert f"dicomferry jobs report {job_id} --by instance" in told.stderr


def test_a_repair_says_what_it_could_not_mend(shelf: Shelf) -> None:
    """With the reason, and exit code 1: a file that has no row yet is not indexed."""
    shelf.put()
    (path,) = shelf.files
    os.mkfifo(path.with_name("pipe.dcm"))
    shelf.put(number=2)
    done = shelf.desk.run("archive", "verify", "--repair", code=1)
    assert "  without a row: " in done.stdout and "pipe.dcm: " in done.stdout
    assert "pipe.dcm (indexed now)" not in done.stdout

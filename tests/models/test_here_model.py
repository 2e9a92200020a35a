"""What counts as here, held against a model: expectations, arrivals under right and other UIDs, losses, restarts.

`HERE_EXAMPLES` is how many histories are made up, other ones each time; without it the same dozen.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicomferry.models.record import schema
from dicomferry.models.record.archive import identity, index
from dicomferry.models.record.archive.identity import KnownFile
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.record.retrieves import expected, request
from dicomferry.models.record.retrieves.expected import Listed
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import ChunkRow, ItemRow
from dicomferry.models.rules.state import ChunkState, ItemState
from dicomferry.models.rules.target import Target
from support.record_site import Clock, Site

from .record.archive.test_pairing import Desk

GIVEN = os.environ.get("HERE_EXAMPLES")
EXAMPLES = int(GIVEN or "12")
# To make a failure small takes Hypothesis up to five minutes: a test that is stopped meanwhile is told as flaky.
pytestmark = pytest.mark.timeout(max(900, 20 * EXAMPLES))
SIZE = 100
STUDIES, SERIES, INSTANCES = ("1", "2"), ("1", "2"), ("7", "8")
FLAWS = (None, None, None, "odd uid", "unreadable: x", "truncated: x")
Key = tuple[str, str, str]
keys = st.tuples(st.sampled_from(STUDIES), st.sampled_from(SERIES), st.sampled_from(INSTANCES))


@cache
def _empty_record() -> bytes:
    """A database without rows: making its tables takes longer than all that is done with it."""
    with tempfile.TemporaryDirectory(prefix="df-") as folder:
        file = Path(folder) / "record.db"
        database = Database(f"sqlite:///{file}")
        schema.upgrade(database)
        database.write(lambda connection: connection.exec_driver_sql("SELECT 1"))
        database.close()
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return file.read_bytes()


@dataclass
class OnDisk:
    """A file as it was received, and how large it is now. `arrivals` are the jobs that it came for."""

    key: Key
    flaw: str | None
    size: int
    arrivals: list[int | None]


class Archive(RuleBasedStateMachine):
    """The record beside a model of disk and expectations; one remote, which may coerce."""

    @initialize(coerces=st.sampled_from([None, "study", "series", "study,series"]))
    def begin(self, coerces: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="df-")
        file = Path(self._folder.name) / "record.db"
        file.write_bytes(_empty_record())
        self.database = Database(f"sqlite:///{file}")
        clock = Clock()
        self.database._clock = clock
        self.desk = Desk(Site(self.database, clock))
        book.change(self.database, "PACS1", None, max_moves=9, max_associations=9, coerces=coerces)
        self.coerces = frozenset((coerces or "").split(",")) - {""}
        self.disk: dict[str, OnDisk] = {}
        self.jobs: dict[int, tuple[Lease, bool]] = {}
        self.listed: dict[int, set[Key]] = {}
        self.good: dict[int, Key] = {}
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self._folder.cleanup()

    # --- what happens

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(study=st.sampled_from(STUDIES), chosen=st.sets(keys, min_size=1, max_size=4))
    def expect(self, study: str, chosen: set[Key]) -> None:
        """A retrieve of a study lists some instances."""
        listed = {(study, series, uid) for _, series, uid in chosen}
        job_id = self.desk.submit(study)
        later = self.desk.now() + timedelta(days=1)
        others = sa.update(ChunkRow).where(ChunkRow.job_id != job_id, ChunkRow.state == ChunkState.PENDING)
        self.desk.site.set(others.values(not_before=later))
        lease = self.desk.site.claim()
        assert lease.job_id == job_id
        request_id = request.of_chunk(self.database, lease.chunk_id).item_id
        expected.expect(
            self.database,
            lease,
            request_id,
            [Listed(uid, "1.2.3", own, series) for own, series, uid in sorted(listed)],
            targets=[Target(study=study, count=len(listed))],
            expectation="images",
            expected=len(listed),
        )
        self.jobs[job_id] = lease, True
        self.listed[job_id] = listed

    @rule(key=keys, flaw=st.sampled_from(FLAWS), whose=st.integers(0, 3), found=st.booleans())
    def arrive(self, key: Key, flaw: str | None, whose: int, found: bool) -> None:
        """A file comes, for a job or pushed by somebody; or a restart finds it (`found`), without an arrival."""
        jobs = [job for job in self.jobs if any(uid == key[2] for _, _, uid in self.listed[job])]
        job_id = jobs[whose % len(jobs)] if jobs and whose < 3 else None
        path, outcome = self._place(key, flaw)
        self.number += 1
        now = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.number)
        arrival = Arrival(
            association="a" * 32, number=self.number, outcome=outcome, calling_ae_title="PACS1",
            called_ae_title="FERRY", address="127.0.0.1", message_id=1, originator_ae_title=None,
            originator_message_id=None, at=now, job_id=job_id,
        )  # fmt: skip
        if found and (outcome == "duplicate" or path in self._rows()):
            if outcome != "duplicate":
                # Its name has the row of a file that is gone: a restart takes it for that one and tells nobody.
                del self.disk[path]
            return
        index.record(
            self.database,
            [
                Received(
                    path=path, size=SIZE, sop_instance_uid=key[2], sop_class_uid="1.2.3", transfer_syntax_uid="1.2",
                    study_instance_uid=key[0], series_instance_uid=key[1], flaw=flaw, stored_at=now,
                    relation="conflict" if "~" in path else "first", arrival=None if found else arrival,
                )
            ],
        )  # fmt: skip
        if not found:
            # Without one the record decides whose it is; the model is told.
            self.disk[path].arrivals.append(job_id if job_id is not None else self._paired())

    def _paired(self) -> int | None:
        query = sa.select(ArrivalRow.job_id).order_by(ArrivalRow.id.desc()).limit(1)
        return self.database.read(lambda c: c.execute(query).scalar())

    def _place(self, key: Key, flaw: str | None) -> tuple[str, str]:
        """Path and outcome, as the storage SCP gives them."""
        for number in range(1, 99):
            path = f"{key[0]}/{key[1]}/{key[2]}{f'~{number}' if number > 1 else ''}.dcm"
            there = self.disk.get(path)
            if there is None:
                self.disk[path] = OnDisk(key, flaw, SIZE, [])
                return path, "stored" if number == 1 else "conflict"
            if there.flaw == flaw and there.size == SIZE:
                return path, "duplicate"
        raise AssertionError("so many files of one instance")

    @precondition(lambda self: self.disk)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["gone", "cut", "removed"]))
    def lose(self, which: int, how: str) -> None:
        """A file is lost or cut behind the record's back, or removed as a person asked."""
        path = sorted(self.disk)[which % len(self.disk)]
        if how == "cut":
            self.disk[path].size = SIZE - 1
            return
        if how == "removed":
            identity.make_history(self.database, identity.files_at(self.database, [path]))
        del self.disk[path]

    @precondition(lambda self: any(runs for _, runs in self.jobs.values()))
    @rule(which=st.integers(0, 9))
    def wait(self, which: int) -> None:
        """An attempt ends; what comes from now on is judged as it comes."""
        running = sorted(job for job, (_, runs) in self.jobs.items() if runs)
        job_id = running[which % len(running)]
        lease, _ = self.jobs[job_id]
        self.desk.wait(lease)
        self.jobs[job_id] = lease, False

    @precondition(lambda self: any(runs for _, runs in self.jobs.values()))
    @rule(which=st.integers(0, 9))
    def look(self, which: int) -> None:
        """An attempt looks at what is here until nothing new is found: then no whole file of its own is left out."""
        running = sorted(job for job, (_, runs) in self.jobs.items() if runs)
        job_id = running[which % len(running)]
        lease, _ = self.jobs[job_id]
        for _ in range(6):
            found = self.database.read(lambda c: expected.arrived(c, lease, refetch=False))
            fine = self._keep([KnownFile(one.instance_id, one.path, one.size, one.latest) for one in found])
            expected.mark_arrived(self.database, lease, [one for one in found if one.instance_id in fine])
            self.check()
        expected.fail_elsewhere(self.database, lease)
        for row in self._items():
            if row.job_id == job_id and row.state not in (ItemState.SUCCEEDED, ItemState.WARNING):
                key = (row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid)
                left_out = [one for _, one in self._whole() if one.key == key and one.flaw in (None, "odd uid")]
                if left_out and self._lies_elsewhere(row):
                    came = any(job_id in one.arrivals for one in left_out)
                    assert row.reason == "filed elsewhere" or not came, "what came honestly is told"
                else:
                    assert not left_out
            if row.job_id == job_id and row.reason == "filed elsewhere":
                assert any(
                    one.key[2] == row.sop_instance_uid and job_id in one.arrivals for one in self.disk.values()
                ) or self._lost_since(row)

    def _lies_elsewhere(self, row: ItemRow) -> bool:
        """Another part of its listed study counts for this job under another study."""
        others = [one for one in self._items() if one.job_id == row.job_id and one.id in self.good]
        return any(one.study_instance_uid == row.study_instance_uid != self.good[one.id][0] for one in others)

    def _lost_since(self, row: ItemRow) -> bool:
        """Its file may have gone after it was judged."""
        return row.filed_study_uid is not None

    def _keep(self, files: Iterable[KnownFile]) -> set[int]:
        """What the look at files does, on the model's disk."""
        fine: set[int] = set()
        for one in files:
            there = self.disk.get(one.path)
            if there is None:
                identity.make_history(self.database, [one])
            elif there.size != one.size:
                identity.note_damage(self.database, [(one, "cut")])
            else:
                fine.add(one.instance_id)
        return fine

    # --- what has to hold

    @invariant()
    def check(self) -> None:
        """An instance that has just become good has a file on disk that counts for it, or coercion says so."""
        if not hasattr(self, "database"):
            return
        rows = [row for row in self._items() if row.state in (ItemState.SUCCEEDED, ItemState.WARNING)]
        for row in rows:
            if row.id not in self.good:
                self.good[row.id] = self._proven(row)
        for job_id in self.jobs:
            for study in STUDIES:
                mine = [row for row in rows if row.job_id == job_id and row.study_instance_uid == study]
                assert len({self.good[row.id][0] for row in mine}) <= 1, "a listed study lies under one study"

    def _proven(self, row: ItemRow) -> Key:
        listed = (row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid)
        study, series, uid = listed
        filed: Key = (row.filed_study_uid or study, row.filed_series_uid or series, uid)  # type: ignore[assignment]
        files = [one for _, one in self._whole() if one.key == filed]
        assert files, f"{listed} is good, and no file of {filed} is whole"
        sound = [one for one in files if one.flaw in (None, "odd uid")]
        often = [one for one in files if one.flaw == "truncated: x" and len([j for j in one.arrivals if j]) >= 2]
        assert (row.state is ItemState.WARNING) == bool(not sound and often) or sound
        assert sound or often, f"{listed} is good by flawed files alone"
        if filed != listed:
            assert filed[0] == study or "study" in self.coerces
            assert filed[1] == series or "series" in self.coerces
            assert any(
                job and any(own == study and one == uid for own, _, one in self.listed[job])
                for file in files
                for job in file.arrivals
            ), "nobody asked for the listed study when it came"
        return filed

    def _whole(self) -> list[tuple[str, OnDisk]]:
        rows = self._rows()
        return [(path, one) for path, one in self.disk.items() if one.size == SIZE and path in rows]

    def _rows(self) -> set[str]:
        return {path for path, _ in identity.sizes(self.database)}

    def _items(self) -> list[ItemRow]:
        query = sa.select(ItemRow.__table__).where(ItemRow.request_id.is_not(None))
        return self.database.read(lambda c: list(c.execute(query).all()))  # type: ignore[arg-type]


TestArchive = Archive.TestCase
TestArchive.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=25, deadline=None, derandomize=not GIVEN, database=None
)

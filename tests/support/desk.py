"""The command line as a person at a desk meets it, and jobs in every state, made as workers make them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from dicomferry.cli.root import cli
from dicomferry.models import settings
from dicomferry.models.record import presence
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims, plans, verbs
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.jobs.items import pending_items
from dicomferry.models.record.presence import Worker
from dicomferry.models.record.remotes import book
from dicomferry.models.rules import ending, spec
from dicomferry.models.rules.ending import Decision
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.state import AttemptEnd, ItemState
from support import decided

SUCCEEDED = (ItemState.SUCCEEDED, None, 0x0000)
ALREADY_THERE = (ItemState.WARNING, "already there", 0x0111)
REFUSED = (ItemState.FAILED, "cannot understand", 0xC000)
What = tuple[ItemState, str | None, int | None]


class Desk:
    """One home, the commands on it, and its rows. Nothing is written before it is asked for."""

    def __init__(self, home: Path, template: Path) -> None:
        self.home = home
        self._template = template
        self.file = home / "dicomferry.db"
        self._opened: list[Database] = []

    def run(self, *arguments: object, code: int = 0, **environment: str) -> Result:
        """The result of a command; the test fails on another exit code, or on an exception that escaped."""
        words = [str(argument) for argument in arguments]
        result = CliRunner().invoke(cli, words, env=environment or None, prog_name="dicomferry")
        told = f"`{' '.join(words)}` ended with {result.exit_code}\n{result.stdout}\n{result.stderr}"
        assert isinstance(result.exception, SystemExit | None), f"{told}{result.exception!r}"
        assert result.exit_code == code, told
        return result

    def json(self, *arguments: object, code: int = 0) -> Any:
        """The document that a command prints."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    @cached_property
    def database(self) -> Database:
        """The rows, with a remote PACS1 in the address book."""
        settings.prepare_home(self.home)
        shutil.copy(self._template, self.file)
        book.add(self.database_as_it_is, "pacs1", "PACS1@127.0.0.1:104")
        return self.database_as_it_is

    @cached_property
    def database_as_it_is(self) -> Database:
        """The rows that the commands wrote."""
        database = Database(f"sqlite:///{self.file}")
        self._opened.append(database)
        return database

    @cached_property
    def worker(self) -> Worker:
        """A worker role that is alive."""
        return presence.register(self.database, "worker", slots=4)

    @cached_property
    def remote_id(self) -> int:
        return book.resolve_id(self.database, "pacs1")

    def close(self) -> None:
        for database in self._opened:
            database.close()

    # --- jobs ---

    def echo_job(self) -> int:
        """An echo job that waits."""
        return verbs.submit(self.database, spec.EchoSpec(), self.remote_id)

    def store_job(self, what: Sequence[What] = (), *, label: str | None = None, skipped: int = 0) -> int:
        """A store job of as many instances; those with an outcome have it, one chunk is not begun without."""
        job_id = self.planned_job(max(len(what), 1), label=label, skipped=skipped)
        if what:
            lease = self.claim()
            items = pending_items(self.database, lease.chunk_id)
            outcomes = [
                Outcome(item_id=item.id, state=state, reason=reason, status=status, sent_bytes=1000)
                for item, (state, reason, status) in zip(items, what, strict=True)
            ]
            self.finish(lease, outcomes)
        return job_id

    def planned_job(self, count: int, *, label: str | None = None, skipped: int = 0) -> int:
        """A store job of `count` instances whose plan is complete."""
        job_id = self.unplanned_job(label=label)
        lease = self.claim()
        instances = [self.item(index) for index in range(count)]
        texts = [self.item(index, state=ItemState.SKIPPED, reason="not DICOM") for index in range(skipped)]
        plans.add_batch(self.database, lease, cursor=None, chunks=[instances], decided=texts)
        self.finish(lease, planned=True)
        return job_id

    def unplanned_job(self, *, label: str | None = None) -> int:
        """A store job whose plan has not begun."""
        return verbs.submit(self.database, spec.StoreSpec(paths=("/data",)), self.remote_id, label=label)

    def item(
        self, index: int, *, state: ItemState = ItemState.PENDING, reason: str | None = None, path: bytes | None = None
    ) -> dict[str, Any]:
        """The values of an item's row."""
        known = state is ItemState.PENDING
        return {
            "path": path or b"/data/%s%04d.dcm" % (b"" if known else b"text", index),
            "size": 1000,
            "sop_instance_uid": f"1.2.3.{index}" if known else None,
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4" if known else None,
            "transfer_syntax_uid": "1.2.840.10008.1.2.1" if known else None,
            "is_first": known,
            "state": state,
            "reason": reason,
        }

    def claim(self, lane: str = "bulk") -> Lease:
        """The next chunk, for our worker."""
        lease = claims.take(self.database, lane, self.worker, lease_seconds=30)
        assert lease is not None
        return lease

    def finish(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome] = (),
        *,
        planned: bool = False,
        decision: Decision | None = None,
        detail: str | None = None,
    ) -> None:
        """The end of an attempt."""
        end = AttemptEnd.COMPLETED if decision is None else AttemptEnd.ERROR
        decided.finish(
            self.database, lease, end=end, decision=decision, outcomes=outcomes,
            finished_items=len(outcomes), planned=planned, detail=detail,
        )  # fmt: skip

    def wait_for_remote(self, lease: Lease, seconds: float = 600, *, detail: str | None = None) -> None:
        """The attempt found the remote unreachable."""
        now = datetime.now(UTC)
        self.finish(
            lease,
            detail=detail,
            decision=Decision(
                next=ending.Next.RETRY,
                at=now + timedelta(seconds=seconds),
                reason="unreachable",
                advice="is the host up?",
                barren=1,
                waiting_since=now,
            ),
        )


@contextmanager
def desk_at(home: Path, template: Path) -> Iterator[Desk]:
    """A desk whose connections are given back; its database is a copy of `template`."""
    desk = Desk(home, template)
    try:
        yield desk
    finally:
        desk.close()

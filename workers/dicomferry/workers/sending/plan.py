"""The plan of a store: turn files into items and chunks, batch by batch, and go on where a restart left off."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases, plans, twins
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.jobs.items import Item, pending_items
from dicomferry.models.record.remotes import book
from dicomferry.models.rules import chunking
from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import StoreSpec
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.text import path_text, printable
from dicomferry.models.rules.uid import too_long
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.tuning import DEFAULT, Planning
from dicomferry.workers.dimse.local_instance import LocalInstance, open_instance
from dicomferry.workers.sending.entry import InventoryEntry
from dicomferry.workers.sending.inventory import AHEAD, Cut, inventory, same_content

_UIDS = {
    "sop_class_uid": "SOP Class UID",
    "transfer_syntax_uid": "Transfer Syntax UID",
    "sop_instance_uid": "SOP Instance UID",
    "study_instance_uid": "Study Instance UID",
    "series_instance_uid": "Series Instance UID",
}
_IN_A_REQUEST = ("sop_class_uid", "transfer_syntax_uid")
"""The columns of UIDs that stand in a request for an association: one that no peer takes would spoil it for all."""


@dataclass
class _Batch:
    """What one transaction will write."""

    planning: Planning
    began: float = field(default_factory=time.monotonic)
    chunks: list[list[dict[str, Any]]] = field(default_factory=list)
    decided: list[dict[str, Any]] = field(default_factory=list)
    found: list[InventoryEntry] = field(default_factory=list)

    def split_tail(self) -> list[InventoryEntry]:
        """Take away what is at the end and of a study of which more may come, so that it stays in one chunk."""
        tail = chunking.open_tail([_study(found) for found in self.found], most=self.planning.chunk_instances)
        kept = len(self.found) - tail
        later, self.found = self.found[kept:], self.found[:kept]
        return later

    @property
    def is_full(self) -> bool:
        bounds = self.planning
        return len(self.found) >= bounds.batch_items or time.monotonic() - self.began >= bounds.batch_seconds


def run(
    database: Database,
    lease: Lease,
    heart: Heartbeat,
    ring: Callable[[], object],
    planning: Planning = DEFAULT.planning,
) -> bool:
    """Plan until everything is planned (True), or until it is time to give the slot back (False).

    `ring` is called after each batch that made chunks. Raises LeaseLost.
    """
    assert isinstance(lease.spec, StoreSpec)
    began = time.monotonic()
    batch = _Batch(planning)
    care = _Care(database, lease, planning)
    share = _Share(book.most_associations(database, lease.remote_id), planning, is_long=lease.cursor is not None)
    for found in inventory(
        lease.spec.roots,
        recursive=lease.spec.recursive,
        after=lease.cursor,
        leave_out=care.given_up,
        before_opening=care.before_opening,
    ):
        heart.progress(0)
        batch.found.append(found)
        if not batch.is_full:
            continue
        # A careful plan gets ahead by all that it has read, however often it dies.
        later = [] if lease.careful else batch.split_tail()
        stop, waiting = _write(database, lease, batch, heart, care, share)
        ring()
        is_late = time.monotonic() - began >= planning.slot_seconds
        if stop or heart.stop or waiting >= planning.stops_at or is_late:
            return False
        batch = _Batch(planning, found=later)
    share.is_last = True
    stop, _ = _write(database, lease, batch, heart, care, share) if batch.found else (False, 0)
    return not stop


class _Share:
    """How the items of a job are shared out among the associations of its remote."""

    def __init__(self, associations: int, planning: Planning, *, is_long: bool) -> None:
        self._associations = associations
        self._most = planning.chunk_instances
        # A plan that goes on has filled its remote's associations already.
        self._planned = associations * self._most if is_long else 0
        self.is_last = False

    def borders(self, studies: Sequence[str | None]) -> frozenset[int]:
        """At which of these items, which come next, a new chunk begins."""
        most = chunking.bound(
            len(studies),
            planned=self._planned,
            associations=self._associations,
            most=self._most,
            is_last=self.is_last,
        )
        self._planned += len(studies)
        return chunking.borders(studies, bound=most, most=self._most)


def _study(found: InventoryEntry) -> str | None:
    return found.header.study_instance_uid if found.header and found.state is ItemState.PENDING else None


class _Care:
    """What a plan does after a worker died on it: each file is written down before it is looked into.

    So the next attempt knows on what it died, and what is died on twice is given up. It is done for as many files as
    may have been on the way when the worker died; then the plan is fast again.
    """

    def __init__(self, database: Database, lease: Lease, planning: Planning) -> None:
        self._database = database
        self._lease = lease
        self._left = planning.batch_items + AHEAD if lease.careful else 0
        self._deaths, self.given_up = plans.died_on(database, lease)
        self._is_written = False

    def before_opening(self, path: bytes) -> bool:
        """Note that the file at `path` is opened next; whether it is to be looked into alone. Raises LeaseLost."""
        if self._left <= 0:
            self.before_writing()
            return False
        self._left -= 1
        self._write(path)
        return True

    def before_comparing(self, path: bytes) -> None:
        """Note that the file at `path` is read as a whole next. Raises LeaseLost."""
        if self._lease.careful:
            self._write(path)

    def before_writing(self) -> None:
        """Note that no file is at fault for whatever happens next. Raises LeaseLost."""
        if self._is_written:
            self._write(None)

    def _write(self, path: bytes | None) -> None:
        deaths = self._deaths.get(path, 0) if path is not None else 0
        plans.about_to_open(self._database, self._lease, path, deaths=deaths)
        self._is_written = path is not None


def _write(
    database: Database, lease: Lease, batch: _Batch, heart: Heartbeat, care: _Care, share: _Share
) -> tuple[bool, int]:
    """Settle twins, cut chunks, write; whether to stop, and how many chunks wait."""
    heart.require_lease()
    to_send: list[tuple[InventoryEntry, dict[str, Any]]] = []
    for found, values in _compared(database, lease, batch.found, care.before_comparing):
        if values["state"] is ItemState.PENDING:
            to_send.append((found, values))
        else:
            batch.decided.append(values)
        heart.progress(0)
    batch.chunks += _cut(to_send, share.borders([_study(found) for found, _ in to_send]), batch.planning)
    care.before_writing()
    return plans.add_batch(database, lease, cursor=batch.found[-1].path, chunks=batch.chunks, decided=batch.decided)


def _cut(
    to_send: Sequence[tuple[InventoryEntry, dict[str, Any]]], borders: Container[int], planning: Planning
) -> Iterator[list[dict[str, Any]]]:
    """The values of items in chunks: a new one begins at each border, and where no more fits into one."""
    cut = Cut(max_instances=planning.chunk_instances)
    items: list[dict[str, Any]] = []
    for index, (found, values) in enumerate(to_send):
        if items and (index in borders or not cut.fits(found)):
            yield items
            cut, items = Cut(max_instances=planning.chunk_instances), []
        cut.add(found)
        items.append(values)
    if items:
        yield items


def _compared(
    database: Database, lease: Lease, batch: Sequence[InventoryEntry], before_comparing: Callable[[bytes], object]
) -> Iterator[tuple[InventoryEntry, dict[str, Any]]]:
    """Each of these files with the values of its item's row; a second file of one UID is compared with the first."""
    uids = [found.header.sop_instance_uid for found in batch if found.header and found.state is ItemState.PENDING]
    firsts = plans.firsts_of(database, lease.job_id, uids)
    long_uids = isinstance(lease.spec, StoreSpec) and lease.spec.send_odd_uids
    for found in batch:
        values = _values(found, long_uids=long_uids)
        if values["state"] is ItemState.PENDING:
            uid = values["sop_instance_uid"]
            if uid in firsts:
                before_comparing(found.path)
                values |= _twin(found, firsts[uid])
            else:
                firsts[uid] = found.path
        yield found, values


def _values(found: InventoryEntry, *, long_uids: bool = False) -> dict[str, Any]:
    """The item's row as far as the file alone decides it.

    UIDs longer than PS3.5 9.1 allows are refused, since peers abort at them; with `long_uids` SOP Instance UIDs pass.
    """
    values: dict[str, Any] = {
        "path": found.path,
        "size": found.size,
        "mtime_ns": found.mtime_ns,
        "state": found.state,
        "reason": found.reason,
        "detail": printable(found.detail),
        "is_first": found.state is ItemState.PENDING,
        **dict.fromkeys(_UIDS),
    }
    if found.header is None:
        return values
    for name, title in _UIDS.items():
        uid = getattr(found.header, name)
        if uid is None or (len(uid) <= 128 and uid.isprintable()):
            values[name] = uid
        elif name in ("study_instance_uid", "series_instance_uid"):
            continue
        else:
            return _bad_uid(values, f"its {title} is {printable(uid[:140])}")
    bound = _IN_A_REQUEST if long_uids else (*_IN_A_REQUEST, "sop_instance_uid")
    told = next(filter(None, (too_long(_UIDS[name], values[name]) for name in bound)), None)
    return _bad_uid(values, told) if told else values


def _bad_uid(values: dict[str, Any], detail: str) -> dict[str, Any]:
    return {**values, "state": ItemState.FAILED, "reason": Reason.BAD_UID, "is_first": False, "detail": detail}


def _twin(found: InventoryEntry, first: bytes) -> dict[str, Any]:
    """What a second file of one SOP Instance UID comes to. One that is broken is called so, not a conflict."""
    text = path_text(first)
    state, reason, detail = ItemState.FAILED, twins.CONFLICT, f"differs from {text}"
    try:
        if same_content(first, found.path):
            state, reason, detail = ItemState.SKIPPED, twins.DUPLICATE, f"duplicate of {text}"
    except (OSError, UnusableFile) as error:
        # If that one cannot be sent either, this one takes its place.
        detail = f"cannot be compared with {text}: {error}"
    if reason == twins.CONFLICT:
        try:
            _check(found)
        except UnusableFile as error:
            reason, detail = error.reason, str(error)
    told = {"state": state, "reason": reason, "detail": printable(detail), "is_first": False}
    return {**told, "twin_of": first} if reason in (twins.DUPLICATE, twins.CONFLICT) else told


def _check(found: InventoryEntry) -> None:
    """Raises UnusableFile for a file that cannot be sent as it is."""
    assert found.header is not None
    uids = found.header.sop_class_uid, found.header.sop_instance_uid, found.header.transfer_syntax_uid
    open_instance(LocalInstance(0, found.path, found.size, found.mtime_ns, *uids)).close()


def examine(database: Database, lease: Lease, rows: Sequence[Item]) -> tuple[list[Item], list[Outcome]]:
    """Look again at items that the plan could not decide and `retry` brought back: (to be sent, decided here).

    Rows that have their identity pass unchanged. Raises LeaseLost.
    """
    to_send: list[Item] = []
    decided: list[Outcome] = []
    identified = False
    for row in rows:
        if row.is_first and row.sop_instance_uid:
            to_send.append(row)
            continue
        assert row.path is not None, "an item of a store is a file"
        if lease.careful:
            leases.record(database, lease, (), in_flight=row.id)
        while True:
            (_, values), *_ = _compared(database, lease, [_look(row.path)], lambda _: None)
            if values["state"] is not ItemState.PENDING:
                decided.append(
                    Outcome(item_id=row.id, state=values["state"], reason=values["reason"], detail=values["detail"])
                )
                break
            if plans.identify_item(database, lease, row.id, _identity(values)):
                identified = True
                break
    if identified:
        known = {outcome.item_id for outcome in decided}
        to_send = [row for row in pending_items(database, lease.chunk_id) if row.id not in known]
    return to_send, decided


def _look(path: bytes) -> InventoryEntry:
    for found in inventory([path], recursive=False):
        if found.path == path:
            return found
        break
    return InventoryEntry(path, 0, 0, ItemState.FAILED, Reason.UNREADABLE_FOLDER, "a retry walks no folder", None)


def _identity(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("state", "reason", "detail", "path")}

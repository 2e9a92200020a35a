"""What an attempt at a retrieve reads and writes: what is expected, what was asked for, what is here.

Every write is fenced: it raises LeaseLost once somebody else has the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import here, places
from dicomferry.models.record.archive.here import Found
from dicomferry.models.record.archive.pairing import NEARLINE
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases, ledger
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.tables.archive import ArrivalRow
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules import peer_text
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.proof import Depth
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.rounds import Missing, Series
from dicomferry.models.rules.state import GOOD_ITEM_STATES, ItemState
from dicomferry.models.rules.target import Target

Key = tuple[str | None, str | None, str]
"""Study, series and SOP Instance UID."""
KEY = (ItemRow.study_instance_uid, ItemRow.series_instance_uid, ItemRow.sop_instance_uid)
_BATCH = 1000
ALREADY_HERE = here.ALREADY_HERE
DUPLICATE = Reason.DUPLICATE
BAD_UID = Reason.BAD_UID
_TOO_LONG = (
    f"its SOP Instance UID, as it is listed, has more than {peer_text.MOST_UID} characters, or some that no UID has: "
    "it would be refused here with 0x0117, so it is not asked for; PS3.5 9.1 allows 64"
)
GREW = Reason.GREW_AT_SOURCE
_NOTE_LISTED = sa.update(ItemRow.__table__).where(ItemRow.id == sa.bindparam("key"))  # type: ignore[arg-type]
UNVERIFIED = ledger.UNVERIFIED


@dataclass(frozen=True)
class Listed:
    """An instance that the peer says it has; `availability` as in (0008,0056), None where it does not say."""

    uid: str
    sop_class_uid: str | None
    study: str | None
    series: str | None
    availability: str | None = None

    @property
    def key(self) -> Key:
        """Study, series and SOP Instance UID, which tell the instance from all others."""
        return self.study, self.series, self.uid

    @property
    def kept_key(self) -> Key:
        """Study, series and SOP Instance UID as rows have them, made fit for their columns."""
        study, series = (peer_text.short(one, peer_text.MOST_UID) if one else one for one in (self.study, self.series))
        return study, series, peer_text.uid(self.uid)


# --- what is expected -------------------------------------------------------------------------------------------------


def expect(
    database: Database,
    lease: Lease,
    request_id: int,
    listed: Sequence[Listed],
    *,
    targets: Sequence[Target],
    expectation: str,
    expected: int | None,
    reason: str | None = None,
) -> int:
    """Write items for what the peer lists, and that the request expects them; how many are new to it.

    What is expected is an instance of a series of a study: one UID may be listed in several. One that another request
    of the job has is `skipped`. May be repeated: what is there stays. Whether it is here already is for `arrived`.
    """
    new = _write_items(database, lease, request_id, listed, {})

    def work(connection: Connection) -> None:
        connection.execute(
            sa.update(ItemRow)
            .where(ItemRow.id == request_id)
            .values(
                expectation=expectation, expected=expected, targets=[one.to_json() for one in targets], reason=reason
            )
        )

    leases.fenced(database, lease, work)
    return new


def expect_of_each(
    database: Database, lease: Lease, listed: Sequence[Listed], targets: Mapping[int, Target], *, listed_at: datetime
) -> int:
    """The same for requests that share a chunk and name their images: `targets` is what each came to, by its item."""
    owners = {(one.study, one.series, uid): key for key, one in targets.items() for uid in one.images}
    new = _write_items(database, lease, next(iter(targets)), listed, owners)
    values = [
        {
            "key": key,
            "expectation": Depth.IMAGES,
            "expected": len(one.images),
            "targets": [one.to_json()],
            "listed_at": listed_at,
            "reason": None,
        }
        for key, one in targets.items()
    ]

    def work(connection: Connection) -> None:
        connection.execute(_NOTE_LISTED, values)

    leases.fenced(database, lease, work)
    return new


def _write_items(
    database: Database, lease: Lease, request_id: int, listed: Sequence[Listed], owners: Mapping[Key, int]
) -> int:
    return sum(
        leases.fenced(
            database,
            lease,
            lambda connection, batch=batch: write_expected(  # type: ignore[misc]
                connection, lease, request_id, batch, owners=owners
            ),
        )
        for batch in batches(listed, _BATCH)
    )


def write_expected(
    connection: Connection,
    lease: Lease,
    request_id: int,
    batch: Sequence[Listed],
    known_here: Mapping[Key, str | None] = MappingProxyType({}),
    *,
    owners: Mapping[Key, int] = MappingProxyType({}),
) -> int:
    """Write items for what is expected; how many are new. `known_here`: the reason of each that is here already;
    `owners`: the requests of those that belong to another one than `request_id`.
    """
    known: set[Key] = set()
    mine: set[Key] = set()
    uids = sorted({peer_text.uid(one.uid) for one in batch})
    for part in batches(uids):
        rows = connection.execute(
            sa.select(*KEY, ItemRow.request_id, ItemRow.is_first).where(
                ItemRow.job_id == lease.job_id,
                ItemRow.request_id.is_not(None),
                ItemRow.sop_instance_uid.in_(part),
            )
        )
        for study, series, uid, owner, is_first in rows:
            key = (study, series, uid or "")
            if owner == owners.get(key, request_id):
                mine.add(key)
            if is_first:
                known.add(key)
    values: list[dict[str, Any]] = []
    for one in batch:
        key = one.kept_key
        if key in mine:
            continue
        mine.add(key)
        found: dict[str, Any] = {"state": ItemState.PENDING, "reason": None, "detail": None, "is_first": True}
        if key in known:
            found |= {"state": ItemState.SKIPPED, "reason": DUPLICATE, "is_first": False}
        elif one.key in known_here:
            found |= {"state": ItemState.SUCCEEDED, "reason": known_here[one.key]}
        elif key[2] != one.uid:
            # It can neither be kept under its UID nor be told from others by what is kept of that.
            found |= {"state": ItemState.FAILED, "reason": BAD_UID, "detail": _TOO_LONG}
        values.append(
            {
                "job_id": lease.job_id,
                "chunk_id": lease.chunk_id,
                "kind": "instance",
                "request_id": owners.get(key, request_id),
                "sop_class_uid": one.sop_class_uid,
                "study_instance_uid": key[0],
                "series_instance_uid": key[1],
                "sop_instance_uid": key[2],
                **found,
            }
        )
    if values:
        connection.execute(sa.insert(ItemRow), values)
        ledger.recount(connection, lease.chunk_id)
    return len(values)


def missing(database: Database, chunk_id: int) -> list[Missing]:
    """The expected instances of a chunk that are not here yet."""
    return database.read(lambda connection: missing_in(connection, chunk_id))


def missing_in(connection: Connection, chunk_id: int) -> list[Missing]:
    """The same within a transaction."""
    query = (
        sa.select(
            ItemRow.id,
            ItemRow.study_instance_uid,
            ItemRow.series_instance_uid,
            ItemRow.sop_instance_uid,
            ItemRow.charges,
            ItemRow.sop_class_uid,
        )
        .where(awaited(chunk_id))
        .order_by(ItemRow.id)
    )
    return [
        Missing(key, study, series, uid or "", charges, sop_class)
        for key, study, series, uid, charges, sop_class in connection.execute(query)
    ]


def pending_requests(database: Database, chunk_id: int) -> frozenset[int]:
    """The requests of a chunk that have expected instances which are not here yet."""
    query = sa.select(ItemRow.request_id).where(awaited(chunk_id)).distinct()
    found = database.read(lambda connection: connection.execute(query).scalars().all())
    return frozenset(key for key in found if key is not None)


def recalled(database: Database, chunk_id: int) -> frozenset[int]:
    """The items of a chunk, the request among them where nothing is listed, that wait for slow media."""
    query = sa.select(ItemRow.id).where(
        ItemRow.chunk_id == chunk_id, ItemRow.state == ItemState.PENDING, ItemRow.reason == NEARLINE
    )
    return frozenset(database.read(lambda connection: connection.execute(query).scalars().all()))


def missing_classes(database: Database, chunk_id: int) -> list[str | None]:
    """The SOP classes of what is missing, the commonest first; None among them where the peer did not say one."""
    query = (
        sa.select(ItemRow.sop_class_uid)
        .where(awaited(chunk_id))
        .group_by(ItemRow.sop_class_uid)
        .order_by(sa.func.count().desc(), ItemRow.sop_class_uid)
    )
    return list(database.read(lambda connection: connection.execute(query).scalars().all()))


def totals(database: Database, chunk_id: int) -> dict[Series, int]:
    """How many instances of each (study, series) the chunk's request names."""

    def work(connection: Connection) -> dict[Series, int]:
        columns = (ItemRow.study_instance_uid, ItemRow.series_instance_uid)
        query = (
            sa.select(*columns, sa.func.count())
            .where(ItemRow.chunk_id == chunk_id, ItemRow.request_id.is_not(None))
            .group_by(*columns)
        )
        return {(study, series): number for study, series, number in connection.execute(query)}

    return database.read(work)


def awaited(chunk_id: int) -> sa.ColumnElement[bool]:
    """Of an item: it is an instance that a chunk waits for."""
    return sa.and_(ItemRow.chunk_id == chunk_id, ItemRow.request_id.is_not(None), ItemRow.state == ItemState.PENDING)


# --- what is here -----------------------------------------------------------------------------------------------------


def arrived(connection: Connection, lease: Lease, *, refetch: bool, after: int | None = None) -> list[Found]:
    """The files of what the chunk waits for; with `refetch` only what came for this job.

    With `after` only what arrived since that arrival. Everything else has to be looked at before it counts.
    """
    who = here.asker(connection, lease.job_id)
    found = here.found(connection, who, awaited(lease.chunk_id), refetch=refetch)
    return [one for one in found if after is None or one.came_after(after)]


def finish_items(connection: Connection, chunk_id: int, found: Sequence[Found]) -> None:
    """Bring the items to their end whose files these are."""
    leases.write_outcomes(connection, chunk_id, [one.outcome() for one in found])
    here.note_filed(connection, {one.item_id: one.filed for one in found})


def mark_arrived(database: Database, lease: Lease, found: Sequence[Found]) -> None:
    """Bring to their end the items of which these are the files, as long as each lies with the rest of its study."""

    def together(connection: Connection) -> None:
        # Another chunk of the job may have found a part of the study elsewhere since: one looks after the other.
        leases.fence(connection, lease)
        settled = places.settled(connection, lease.job_id)
        finish_items(connection, lease.chunk_id, [one for one in found if one.lies_with(settled)])

    if any(one.lies for one in found):
        database.write(together)
    elif found:
        leases.fenced(database, lease, lambda connection: finish_items(connection, lease.chunk_id, found))


def fail_elsewhere(database: Database, lease: Lease) -> int:
    """Bring to their end the items whose instance came under a study or series that was not listed; how many."""

    def look(connection: Connection) -> dict[int, tuple[Outcome, here.Filed]]:
        return here.elsewhere(connection, here.asker(connection, lease.job_id), awaited(lease.chunk_id))

    lost = database.read(look)

    def work(connection: Connection) -> None:
        leases.write_outcomes(connection, lease.chunk_id, [outcome for outcome, _ in lost.values()])
        here.note_filed(connection, {key: filed for key, (_, filed) in lost.items()})

    if lost:
        leases.fenced(database, lease, work)
    return len(lost)


def last_arrival(database: Database, job_id: int | None = None) -> int:
    """The number of the last arrival, of all or of a job; 0 where there is none."""

    def work(connection: Connection) -> int:
        query = sa.select(sa.func.max(ArrivalRow.id))
        if job_id is not None:
            query = query.where(ArrivalRow.job_id == job_id)
        return int(connection.execute(query).scalar() or 0)

    return database.read(work)


def arrived_within(database: Database, job_id: int, seconds: float) -> bool:
    """Whether something came for this job within the last `seconds`."""

    def work(connection: Connection) -> bool:
        since = database.now(connection) - timedelta(seconds=seconds)
        query = sa.select(ArrivalRow.id).where(ArrivalRow.job_id == job_id, ArrivalRow.at >= since)
        return connection.execute(query.limit(1)).first() is not None

    return database.read(work)


def came(database: Database, chunk_id: int, one: Target | None) -> int:
    """How many instances of a target (None: of all) are here, those of another request of the job included."""
    query = sa.select(sa.func.count()).where(
        ItemRow.chunk_id == chunk_id, ItemRow.request_id.is_not(None), ItemRow.state.in_(list(GOOD_ITEM_STATES))
    )
    if one and one.study:
        query = query.where(ItemRow.study_instance_uid == one.study)
    if one and one.series:
        query = query.where(ItemRow.series_instance_uid == one.series)
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))

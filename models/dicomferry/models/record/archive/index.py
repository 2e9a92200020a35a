"""The index of the archive: which file holds which instance, and what arrived when and from whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record import picked
from dicomferry.models.record.archive import here, pairing
from dicomferry.models.record.bulk import insert_unless_there
from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ItemRow, JobRow
from dicomferry.models.rules import flaws, peer_text
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.text import moment

_ADVISORY_LOCK = 0x66657272_7920_6978
_NOBODY = pairing.Pair(None, None)
"""Values in one IN list."""
# Built once, and with a list that is bound as one: otherwise each of its values is made a parameter of its own.
_SOME: sa.BindParameter[list[str]] = sa.bindparam("some", expanding=True)
_BY_PATH = sa.select(InstanceRow.path, InstanceRow.id).where(
    InstanceRow.path.in_(_SOME), InstanceRow.removed_at.is_(None)
)
_BY_UID = (
    sa.select(
        *(InstanceRow.id, InstanceRow.path, InstanceRow.sop_instance_uid, InstanceRow.relation, InstanceRow.is_current),
        *(InstanceRow.study_instance_uid, InstanceRow.series_instance_uid, InstanceRow.flaw),
    )
    .where(InstanceRow.sop_instance_uid.in_(_SOME), InstanceRow.removed_at.is_(None))
    .order_by(InstanceRow.id)
)


# Not frozen, since one of each is made for every instance, and to make one that is takes twice as long.
@dataclass(kw_only=True)
class Arrival:
    """One C-STORE that was received and kept."""

    association: str
    number: int
    outcome: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    message_id: int
    originator_ae_title: str | None
    originator_message_id: int | None
    at: datetime
    job_id: int | None = None
    """The retrieve that asked for it, where that is known when it comes; else the record finds out."""
    move_id: int | None = None


@dataclass(kw_only=True)
class Received:
    """A file that lies in the archive, durably; `arrival` is None where it was found and not received."""

    path: str
    size: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    relation: str
    flaw: str | None
    stored_at: datetime
    arrival: Arrival | None = None


def record(database: Database, batch: Sequence[Received]) -> None:
    """Write rows for what lies in the archive; what has its rows already keeps them. Durable. Raises OutOfReach.

    Each arrival is paired with the retrieve that asked for it, and what that waits for is brought to its end.
    """

    def work(connection: Connection) -> None:
        one_at_a_time(connection)
        came = [_came(received) for received in batch]
        now, ahead = database.now(connection), database.ahead(connection)
        pairs, items = pairing.pair(connection, came)
        received = _record(connection, batch, pairs, now, ahead)
        pairing.finish_items(connection, items, received, now)

    database.write(work, durable=True)


def one_at_a_time(connection: Connection) -> None:
    """Wait until nobody else is writing rows of files, and keep others waiting until this transaction ends.

    Which of an instance's files is current is said by who sees all of them: of two that come to two processes at once,
    neither would see the other's. SQLite has its one writer.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _came(received: Received) -> pairing.Came:
    arrival = received.arrival
    return pairing.Came(
        sop_instance_uid=received.sop_instance_uid,
        study_instance_uid=received.study_instance_uid,
        series_instance_uid=received.series_instance_uid,
        originator_ae_title=arrival.originator_ae_title if arrival else None,
        originator_message_id=arrival.originator_message_id if arrival else None,
        job_id=arrival.job_id if arrival else None,
        move_id=arrival.move_id if arrival else None,
    )


def _record(
    connection: Connection,
    batch: Sequence[Received],
    pairs: Sequence[pairing.Pair | None],
    now: datetime,
    ahead: timedelta,
) -> set[int]:
    """The rows of these files, made where there are none."""
    files = {received.path: received for received in batch}
    known = _ids(connection, files)
    _replace(connection, batch, known, now)
    conflicts: set[int] = set()
    fresh = [files[path] for path in files if path not in known]
    if fresh:
        rows = [_instance(received, ahead) for received in fresh]
        insert_unless_there(connection, InstanceRow, rows)
        of_uid = _by_uid(connection, (received.sop_instance_uid for received in fresh))
        known.update((row.path, row.id) for rows in of_uid.values() for row in rows if row.path in files)
        conflicts = _choose(connection, of_uid)
    arrivals = [
        {"instance_id": known[received.path], **vars(received.arrival), **vars(found or _NOBODY)}
        for received, found in zip(batch, pairs, strict=True)
        if received.arrival and received.path in known
    ]
    if arrivals:
        for row in arrivals:
            row["at"] += ahead
            if row["outcome"] == "stored" and row["instance_id"] in conflicts:
                row["outcome"] = "conflict"
        sizes = {known[received.path]: received.size for received in batch if received.path in known}
        _count_bytes(connection, arrivals, sizes)
        insert_unless_there(connection, ArrivalRow, arrivals)
    return set(known.values())


def _replace(connection: Connection, batch: Sequence[Received], known: dict[str, int], now: datetime) -> None:
    """Make history of rows whose file is gone, since another one has been published under its name."""
    published = {one.path: one.stored_at for one in batch if one.arrival and one.arrival.outcome != "duplicate"}
    some = [key for path, key in known.items() if path in published]
    for part in batches(some):
        rows = connection.execute(
            sa.select(InstanceRow.id, InstanceRow.path, InstanceRow.stored_at).where(InstanceRow.id.in_(part))
        ).all()
        for row in rows:
            # The same moment: this batch is written for the second time.
            if row.stored_at != published[row.path]:
                _update(connection, row.id, removed_at=now, is_current=False)
                del known[row.path]


def _count_bytes(connection: Connection, rows: Sequence[dict[str, Any]], sizes: dict[int, int]) -> None:
    """Add what is about to be recorded to the bytes that came for each job; what is on record already has been."""
    mine = [row for row in rows if row["job_id"] is not None]
    recorded: set[tuple[str, int]] = set()
    for association in {row["association"] for row in mine}:
        numbers = [row["number"] for row in mine if row["association"] == association]
        for part in batches(numbers):
            found = connection.execute(
                sa.select(ArrivalRow.association, ArrivalRow.number).where(
                    ArrivalRow.association == association, ArrivalRow.number.in_(part)
                )
            )
            recorded.update((row.association, row.number) for row in found)
    more: Counter[int] = Counter()
    for row in mine:
        if (row["association"], row["number"]) not in recorded:
            more[row["job_id"]] += sizes[row["instance_id"]]
    for job_id in sorted(more):
        connection.execute(
            sa.update(JobRow).where(JobRow.id == job_id).values(received_bytes=JobRow.received_bytes + more[job_id])
        )


def _instance(received: Received, ahead: timedelta) -> dict[str, Any]:
    # `asdict` copies each value deeply: half of what a row costs.
    row = {**vars(received), "is_current": received.relation == "first"}
    if received.arrival is None:  # found, and looked at by nobody who would know it again by this
        row["stored_at"] += ahead
    del row["arrival"]
    return row


def _ids(connection: Connection, paths: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in batches(dict.fromkeys(paths)):
        found.update((row.path, row.id) for row in connection.execute(_BY_PATH, {"some": part}))
    return found


def choose_current(connection: Connection, uids: Iterable[str]) -> set[int]:
    """Make one file of each instance (study, series, UID) current; the row ids of those that are in conflict since now.

    The newest that counts and is no alternate of another; a damaged or unreadable one only where there is no other.
    """
    return _choose(connection, _by_uid(connection, uids))


def _by_uid(connection: Connection, uids: Iterable[str]) -> dict[str, list[AnyRow]]:
    """The rows of all files of these instances, the oldest first."""
    of_uid: dict[str, list[AnyRow]] = {}
    for part in batches(dict.fromkeys(uids)):
        for row in connection.execute(_BY_UID, {"some": part}):
            of_uid.setdefault(row.sop_instance_uid, []).append(row)
    return of_uid


def _choose(connection: Connection, of_uid: Mapping[str, Sequence[AnyRow]]) -> set[int]:
    conflicts: set[int] = set()
    for rows in of_uid.values():
        if len(rows) == 1 and rows[0].is_current:
            continue
        sound = [row for row in rows if flaws.counts(row.flaw)]
        # In another study or series than the first one, so no name was taken, and yet the contents differ.
        rivals = [row for row in sound if row.relation != "alternate"][1:]
        conflicts.update(row.id for row in rivals if row.relation == "first")
        instances: dict[tuple[str | None, str | None], list[AnyRow]] = {}
        for row in rows:
            instances.setdefault((row.study_instance_uid, row.series_instance_uid), []).append(row)
        for files in instances.values():
            current = max(files, key=_rank).id
            for row in files:
                if row.is_current != (row.id == current):
                    _update(connection, row.id, is_current=row.id == current)
    for key in sorted(conflicts):
        _update(connection, key, relation="conflict")
    return conflicts


def _rank(row: AnyRow) -> tuple[bool, bool, bool, int]:
    """The greatest of the files of one instance counts."""
    return flaws.counts(row.flaw), flaws.is_truncated(row.flaw), row.relation != "alternate", row.id


def _update(connection: Connection, key: int, **values: Any) -> None:
    connection.execute(sa.update(InstanceRow).where(InstanceRow.id == key).values(**values))


class InstanceDocument(TypedDict):
    """A file of the archive as it is shown."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    path: str
    size: int
    relation: str
    current: bool
    flaw: str | None
    stored_at: str | None
    arrivals: int
    calling_ae_title: str | None


# --- what the commands ask ------------------------------------------------------------------------------------


def listing(database: Database, *, study: str | None = None, job_id: int | None = None) -> Iterator[InstanceDocument]:
    """Every instance that is kept, by path, as stable JSON objects. Raises OutOfReach."""
    table = InstanceRow.__table__
    query = sa.select(table).where(*_chosen(study, job_id))
    if study is None and job_id is None:
        parts: Iterator[Sequence[AnyRow]] = batches(database.pages(query, InstanceRow.path))
    else:
        parts = picked.rows(database, query, InstanceRow.id, InstanceRow.path)
    for rows in parts:
        arrived = _arrived(database, [row.id for row in rows])
        for row in rows:
            came = arrived.get(row.id)
            yield {
                "sop_instance_uid": row.sop_instance_uid,
                "sop_class_uid": row.sop_class_uid,
                "transfer_syntax_uid": row.transfer_syntax_uid,
                "study_instance_uid": row.study_instance_uid,
                "series_instance_uid": row.series_instance_uid,
                "path": row.path,
                "size": row.size,
                "relation": row.relation,
                "current": row.is_current,
                "flaw": row.flaw,
                "stored_at": moment(row.stored_at),
                "arrivals": came.arrivals if came else 0,
                "calling_ae_title": came.calling_ae_title if came else None,
            }


def _arrived(database: Database, instances: Sequence[int]) -> dict[int, AnyRow]:
    """How often each of these files came, and from whom the last time."""
    arrived = (
        sa.select(ArrivalRow.instance_id, sa.func.count().label("arrivals"), sa.func.max(ArrivalRow.id).label("last"))
        .where(ArrivalRow.instance_id.in_(instances))
        .group_by(ArrivalRow.instance_id)
        .subquery()
    )
    query = sa.select(arrived, ArrivalRow.calling_ae_title).join(ArrivalRow, ArrivalRow.id == arrived.c.last)
    rows = database.read(lambda connection: connection.execute(query).all())
    return {row.instance_id: row for row in rows}


def _chosen(study: str | None, job_id: int | None, flawed: bool = False) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [InstanceRow.removed_at.is_(None)]
    if flawed:
        found.append(here.is_flawed())
    if study is not None:
        found.append(InstanceRow.study_instance_uid == study)
    if job_id is not None:
        arrived = sa.select(ArrivalRow.instance_id).where(ArrivalRow.job_id == job_id)
        found.append(sa.or_(InstanceRow.id.in_(arrived), InstanceRow.id.in_(_found_for(job_id))))
    return found


def _found_for(job_id: int) -> sa.Select[int]:
    """What a retrieve waited for and a restart found on disk: its arrivals went down with the process that took it."""
    return (
        sa.select(InstanceRow.id)
        .join(ItemRow, here.is_of())
        .join(JobRow, JobRow.id == ItemRow.job_id)
        .where(
            ItemRow.job_id == job_id,
            ItemRow.request_id.is_not(None),
            JobRow.destination.is_(None),
            InstanceRow.stored_at >= JobRow.submitted_at,
            ~sa.exists().where(ArrivalRow.instance_id == InstanceRow.id).correlate(InstanceRow),
        )
    )


def count(database: Database) -> tuple[int, int]:
    """(instances, bytes) that are kept."""

    def work(connection: Connection) -> tuple[int, int]:
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(InstanceRow.size), 0))
        number, size = connection.execute(query.where(InstanceRow.removed_at.is_(None))).one()
        return int(number), int(size)

    return database.read(work)


def extent(
    database: Database, *, study: str | None = None, job_id: int | None = None, flawed: bool = False
) -> tuple[int, int, int]:
    """(instances, studies, bytes) of a study, of what a job brought, or of what is flawed (see `paths`).

    What is of no known study counts as one study.
    """

    def work(connection: Connection) -> tuple[int, int, int]:
        of_study = sa.func.coalesce(InstanceRow.study_instance_uid, "")
        size = sa.func.coalesce(sa.func.sum(InstanceRow.size), 0)
        query = sa.select(sa.func.count(), sa.func.count(of_study.distinct()), size)
        number, studies, total = connection.execute(query.where(*_chosen(study, job_id, flawed))).one()
        return int(number), int(studies), int(total)

    return database.read(work)


def unknown(database: Database, paths: Sequence[str]) -> list[str]:
    """The paths that have no row. A file whose name is no text has none."""
    fit = [path for path in paths if peer_text.is_fit(path)]
    known = database.read(lambda connection: _ids(connection, fit))
    return [path for path in paths if path not in known]


def paths(
    database: Database, *, study: str | None = None, job_id: int | None = None, flawed: bool = False
) -> list[str]:
    """The paths of the instances of a study, of what a job brought, or of what counts for nothing: files that are
    damaged or cannot be read, and those that should name a study and do not.
    """

    def work(connection: Connection) -> list[str]:
        query = sa.select(InstanceRow.path).where(*_chosen(study, job_id, flawed)).order_by(InstanceRow.path)
        return list(connection.execute(query).scalars())

    return database.read(work)

"""Which archive the record is about, and what its files were found to be when somebody looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import index
from dicomferry.models.record.bulk import insert_unless_there
from dicomferry.models.record.database import Database
from dicomferry.models.record.tables.archive import ArchiveRow, ArrivalRow, InstanceRow, LookRow
from dicomferry.models.rules import flaws
from dicomferry.models.rules.batches import batches

FINE, GONE, DAMAGED = "fine", "gone", "damaged"
"""What a file was found to be: regular and of the recorded size, not there, or something else."""
SAMPLE = 100
_ONLY = 1
_KEPT_SECONDS = 3600.0


@dataclass(frozen=True)
class KnownFile:
    """A file by its row: its path below the archive's root, the recorded size, and the last arrival known of it."""

    instance_id: int
    path: str
    size: int
    latest: int | None


# --- the mark ---------------------------------------------------------------------------------------------------------


def mark(database: Database) -> str | None:
    """The mark of the archive that the record knows; None where it knows none yet. Raises OutOfReach."""
    query = sa.select(ArchiveRow.mark).where(ArchiveRow.id == _ONLY)
    return database.read(lambda connection: connection.execute(query).scalar_one_or_none())


def know(database: Database, found: str, *, instead: bool = False) -> str:
    """Write down the mark of the archive that the record is about, unless there is one (`instead`: in its place).

    The mark that the record has then. Durable. Raises OutOfReach.
    """

    def work(connection: Connection) -> str:
        now = database.now(connection)
        known = connection.execute(sa.select(ArchiveRow.mark).where(ArchiveRow.id == _ONLY)).scalar_one_or_none()
        if known is None:
            values = {"id": _ONLY, "mark": found, "known_since": now}
            insert_unless_there(connection, ArchiveRow, [values])
        elif instead:
            connection.execute(sa.update(ArchiveRow).values(mark=found, known_since=now))
        return connection.execute(sa.select(ArchiveRow.mark).where(ArchiveRow.id == _ONLY)).scalar_one()

    return database.write(work, durable=True)


def sample(database: Database, number: int = SAMPLE) -> list[KnownFile]:
    """A sample of the files that the record says are kept, evenly over their row ids. Raises OutOfReach."""

    def work(connection: Connection) -> list[KnownFile]:
        kept = InstanceRow.removed_at.is_(None)
        first, last = connection.execute(
            sa.select(sa.func.min(InstanceRow.id), sa.func.max(InstanceRow.id)).where(kept)
        ).one()
        if first is None:
            return []
        step = max(1, (last - first) // number)
        found: dict[int, KnownFile] = {}
        for start in range(first, last + 1, step):
            row = connection.execute(
                sa.select(InstanceRow.id, InstanceRow.path, InstanceRow.size)
                .where(kept, InstanceRow.id >= start)
                .order_by(InstanceRow.id)
                .limit(1)
            ).one_or_none()
            if row is not None:
                found[row.id] = KnownFile(row.id, row.path, row.size, None)
        return list(found.values())

    return database.read(work)


# --- looks ------------------------------------------------------------------------------------------------------------


def ask(database: Database, files: Sequence[KnownFile]) -> int:
    """Ask the storage SCP to look at these; the number of the question. Raises OutOfReach."""

    def work(connection: Connection) -> int:
        now = database.now(connection)
        connection.execute(sa.delete(LookRow).where(LookRow.asked_at < now - timedelta(seconds=_KEPT_SECONDS)))
        values = {"asked_at": now, "files": [[one.path, one.size] for one in files]}
        return int(connection.execute(sa.insert(LookRow).values(**values).returning(LookRow.id)).scalar_one())

    return database.write(work)


def questions(database: Database, seconds: float) -> list[tuple[int, list[KnownFile]]]:
    """(number, files) of each question of the last `seconds` that nobody has answered. Raises OutOfReach."""

    def work(connection: Connection) -> list[tuple[int, list[KnownFile]]]:
        since = database.now(connection) - timedelta(seconds=seconds)
        query = (
            sa.select(LookRow.id, LookRow.files)
            .where(LookRow.answer.is_(None), LookRow.asked_at >= since)
            .order_by(LookRow.id)
        )
        return [
            (key, [KnownFile(0, path, size, None) for path, size in files]) for key, files in connection.execute(query)
        ]

    return database.read(work)


def answer(database: Database, question: int, found: Sequence[str]) -> None:
    """Write down what each file was found to be. Raises OutOfReach."""
    update = sa.update(LookRow).where(LookRow.id == question).values(answer=list(found))
    database.write(lambda connection: connection.execute(update))


def answered(database: Database, question: int) -> list[str] | None:
    """What each file of the question was found to be; None until somebody has looked. Raises OutOfReach."""
    query = sa.select(LookRow.answer).where(LookRow.id == question)
    return database.read(lambda connection: connection.execute(query).scalar_one_or_none())


def take_back(database: Database, question: int) -> None:
    """The question is of no use any more. Raises OutOfReach."""
    database.write(lambda connection: connection.execute(sa.delete(LookRow).where(LookRow.id == question)))


# --- what rows say of files -------------------------------------------------------------------------------------------


def make_history(database: Database, gone: Iterable[KnownFile]) -> set[int]:
    """The rows of these files become history, but for those whose file came again meanwhile; the rows that did.

    By row, since the same instance may have come anew under the same path. Durable. Raises OutOfReach.
    """
    files = list(gone)

    def work(connection: Connection) -> set[int]:
        now = database.now(connection)
        done: set[int] = set()
        for batch in batches(files):
            part = {one.instance_id: one for one in batch}
            rows = connection.execute(_with_latest(part)).all()
            ids = [row.id for row in rows if (row.latest or 0) <= (part[row.id].latest or 0)]
            connection.execute(
                sa.update(InstanceRow).where(InstanceRow.id.in_(ids)).values(removed_at=now, is_current=False)
            )
            index.choose_current(connection, [row.sop_instance_uid for row in rows])
            done.update(ids)
        return done

    return database.write(work, durable=True)


def note_damage(database: Database, damaged: Sequence[tuple[KnownFile, str]]) -> None:
    """Write down of these files in what way they are damaged: they count no more. Durable. Raises OutOfReach."""

    def work(connection: Connection) -> None:
        for batch in batches(damaged):
            part = {one.instance_id: (one, how) for one, how in batch}
            rows = connection.execute(_with_latest(part)).all()
            for row in rows:
                one, how = part[row.id]
                if (row.latest or 0) <= (one.latest or 0):
                    flaw = f"{flaws.DAMAGED} {how}"[:200]
                    connection.execute(sa.update(InstanceRow).where(InstanceRow.id == row.id).values(flaw=flaw))
            index.choose_current(connection, [row.sop_instance_uid for row in rows])

    database.write(work, durable=True)


def _with_latest(ids: Iterable[int]) -> sa.Select[int, str, int | None]:
    latest = (
        sa.select(sa.func.max(ArrivalRow.id))
        .where(ArrivalRow.instance_id == InstanceRow.id)
        .correlate(InstanceRow)
        .scalar_subquery()
    )
    return sa.select(InstanceRow.id, InstanceRow.sop_instance_uid, latest.label("latest")).where(
        InstanceRow.id.in_(list(ids)), InstanceRow.removed_at.is_(None)
    )


def files_at(database: Database, paths: Sequence[str]) -> list[KnownFile]:
    """The rows of the files at these paths. Raises OutOfReach."""
    found: list[KnownFile] = []
    for batch in batches(paths):
        some: sa.BindParameter[list[str]] = sa.bindparam("some", batch, expanding=True)
        found += _files(database, InstanceRow.path.in_(some))
    return found


def damaged(database: Database) -> list[KnownFile]:
    """The files that were found damaged. Raises OutOfReach."""
    return _files(database, _is_damaged())


def clear_damage(database: Database, whole: Sequence[KnownFile]) -> None:
    """Write down that these files, once found damaged, are as they were received again. Durable. Raises OutOfReach."""

    def work(connection: Connection) -> None:
        for batch in batches(whole):
            ids = [one.instance_id for one in batch]
            rows = connection.execute(_with_latest(ids)).all()
            connection.execute(sa.update(InstanceRow).where(InstanceRow.id.in_(ids), _is_damaged()).values(flaw=None))
            index.choose_current(connection, [row.sop_instance_uid for row in rows])

    if whole:
        database.write(work, durable=True)


def _is_damaged() -> sa.ColumnElement[bool]:
    return sa.func.coalesce(InstanceRow.flaw, "").startswith(flaws.DAMAGED, autoescape=True)


def sizes(database: Database) -> Iterator[tuple[str, int]]:
    """(path, size) of every instance that is kept, by path."""
    query = sa.select(InstanceRow.path, InstanceRow.size).where(InstanceRow.removed_at.is_(None))
    for row in database.pages(query, InstanceRow.path):
        yield row.path, row.size


def _files(database: Database, *conditions: sa.ColumnElement[bool]) -> list[KnownFile]:
    latest = (
        sa.select(sa.func.max(ArrivalRow.id))
        .where(ArrivalRow.instance_id == InstanceRow.id)
        .correlate(InstanceRow)
        .scalar_subquery()
    )
    query = (
        sa.select(InstanceRow.id, InstanceRow.path, InstanceRow.size, latest)
        .where(InstanceRow.removed_at.is_(None), *conditions)
        .order_by(InstanceRow.path)
    )
    return database.read(lambda connection: [KnownFile(*row) for row in connection.execute(query)])

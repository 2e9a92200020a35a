"""The address book: remotes by name, and those that were given as an address."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from dicomferry.models.record.database import AnyRow, Database
from dicomferry.models.record.remotes import governor, trials
from dicomferry.models.record.retrieves import moves
from dicomferry.models.record.tables.jobs import ChunkRow, JobRow, RemoteRow
from dicomferry.models.rules import remote as grammar
from dicomferry.models.rules import window
from dicomferry.models.rules.answers import quirks
from dicomferry.models.rules.errors import NotFound, UsageError
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.remote import Remote, Timeouts
from dicomferry.models.rules.state import ChunkState, JobState

_T = TypeVar("_T")
DEFAULTS: Mapping[str, Any] = {
    "calling_ae_title": None,
    "store_address": None,
    "also_from": [],
    "charset": None,
    "max_associations": 4,
    "max_moves": 1,
    "max_uids": 100,
    "find_cap": None,
    "relational": False,
    "numbers": "used",
    "prefer_syntax": None,
    "timeouts": {},
    "window": None,
    "max_requests_per_minute": None,
    "max_instances_per_second": None,
    "max_bytes_per_second": None,
    "quirks": [],
    "trust_answers": [],
    "coerces": None,
}
_RATES = ("max_requests_per_minute", "max_instances_per_second", "max_bytes_per_second")
_SHOWN = ("name", "ae_title", "host", "port", *DEFAULTS)


class RemoteDocument(TypedDict):
    """A remote of the address book as it is shown; each key is the column of its name."""

    name: str
    ae_title: str
    host: str
    port: int
    calling_ae_title: str | None
    store_address: str | None
    also_from: list[str]
    charset: str | None
    max_associations: int
    max_moves: int
    max_uids: int
    find_cap: int | None
    relational: bool
    numbers: str
    prefer_syntax: str | None
    timeouts: dict[str, float]
    quirks: list[str]
    coerces: str | None
    trust_answers: list[str]
    window: dict[str, Any] | None
    max_requests_per_minute: int | None
    max_instances_per_second: float | None
    max_bytes_per_second: int | None


def add(database: Database, name: str, address: str, **options: Any) -> None:
    """Write a remote into the address book; raises UsageError when the name is taken or something is malformed."""
    grammar.check_name(name)
    ae_title, host, port = grammar.parse_address(address)
    values = {**DEFAULTS, **_checked(options)}
    if values["window"]:
        values["window"] = window.changed(None, **values["window"])
    values["quirks"] = quirks.merged((), quirks.parse(values["quirks"]))

    def work(connection: Connection) -> None:
        present = connection.execute(sa.select(RemoteRow.in_book).where(RemoteRow.name == name)).one_or_none()
        if present and present.in_book:
            raise UsageError(
                f"remote {name} is in the address book already: change it with `dicomferry remote set {name}`"
            )
        row = {
            "ae_title": ae_title,
            "host": host,
            "port": port,
            "in_book": True,
            "removed_at": None,
            **values,
        }
        if present:
            connection.execute(sa.update(RemoteRow).where(RemoteRow.name == name).values(**row))
        else:
            connection.execute(sa.insert(RemoteRow).values(name=name, created_at=database.now(connection), **row))

    _insert(database, work)


def change(database: Database, name: str, address: str | None, **options: Any) -> None:
    """Change what was given; jobs under way see it at their next claim. Raises NotFound, UsageError."""
    given = _checked(options)
    values = dict(given)
    if address:
        values["ae_title"], values["host"], values["port"] = grammar.parse_address(address)

    def work(connection: Connection) -> None:
        row = _by_name(connection, name)
        new = dict(values)
        if "timeouts" in new:
            merged = {**row.timeouts, **new["timeouts"]}
            new["timeouts"] = {key: seconds for key, seconds in merged.items() if seconds}
        if new.get("quirks"):
            new["quirks"] = quirks.merged(row.quirks, quirks.parse(new["quirks"]))
        if new.get("window"):
            new["window"] = window.changed(row.window, **given["window"])
        if not new:
            return
        connection.execute(sa.update(RemoteRow).where(RemoteRow.id == row.id).values(**new))
        if address:
            trials.forget(connection, row.id)
        if address or new.keys() & {"window", *_RATES}:
            governor.release_waiting(connection, row.id, database.now(connection), forget=bool(address))

    database.write_once(work)


def remove(database: Database, name: str) -> None:
    """Take a remote out of the address book; its jobs and their history stay. Raises NotFound."""

    def work(connection: Connection) -> None:
        row = _by_name(connection, name)
        # The row stays for the jobs that name it, under a name that frees the old one.
        connection.execute(
            sa.update(RemoteRow)
            .where(RemoteRow.id == row.id)
            .values(in_book=False, removed_at=database.now(connection), name=f"{name} (removed, {row.id})")
        )

    database.write_once(work)


def resolve_id(database: Database, text: str) -> int:
    """The row id of REMOTE: a name of the address book, or an address, which gets a row of its own.

    Raises NotFound with the nearest name, UsageError for a malformed address.
    """

    def work(connection: Connection) -> int:
        if not grammar.looks_like_address(text):
            return int(_by_name(connection, text).id)
        ae_title, host, port = grammar.parse_address(text)
        name = f"{ae_title}@{grammar.host_and_port(host, port)}"
        present = connection.execute(sa.select(RemoteRow.id).where(RemoteRow.name == name)).scalar_one_or_none()
        if present is not None:
            return present
        row = {"name": name, "in_book": False, "ae_title": ae_title, "host": host, "port": port, **DEFAULTS}
        inserted: int = connection.execute(
            sa.insert(RemoteRow).values(created_at=database.now(connection), **row).returning(RemoteRow.id)
        ).scalar_one()
        return inserted

    return _insert(database, work)


def name_of(database: Database, text: str) -> str:
    """How REMOTE is called in lists: the name of the address book, or the address. Raises NotFound, UsageError."""
    if grammar.looks_like_address(text):
        ae_title, host, port = grammar.parse_address(text)
        return f"{ae_title}@{grammar.host_and_port(host, port)}"

    def work(connection: Connection) -> str:
        # One that was taken out of the address book still has its jobs.
        known = connection.execute(sa.select(RemoteRow.name).where(RemoteRow.name == text)).scalar_one_or_none()
        return known or str(_by_name(connection, text).name)

    return database.read(work)


def _insert(database: Database, work: Callable[[Connection], _T]) -> _T:
    """Run a write that adds a row unless it is there, and once more where another command added it meanwhile."""
    try:
        return database.write_once(work)
    except IntegrityError:
        return database.write_once(work)


def most_associations(database: Database, remote_id: int) -> int:
    """How many associations a remote may be used by at once. Raises OutOfReach."""
    query = sa.select(RemoteRow.max_associations).where(RemoteRow.id == remote_id)
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))


def load(database: Database, remote_id: int, *, ae_title: str, timeouts: Timeouts) -> Remote:
    """A remote ready for use, the installation's AE title and timeouts filled in where it has none of its own."""

    def work(connection: Connection) -> Remote:
        row = connection.execute(sa.select(RemoteRow.__table__).where(RemoteRow.id == remote_id)).one()
        return Remote(
            name=row.name,
            ae_title=row.ae_title,
            host=row.host,
            port=row.port,
            calling_ae_title=row.calling_ae_title or ae_title,
            timeouts=timeouts.evolve(**row.timeouts),
            max_associations=row.max_associations,
            max_moves=row.max_moves,
            max_uids=row.max_uids,
            charset=row.charset,
            find_cap=row.find_cap,
            relational=row.relational,
            numbers=row.numbers,
            quirks=quirks.from_texts(row.quirks),
            trust_answers=frozenset(row.trust_answers),
            coerces=grammar.parse_coerces(row.coerces),
            prefer_syntax=row.prefer_syntax,
        )

    return database.read(work)


def document(row: AnyRow) -> RemoteDocument:
    """The JSON object of a remote, with stable keys."""
    return cast(RemoteDocument, {key: getattr(row, key) for key in _SHOWN})


def listing(database: Database) -> list[RemoteDocument]:
    """The address book by name."""

    def work(connection: Connection) -> Sequence[AnyRow]:
        return connection.execute(
            sa.select(RemoteRow.__table__).where(RemoteRow.in_book).order_by(RemoteRow.name)
        ).all()

    return [document(row) for row in database.read(work)]


def show(database: Database, name: str) -> RemoteDocument:
    """One remote of the address book; raises NotFound."""
    return document(database.read(lambda connection: _by_name(connection, name)))


def names(database: Database) -> list[str]:
    """The names in the address book."""
    return [remote["name"] for remote in listing(database)]


PLAIN = "plain"
"""What is preferred of a remote that has sent something ill encoded: Explicit and Implicit Little Endian alone."""


@dataclass(frozen=True)
class CallerIdentity:
    """What tells whether an association comes from a remote."""

    ae_title: str
    host: str
    also_from: tuple[str, ...]
    prefer_syntax: str | None
    max_moves: int


def id_of_ae_title(database: Database, ae_title: str) -> int | None:
    """The row id of the remote of the address book that has this AE title; None where there is none, or several."""
    query = sa.select(RemoteRow.id).where(RemoteRow.in_book, RemoteRow.ae_title == ae_title)
    found = database.read(lambda connection: connection.execute(query).scalars().all())
    return found[0] if len(found) == 1 else None


def sender(database: Database, remote_id: int) -> CallerIdentity:
    """What tells that an association comes from this remote."""

    def work(connection: Connection) -> CallerIdentity:
        return _sender(connection.execute(sa.select(RemoteRow.__table__).where(RemoteRow.id == remote_id)).one())

    return database.read(work)


def senders(database: Database) -> list[CallerIdentity]:
    """The address book, and the remotes outside of it that a job runs against."""

    def work(connection: Connection) -> Sequence[AnyRow]:
        in_use = sa.select(JobRow.remote_id).where(JobRow.state.in_((JobState.PENDING, JobState.RUNNING)))
        return connection.execute(
            sa.select(RemoteRow.__table__)
            .where(sa.or_(RemoteRow.in_book, RemoteRow.id.in_(in_use)))
            .order_by(RemoteRow.id)
        ).all()

    return [_sender(row) for row in database.read(work)]


def repairing(database: Database) -> list[CallerIdentity]:
    """The remotes of which a move to us is being repaired at this moment.

    What they prefer is `plain` where something came ill encoded.
    """

    def work(connection: Connection) -> list[CallerIdentity]:
        running = (
            sa.select(ChunkRow.remote_id, moves.is_ill_encoded().label("plain"))
            .join(JobRow, JobRow.id == ChunkRow.job_id)
            .where(
                ChunkRow.state == ChunkState.RUNNING,
                ChunkRow.kind == Kind.MOVE,
                JobRow.destination.is_(None),
                sa.or_(moves.repairs(), moves.is_ill_encoded()),
            )
        )
        found: dict[int, bool] = {}
        for remote_id, plain in connection.execute(running):
            if remote_id is not None:
                found[remote_id] = found.get(remote_id, False) or bool(plain)
        rows = connection.execute(sa.select(RemoteRow.__table__).where(RemoteRow.id.in_(found))).all()
        senders = [(_sender(row), found[row.id]) for row in rows]
        return [replace(sender, prefer_syntax=PLAIN) if plain else sender for sender, plain in senders]

    return database.read(work)


def _sender(row: AnyRow) -> CallerIdentity:
    return CallerIdentity(row.ae_title, row.host, tuple(row.also_from), row.prefer_syntax, row.max_moves)


def _by_name(connection: Connection, name: str) -> AnyRow:
    row = connection.execute(
        sa.select(RemoteRow.__table__).where(RemoteRow.name == name, RemoteRow.in_book)
    ).one_or_none()
    if row is not None:
        return row
    known = connection.execute(sa.select(RemoteRow.name).where(RemoteRow.in_book)).scalars().all()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see `dicomferry remote list`, or write AET@host:port"
    raise NotFound(f"no remote {name!r} in the address book; {hint}")


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The given options, checked; raises UsageError."""
    values = dict(options)
    if values.get("calling_ae_title"):
        values["calling_ae_title"] = grammar.check_ae_title(values["calling_ae_title"])
    if values.get("store_address"):
        grammar.parse_address(values["store_address"])
    if values.get("quirks"):
        quirks.parse(values["quirks"])
    if "coerces" in values:
        values["coerces"] = ",".join(sorted(grammar.parse_coerces(values["coerces"]), reverse=True)) or None
    for key in ("max_associations", "max_moves", "max_uids", "find_cap"):
        if values.get(key) is not None and not 1 <= values[key] <= grammar.MOST:
            raise UsageError(f"--{key.replace('_', '-')} {values[key]}: 1 to {grammar.MOST}")
    for key in _RATES:
        if values.get(key) is not None and not 0 < values[key] < 2**53:
            raise UsageError(f"--{key.replace('_', '-')} {values[key]}: more than 0")
    for key, seconds in values.get("timeouts", {}).items():
        if not (math.isfinite(seconds) and 0 <= seconds <= grammar.LONGEST):
            raise UsageError(f"--{key.replace('_', '-')} {seconds}: 0 to {grammar.LONGEST:.0f} seconds")
    return values

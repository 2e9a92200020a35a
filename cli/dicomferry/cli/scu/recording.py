"""`--record`: what a run did, in the home's database, as a job that has ended.

Without it nothing is written anywhere: a run that keeps no record needs no database. With it the database is opened
before anybody is asked, and the job is written when all is over, so that no worker ever takes it for work that waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import CommandRefused, Messages
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import DicomferryError, DimseError, DimseFailure
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import EchoSpec, FindSpec, GetSpec, MoveSpec, Spec, StoreSpec
from dicomferry.models.rules.state import ItemState

if TYPE_CHECKING:
    from dicomferry.cli.scu.inputs import InputFile
    from dicomferry.models.record.database import Database

LABEL = "scu"


class Recording:
    """What came of each item. Keeps nothing where nothing is asked to be kept."""

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.items: list[dict[str, Any]] = []
        self._uids: set[str] = set()

    def request(self, invocation: Invocation, state: ItemState, **values: Any) -> None:
        """What was asked for as a whole; before what came of it."""
        if self.keeps:
            keys = [list(key) for key in keys_of(invocation)]
            item = {"kind": "request", "is_first": True, "state": state, "identifier": keys or None, "tries": 1}
            self.items.insert(0, {**item, **values})

    def file(self, file: InputFile, state: ItemState, **values: Any) -> None:
        """What came of a file that was to be sent."""
        if not self.keeps:
            return
        known: dict[str, Any] = {"size": file.size, "mtime_ns": file.mtime_ns}
        if file.header is not None:
            known |= {name: getattr(file.header, name) for name in _IDENTITY}
        self.instance(state, path=file.path, **known, **values)

    def received(self, files: Mapping[str, str]) -> None:
        """What came: SOP Instance UID to file."""
        for uid, path in files.items():
            self.instance(ItemState.SUCCEEDED, path=os.fsencode(path), sop_instance_uid=uid)

    def instance(self, state: ItemState, *, path: bytes, sop_instance_uid: str | None = None, **values: Any) -> None:
        """One file."""
        if not self.keeps:
            return
        is_first = sop_instance_uid is not None and sop_instance_uid not in self._uids
        if sop_instance_uid is not None:
            self._uids.add(sop_instance_uid)
        item = {"kind": "instance", "path": os.path.abspath(path), "sop_instance_uid": sop_instance_uid}
        self.items.append({**_NOTHING, **item, "is_first": is_first, "state": state, **values})


_IDENTITY = (
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "study_instance_uid",
    "series_instance_uid",
)

# Rows that are inserted together have the same columns.
_NOTHING: Mapping[str, Any] = dict.fromkeys(
    (
        "size",
        "mtime_ns",
        "sop_class_uid",
        "transfer_syntax_uid",
        "study_instance_uid",
        "series_instance_uid",
        "status",
        "reason",
        "detail",
        "sent_as",
    )
) | {"sent_bytes": 0, "tries": 1}


@contextmanager
def keeping(invocation: Invocation, say: Messages) -> Iterator[Recording]:
    """A journal that is written to the home's database at the end, however that comes, if that was asked for.

    Raises ConfigurationError, OutOfReach, UsageError before anything is done.
    """
    if not invocation.record:
        yield Recording(keeps=False)
        return
    from dicomferry.models.record.remotes import book

    database = _open()
    try:
        remote_id = book.resolve_id(database, f"{invocation.called}@{invocation.address}")
        journal, began, end = Recording(keeps=True), datetime.now(UTC), _RunEnd()
        try:
            yield journal
        except CommandRefused:
            # Nobody was asked, so there is nothing to remember.
            raise
        except DimseError as error:
            end.detail = str(error)
            if invocation.mode != "store":
                journal.request(invocation, ItemState.FAILED, detail=end.detail, **_answer(invocation, error))
            _write(database, invocation, journal, remote_id, began, end, say)
            raise
        except BaseException:
            end.interrupted = True
            if invocation.mode != "store":
                journal.request(invocation, ItemState.CANCELLED, reason=Reason.CANCELLED)
            _write(database, invocation, journal, remote_id, began, end, say)
            raise
        _write(database, invocation, journal, remote_id, began, end, say)
    finally:
        database.close()


@raising()
def single(invocation: Invocation, say: Messages, run: Callable[[Invocation, Messages], int]) -> int:
    """Run a mode that is one request and brings nothing here, which is an echo or a find, and keep what came of it."""
    with keeping(invocation, say) as journal:
        code = run(invocation, say)
        journal.request(invocation, ItemState.FAILED if code else ItemState.SUCCEEDED, status=0)
    return code


def _answer(invocation: Invocation, error: DimseError) -> dict[str, Any]:
    """The peer's status, if it gave one, and the stable word for what went wrong."""
    if isinstance(error, DimseFailure):
        reason = lookup.for_status(invocation.service, error.status).reason
        return {"status": error.status, "reason": reason}
    return {"reason": lookup.for_error(error).reason}


class _RunEnd:
    detail: str | None = None
    interrupted = False


def _open() -> Database:
    """The home's database; made if it is not there. Raises ConfigurationError, OutOfReach."""
    from dicomferry.cli.frame import installation
    from dicomferry.models import settings as all_settings
    from dicomferry.models.record import schema
    from dicomferry.models.record.database import Database

    settings = all_settings.load()
    if settings.is_sqlite:
        installation.make_file(settings)
    database = Database(settings.database)
    try:
        if settings.is_sqlite and schema.current(database) is None:
            schema.upgrade(database)
        schema.require_current(database)
    except BaseException:
        database.close()
        raise
    return database


def _write(
    database: Database,
    invocation: Invocation,
    journal: Recording,
    remote_id: int,
    began: datetime,
    end: _RunEnd,
    say: Messages,
) -> None:
    from dicomferry.models.record.jobs import done as done_jobs

    done = done_jobs.Done(
        what=spec_of(invocation),
        remote_id=remote_id,
        label=LABEL,
        began=began,
        ended=datetime.now(UTC),
        items=journal.items,
        interrupted=end.interrupted,
        detail=end.detail,
    )
    try:
        say.note(f"recorded as job {done_jobs.write(database, done)}")
    except DicomferryError as error:
        say.failure(f"what was done could not be recorded: {error}")


def spec_of(invocation: Invocation) -> Spec:
    """What was asked for, as a job says it."""
    root, level = invocation.root or "study", invocation.level or "study"
    identifiers = ((None, keys_of(invocation)),)
    match invocation.mode:
        case "echo":
            return EchoSpec()
        case "store":
            paths = tuple(os.path.abspath(path) for path in invocation.files)
            return StoreSpec(paths=paths, recursive=invocation.recursive, transcode=invocation.transcode)
        case "find":
            return FindSpec(level=level, root=root, keys=keys_of(invocation), worklist=invocation.worklist)
        case "move":
            return MoveSpec(identifiers=identifiers, level=level, root=root, destination=invocation.calling)
        case "get":
            return GetSpec(identifiers=identifiers, level=level, root=root)


def keys_of(invocation: Invocation) -> tuple[tuple[str, str], ...]:
    """The keys that were given, as a job names them: path and value."""
    return tuple((f"{tag:08X}", value.decode("utf-8", "replace")) for tag, value in _first(invocation.keys))


def _first(keys: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The keys by tag; where a tag was given twice the first one counts."""
    seen: dict[int, bytes] = {}
    for tag, value in keys:
        seen.setdefault(tag, value)
    yield from seen.items()

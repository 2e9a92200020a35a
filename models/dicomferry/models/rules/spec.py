"""What was asked for, as a frozen value per kind of job, and its JSON form for the job's row.

`service` of each says whose rows of the table of answers hold for what its peer answers.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, get_args

from dicomferry.models.rules.kind import Kind, Lane
from dicomferry.models.rules.query import Key


@dataclass(frozen=True, kw_only=True)
class EchoSpec:
    """One C-ECHO (PS3.7 9.1.5)."""

    kind: ClassVar[Kind] = Kind.ECHO
    service: ClassVar[str] = "echo"
    lane: ClassVar[Lane] = Lane.QUICK
    planned: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """C-STORE of files and of what lies in folders. Paths are absolute, as `os.fsdecode` gives them.

    `transcode`: a peer that takes a compressed file only uncompressed gets a decompressed copy.
    `verify` asks for each instance at the remote afterwards, by C-FIND. `strict_meta` refuses files whose meta group
    names another class or instance than their data set, `send_odd_uids` sends UIDs longer than PS3.5 9.1 allows; with
    `allow_empty` nothing to send is no failure.
    """

    kind: ClassVar[Kind] = Kind.STORE
    service: ClassVar[str] = "store"
    lane: ClassVar[Lane] = Lane.BULK
    planned: ClassVar[bool] = True
    paths: tuple[str, ...]
    recursive: bool = False
    transcode: bool = False
    verify: bool = False
    strict_meta: bool = False
    allow_empty: bool = False
    send_odd_uids: bool = False

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The paths as the file system has them."""
        return tuple(os.fsencode(path) for path in self.paths)


@dataclass(frozen=True, kw_only=True)
class FindSpec:
    """C-FIND at one level of a root, or of a worklist, which has neither. `keys` are those of `query`.

    `split` halves by date and time what the remote does not list whole.
    """

    kind: ClassVar[Kind] = Kind.FIND
    lane: ClassVar[Lane] = Lane.QUICK
    planned: ClassVar[bool] = False
    level: str = "study"
    root: str = "study"
    keys: tuple[Key, ...] = ()
    worklist: bool = False
    split: bool = False

    @property
    def service(self) -> str:
        """Whose rows of the table of answers hold: a worklist's statuses mean other things."""
        return "worklist" if self.worklist else "find"


Identifier = tuple[int | None, tuple[Key, ...]]
"""One request of a retrieve: its row in the CSV file that it came from, if any, and its keys as in `query`."""


@dataclass(frozen=True, kw_only=True)
class MoveSpec:
    """C-MOVE of what each of `identifiers` matches at `level`, to the AE title `destination`; None is ourselves.

    Keys are resolved by C-FIND, unless they are the unique key of the level. `refetch` asks also for what lies in the
    archive; with `allow_empty` nothing that matches is no failure. `trust_answers` are the paths of keys whose answers
    are taken though they do not tell. `columns` are those of the CSV file that are no keys, `remarks` what stands there
    for each identifier, `csv` is its name; None: there is none.
    """

    kind: ClassVar[Kind] = Kind.MOVE
    service: ClassVar[str] = "move"
    lane: ClassVar[Lane] = Lane.BULK
    planned: ClassVar[bool] = True
    identifiers: tuple[Identifier, ...]
    level: str = "study"
    root: str = "study"
    destination: str | None = None
    refetch: bool = False
    trust_answers: tuple[str, ...] = ()
    allow_empty: bool = False
    columns: tuple[str, ...] = ()
    remarks: tuple[tuple[str, ...], ...] = ()
    csv: str | None = None


@dataclass(frozen=True, kw_only=True)
class GetSpec:
    """C-GET of what each of `identifiers` matches at `level`; see MoveSpec."""

    kind: ClassVar[Kind] = Kind.GET
    service: ClassVar[str] = "get"
    lane: ClassVar[Lane] = Lane.BULK
    planned: ClassVar[bool] = True
    identifiers: tuple[Identifier, ...]
    level: str = "study"
    root: str = "study"
    refetch: bool = False
    trust_answers: tuple[str, ...] = ()
    allow_empty: bool = False
    columns: tuple[str, ...] = ()
    remarks: tuple[tuple[str, ...], ...] = ()
    csv: str | None = None

    @property
    def destination(self) -> None:
        """What is got comes to whoever asked."""
        return None


RETRIEVES = (Kind.MOVE, Kind.GET)
Retrieve = MoveSpec | GetSpec
Spec = EchoSpec | StoreSpec | FindSpec | MoveSpec | GetSpec
_CLASSES: dict[str, type[Spec]] = {cls.kind: cls for cls in get_args(Spec)}
LANES = tuple(Lane)


def to_json(spec: Spec) -> str:
    """ASCII JSON; bytes of a path that are no UTF-8 survive as escaped surrogates."""
    return json.dumps(asdict(spec), sort_keys=True)


def from_json(kind: str, text: str) -> Spec:
    """The spec that `to_json` wrote for a job of this kind."""
    return _CLASSES[kind](**{key: _frozen(value) for key, value in json.loads(text).items()})


def lane_of(kind: str) -> Lane:
    """The lane in which chunks of a job of this kind wait."""
    return _CLASSES[kind].lane


def service_of(kind: str, text: str) -> str:
    """Whose rows of the table of answers hold for a job, from its row. The spec, which may be long, is read only where
    that depends on it.
    """
    service = _CLASSES[kind].service
    return service if isinstance(service, str) else from_json(kind, text).service


def _frozen(value: Any) -> Any:
    """Lists become the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value

"""What was asked for, as a frozen value per kind of job, and its JSON form for the job's row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class EchoSpec:
    """One C-ECHO (PS3.7 9.1.5)."""

    kind: ClassVar[str] = "echo"
    lane: ClassVar[str] = "quick"
    planned: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """C-STORE of files and of what lies in folders. Paths are absolute, as `os.fsdecode` gives them.

    `transcode`: a peer that takes a compressed file only uncompressed gets a decompressed copy.
    """

    kind: ClassVar[str] = "store"
    lane: ClassVar[str] = "bulk"
    planned: ClassVar[bool] = True
    paths: tuple[str, ...]
    recursive: bool = False
    transcode: bool = False

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The paths as the file system has them."""
        return tuple(os.fsencode(path) for path in self.paths)


Spec = EchoSpec | StoreSpec
_KINDS: dict[str, Callable[..., Spec]] = {cls.kind: cls for cls in (EchoSpec, StoreSpec)}
LANES = ("quick", "bulk")


def to_json(spec: Spec) -> str:
    """ASCII JSON; bytes of a path that are no UTF-8 survive as escaped surrogates."""
    return json.dumps(asdict(spec), sort_keys=True)


def from_json(kind: str, text: str) -> Spec:
    """The spec that `to_json` wrote for a job of this kind."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}
    return _KINDS[kind](**fields)

"""The files that a store is to send: those named, and what lies in the folders named, in that order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.files.part10 import Header
from dicomferry.workers.sending.inventory import InventoryEntry, inventory


@dataclass(frozen=True)
class InputFile:
    """One file: `shown` is its path as it was typed, as far as it was; `header` is None where it cannot be sent, for
    the reason that `why` gives in words, and `detail` in more of them. A folder that lies in itself has no `why`.
    """

    shown: str
    path: bytes
    size: int
    mtime_ns: int
    header: Header | None
    reason: str | None = None
    detail: str | None = None
    why: str | None = None

    def instance(self, number: int) -> LocalInstance:
        """What is to be sent."""
        assert self.header is not None
        header = self.header
        return LocalInstance(
            number,
            self.path,
            self.size,
            self.mtime_ns,
            header.sop_class_uid,
            header.sop_instance_uid,
            header.transfer_syntax_uid,
        )


def files(names: Sequence[str], *, recursive: bool) -> Iterator[InputFile]:
    """Each file once for each time that it is named. Of a folder the names are sorted, and hidden ones left out."""
    for name in names:
        typed = os.fsencode(name)
        if not typed:
            # Made a path, it would be the current folder.
            yield InputFile("''", b"", 0, 0, None, Reason.VANISHED, "an empty name", "vanished: an empty name")
            continue
        root = _rooted(typed)
        for found in inventory([root], recursive=recursive, hidden=False):
            shown = typed.rstrip(b"/") + found.path[len(root.rstrip(b"/")) :]
            yield replace(_file(found), shown=os.fsdecode(shown))


def _rooted(typed: bytes) -> bytes:
    """The path from the root on, in the form that the inventory gives it."""
    parts = os.path.join(os.getcwdb(), typed).split(b"/")
    return b"/" + b"/".join(part for part in parts if part not in (b"", b"."))


def _file(found: InventoryEntry) -> InputFile:
    why = None
    if found.state is not ItemState.PENDING and found.reason != Reason.LINK_LOOP:
        why = ": ".join(filter(None, (found.reason, found.detail)))
    return InputFile("", found.path, found.size, found.mtime_ns, found.header, found.reason, found.detail, why)

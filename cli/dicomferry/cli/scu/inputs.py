"""The files that a store is to send: those named, and what lies in the folders named, in that order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.files.file_state import Content
from dicomferry.workers.files.part10 import Header
from dicomferry.workers.sending.entry import HeaderOf, InventoryEntry
from dicomferry.workers.sending.inventory import inventory


class InputFile(NamedTuple):
    """One file: `shown` is its path as it was typed, as far as it was; `header` is None where it cannot be sent, for
    the reason that `why` gives in words, and `detail` in more of them. A folder that lies in itself has no `why`.
    `content` is all of a small one.
    """

    shown: str
    path: bytes
    size: int
    mtime_ns: int
    header: Header | None
    content: Content | None = None
    reason: str | None = None
    detail: str | None = None
    why: str | None = None

    def instance(self, number: int) -> LocalInstance:
        """What is to be sent."""
        header = self.header
        assert header is not None
        return LocalInstance(
            number,
            self.path,
            self.size,
            self.mtime_ns,
            header.sop_class_uid,
            header.sop_instance_uid,
            header.transfer_syntax_uid,
            self.content,
        )


def files(
    names: Sequence[str], *, recursive: bool, keeps: Callable[[int], bool], header_of: HeaderOf
) -> Iterator[InputFile]:
    """Each file once for each time that it is named. Of a folder the names are sorted, and hidden ones left out.

    `keeps` says whether a file of so many bytes is to be kept in memory, `header_of` reads headers.
    """
    for name in names:
        typed = os.fsencode(name)
        if not typed:
            # Made a path, it would be the current folder.
            why = "vanished: an empty name"
            yield InputFile("''", b"", 0, 0, None, None, Reason.VANISHED, "an empty name", why)
            continue
        root = _rooted(typed)
        shown, skip = typed.rstrip(b"/"), len(root.rstrip(b"/"))
        for found in inventory([root], recursive=recursive, hidden=False, keeps=keeps, header_of=header_of):
            yield _file(found, os.fsdecode(shown + found.path[skip:]))


def _rooted(typed: bytes) -> bytes:
    """The path from the root on, in the form that the inventory gives it."""
    parts = os.path.join(os.getcwdb(), typed).split(b"/")
    return b"/" + b"/".join(part for part in parts if part not in (b"", b"."))


def _file(found: InventoryEntry, shown: str) -> InputFile:
    path, size, mtime_ns, state, reason, detail, header, content = found
    why = None
    if state is not ItemState.PENDING and reason != Reason.LINK_LOOP:
        why = ": ".join(filter(None, (reason, detail)))
    return InputFile(shown, path, size, mtime_ns, header, content, reason, detail, why)

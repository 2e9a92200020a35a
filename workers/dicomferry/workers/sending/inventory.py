"""The inventory of a store: which files there are, in a fixed order, and what each of them is.

The order is bytewise by path components and total over all roots, so the path of the last file delivered is a
cursor: a restart goes on behind it and reads nothing before it again. Names are bytes throughout, since a file
system promises no encoding.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.files.part10 import UNCOMPRESSED, Header, read_header
from dicomferry.workers.files.same_instance import Relation, Side, relation
from dicomferry.workers.sending.entry import (
    HeaderOf,
    InventoryEntry,
    OpenedFile,
    failed,
    header_from,
    look_into,
    no_status,
    not_a_file,
    open_before,
)

MAX_BYTES = 256 << 20
MAX_CONTEXTS = 128
"""Presentation context ids are the odd numbers from 1 to 255 (PS3.8 9.3.2.2)."""
AHEAD = 8
"""Files that are open before their turn: their beginnings come from the disk while others are parsed."""


def inventory(
    roots: Sequence[bytes],
    *,
    recursive: bool,
    after: bytes | None = None,
    hidden: bool = True,
    leave_out: Container[bytes] = (),
    before_opening: Callable[[bytes], bool] = lambda _: False,
    ahead: int = AHEAD,
    keeps: Callable[[int], bool] = lambda _: False,
    header_of: HeaderOf = header_from,
) -> Iterator[InventoryEntry]:
    """Every file that `roots` (absolute files or folders) name, in walk order, strictly behind `after`.

    Given files are always taken, of folders their files, and with `recursive` those of their subfolders. A root
    that another one covers adds nothing. Links are followed; a folder that is its own ancestor is reported once.
    Without `hidden`, what begins with a dot is left out, unless it is a root itself. Files in `leave_out` are passed
    over. `before_opening` hears of each other one, and says whether nothing else is to be open while it is looked into.
    So many files are open `ahead` of their turn. `keeps` says whether a file of so many bytes is to be read whole,
    `header_of` reads headers in another way. Nothing here raises for what a file system does: what cannot be read is an
    entry of its own.
    """
    walk = _Walk(_sorted_roots(roots, recursive), recursive, _parts(after) if after is not None else None, hidden)
    return _looked_into(iter(walk), leave_out, before_opening, ahead, keeps, header_of)


def _looked_into(
    walk: Iterator[InventoryEntry | bytes],
    leave_out: Container[bytes],
    before_opening: Callable[[bytes], bool],
    ahead: int,
    keeps: Callable[[int], bool],
    header_of: HeaderOf,
) -> Iterator[InventoryEntry]:
    """What the walk finds, in its order, each path of a plain file looked into."""
    waiting: deque[OpenedFile] = deque()
    try:
        for found in walk:
            alone = False
            if isinstance(found, bytes):
                if found in leave_out:
                    continue
                alone = before_opening(found)
            waiting.append(
                open_before(found, keeps) if isinstance(found, bytes) else OpenedFile(found.path, -1, 0, 0, found)
            )
            while len(waiting) > (0 if alone else ahead):
                yield look_into(waiting.popleft(), header_of)
        while waiting:
            yield look_into(waiting.popleft(), header_of)
    finally:
        for opened in waiting:
            if opened.found is None:
                os.close(opened.fd)


@dataclass(slots=True)
class _WalkedFolder:
    """A folder on the way. `names` are those still to come, last first; `kinds` says what is no plain file."""

    parts: tuple[bytes, ...]
    identity: tuple[int, int]
    names: list[bytes]
    kinds: dict[bytes, int]
    inner: list[tuple[bytes, ...]]


def _parts(path: bytes) -> tuple[bytes, ...]:
    """A path's components; `..` stays, since behind a link it is not the folder above."""
    return tuple(part for part in path.split(b"/") if part not in (b"", b"."))


def _path(parts: tuple[bytes, ...]) -> bytes:
    return b"/" + b"/".join(parts)


def _sorted_roots(roots: Sequence[bytes], recursive: bool) -> list[tuple[bytes, ...]]:
    """The roots in walk order, without those that a folder among them covers."""
    kept: list[tuple[bytes, ...]] = []
    folders: set[tuple[bytes, ...]] = set()
    for parts in sorted({_parts(root) for root in roots}):
        if recursive:
            covered = any(parts[:length] in folders for length in range(len(parts)))
        else:
            covered = parts[:-1] in folders and not os.path.isdir(_path(parts))
        if not covered:
            kept.append(parts)
            if os.path.isdir(_path(parts)):
                folders.add(parts)
    return kept


class _Walk:
    """The walk as a stack of folders, so that no depth of a tree meets the interpreter's own limit."""

    def __init__(
        self, roots: list[tuple[bytes, ...]], recursive: bool, after: tuple[bytes, ...] | None, hidden: bool
    ) -> None:
        self._roots = roots[::-1]
        self._recursive = recursive
        self._after = after
        self._hidden = hidden
        self._stack: list[_WalkedFolder] = []
        self._ancestors: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[InventoryEntry | bytes]:
        """Founds, and the paths of plain files that are to be looked into."""
        while self._roots or self._stack:
            if not self._stack:
                yield from self._enter_root(self._roots.pop())
                continue
            folder = self._stack[-1]
            prefix = _path(folder.parts)
            prefix += b"" if prefix == b"/" else b"/"
            names, kinds = folder.names, folder.kinds
            while names:
                if folder.inner and folder.inner[-1][len(folder.parts)] <= names[-1]:
                    break
                name = names.pop()
                kind = kinds.pop(name, None)
                if kind is None:
                    yield prefix + name
                    continue
                found = self._special(folder.parts, name, prefix + name, kind)
                if found is not None:
                    yield found
                if self._stack[-1] is not folder:
                    break
            else:
                if not folder.inner:
                    self._stack.pop()
                    self._ancestors.discard(folder.identity)
                    continue
            if self._stack[-1] is folder and folder.inner:
                root = folder.inner.pop()
                if len(root) == len(folder.parts) + 1 and names and names[-1] == root[-1]:
                    kinds.pop(names.pop(), None)
                yield from self._enter_root(root)

    def _enter_root(self, parts: tuple[bytes, ...]) -> Iterator[InventoryEntry | bytes]:
        """A root as it was named: a file is taken, a folder entered, even through a link."""
        if self._after is not None and parts <= self._after and self._after[: len(parts)] != parts:
            # Before the cursor; but roots inside of this one are not inside of anything that comes now.
            return
        path = _path(parts)
        try:
            status = os.stat(path)
        except OSError as error:
            if self._is_new(parts):
                yield no_status(path, error)
            return
        if stat.S_ISDIR(status.st_mode):
            found = self._enter(parts, path, status)
            if found is not None:
                yield found
        elif self._is_new(parts):
            yield path if stat.S_ISREG(status.st_mode) else not_a_file(path)

    def _is_new(self, parts: tuple[bytes, ...]) -> bool:
        return self._after is None or parts > self._after

    def _special(self, parent: tuple[bytes, ...], name: bytes, path: bytes, kind: int) -> InventoryEntry | bytes | None:
        """What is no plain file: a folder is entered, a link followed, anything else named and never opened."""
        if kind == stat.S_IFDIR and not self._recursive:
            return None
        if kind not in (stat.S_IFDIR, stat.S_IFLNK):
            return not_a_file(path)
        try:
            status = os.stat(path)
        except OSError as error:
            return failed(path, error, Reason.UNREADABLE_FOLDER) if kind == stat.S_IFDIR else no_status(path, error)
        if stat.S_ISDIR(status.st_mode):
            return self._enter((*parent, name), path, status) if self._recursive else None
        return path if stat.S_ISREG(status.st_mode) else not_a_file(path)

    def _enter(self, parts: tuple[bytes, ...], path: bytes, status: os.stat_result) -> InventoryEntry | None:
        """Put the folder on the stack; a Found where that cannot be."""
        after = self._after
        if after is not None and after == parts:
            # The folder itself was the last path delivered: it could not be entered then.
            return None
        identity = (status.st_dev, status.st_ino)
        if identity in self._ancestors:
            detail = "this folder lies in itself"
            return InventoryEntry(path, 0, 0, ItemState.SKIPPED, Reason.LINK_LOOP, detail, None)
        depth = len(parts)
        least = after[depth] if after is not None and after[:depth] == parts else None
        names: list[bytes] = []
        kinds: dict[bytes, int] = {}
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if (least is not None and name < least) or (name.startswith(b".") and not self._hidden):
                        continue
                    if not entry.is_file(follow_symlinks=False):
                        kind = _kind(entry)
                        if kind == stat.S_IFDIR and not self._recursive:
                            continue
                        kinds[name] = kind
                    names.append(name)
        except OSError as error:
            return failed(path, error, Reason.UNREADABLE_FOLDER)
        names.sort(reverse=True)
        if names and names[-1] == least and after is not None and len(after) == depth + 1:
            kinds.pop(names.pop(), None)
        inner: list[tuple[bytes, ...]] = []
        while self._roots and self._roots[-1][:depth] == parts:
            inner.append(self._roots.pop())
        self._stack.append(_WalkedFolder(parts, identity, names, kinds, inner[::-1]))
        self._ancestors.add(identity)
        return None


def _kind(entry: os.DirEntry[bytes]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else 0


class Cut:
    """One chunk in the making: a run of consecutive files that fits one association and one lease.

    Files are never regrouped, so that a study's stay together; a file over the limit has a chunk to itself.
    """

    def __init__(
        self,
        *,
        max_instances: int,
        max_bytes: int = MAX_BYTES,
        max_contexts: int = MAX_CONTEXTS,
    ) -> None:
        self._limits = (max_instances, max_bytes, max_contexts)
        self._pairs: set[tuple[str, str]] = set()
        self.instances = 0
        self.bytes = 0
        self.contexts = 0

    def fits(self, found: InventoryEntry) -> bool:
        """Whether `found`, a PENDING one, may still join; anything joins an empty chunk."""
        max_instances, max_bytes, max_contexts = self._limits
        return not self.instances or (
            self.instances < max_instances
            and self.bytes + found.size <= max_bytes
            and self.contexts + self._contexts_for(found) <= max_contexts
        )

    def add(self, found: InventoryEntry) -> None:
        """Take `found` in; raises ValueError where it is not PENDING or does not fit."""
        if found.header is None or not self.fits(found):
            raise ValueError(f"{found.path!r} cannot join this chunk")
        self.contexts += self._contexts_for(found)
        self._pairs.add((found.header.sop_class_uid, found.header.transfer_syntax_uid))
        self.instances += 1
        self.bytes += found.size

    def _contexts_for(self, found: InventoryEntry) -> int:
        """The number of presentation contexts that `found` needs beyond those of the files before it.

        An uncompressed syntax is proposed alone, and once more with the others that it can be re-encoded in.
        """
        if found.header is None:
            return 0
        pair = (found.header.sop_class_uid, found.header.transfer_syntax_uid)
        if pair in self._pairs:
            return 0
        return 2 if pair[1] in UNCOMPRESSED else 1


def same_content(a: bytes, b: bytes, header_a: Header | None = None, header_b: Header | None = None) -> bool:
    """Whether the files `a` and `b` hold the same data set, whatever their meta groups say.

    The storage SCP asks the same of what it receives (`same_instance`). Raises UnusableFile or OSError for a file that
    cannot be read; one that cannot be parsed is not the same.
    """
    header_a = header_a or read_header(a)
    header_b = header_b or read_header(b)
    with open(a, "rb") as one, open(b, "rb") as other:
        found = relation(
            Side(one.fileno(), header_a.data_offset, header_a.transfer_syntax_uid),
            Side(other.fileno(), header_b.data_offset, header_b.transfer_syntax_uid),
        )
    return found is Relation.SAME
